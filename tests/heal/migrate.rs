//! `twill migrate check` on hosts that flanneld ran on until a moment ago: what it says, its exit code, and that it
//! changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use twill::lab::Process;

use crate::dump::{self, difference};
use crate::fabric::{Families, PATIENCE, TWILL, need_etcd, wait_for};
use crate::flannel::{Backend, Left, Rules};

/// Takes its flags as flanneld does, and does nothing until it is ended.
const IDLE: &str = "#!/bin/sh\ntail -f /dev/null & trap 'kill $!' EXIT; trap exit TERM; wait\n";

/// The first host, and where its CNI files would be.
struct Check<'a> {
    left: &'a Left,
    dirs: PathBuf,
}

impl<'a> Check<'a> {
    fn new(left: &'a Left) -> Self {
        let dirs = left.lab.dir().join("check");
        for name in ["units", "conf", "state", "networks"] {
            fs::create_dir_all(dirs.join(name)).unwrap();
        }
        Self { left, dirs }
    }

    /// What it says with these flags of flanneld's; with none, it has to find them.
    fn run(&self, words: &[&str], flags: &[String]) -> Output {
        let mut command = Command::new(TWILL);
        command.args(["migrate", "check"]).args(words);
        command.arg("--unit-dir").arg(self.dirs.join("units"));
        command.arg("--cni-conf-dir").arg(self.dirs.join("conf"));
        command.arg("--cni-state-dir").arg(self.dirs.join("state"));
        command.arg("--cni-networks-dir").arg(self.dirs.join("networks"));
        command.arg("--").args(flags);
        self.left.lab.hosts[0].net.run(|| command.output()).unwrap().unwrap()
    }

    /// The report, and the exit code.
    fn report(&self, flags: &[String]) -> (Value, Option<i32>) {
        let output = self.run(&["--json"], flags);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        (report, output.status.code())
    }

    /// The line that flanneld ran with, and one more flag.
    fn flags(&self, more: &[&str]) -> Vec<String> {
        let dirs = self.dirs.display();
        let mut flags = vec![
            format!("-etcd-endpoints={}", self.left.etcd.endpoint()),
            "-ip-masq".to_owned(),
            format!("-subnet-file={}", self.left.env_file(0).display()),
            format!("-state-dir={dirs}/twill"),
            format!("-run-dir={dirs}/run"),
        ];
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        flags
    }

    /// Everything that may not change.
    fn world(&self) -> Vec<String> {
        let mut world = dump::of(&self.left.lab.hosts[0].net);
        let keys = self.left.etcd.etcdctl(&["get", "--prefix", "", "-w", "fields"]).unwrap();
        world.extend(keys.lines().filter(|line| !line.contains("RaftTerm")).map(str::to_owned));
        world.extend(files(&self.dirs));
        world.extend(files(self.left.env_file(0).parent().unwrap()));
        world
    }

    /// The report names this as what breaks, and nothing else does.
    fn breaks(&self, flags: &[String], about: &str, cause: &str) {
        let (report, code) = self.report(flags);
        assert_eq!((code, &report["verdict"]), (Some(1), &"breaks".into()), "{cause}: {report:#}");
        let found: Vec<&Value> = findings(&report).filter(|one| one["severity"] == "breaks").collect();
        let named = found.iter().any(|one| one["about"] == about && text(&one["cause"]).contains(cause));
        assert!(named, "{cause}: {report:#}");
        assert!(found.iter().all(|one| !text(&one["next"]).is_empty()), "{report:#}");
    }

    fn config(&self, json: &str) {
        self.left.etcd.etcdctl(&["put", "/coreos.com/network/config", json]).unwrap();
    }
}

