//! What the commands say, what they refuse, and that a cleanup leaves a host as it was found.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::probe::ping_until;
use twill::lab::{AgentProcess, Cancel, Host, Lab, Process, StoreAt, copy_program};

use crate::dump::{self, difference};
use crate::fabric::{
    Fabric, Families, PATIENCE, TWILL, files, lab, need_namespaces, options, twill, wait_for, write_config,
};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
const NFT: [&str; 2] = ["--ip-masq", "--firewall=nftables"];
const IPTABLES: [&str; 2] = ["--ip-masq", "--firewall=iptables"];

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A lab with agents and no pods: what is on the hosts afterwards came from agents.
struct Bare {
    agents: Vec<AgentProcess>,
    lab: Lab,
    store: StoreAt,
}

impl Bare {
    fn start(lab: Lab, families: Families, backend: &str, flags: &[&str]) -> Self {
        let store = files(&lab);
        write_config(&lab, &store, &families.config(backend));
        let options = options(store.clone(), flags);
        let mut agents: Vec<AgentProcess> =
            lab.hosts.iter().map(|host| host.agent(&options).unwrap()).collect();
        for agent in &mut agents {
            agent.wait_ready(PATIENCE).unwrap();
        }
        let bare = Self { agents, lab, store };
        bare.wait_settled();
        bare
    }

    fn twill(&self, words: &[&str]) -> Output {
        twill(&self.lab.hosts[0], &self.agents[0], &self.store, words)
    }

    fn wait_settled(&self) {
        let others = self.agents.len() - 1;
        for (host, agent) in self.lab.hosts.iter().zip(&self.agents) {
            wait_for("a settled agent", || {
                let output = twill(host, agent, &self.store, &["status"]);
                let text = stdout(&output);
                let settled = output.status.success() && text.contains(&format!("peers     {others}\n"));
                settled.then_some(()).ok_or(text)
            });
        }
    }
}

/// A host as it was found: with rules, routes and a device of its own.
fn lived_in(families: Families) -> Lab {
    let lab = lab(2, families);
    let net = &lab.hosts[0].net;
    dump::sh(net, "nft add table inet theirs; ip link add their0 type bridge; ip link set their0 up");
    dump::sh(
        net,
        "iptables -A FORWARD -s 203.0.113.0/24 -j ACCEPT; ip6tables -A FORWARD -s fd99::/64 -j ACCEPT",
    );
    dump::sh(net, "iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE");
    dump::sh(net, "ip6tables -t nat -A POSTROUTING -s fd99::/64 -j MASQUERADE");
    lab
}

