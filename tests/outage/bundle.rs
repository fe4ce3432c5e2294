//! `twill bundle`: everything that a maintainer asks for is in it, whatever is broken, and nothing that is secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ask::{state, wait, wait_status};
use crate::fabric::{Fabric, SOON, TWILL, VXLAN, fabric};
use crate::secrets::{PASSWORD, USER, enable, in_environment};

const TOKEN: &str = "Zork5-lantern2-nobody-reads-this";
const OTHERS: &str = "Advent8-grate3-nobody-reads-this";

/// The files of an archive by their names in it.
type Files = BTreeMap<String, String>;

/// A folder with programs and files of this host's that are not the agent's.
struct Around {
    dir: PathBuf,
}

impl Around {
    /// Plants secrets in CNI's configuration, and in what `journalctl` prints.
    fn new(fabric: &Fabric, secrets: &[String]) -> Self {
        let around = Self { dir: fabric.lab.dir().join("around") };
        for folder in ["bin", "conf", "state", "networks"] {
            fs::create_dir_all(around.dir.join(folder)).unwrap();
        }
        let conf = format!(
            r#"{{"cniVersion":"0.3.1","name":"x","type":"flannel","k8s_api_root":"https://u:{TOKEN}@10.0.0.1/","authToken":"{TOKEN}"}}"#
        );
        fs::write(around.dir.join("conf/10-x.conf"), conf).unwrap();
        fs::write(around.dir.join("conf/calico-kubeconfig"), format!("token: {TOKEN}\n")).unwrap();
        let mut log =
            format!("GET http://{USER}:{OTHERS}@10.0.0.1:2379/?token={OTHERS}&x=1\nETCD_PASSWORD={OTHERS}\n");
        for secret in secrets {
            log += &forms(secret).iter().map(|form| format!("it is {form} here\n")).collect::<String>();
        }
        fs::write(around.dir.join("journal"), log).unwrap();
        let script = around.dir.join("bin/journalctl");
        fs::write(&script, format!("#!/bin/sh\ncat {}\n", around.dir.join("journal").display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        around
    }

    /// Makes a bundle of a host's agent, told nothing but which fabric is meant.
    fn bundle(&self, fabric: &Fabric, host: usize, words: &[&str]) -> Output {
        let mut run = Command::new(TWILL);
        run.arg("bundle").args(fabric.options().store.flags()).args(words).current_dir(&self.dir);
        let files = &fabric.agents[host].files;
        run.arg("--state-dir").arg(&files.state).arg("--run-dir").arg(&files.run);
        for (flag, folder) in
            [("--cni-conf-dir", "conf"), ("--cni-state-dir", "state"), ("--cni-networks-dir", "networks")]
        {
            run.arg(flag).arg(self.dir.join(folder));
        }
        let mut path = OsString::from(self.dir.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        run.env("PATH", path);
        fabric.lab.hosts[host].net.run(|| run.output()).unwrap().unwrap()
    }
}

/// A secret as it may be written, alone and within something else.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms =
        vec![secret.to_owned(), hex.to_ascii_uppercase(), hex, format!("{:?}", secret.as_bytes())];
    for before in ["", "u", "u:"] {
        forms.extend([
            STANDARD.encode(format!("{before}{secret}")),
            URL_SAFE.encode(format!("{before}{secret}")),
        ]);
    }
    forms
}

/// No part of a form that is long enough to be of use.
fn assert_clean(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        for form in forms(secret) {
            let middle = &form[form.len() / 4..form.len() - form.len() / 4];
            let at = text.find(middle);
            assert_eq!(at, None, "{what}: …{}…", at.map_or("", |at| &text[at.saturating_sub(99)..at]));
        }
    }
}

fn unpacked(archive: &[u8]) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let (_folder, name) = path.split_once('/').unwrap();
        files.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
    }
    files
}

