//! A thread in a network namespace of its own, and hosts beside it.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use twill::config::FirewallMode;
use twill::filter::{HostFirewall, Options};
use twill_backends::filter::{Filter, FilterNet, Masquerade};

pub(super) const INSTANCE: &str = "test";
pub(super) const TABLE: &str = "twill-test";
/// How long anything may take that is waited for, on a machine that has much else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `body` in a fresh network namespace, which goes with the thread and its children.
pub(super) fn in_netns<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
                println!("SKIP: cannot make a network namespace: {e}");
                return;
            }
            sh("ip link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a command line here and returns what it printed.
pub(super) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn net(network: &str, subnet: &str) -> FilterNet {
    FilterNet { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }
}

/// Both families, everything wanted.
pub(super) fn want() -> Filter {
    Filter {
        nets: vec![net("10.5.0.0/16", "10.5.1.0/24"), net("fc00::/48", "fc00:0:0:1::/64")],
        masquerade: Some(Masquerade { random_fully: true }),
        forward: true,
    }
}

pub(super) fn options(mode: FirewallMode) -> Options {
    let resync = Duration::from_millis(200);
    Options { instance: INSTANCE.into(), mode, resync, previous: vec![], path: None }
}

pub(super) async fn open(mode: FirewallMode) -> HostFirewall {
    HostFirewall::open(options(mode)).await
}

/// Everything the firewall holds, for comparison; counters and time stamps aside.
pub(super) fn rules() -> String {
    let all = "nft -s list ruleset 2>/dev/null; iptables-save; ip6tables-save";
    let all = sh(all);
    let lines = all.lines().filter(|line| !line.starts_with('#')).map(str::trim);
    // The kernel keeps elements in the order in which they came.
    let mut parts: Vec<&str> = lines.flat_map(|line| line.split(", ")).collect();
    let is_element = |part: &&mut &str| part.contains(" . 0x") || part.starts_with("elements = ");
    let mut sorted: Vec<String> =
        parts.iter_mut().filter(is_element).map(|part| bare(std::mem::take(part))).collect();
    sorted.sort();
    [parts.join("\n"), sorted.join("\n")].concat()
}

fn bare(element: &str) -> String {
    element.trim_start_matches("elements = {").trim_matches([',', '}', ' ']).to_owned()
}

/// A directory that has links to some programs and nothing else.
pub(super) fn only(programs: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for program in programs {
        let target = sh(&format!("command -v {program}"));
        symlink(target.trim(), dir.path().join(program)).unwrap();
    }
    dir
}

/// A script under the name of a program.
pub(super) fn script(dir: &tempfile::TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

pub(super) fn path(dir: &tempfile::TempDir) -> Option<OsString> {
    Some(dir.path().into())
}

/// Waits until `done`.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that ends with the test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Another host: a network namespace held by a sleeping process.
pub(super) struct Peer(Running);

impl Peer {
    /// Connects it to this namespace: `here` is our address, `there` its own, both with prefix length.
    pub(super) fn new(device: &str, here: &str, there: &str) -> Self {
        let mine = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let sleep =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdout(Stdio::null()).spawn().unwrap();
        let peer = Self(Running(sleep));
        let id = peer.id();
        until("a second namespace", || std::fs::read_link(peer.netns()).is_ok_and(|net| net != mine));
        sh(&format!(
            "ip link add {device} type veth peer name eth0 netns {id}
             ip addr add {here} dev {device}; ip link set {device} up"
        ));
        let gateway = here.split('/').next().unwrap();
        peer.sh(&format!(
            "ip link set lo up; ip addr add {there} dev eth0; ip link set eth0 up
             ip route add default via {gateway}"
        ));
        peer
    }

    pub(super) fn id(&self) -> u32 {
        self.0.0.id()
    }

    pub(super) fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.id())
    }

    /// Runs a command line there.
    pub(super) fn sh(&self, line: &str) -> String {
        sh(&format!("nsenter -t {} -n sh -ec '{line}'", self.id()))
    }

    /// Counts what arrives from each of `sources`.
    pub(super) fn count(&self, sources: &[&str]) {
        let rules = sources.iter().map(|source| format!("ip saddr {source} counter; "));
        let chain = "chain c { type filter hook prerouting priority -400; ";
        self.sh(&format!(
            "echo \"table ip seen {{ {chain} {} }}; }}\" | nft -f -",
            rules.collect::<String>()
        ));
    }

    /// How many packets have arrived from each, in order.
    pub(super) fn counted(&self) -> Vec<u64> {
        let listed: Value = serde_json::from_str(&self.sh("nft -j list table ip seen")).unwrap();
        let rules = listed["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("rule"));
        let expressions = rules.flat_map(|rule| rule["expr"].as_array().unwrap());
        expressions.filter_map(|e| e.pointer("/counter/packets")?.as_u64()).collect()
    }
}
