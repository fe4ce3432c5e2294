//! From flanneld to Twill and back on running hosts: same subnets, same devices, and not one packet lost.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::probe::http_get;
use twill::lab::{AgentProcess, Process};

use crate::dump::{self, difference};
use crate::fabric::{Families, PATIENCE, Streams, TWILL, all_reach_each_other, need_etcd, options, wait_for};
use crate::flannel::{Backend, Left, Rules, mac, subnet, vanished};

/// What must stay on a host, whoever runs there.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    devices: Vec<(String, u64)>,
    key: String,
    attrs: Value,
    env: String,
}

impl Kept {
    fn of(left: &Left, index: usize) -> Self {
        let net = &left.lab.hosts[index].net;
        let device = |dev: &&str| (dump::mac_of(net, dev), dump::index_of(net, dev));
        let key = left.key(index);
        let value = left.etcd.etcdctl(&["get", "--print-value-only", &key]).unwrap();
        let mut attrs: Value = serde_json::from_str(&value).unwrap();
        // Twill's own; flanneld does not look at them.
        let fields = attrs.as_object_mut().unwrap();
        fields.retain(|key, _| !matches!(key.as_str(), "NodeID" | "Session" | "Probe"));
        let env = std::fs::read_to_string(left.env_file(index)).unwrap();
        Self { devices: left.tunnels().iter().map(device).collect(), key, attrs, env }
    }
}

/// Routes of an operator, which have nothing to do with the fabric.
const FOREIGN: [&str; 2] =
    ["10.99.0.0/16 via 192.168.77.254 proto static", "10.98.0.0/16 via 192.168.77.254"];

/// Routes, neighbours and FDB entries as the agent must leave them: tagged, and without the vanished peer's.
fn tagged(left: &Left, lines: Vec<String>) -> Vec<String> {
    let gone: Vec<String> = left.families().flat_map(vanished).collect();
    let peers: Vec<String> = left
        .families()
        .flat_map(|v6| (0..3).map(move |index| format!("\"dst\":\"{}\"", subnet(index, v6))))
        .collect();
    let lines = lines.into_iter().filter(|line| !gone.iter().any(|gone| line.contains(gone.as_str())));
    let tag = |line: String| match line.strip_prefix("route ") {
        Some(route)
            if route.contains("gateway") && peers.iter().any(|peer| route.contains(peer.as_str())) =>
        {
            let mut fields: BTreeMap<String, Value> = serde_json::from_str(route).unwrap();
            fields.insert("protocol".into(), "70".into());
            format!("route {}", serde_json::to_string(&fields).unwrap())
        }
        _ => line,
    };
    let mut lines: Vec<String> = lines.map(tag).collect();
    lines.sort();
    lines
}

/// The rules and everything else of a host that is compared.
fn picture(left: &Left, index: usize) -> (Vec<String>, Vec<String>) {
    let net = &left.lab.hosts[index].net;
    let all = dump::network(net);
    let firewall = dump::firewall(net);
    let rest = all.into_iter().filter(|line| !firewall.contains(line));
    // The alias is the one thing that a device gains.
    let rest = rest.map(|line| if line.starts_with("link flannel") { alias_less(&line) } else { line });
    (rest.collect(), dump::rules(net))
}

fn alias_less(line: &str) -> String {
    let (name, fields) = line.rsplit_once(" [").unwrap();
    let mut fields: Vec<Value> = serde_json::from_str(&format!("[{fields}")).unwrap();
    fields[1] = Value::Null;
    format!("{name} {}", Value::from(fields))
}

fn take_over(families: Families, backend: Backend, rules: Rules) {
    let left = Left::new(families, backend, rules);
    if families.ipv4() {
        for route in FOREIGN {
            dump::run(&left.lab.hosts[0].net, &format!("ip route add {route}"));
        }
    }
    all_reach_each_other(&left.pods);
    let what = format!("take-over {backend:?} {families:?} {rules:?}");
    let kept: Vec<Kept> = (0..3).map(|index| Kept::of(&left, index)).collect();
    let before: Vec<_> = (0..3).map(|index| picture(&left, index)).collect();
    let streams = Streams::start(&left.pods[0], &left.pods[1], 1000);
    // The first host runs Twill among flannelds, then all do.
    let mut agents: Vec<AgentProcess> = Vec::new();
    for host in &left.lab.hosts {
        let mut agent = host.agent(&options(left.store(), &["--ip-masq"])).unwrap();
        agent.wait_ready(PATIENCE).unwrap();
        settled(&agent);
        streams.wait_running();
        agents.push(agent);
    }
    let pairs = Streams::start(&left.pods[2], &left.pods[0], 100);
    pairs.assert_lossless(&what);
    for index in 0..3 {
        let (rest, firewall) = picture(&left, index);
        let wanted = tagged(&left, before[index].0.clone());
        assert_eq!(difference(&wanted, &rest), Vec::<String>::new(), "{what}, host {index}");
        assert_rules(&before[index].1, &firewall, rules);
        assert_kept(&kept[index], &Kept::of(&left, index), &what);
    }
    for agent in &mut agents {
        assert!(agent.kill(Signal::SIGTERM).unwrap().success());
        streams.wait_running();
    }
    // The way back: flanneld takes a device with its VNI, port, address and MAC, and replaces routes.
    for (index, kept) in kept.iter().enumerate() {
        assert_kept(kept, &Kept::of(&left, index), &what);
    }
    streams.assert_lossless(&what);
}

