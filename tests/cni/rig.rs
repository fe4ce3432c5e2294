//! A host with its files, and how it is asked.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use twill::lab::{Lab, LabOptions, Netns};

pub(crate) const TWILL_CNI: &str = env!("CARGO_BIN_EXE_twill-cni");
/// Where Debian has the plugins of containernetworking-plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";
pub(crate) const V4: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// A host. It goes with all that is on it.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    /// What a runtime would pass on stdin.
    pub(crate) conf: Value,
    /// `CNI_PATH`.
    pub(crate) path: String,
}

/// A container: a namespace with an id.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) net: Netns,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) ok: bool,
    /// Null if nothing was printed.
    pub(crate) said: Value,
    pub(crate) stderr: String,
}

impl Rig {
    /// A host whose agent has written this subnet.env. `None` where namespaces cannot be made.
    pub(crate) fn new(env: &str) -> Option<Self> {
        if let Err(error) = Lab::available() {
            println!("SKIP: {error}");
            return None;
        }
        assert!(Path::new(PLUGINS).join("bridge").exists(), "install containernetworking-plugins");
        let options = LabOptions { hosts: 1, ipv6: true, visible: true, ..LabOptions::default() };
        let lab = Lab::new(&options).unwrap();
        let file = |name: &str| lab.dir().join(name).display().to_string();
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": "cbr0",
            "type": "flannel",
            "subnetFile": file("subnet.env"),
            "dataDir": file("flannel"),
            "runDir": file("run"),
            "ipam": { "dataDir": file("networks") },
            "delegate": { "hairpinMode": true, "isDefaultGateway": true },
        });
        let rig = Self { lab, conf, path: PLUGINS.to_owned() };
        fs::write(rig.file("subnet.env"), env).unwrap();
        fs::create_dir(rig.file("run")).unwrap();
        Some(rig)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    pub(crate) fn host(&self) -> &Netns {
        &self.lab.hosts[0].net
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        let net = Netns::new(&format!("{}-{id}", self.lab.name()), true).unwrap();
        Pod { id: id.to_owned(), net }
    }

    /// Puts a shell script in the place of a plugin; it is found before the real ones.
    pub(crate) fn fake(&mut self, kind: &str, script: &str) {
        let dir = self.file("fakes");
        fs::create_dir_all(&dir).unwrap();
        // By a process of its own: a descriptor that a fork inherits would make the exec fail with ETXTBSY.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\"; chmod 755 \"$2\"";
        let mut shell = Command::new("sh");
        assert!(shell.args(["-c", write, "sh", script]).arg(dir.join(kind)).status().unwrap().success());
        self.path = format!("{}:{PLUGINS}", dir.display());
    }

    /// A request as a command, for who wants to wrap it.
    pub(crate) fn command(&self, program: &str, verb: &str, pod: Option<(&Pod, &str)>) -> Command {
        let mut command = Command::new(program);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", &self.path);
        if let Some((pod, ifname)) = pod {
            command.env("CNI_CONTAINERID", &pod.id).env("CNI_IFNAME", ifname).env("CNI_NETNS", pod.netns());
        }
        command
    }

    pub(crate) fn send(&self, mut command: Command, conf: &Value) -> Reply {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.host().run(|| {
            let mut child = command.spawn().unwrap();
            // Who does not need the configuration may end before it is written.
            child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).ok();
            child.wait_with_output().unwrap()
        });
        let output = output.unwrap();
        Reply {
            ok: output.status.success(),
            said: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn ask(&self, verb: &str, pod: &Pod, ifname: &str) -> Reply {
        self.send(self.command(TWILL_CNI, verb, Some((pod, ifname))), &self.conf)
    }

    /// STATUS or GC, which came with 1.1.0.
    pub(crate) fn ask_host(&self, verb: &str, more: &Value) -> Reply {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = "1.1.0".into();
        more.as_object().unwrap().iter().for_each(|(key, value)| conf[key] = value.clone());
        self.send(self.command(TWILL_CNI, verb, None), &conf)
    }

    pub(crate) fn add(&self, pod: &Pod) -> Value {
        let reply = self.ask("ADD", pod, "eth0");
        assert!(reply.ok, "{reply:?}");
        reply.said
    }

    /// What is kept for containers, by name; locks are nobody's.
    pub(crate) fn kept(&self) -> Vec<String> {
        names(&self.file("flannel"))
    }

    /// The addresses that host-local has handed out.
    pub(crate) fn reserved(&self) -> Vec<String> {
        let all = names(&self.file("networks/cbr0"));
        all.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

impl Pod {
    pub(crate) fn netns(&self) -> String {
        format!("/run/netns/{}", self.net.name())
    }
}

impl Reply {
    /// The message of an error with this code.
    #[track_caller]
    pub(crate) fn error(&self, code: u64) -> String {
        assert!(!self.ok && self.said["code"] == code, "not code {code}: {self:?}");
        self.said["msg"].as_str().unwrap().to_owned()
    }
}

/// The names in a folder that do not begin with a dot.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}