fn findings(report: &Value) -> impl Iterator<Item = &Value> {
    report["findings"].as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let listed = Command::new("find").arg(dir).args(["-type", "f", "-exec", "md5sum", "{}", "+"]).output();
    let text = String::from_utf8(listed.unwrap().stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn fine(left: &Left) {
    let check = Check::new(left);
    let before = check.world();
    let flags = check.flags(&[]);
    let (report, code) = check.report(&flags);
    assert_eq!(code, Some(0), "{report:#}");
    assert!(findings(&report).any(|one| one["about"] == "lease" && text(&one["cause"]).contains("stays")));
    let plan = report["plan"].as_array().unwrap();
    assert!(plan.iter().any(|line| text(line).contains("route replace")), "{report:#}");
    let printed = String::from_utf8(check.run(&[], &flags).stdout).unwrap();
    assert!(printed.contains("verdict: nothing would break"), "{printed}");
    println!("{printed}");
    assert_eq!(difference(&before, &check.world()), Vec::<String>::new(), "it is to write nothing");
}

#[test]
fn hosts_that_flanneld_left_in_order_are_fine_and_not_touched() {
    need_etcd!();
    for (families, backend, rules) in [
        (Families::V4, Backend::Vxlan, Rules::Iptables),
        (Families::Dual, Backend::Vxlan, Rules::Nftables),
        (Families::V4, Backend::HostGw, Rules::Nftables),
        (Families::V6, Backend::Vxlan, Rules::Iptables),
    ] {
        fine(&Left::new(families, backend, rules));
    }
}

/// On a host as flanneld left it, one thing after the other is wrong.
#[test]
fn each_host_that_would_break_is_told_so_by_the_exit_code() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Iptables);
    let check = Check::new(&left);
    let flags = check.flags(&[]);
    let net = &left.lab.hosts[0].net;
    check.breaks(&check.flags(&["-kube-subnet-mgr"]), "flags", "leases from Kubernetes");
    check.breaks(&check.flags(&["-nope"]), "flags", "not defined: -nope");
    check.breaks(&check.flags(&["-ip-masq=false"]), "subnet.env", "--ip-masq");
    check.breaks(&check.flags(&["-etcd-prefix=/other"]), "store", "/other/config");
    check.breaks(&check.flags(&["-iface=none0"]), "start", "none0");
    let nobody = left.etcd.endpoint().replace(":2379", ":1");
    check.breaks(&check.flags(&[&format!("-etcd-endpoints={nobody}")]), "store", "does not answer");

    dump::run(net, "ip route add 10.244.128.0/20 via 192.168.77.254");
    check.breaks(&flags, "start", "10.244.128.0/20 via 192.168.77.254");
    dump::run(net, "ip route del 10.244.128.0/20 via 192.168.77.254");

    let config = left.families.config(r#"{"Type":"vxlan"}"#);
    for (json, about, cause) in [
        (config.replace("vxlan", "wireguard"), "network", "wireguard"),
        (config.replace("vxlan", "udp"), "network", "bare packets"),
        (r#"{"Network":"10.244.0.0/16"}"#.to_owned(), "network", "no `Backend`"),
        (config.replace(r#""vxlan""#, r#""vxlan","Port":4789"#), "device", "flannel.1 would be made anew"),
        (config.replace("10.244.", "10.96."), "subnet.env", "10.96.0.0/16"),
        ("{".to_owned(), "store", "config"),
    ] {
        check.config(&json);
        check.breaks(&flags, about, cause);
    }
    check.config(&config);
    let (report, code) = check.report(&flags);
    assert_eq!(code, Some(0), "all of it is undone: {report:#}");
}

/// The lease went to another host while nobody looked.
#[test]
fn a_subnet_that_another_host_has_by_now_breaks() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Iptables);
    let check = Check::new(&left);
    let key = left.key(0);
    let value = left.etcd.etcdctl(&["get", "--print-value-only", &key]).unwrap();
    left.etcd.etcdctl(&["put", &key, &value.replace("192.168.77.1", "192.168.77.99")]).unwrap();
    check.breaks(&check.flags(&[]), "lease", "containers here are in 10.244.1.0/24");
}

#[test]
fn flags_come_from_a_process_or_a_unit() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Nftables);
    let check = Check::new(&left);
    let flags = check.flags(&[]);
    let (report, code) = check.report(&[]);
    assert!(text(&report["source"]).contains("defaults") && code == Some(1), "{report:#}");

    let env = check.dirs.join("flanneld.env");
    fs::write(&env, format!("FLANNELD_SUBNET_FILE=\"{}\"\n", left.env_file(0).display())).unwrap();
    let rest: Vec<&String> = flags.iter().filter(|flag| !flag.contains("subnet-file")).collect();
    let rest: Vec<&str> = rest.into_iter().map(String::as_str).collect();
    let unit = check.dirs.join("units/flanneld.service");
    let service = format!("[Service]\nEnvironmentFile={}\nExecStart=/opt/bin/flanneld \\\n", env.display());
    fs::write(&unit, format!("{service}  {}\n", rest.join(" "))).unwrap();
    let (report, code) = check.report(&[]);
    assert!(text(&report["source"]).contains("flanneld.service") && code == Some(0), "{report:#}");

    let program = check.dirs.join("flanneld");
    fs::write(&program, IDLE).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "chmod 755 \"$0\"; exec \"$0\" \"$@\""]).arg(&program).args(&rest);
    command.env("FLANNELD_SUBNET_FILE", left.env_file(0));
    let host = &left.lab.hosts[0];
    let mut process = Process::spawn(&host.net, "flanneld", command, &check.dirs.join("log")).unwrap();
    let (report, code) = wait_for("a flanneld", || {
        let (report, code) = check.report(&[]);
        if text(&report["source"]).contains("process") { Ok((report, code)) } else { Err(report) }
    });
    assert_eq!(code, Some(0), "it is to be stopped first, which is no obstacle: {report:#}");
    let running = findings(&report).find(|one| one["about"] == "flanneld").unwrap();
    assert_eq!(running["severity"], "note");
    assert!(text(&running["cause"]).contains(&process.pid().to_string()), "{running}");
    assert!(text(&running["next"]).contains("systemctl stop flanneld"), "{running}");
    process.stop(PATIENCE).unwrap();
}

