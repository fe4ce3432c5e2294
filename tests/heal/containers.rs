//! Containers that flannel's CNI plugin attached live through the take-over, and go by Twill's plugin.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use twill::lab::probe::Stream;
use twill::lab::{AgentProcess, Host, Netns};

use crate::dump::{self, difference};
use crate::fabric::{Families, PATIENCE, TWILL, all_reach_each_other, need_etcd, options, wait_for};
use crate::flannel::{Backend, Left, Rules, mac, subnet};

const TWILL_CNI: &str = env!("CARGO_BIN_EXE_twill-cni");
/// Where Debian has the plugins of containernetworking-plugins.
const PLUGINS: &str = "/usr/lib/cni";
const PER_SECOND: u32 = 1000;

/// The CNI files of a host.
struct Files {
    dir: PathBuf,
}

/// A container: a namespace with an id, as a runtime makes it.
struct Container {
    id: String,
    net: Netns,
}

impl Files {
    fn of(left: &Left, index: usize) -> Self {
        let dir = left.lab.dir().join(&left.lab.hosts[index].name).join("cni");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("flannel")).unwrap();
        fs::create_dir_all(dir.join("networks/cbr0")).unwrap();
        // The pod that the lab made is not of host-local's doing, and has the subnet's second address.
        let second = left.pods[index].addresses[0].to_string();
        fs::write(dir.join("networks/cbr0").join(second), "lab\r\neth0").unwrap();
        Self { dir }
    }

    /// What flannel's plugin is configured with, in the list of its manifest; the paths are the test's.
    fn plugin(&self, env: &Path) -> Value {
        json!({
            "cniVersion": "0.3.1", "name": "cbr0", "type": "flannel",
            "delegate": { "hairpinMode": true, "isDefaultGateway": true },
            "subnetFile": env, "dataDir": self.dir.join("flannel"), "runDir": self.dir.join("run"),
            "ipam": { "dataDir": self.dir.join("networks") },
        })
    }

    /// What flannel's plugin makes of it for the bridge plugin (`spec/flannel.md`, section 9.3): sorted keys.
    fn delegate(&self, index: usize) -> Value {
        json!({
            "cniVersion": "0.3.1",
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {
                "dataDir": self.dir.join("networks"),
                "ranges": [[{ "subnet": subnet(index, false) }]],
                "routes": [{ "dst": "10.244.0.0/16" }],
                "type": "host-local",
            },
            "isDefaultGateway": true,
            "isGateway": true,
            "mtu": 1450,
            "name": "cbr0",
            "type": "bridge",
        })
    }

    /// An ADD by flannel's plugin: the delegate's configuration is kept, then the bridge plugin runs.
    fn add_as_flannel(&self, left: &Left, index: usize, id: &str) -> (Container, Value) {
        let host = &left.lab.hosts[index];
        let container = Container::new(left, &format!("{}-{id}", host.name));
        let delegate = self.delegate(index);
        fs::write(self.dir.join("flannel").join(&container.id), delegate.to_string()).unwrap();
        let bridge = format!("{PLUGINS}/bridge");
        let result = container.call(host, &bridge, "ADD", &delegate);
        (container, serde_json::from_str(&result).unwrap())
    }

    /// Addresses taken, and containers kept.
    fn left(&self) -> (usize, usize) {
        let count = |dir: &str, what: fn(&str) -> bool| {
            let names = fs::read_dir(self.dir.join(dir)).unwrap().flatten();
            names.filter(|entry| what(&entry.file_name().to_string_lossy())).count()
        };
        let address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
        (count("networks/cbr0", address), count("flannel", |name| !name.starts_with('.')))
    }
}

impl Container {
    fn new(left: &Left, id: &str) -> Self {
        let net = Netns::new(&format!("{}-{id}", left.lab.name()), true).unwrap();
        Self { id: id.to_owned(), net }
    }