fn assert_kept(before: &Kept, after: &Kept, what: &str) {
    // Over IPv6, flanneld promises pods more than its device takes.
    let mtu = |env: &str| env.replace("FLANNEL_MTU=1450", "FLANNEL_MTU=1430");
    assert!(after.env == before.env || after.env == mtu(&before.env), "{what}: {after:?}");
    let less_env = |kept: &Kept| (kept.devices.clone(), kept.key.clone(), kept.attrs.clone());
    assert_eq!(less_env(before), less_env(after), "{what}");
}

/// iptables: the very same rules, none of them twice. nftables: our table stands where flanneld's stood.
fn assert_rules(before: &[String], after: &[String], rules: Rules) {
    match rules {
        Rules::Iptables => assert_eq!(difference(before, after), Vec::<String>::new()),
        Rules::Nftables => {
            let tables: Vec<&String> = after.iter().filter(|line| line.starts_with("table")).collect();
            assert!(tables.len() == 1 && tables[0].contains("inet twill-"), "{tables:?}");
        }
    }
    let lines = |all: &[String]| all.iter().filter(|line| line.contains("FLANNEL")).count();
    assert_eq!(lines(before), lines(after), "{after:#?}");
}

fn settled(agent: &AgentProcess) {
    wait_for("a settled agent", || {
        let seen = agent.twill(&["status"], &[]);
        seen.map(drop).map_err(|error| (error.to_string(), agent.log()))
    });
}

#[test]
fn vxlan_over_ipv4_with_iptables() {
    need_etcd!();
    take_over(Families::V4, Backend::Vxlan, Rules::Iptables);
}

#[test]
fn vxlan_over_both_families_with_nftables() {
    need_etcd!();
    take_over(Families::Dual, Backend::Vxlan, Rules::Nftables);
}

#[test]
fn vxlan_over_ipv6_with_iptables() {
    need_etcd!();
    take_over(Families::V6, Backend::Vxlan, Rules::Iptables);
}

#[test]
fn host_gw_over_ipv4_with_nftables() {
    need_etcd!();
    take_over(Families::V4, Backend::HostGw, Rules::Nftables);
}

#[test]
fn host_gw_over_both_families_with_iptables() {
    need_etcd!();
    take_over(Families::Dual, Backend::HostGw, Rules::Iptables);
}

/// flanneld's unit file goes on working: its program's name, its flags in Go's spelling, its variables.
#[test]
fn under_flannelds_name_with_flannelds_flags() {
    need_etcd!();
    let left = Left::new(Families::V4, Backend::Vxlan, Rules::Iptables);
    all_reach_each_other(&left.pods);
    let before = picture(&left, 0);
    let kept = Kept::of(&left, 0);
    let streams = Streams::start(&left.pods[0], &left.pods[1], 1000);
    let (host, folder) = (&left.lab.hosts[0], left.lab.dir());
    let flanneld = folder.join("flanneld");
    symlink(TWILL, &flanneld).unwrap();
    let mut command = Command::new(&flanneld);
    command.arg(format!("-etcd-endpoints={}", left.etcd.endpoint()));
    command.args(["-etcd-prefix", "/coreos.com/network", "--iface=eth0", "-ip-masq", "-v=0"]);
    command.args(["-healthz-ip=127.0.0.1", "-healthz-port=10253"]);
    command.env("FLANNELD_SUBNET_FILE", left.env_file(0));
    command.env("FLANNELD_STATE_DIR", folder.join("state")).env("FLANNELD_RUN_DIR", folder.join("run"));
    let mut process = Process::spawn(&host.net, "flanneld", command, &folder.join("flanneld.log")).unwrap();
    let ready = || match http_get(&host.net, "127.0.0.1:10253".parse().unwrap(), "/readyz") {
        Ok((200, body)) if body == "flanneld is ready" => Ok(()),
        other => Err((other.map_err(|error| error.to_string()), process.log())),
    };
    wait_for("flanneld ready", ready);
    wait_for("the take-over", || {
        let (rest, _) = picture(&left, 0);
        let differs = difference(&tagged(&left, before.0.clone()), &rest);
        if differs.is_empty() { Ok(()) } else { Err(differs) }
    });
    assert_rules(&before.1, &picture(&left, 0).1, Rules::Iptables);
    process.stop(PATIENCE).unwrap();
    assert_eq!(kept, Kept::of(&left, 0));
    assert_eq!(kept.devices[0].0, mac(0, false));
    streams.assert_lossless("under flanneld's name");
}