/// The configuration was changed after flanneld had read it. What flanneld made is then in an agent's way, and in use.
#[test]
fn a_configuration_that_flanneld_did_not_start_with_breaks_and_nothing_in_use_is_to_be_removed() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Iptables);
    let check = Check::new(&left);
    let flags = check.flags(&[]);
    let config = left.families.config(r#"{"Type":"vxlan"}"#);
    for (json, about, cause) in [
        (
            config.replace(r#""vxlan""#, r#""vxlan","VNI":5"#),
            "device",
            "the configuration asks for flannel.5",
        ),
        (config.replace("vxlan", "host-gw"), "device", "the configuration asks for no device"),
        (config.replacen('{', r#"{"SubnetLen":26,"#, 1), "lease", "subnets of /26"),
    ] {
        check.config(&json);
        check.breaks(&flags, about, cause);
        let (report, _code) = check.report(&flags);
        let removal = findings(&report).find(|one| text(&one["next"]).contains("remove"));
        assert_eq!(removal, None, "{cause}");
    }
    for kind in
        ["wireguard", "ipip", "ipsec", "extension", "alloc", "tencent-vpc", "ali-vpc", "aws-vpc", "gce"]
    {
        check.config(&config.replace("vxlan", kind));
        check.breaks(&flags, "network", kind);
    }
    check.config(&config.replace("vxlan", "VXLAN"));
    assert_eq!(check.report(&flags).1, Some(0), "flannel reads a type in any case");
    drop(left);

    let left = Left::new(Families::V4, Backend::HostGw, Rules::Iptables);
    let check = Check::new(&left);
    check.config(&config);
    check.breaks(&check.flags(&[]), "routes", "10.244.2.0/24, 10.244.3.0/24");
}

#[test]
fn a_subnet_file_is_needed_where_nothing_else_says_which_subnet_this_host_has() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Nftables);
    let check = Check::new(&left);
    let flags = check.flags(&[]);
    let env = left.env_file(0);
    let good = fs::read_to_string(&env).unwrap();
    fs::write(&env, good.replace('\n', "\r\n")).unwrap();
    assert_eq!(check.report(&flags).1, Some(0), "lines may end in CR LF");
    fs::write(&env, good.replace("10.244.1.1", "10.244.9.1")).unwrap();
    check.breaks(&flags, "lease", "containers here are in 10.244.9.0/24");
    let lease_is_enough = || {
        let (report, code) = check.report(&flags);
        let noted = findings(&report).any(|one| one["about"] == "subnet.env" && one["severity"] == "note");
        assert!(noted && code == Some(0), "the lease says it: {report:#}");
    };
    fs::write(&env, "\0\u{1}garbage=\nFLANNEL_SUBNET=\n").unwrap();
    lease_is_enough();
    fs::remove_file(&env).unwrap();
    lease_is_enough();
    left.etcd.etcdctl(&["del", &left.key(0)]).unwrap();
    check.breaks(&flags, "subnet.env", "which subnet is this host's cannot be told");
    fs::write(&env, &good).unwrap();
    let (report, code) = check.report(&flags);
    let claimed = |one: &Value| text(&one["cause"]).contains("would be claimed again as 10.244.1.0-24");
    assert!(findings(&report).any(claimed) && code == Some(0), "{report:#}");
}

#[test]
fn who_may_not_look_or_reaches_no_etcd_is_told_so() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Nftables);
    let check = Check::new(&left);
    let net = &left.lab.hosts[0].net;
    fs::set_permissions(left.env_file(0), fs::Permissions::from_mode(0o000)).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        TWILL,
        "migrate",
        "check",
        "--json",
    ]);
    nobody.arg("--").args(check.flags(&[]));
    let output = net.run(|| nobody.output()).unwrap().unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    for about in ["privilege", "subnet.env"] {
        let told = |one: &Value| one["about"] == about && text(&one["next"]).contains("as root");
        assert!(findings(&report).any(told), "{about}: {report:#}");
    }

    // It takes the connection and says nothing.
    let listener = net.run(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let silent = format!("-etcd-endpoints=http://{}", listener.local_addr().unwrap());
    check.breaks(&check.flags(&[&silent]), "store", "no answer within");
    let secure = format!("-etcd-endpoints={}", left.etcd.endpoint().replace("http:", "https:"));
    check.breaks(&check.flags(&[&secure, "-etcd-cafile=/nowhere/ca.pem"]), "store", "/nowhere/ca.pem");
    check.breaks(&check.flags(&[&secure]), "store", "tls");
    check.breaks(&check.flags(&["-version"]), "flags", "prints its version");
}