    /// Runs a plugin on the host about this container: what it printed.
    fn call(&self, host: &Host, program: &str, verb: &str, conf: &Value) -> String {
        let mut command = Command::new(program);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", PLUGINS).env("CNI_IFNAME", "eth0");
        command.env("CNI_CONTAINERID", &self.id).env("CNI_NETNS", format!("/run/netns/{}", self.net.name()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = host.net.run(|| {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = output.unwrap();
        assert!(output.status.success(), "{verb} of {}: {output:?}", self.id);
        String::from_utf8(output.stdout).unwrap()
    }
}

fn address(result: &Value) -> std::net::IpAddr {
    let net: ipnet::IpNet = result["ips"][0]["address"].as_str().unwrap().parse().unwrap();
    net.addr()
}

fn ports(host: &Host) -> usize {
    dump::run(&host.net, "ip -o link show master cni0").lines().count()
}

#[test]
fn containers_of_flannels_plugin_live_on_and_go_by_twills() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Iptables);
    all_reach_each_other(&left.pods);
    let files: Vec<Files> = (0..2).map(|index| Files::of(&left, index)).collect();
    let before: Vec<usize> = left.lab.hosts.iter().map(ports).collect();
    let (from, _) = files[0].add_as_flannel(&left, 0, "c1");
    let (second, _) = files[0].add_as_flannel(&left, 0, "c2");
    let (to, result) = files[1].add_as_flannel(&left, 1, "c1");
    check(&left, &files[0]);
    let rules = dump::rules(&left.lab.hosts[0].net);
    let stream = Stream::start(&from.net, &to.net, address(&result), PER_SECOND).unwrap();
    let answers = |goal: u64| {
        let goal = stream.answered() + goal;
        wait_for("answers", || (stream.answered() >= goal).then_some(()).ok_or(stream.answered()));
    };
    answers(100);
    let start = |host: &Host| -> AgentProcess {
        let mut agent = host.agent(&options(left.store(), &["--ip-masq"])).unwrap();
        agent.wait_ready(PATIENCE).unwrap();
        agent
    };
    let agents: Vec<AgentProcess> = left.lab.hosts.iter().take(2).map(start).collect();
    answers(500);

    wait_for("the take-over", || {
        let differs = difference(&rules, &dump::rules(&left.lab.hosts[0].net));
        if differs.is_empty() { Ok(()) } else { Err(differs) }
    });
    assert_eq!(dump::mac_of(&left.lab.hosts[0].net, "flannel.1"), mac(0, false));
    assert_eq!(agents[0].subnet().unwrap().gateways()[0].trunc().to_string(), subnet(0, false));

    // One of flannel's containers goes, and one of Twill's comes, while the others go on talking.
    let (host, plugin) = (&left.lab.hosts[0], files[0].plugin(&agents[0].files.subnet));
    second.call(host, TWILL_CNI, "DEL", &plugin);
    assert_eq!((files[0].left(), ports(host)), ((2, 1), before[0] + 1));
    let third = Container::new(&left, &format!("{}-c3", host.name));
    let result: Value = serde_json::from_str(&third.call(host, TWILL_CNI, "ADD", &plugin)).unwrap();
    let range: ipnet::IpNet = subnet(0, false).parse().unwrap();
    assert!(range.contains(&address(&result)), "{result}");
    assert_eq!(dump::mac_of(&third.net, "eth0").len(), 17);
    answers(100);
    let report = stream.stop().unwrap();
    println!("LOSS take-over with containers {} of {}", report.lost(), report.sent);
    assert_eq!(report.lost(), 0, "{report:?}");

    for _again in 0..2 {
        from.call(host, TWILL_CNI, "DEL", &plugin);
        third.call(host, TWILL_CNI, "DEL", &plugin);
    }
    to.call(&left.lab.hosts[1], TWILL_CNI, "DEL", &files[1].plugin(&agents[1].files.subnet));
    for (index, files) in files.iter().enumerate() {
        assert_eq!((files.left(), ports(&left.lab.hosts[index])), ((1, 0), before[index]), "host {index}");
    }
}

/// The check finds them, and nothing to object.
fn check(left: &Left, files: &Files) {
    let conf = files.dir.join("conf");
    fs::create_dir_all(&conf).unwrap();
    let list = json!({ "name": "cbr0", "cniVersion": "0.3.1", "plugins": [files.plugin(&left.env_file(0))] });
    fs::write(conf.join("10-flannel.conflist"), list.to_string()).unwrap();
    let mut command = Command::new(TWILL);
    command.args(["migrate", "check", "--json", "--cni-conf-dir"]).arg(conf).arg("--");
    command.arg(format!("-etcd-endpoints={}", left.etcd.endpoint())).arg("-ip-masq");
    command.arg(format!("-subnet-file={}", left.env_file(0).display()));
    command.arg(format!("-state-dir={}", files.dir.display()));
    let text = left.lab.hosts[0].net.output(command).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let kept =
        report["findings"].as_array().unwrap().iter().find(|one| one["about"] == "containers").unwrap();
    assert_eq!(kept["cause"], "2 kept by flannel's plugin; twill-cni deletes them the same", "{report:#}");
}