fn cleanup(backend: &str, flags: &[&str]) {
    let lab = lived_in(Families::Dual);
    let (before, theirs) = (dump::network(&lab.hosts[0].net), dump::firewall(&lab.hosts[0].net));
    let mut bare = Bare::start(lab, Families::Dual, backend, flags);
    let net = bare.lab.hosts[0].net.clone();
    let (running, subnet) = (dump::network(&net), bare.agents[0].subnet().unwrap());
    assert_ne!(before, running);

    let refused = bare.twill(&["cleanup"]);
    let pid = format!("(pid {})", bare.agents[0].pid());
    assert!(!refused.status.success() && stderr(&refused).contains(&pid), "{refused:?}");
    assert_eq!(difference(&running, &dump::network(&net)), Vec::<String>::new());

    bare.agents[0].kill(Signal::SIGTERM).unwrap();
    let cleaned = bare.twill(&["cleanup", "--firewall-only"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(dump::firewall(&net), theirs);
    let left = difference(&running, &dump::network(&net));
    assert!(!left.is_empty() && left.iter().all(|line| !is_network(line)), "{left:#?}");
    // As an agent leaves it that is killed in the middle of a trial.
    dump::run(&net, "ip link add twill-try99999 type vxlan id 99 dstport 4999");

    let cleaned = bare.twill(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(difference(&before, &dump::network(&net)), Vec::<String>::new(), "{cleaned:?}");
    assert!(stdout(&cleaned).contains("ip link del twill-try99999"), "{cleaned:?}");
    assert!(!net.links().unwrap().iter().any(|name| name.starts_with("twill-try")));
    let again = bare.twill(&["cleanup"]);
    assert_eq!(stdout(&again), "nothing of ours is left on this host\n", "{again:?}");

    assert!(!bare.agents[0].files.subnet.exists(), "nothing tells a CNI plugin of a network that is gone");

    // It comes back with the same subnet, and takes everything along itself.
    let mut flags = flags.to_vec();
    flags.push("--cleanup-on-exit");
    bare.agents[0].restart_with(options(bare.store.clone(), &flags)).unwrap();
    bare.agents[0].wait_ready(PATIENCE).unwrap();
    bare.wait_settled();
    assert_eq!(bare.agents[0].subnet().unwrap(), subnet);
    assert_eq!(difference(&running, &dump::network(&net)), Vec::<String>::new());
    assert!(bare.agents[0].kill(Signal::SIGTERM).unwrap().success());
    assert_eq!(difference(&before, &dump::network(&net)), Vec::<String>::new());
    assert!(!bare.agents[0].files.subnet.exists());
}

/// Whether a line of a difference is about links, addresses, routes, neighbours or FDB entries.
fn is_network(line: &str) -> bool {
    ["link", "vxlan", "addr", "route", "neigh", "fdb"].iter().any(|word| line[2..].starts_with(word))
}

#[test]
fn cleanup_of_vxlan_and_nftables() {
    need_namespaces!();
    cleanup(VXLAN, &NFT);
}

#[test]
fn cleanup_of_vxlan_and_iptables() {
    need_namespaces!();
    cleanup(VXLAN, &IPTABLES);
}

#[test]
fn cleanup_of_host_gw_and_nftables() {
    need_namespaces!();
    cleanup(HOST_GW, &[NFT[0], NFT[1], "--ip-blackhole-route"]);
}

#[test]
fn a_plan_names_what_is_missing_and_changes_nothing() {
    need_namespaces!();
    let mut bare = Bare::start(lab(2, Families::V4), Families::V4, VXLAN, &NFT);
    let net = bare.lab.hosts[0].net.clone();
    let plan = |bare: &Bare| {
        let output = bare.twill(&["plan", "--ip-masq", "--firewall=nftables"]);
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    assert_eq!(plan(&bare), "nothing to do: this host is as it should be\n");
    bare.agents[0].kill(Signal::SIGTERM).unwrap();
    assert_eq!(plan(&bare), "nothing to do: this host is as it should be\n");
    let peer = bare.agents[1].subnet().unwrap().ipv4.unwrap().trunc();
    let own = bare.agents[0].subnet().unwrap().ipv4.unwrap().trunc().addr();
    dump::sh(
        &net,
        &format!(
            "ip route del {peer}; ip link set flannel.1 mtu 1300
             ip neigh replace {} lladdr 0a:00:00:00:00:09 dev flannel.1
             echo 0 > /proc/sys/net/ipv4/ip_forward; nft flush ruleset
             ip route add 10.244.222.0/24 via 192.168.77.2 proto 70",
            peer.addr()
        ),
    );
    let damaged = dump::of(&net);
    let text = plan(&bare);
    for (operation, reason) in [
        (format!("ip route replace {peer} via {} dev flannel.1 proto 70 onlink", peer.addr()), "missing"),
        (format!("ip neigh replace {} ", peer.addr()), "is: 0a:00:00:00:00:09"),
        ("mtu 1450".to_owned(), "mtu 1300"),
        ("net/ipv4/ip_forward".to_owned(), "is: 0"),
        ("ip route del 10.244.222.0/24".to_owned(), "ours, and nobody needs it"),
        ("nft".to_owned(), ""),
    ] {
        let named = text.lines().any(|line| line.contains(&operation) && line.contains(reason));
        assert!(named, "no {operation:?} because {reason:?} in:\n{text}");
    }
    assert_eq!(difference(&damaged, &dump::of(&net)), Vec::<String>::new(), "a plan changes nothing");
    assert!(damaged.iter().any(|line| line.contains(&own.to_string())), "{damaged:#?}");
}

#[test]
fn a_second_agent_of_the_fabric_is_told_who_runs() {
    need_namespaces!();
    let bare = Bare::start(lab(1, Families::V4), Families::V4, VXLAN, &[]);
    let output = bare.twill(&["agent"]);
    assert!(!output.status.success(), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains(&format!("(pid {})", bare.agents[0].pid())) && text.contains("next:"), "{text}");
}

/// Two fabrics on the same hosts know nothing of each other.
#[test]
fn two_fabrics_live_side_by_side() {
    need_namespaces!();
    for (first, second) in [
        (VXLAN, r#"{"Type":"vxlan","VNI":2,"Port":8473}"#),
        (VXLAN, HOST_GW),
        (HOST_GW, r#"{"Type":"vxlan","VNI":3}"#),
    ] {
        let mut bare = Bare::start(lab(2, Families::V4), Families::V4, first, &NFT);
        let net = bare.lab.hosts[0].net.clone();
        let alone = dump::network(&net);
        let store = StoreAt::File(bare.lab.dir().join("others"));
        write_config(&bare.lab, &store, &format!(r#"{{"Network":"10.245.0.0/16","Backend":{second}}}"#));
        let begin = |host: &Host| host.agent(&options(store.clone(), &NFT)).unwrap();
        let mut others: Vec<AgentProcess> = bare.lab.hosts.iter().map(begin).collect();
        for (host, agent) in bare.lab.hosts.iter().zip(&mut others) {
            agent.wait_ready(PATIENCE).unwrap();
            wait_for("a peer", || {
                let output = twill(host, agent, &store, &["status"]);
                let settled = output.status.success() && stdout(&output).contains("peers     1\n");
                settled.then_some(()).ok_or(output)
            });
        }
        let both = dump::network(&net);
        let lost = difference(&alone, &both).into_iter().filter(|line| line.starts_with('-'));
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<String>::new(), "{first} {second}");
        bare.wait_settled();
        for agent in [&bare.agents[1], &others[1]] {
            reach_tunnel(&bare.lab.hosts[0], &bare.lab.hosts[1], agent);
        }
        bare.agents[0].restart().unwrap();
        bare.agents[0].wait_ready(PATIENCE).unwrap();
        bare.wait_settled();
        assert_eq!(difference(&both, &dump::network(&net)), Vec::<String>::new(), "{first} {second}");
        others[0].kill(Signal::SIGTERM).unwrap();
        let cleaned = twill(&bare.lab.hosts[0], &others[0], &store, &["cleanup"]);
        assert!(cleaned.status.success(), "{cleaned:?}");
        assert_eq!(difference(&alone, &dump::network(&net)), Vec::<String>::new(), "{first} {second}");
    }
}

/// Pings the first address of the far host's subnet, put on its loopback as a bridge would have it.
fn reach_tunnel(from: &Host, to: &Host, far: &AgentProcess) {
    let gateway = far.subnet().unwrap().ipv4.unwrap();
    dump::run(&to.net, &format!("ip addr add {}/32 dev lo", gateway.addr()));
    ping_until(&from.net, IpAddr::V4(gateway.addr()), PATIENCE, &Cancel::default()).unwrap();
    dump::run(&to.net, &format!("ip addr del {}/32 dev lo", gateway.addr()));
}

#[test]
fn a_network_in_use_is_refused_and_named() {
    need_namespaces!();
    let lab = lab(1, Families::V4);
    let net = lab.hosts[0].net.clone();
    dump::sh(
        &net,
        "ip link add their0 type bridge; ip link set their0 up; ip addr add 10.244.9.1/24 dev their0",
    );
    dump::run(&net, "ip route add 10.244.128.0/20 via 192.168.77.254 proto static");
    let before = dump::of(&net);
    let store = files(&lab);
    write_config(&lab, &store, &Families::V4.config(VXLAN));
    let mut agent = lab.hosts[0].agent(&options(store.clone(), &NFT)).unwrap();
    assert_eq!(agent.wait(PATIENCE).unwrap().code(), Some(1));
    let log = agent.log();
    for line in ["10.244.9.1/24 on their0", "10.244.128.0/20 via 192.168.77.254 dev eth0", "--force"] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
    assert_eq!(difference(&before, &dump::of(&net)), Vec::<String>::new());
    assert!(!agent.files.subnet.exists());
    let plan = twill(&lab.hosts[0], &agent, &store, &["plan"]);
    assert!(!plan.status.success() && stderr(&plan).contains("10.244.9.1/24"), "{plan:?}");

    agent.restart_with(options(store, &[NFT[0], NFT[1], "--force"])).unwrap();
    agent.wait_ready(PATIENCE).unwrap();
    let lost = difference(&before, &dump::of(&net)).into_iter().filter(|line| line.starts_with('-'));
    let lost: Vec<String> = lost.filter(|line| !line.contains("ip_forward")).collect();
    assert_eq!(lost, Vec::<String>::new(), "what is somebody else's stays");
}

#[test]
fn status_in_text_in_json_and_as_exit_code() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, &NFT);
    let text = fabric.twill(0, &["status"]);
    assert_eq!(text.status.code(), Some(0));
    let text = stdout(&text);
    let subnet = fabric.subnet(0, false).to_string();
    for part in ["state     ok", "peers     2", "vxlan", "MTU 1430", "eth0", "as wanted", &subnet] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let json = fabric.status(0);
    assert_eq!(json["version"], 1);
    assert_eq!(json["pid"], fabric.agents[0].pid());
    assert_eq!(json["lease"]["subnets"][0], subnet);
    assert_eq!((&json["state"], &json["reconcile"]["converged"]), (&"ok".into(), &true.into()));
    assert_eq!(json["faults"], Value::Array(Vec::new()));
    assert_eq!(json["peers"].as_array().unwrap().len(), 2);

    let peer = fabric.subnet(1, false);
    let inside = format!("{}/25", peer.addr());
    dump::run(&fabric.lab.hosts[0].net, &format!("ip route add {inside} via 192.168.77.254 proto static"));
    wait_for("exit code 1", || {
        let output = fabric.twill(0, &["status"]);
        let told = stdout(&output).contains(&inside) && stdout(&output).contains("next:");
        (output.status.code() == Some(1) && told).then_some(()).ok_or(output)
    });
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    for words in [["status"].as_slice(), &["status", "--json"]] {
        let output = fabric.twill(0, words);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).contains("next:") && output.stdout.is_empty(), "{output:?}");
    }
}

/// An agent that waits for its network configuration is there, and not ready.
#[test]
fn status_of_an_agent_that_waits() {
    need_namespaces!();
    let lab = lab(1, Families::V4);
    let store = files(&lab);
    fs::create_dir(lab.dir().join("leases")).unwrap();
    let agent = lab.hosts[0].agent(&options(store.clone(), &[])).unwrap();
    wait_for("a fault", || {
        let output = twill(&lab.hosts[0], &agent, &store, &["status"]);
        let told =
            stdout(&output).contains("state     failed") && stdout(&output).contains("twill config set");
        (output.status.code() == Some(2) && told).then_some(()).ok_or((output, agent.log()))
    });
    let (code, _body) = wait_for("an answer", || agent.get("/healthz"));
    assert_eq!(code, 200);
    assert_eq!(agent.get("/readyz").unwrap().0, 503);
}

#[test]
fn without_privilege_it_says_what_it_needs() {
    need_namespaces!();
    let lab = lab(1, Families::V4);
    let store = files(&lab);
    write_config(&lab, &store, &Families::V4.config(VXLAN));
    let before = dump::of(&lab.hosts[0].net);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", TWILL, "agent"]);
    command.args(store.flags()).args(["--iface", "eth0"]);
    for (flag, name) in [("--state-dir", "state"), ("--run-dir", "run"), ("--subnet-file", "env")] {
        command.arg(flag).arg(lab.dir().join(name));
    }
    let log = lab.dir().join("unprivileged");
    let mut agent = Process::spawn(&lab.hosts[0].net, "an agent without privilege", command, &log).unwrap();
    let status = agent.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
    let text = agent.log();
    assert!(!status.success(), "{text}");
    assert!(text.contains("CAP_NET_ADMIN") && text.contains("next:"), "{text}");
    assert_eq!(difference(&before, &dump::of(&lab.hosts[0].net)), Vec::<String>::new());
}

/// A process of flanneld's name; what it does does not matter.
fn flanneld(host: &Host, folder: &Path) -> Process {
    let program = folder.join("flanneld");
    copy_program(Path::new("/bin/sleep"), &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("600");
    Process::spawn(&host.net, "flanneld", command, &folder.join("flanneld.log")).unwrap()
}

#[test]
fn beside_a_live_flanneld_it_refuses() {
    need_namespaces!();
    let lab = lab(2, Families::V4);
    let running = flanneld(&lab.hosts[0], lab.dir());
    let store = StoreAt::Etcd { endpoints: "http://192.168.77.254:2379".into() };
    let mut agent = lab.hosts[0].agent(&options(store.clone(), &[])).unwrap();
    assert!(!agent.wait(PATIENCE).unwrap().success());
    let log = agent.log();
    assert!(log.contains(&format!("(pid {})", running.pid())) && log.contains("next: stop it"), "{log}");
    // The flanneld of another host or of another prefix is no concern of ours: it goes on, here to wait for an etcd.
    for (index, flags) in [(1, [].as_slice()), (0, &["--etcd-prefix=/other"])] {
        let agent = lab.hosts[index].agent(&options(store.clone(), flags)).unwrap();
        wait_for("an agent that waits", || agent.get("/healthz"));
    }
}
