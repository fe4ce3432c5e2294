//! An agent that is killed, ended, started again or replaced by another build costs no packet, and touches nothing that
//! is right already.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use twill::lab::{Host, Process, copy_program};

use crate::dump::{self, difference};
use crate::fabric::{Fabric, Families, TWILL, files, need_namespaces, options, wait_for};

/// Where the marks' routes lead: nowhere (RFC 2544, section 12.2).
const MARK: &str = "198.18.";

/// `ip monitor` and `nft monitor` on one host.
struct Monitors {
    logs: [PathBuf; 2],
    _processes: [Process; 2],
    marks: u32,
}

impl Monitors {
    /// Starts them, and waits until they hear.
    fn start(host: &Host, folder: &std::path::Path) -> Self {
        let start = |program: &str, args: &[&str]| {
            let log = folder.join(format!("{program}-monitor"));
            let mut command = Command::new(program);
            command.args(args);
            (Process::spawn(&host.net, "a monitor", command, &log).unwrap(), log)
        };
        let (ip, ip_log) = start("ip", &["-o", "monitor", "all"]);
        let (nft, nft_log) = start("nft", &["monitor"]);
        let mut monitors = Self { logs: [ip_log, nft_log], _processes: [ip, nft], marks: 0 };
        monitors.mark(host);
        monitors
    }

    /// Makes a change that both announce, and waits for it: all that was before has been written then. A monitor that
    /// does not listen yet misses it, so it is made again.
    fn mark(&mut self, host: &Host) {
        for log in &self.logs {
            wait_for("a monitor's line", || {
                self.marks += 1;
                let (high, low) = (self.marks / 250, self.marks % 250 + 1);
                let (route, table) = (format!("{MARK}{high}.{low}"), format!("mark{}", self.marks));
                let routes = format!("ip route add unreachable {route}; ip route del unreachable {route}");
                let tables = format!("nft add table inet {table}; nft delete table inet {table}");
                dump::sh(&host.net, &format!("{routes}; {tables}; sleep 0.02"));
                let text = std::fs::read_to_string(log).unwrap();
                let words = [format!("{route} "), format!("{table}\n")];
                if words.iter().any(|word| text.contains(word)) { Ok(()) } else { Err(text) }
            });
        }
    }

    /// What they announced, less the marks and what the host and its pods do by themselves:
    /// - states of neighbours on the uplink, the bridge and the pods' ports, which ARP and neighbour discovery move
    ///   between reachable and stale, and what the bridge learns: packets flow all the time;
    /// - link-local addresses, which the kernel makes and tests for duplicates on every device;
    /// - the stand-ins of a trial of checksums, which are made for it and deleted after it;
    /// - `# new generation`, which follows each change of the rules and names nothing.
    ///
    /// No other link is among these, and no route, address or rule, and no entry of a tunnel device.
    fn heard(&mut self, host: &Host) -> Vec<String> {
        self.mark(host);
        let texts = self.logs.iter().map(|log| std::fs::read_to_string(log).unwrap());
        let lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let theirs = |line: &str| {
            let moving = line.starts_with("[NEIGH]") && !line.contains("flannel");
            moving
                || line.contains("fe80::")
                || line.contains("mark")
                || line.contains("twill-try")
                || line.contains(MARK)
                || line.starts_with("# new generation")
        };
        lines.into_iter().filter(|line| !line.trim().is_empty() && !theirs(line)).collect()
    }
}

/// Ends and starts the first host's agent in every way while a packet a millisecond goes through its host.
fn restarts(families: Families, backend: &str, flags: &[&str]) {
    let mut fabric = Fabric::new(families, backend, flags);
    wait_tried(&fabric);
    let before = fabric.state(0);
    let mut monitors = Monitors::start(&fabric.lab.hosts[0], fabric.lab.dir());
    let upgrade = fabric.lab.dir().join("twill-next");
    copy_program(TWILL.as_ref(), &upgrade).unwrap();
    let streams = fabric.streams(1000);

    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    streams.wait_running();
    fabric.agents[0].restart().unwrap();
    settle(&mut fabric, &streams);

    let status = fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    streams.wait_running();
    fabric.agents[0].restart().unwrap();
    settle(&mut fabric, &streams);

    let store = files(&fabric.lab);
    let mut next = options(store, flags);
    next.program = upgrade;
    fabric.agents[0].restart_with(next).unwrap();
    settle(&mut fabric, &streams);

    let what = format!("restarts {backend} {families:?} {flags:?}");
    streams.assert_lossless(&what);
    let heard = monitors.heard(&fabric.lab.hosts[0]);
    assert_eq!(heard, Vec::<String>::new(), "{what}: something that was right was written again");
    assert_eq!(difference(&before, &fabric.state(0)), Vec::<String>::new(), "{what}");
    assert_eq!(fabric.status(0)["reconcile"]["tally"]["operations"], 0, "{what}");
}

/// Waits until the agent knows, and remembers, who finishes the checksums of each device.
fn wait_tried(fabric: &Fabric) {
    let state = std::fs::read_dir(&fabric.agents[0].files.state).unwrap().flatten().next().unwrap();
    wait_for("a trial of checksums that is remembered", || {
        let devices = fabric.status(0)["network"]["datapath"]["checksums"].clone();
        let kept = std::fs::read_to_string(state.path().join("snapshot.json")).unwrap_or_default();
        let tried = devices.as_array().into_iter().flatten().all(|device| device["tested"] == true);
        if tried && !kept.contains(r#""tested":false"#) { Ok(()) } else { Err((devices, kept)) }
    });
}

fn settle(fabric: &mut Fabric, streams: &crate::fabric::Streams) {
    fabric.wait_ready();
    fabric.wait_settled();
    streams.wait_running();
}

const NFT: [&str; 2] = ["--ip-masq", "--firewall=nftables"];
const IPTABLES: [&str; 2] = ["--ip-masq", "--firewall=iptables"];
const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

#[test]
fn vxlan_over_ipv4() {
    need_namespaces!();
    restarts(Families::V4, VXLAN, &NFT);
}

#[test]
fn vxlan_over_both_families() {
    need_namespaces!();
    restarts(Families::Dual, VXLAN, &NFT);
}

#[test]
fn host_gw_over_ipv4() {
    need_namespaces!();
    restarts(Families::V4, HOST_GW, &NFT);
}

#[test]
fn host_gw_over_both_families() {
    need_namespaces!();
    restarts(Families::Dual, HOST_GW, &NFT);
}

#[test]
fn with_iptables() {
    need_namespaces!();
    restarts(Families::Dual, VXLAN, &IPTABLES);
}

/// A monitor that hears nothing proves nothing.
#[test]
fn the_monitors_hear_what_is_ours() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &NFT);
    let host = &fabric.lab.hosts[0];
    let mut monitors = Monitors::start(host, fabric.lab.dir());
    let peer = fabric.subnet(1, false);
    for (change, word) in [
        (format!("ip route del {peer}"), "[ROUTE]Deleted"),
        (format!("ip neigh del {} dev flannel.1", peer.addr()), "[NEIGH]"),
        ("ip link set flannel.1 mtu 1200".to_owned(), "[LINK]"),
        ("nft flush ruleset".to_owned(), "delete table"),
    ] {
        dump::sh(&host.net, &change);
        fabric.wait_settled();
        let heard = monitors.heard(host);
        assert!(heard.iter().any(|line| line.contains(word)), "{change}: {heard:#?}");
    }
}