fn shown(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// Everything that is to be known is there, of a host that is well.
fn assert_whole(files: &Files, password_flag: bool) {
    let json = |name: &str| {
        serde_json::from_str::<Value>(&files[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert_eq!(json("agent/status.json")["state"], "ok");
    assert!(!json("files/state/snapshot.json")["leases"].as_object().unwrap().is_empty());
    assert!(files["state/config.json"].contains("10.244.0.0/16"), "{}", files["state/config.json"]);
    assert!(json("findings/doctor.json")["findings"].is_array());
    assert!(json("findings/verify.json")["entries"].as_u64().unwrap() > 3);
    assert!(json("state/firewall.json")["senders"].is_object());
    for (name, part) in [
        ("MANIFEST.txt", "removed as secret, with *** in its place: "),
        ("version.txt", "this program: "),
        ("agent/command.txt", "--healthz-port"),
        ("agent/metrics.txt", "twill_build_info{version="),
        ("agent/healthz.txt", "flanneld is running"),
        ("agent/readyz.txt", "flanneld is ready"),
        ("agent/status.txt", "10.244."),
        ("agent/process.txt", "VmRSS:"),
        ("agent/log.txt", "INFO"),
        ("agent/journal.txt", "it is "),
        ("findings/plan.txt", "nothing to do"),
        ("state/desired.txt", "ip route"),
        ("state/observed.txt", "flannel.1"),
        ("state/leases.txt", r#""Probe":{"Port":8475,"Key":"***"}"#),
        ("kernel/uname.txt", "Linux"),
        ("kernel/links.txt", "flannel.1"),
        ("kernel/addresses.txt", "inet "),
        ("kernel/routes-v4.txt", "flannel.1"),
        ("kernel/rules-v4.txt", "lookup main"),
        ("kernel/neighbours.txt", "PERMANENT"),
        ("kernel/fdb.txt", "flannel.1"),
        ("kernel/nft-guard.txt", "table inet twill-guard-"),
        ("kernel/sysctls.txt", "net/ipv4/ip_forward = 1"),
        ("files/subnet.env", "FLANNEL_SUBNET="),
        ("files/state/node.json", r#""machine":"***""#),
        ("files/state/probe.key", "a secret of 32 bytes, of the right form"),
        ("files/state/snapshot.json", r#""Key":"***""#),
        (
            "files/cni/10-x.conf",
            r#""type":"flannel","k8s_api_root":"https://***@10.0.0.1/","authToken":"***""#,
        ),
        ("files/listing.txt", "snapshot.json"),
    ] {
        assert!(files[name].contains(part), "{name} lacks {part:?}:\n{}", files[name]);
    }
    assert!(!files.contains_key("files/cni/calico-kubeconfig"));
    let hidden = if password_flag { "--etcd-password\n***\n" } else { "TWILL_ETCD_PASSWORD=***\n" };
    assert!(files["agent/command.txt"].contains(hidden), "{}", files["agent/command.txt"]);
}

#[test]
fn a_bundle_has_everything_but_secrets() {
    let mut fabric = fabric!(2, Some(VXLAN));
    enable(&fabric);
    fabric.start(&in_environment(fabric.options(), PASSWORD));
    let by_flag = fabric.options().arg("--etcd-username").arg(USER).arg("--etcd-password").arg(PASSWORD);
    fabric.start(&by_flag);
    fabric.settle();
    let probe = |agent| fs::read_to_string(state(agent).join("probe.key")).unwrap().trim().to_owned();
    let mut secrets = vec![PASSWORD.to_owned(), probe(&fabric.agents[0]), probe(&fabric.agents[1])];
    assert!(secrets.iter().all(|secret| secret.len() >= 32 || secret == PASSWORD), "{secrets:?}");
    let around = Around::new(&fabric, &secrets);
    secrets.extend([TOKEN, OTHERS].map(str::to_owned));
    let leases = [0, 1].map(|host| fabric.lease_key(host));
    for host in 0..2 {
        // The snapshot is written at most once a second.
        wait("the snapshot on disk", || {
            let text = fs::read_to_string(state(&fabric.agents[host]).join("snapshot.json"));
            let text = text.map_err(|error| error.to_string())?;
            let all = leases.iter().all(|lease| text.contains(lease));
            if all { Ok(()) } else { Err(text) }
        });
        wait_status(&fabric.agents[host], "all is well", |status| status["state"] == "ok");
        let name = format!("b{host}.tar.gz");
        let output = around.bundle(&fabric, host, &["--out", &name]);
        assert!(output.status.success(), "{}", shown(&output));
        assert_clean("what is printed", &shown(&output), &secrets);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("agent/status.json") && said.contains(&name), "{said}");
        let file = around.dir.join(&name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let files = unpacked(&fs::read(&file).unwrap());
        files.iter().for_each(|(name, text)| assert_clean(name, &format!("{name} {text}"), &secrets));
        assert_whole(&files, host == 1);
    }
}

#[test]
fn a_bundle_of_a_broken_host_says_what_is_missing_and_why() {
    let mut fabric = fabric!(1, Some(VXLAN));
    let options = fabric.options();
    fabric.start(&options);
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_status(&fabric.agents[0], "all is well", |status| status["state"] == "ok");
    let around = Around::new(&fabric, &[]);
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fabric.etcd.stop().unwrap();
    let output = around.bundle(&fabric, 0, &["--out=-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = unpacked(&output.stdout);
    for (name, part) in [
        ("agent/status.json", "could not be had: "),
        ("agent/command.txt", "could not be had: no agent of this fabric runs"),
        ("state/leases.txt", "could not be had: "),
        ("findings/doctor.txt", "store-down"),
        ("findings/verify.txt", "the store does not answer"),
        ("kernel/links.txt", "flannel.1"),
        ("files/state/snapshot.json", r#""leases""#),
    ] {
        assert!(files[name].contains(part), "{name} lacks {part:?}:\n{}", files[name]);
    }
    let missing = files["MANIFEST.txt"].split("not there, and why:\n").nth(1).unwrap();
    for name in ["agent/status.json", "agent/metrics.txt", "agent/command.txt", "state/leases.txt"] {
        let line = missing
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {missing}"));
        assert!(line.len() > name.len() + 10, "{line}");
    }
    // By its own name, into the directory of the caller; and with nothing at hand but the program.
    let output = Command::new(TWILL)
        .args(["bundle", "--run-dir=/nonexistent"])
        .current_dir(&around.dir)
        .env("PATH", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let made =
        fs::read_dir(&around.dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let made: Vec<String> =
        made.filter(|name| name.starts_with("twill-bundle-") && name.ends_with("Z.tar.gz")).collect();
    let [name] = made.as_slice() else { panic!("{made:?}") };
    let files = unpacked(&fs::read(around.dir.join(name)).unwrap());
    assert!(files["kernel/links.txt"].contains("`ip` is not installed"), "{}", files["kernel/links.txt"]);
}

/// The key of a certificate, which is a file's name on the command line, and its lines in somebody's log.
#[test]
fn a_private_key_is_known_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let lines: Vec<String> =
        key.lines().filter(|line| !line.starts_with("---")).map(|line| line.trim().to_owned()).collect();
    assert!(lines.len() > 1 && lines[0].len() > 60, "{key}");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    write("key", &key);
    fs::create_dir(dir.path().join("conf")).unwrap();
    let forms: String = lines.iter().flat_map(|line| forms(line)).map(|form| form + "\n").collect();
    write("conf/x.conf", &(forms + &key));
    let out = path("out");
    let status = Command::new(TWILL)
        .args([
            "bundle",
            "--etcd-endpoints=https://127.0.0.1:1",
            "--etcd-certfile=/nonexistent",
            "--out",
            &out,
        ])
        .args(["--etcd-keyfile", &path("key"), "--cni-conf-dir", &path("conf")])
        .args(["--run-dir", &path("run"), "--state-dir", &path("state")])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", shown(&status));
    let files = unpacked(&fs::read(Path::new(&out)).unwrap());
    assert!(
        files["files/cni/x.conf"].contains("-----BEGIN PRIVATE KEY-----"),
        "{}",
        files["files/cni/x.conf"]
    );
    files.iter().for_each(|(name, text)| assert_clean(name, text, &lines));
    let refused = Command::new(TWILL)
        .args(["bundle", "--out", "/proc/nowhere/x", "--run-dir", &path("run")])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("next: give --out FILE"),
        "{}",
        shown(&refused)
    );
}
