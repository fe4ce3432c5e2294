//! etcd frozen, killed, compacted, cut off and wiped under a stream between the pods of three hosts.
//!
//! `TWILL_LONG=1` makes each outage last a minute.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::probe;

use crate::ask::{ask_status, faults, throughout, wait, wait_fault, wait_ok, wait_status};
use crate::fabric::{CONFIG, Fabric, Removals, VXLAN, fabric, flannels, key, nothing_lost, subnet};

const NEWCOMER: &str = "10.244.250.0-24";
/// The most lines an agent may log about an outage of up to a minute.
const LINES: usize = 9;

fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("TWILL_LONG").is_some() { 60 } else { 6 })
}

/// A fabric with a stream round all its pods, and an eye on what its kernels lose.
struct Watched {
    fabric: Fabric,
    streams: Vec<probe::Stream>,
    removals: Vec<Removals>,
    kernels: Vec<Vec<String>>,
    keys: Vec<String>,
}

impl Watched {
    fn new(fabric: Fabric) -> Self {
        let fabric = fabric.up();
        let hosts = 0..fabric.lab.hosts.len();
        let keys = hosts.clone().map(|host| fabric.lease_key(host)).collect();
        let kernels = hosts.clone().map(|host| fabric.kernel(host)).collect();
        let removals = hosts.map(|host| fabric.removals(host)).collect();
        let streams = fabric.ring();
        Self { fabric, streams, removals, kernels, keys }
    }

    /// Waits until the agents of `hosts` say that the store is down, then lets the outage last: nothing changes in any
    /// kernel, and nobody logs much.
    fn endure(&mut self, hosts: &[usize]) {
        let logged: Vec<usize> = self.fabric.agents.iter().map(|agent| agent.log().lines().count()).collect();
        let begin = Instant::now();
        for host in hosts {
            let agent = &self.fabric.agents[*host];
            let fault = wait_fault(agent, "store-down");
            assert!(fault.contains("etcd at http://192.168.77.254:2379"), "{fault}");
            let status = ask_status(agent).unwrap();
            assert_eq!(
                (&status["state"], &status["store"]["connected"]),
                (&"degraded".into(), &false.into())
            );
            assert_eq!(agent.get("/readyz").unwrap().0, 200, "pods can be started during an outage");
        }
        throughout(outage().saturating_sub(begin.elapsed()), || {});
        for (host, agent) in self.fabric.agents.iter().enumerate() {
            let log = agent.log();
            let lines: Vec<&str> = log.lines().skip(logged[host]).collect();
            println!("OUTAGE log lines of n{} in {:?}: {}", host + 1, begin.elapsed(), lines.len());
            assert!(lines.len() <= LINES, "{lines:#?}");
        }
    }

    /// Measures from `begin`, when etcd was there again, how long it takes until a host that joins is in all kernels
    /// and all agents are content.
    fn converge(&mut self, case: &str, begin: Instant) {
        for host in 0..self.fabric.agents.len() {
            self.fabric.wait_route(host, &subnet(NEWCOMER));
        }
        println!("OUTAGE {case} back in {} ms", begin.elapsed().as_millis());
        for agent in &self.fabric.agents {
            wait_status(agent, "connected", |status| {
                status["store"]["connected"] == true && faults(status, "store-down").is_empty()
            });
        }
        println!("OUTAGE {case} reported in {} ms", begin.elapsed().as_millis());
    }

    /// Nothing was lost, nothing was removed, and all have the subnets they had.
    fn unharmed(mut self) {
        nothing_lost(std::mem::take(&mut self.streams));
        for (host, before) in self.kernels.iter().enumerate() {
            let after = self.fabric.kernel(host);
            let gone: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
            assert_eq!(gone, Vec::<&String>::new(), "n{}", host + 1);
            assert_eq!(self.removals[host].seen(), Vec::<String>::new(), "n{}", host + 1);
        }
        for (host, key) in self.keys.iter().enumerate() {
            assert_eq!(self.fabric.lease_key(host), *key);
            assert!(self.fabric.kv(key).is_some(), "{key} is not in etcd");
        }
    }
}

/// Somebody joins, as etcd tells it.
fn join(fabric: &Fabric) {
    fabric.put(&key(NEWCOMER), &flannels("192.168.77.200", "0e:00:00:00:00:fa"));
}

#[test]
fn frozen() {
    let mut watched = Watched::new(fabric!(3, Some(VXLAN)));
    watched.fabric.etcd.signal(Signal::SIGSTOP).unwrap();
    watched.endure(&[0, 1, 2]);
    watched.fabric.etcd.signal(Signal::SIGCONT).unwrap();
    let begin = Instant::now();
    join(&watched.fabric);
    watched.converge("frozen", begin);
    watched.unharmed();
}

#[test]
fn killed_and_started_again_on_its_data() {
    let mut watched = Watched::new(fabric!(3, Some(VXLAN)));
    watched.fabric.etcd.signal(Signal::SIGKILL).unwrap();
    watched.endure(&[0, 1, 2]);
    watched.fabric.etcd.restart().unwrap();
    let begin = Instant::now();
    join(&watched.fabric);
    watched.converge("restarted", begin);
    watched.unharmed();
}

/// A listing is the way back: what happened meanwhile cannot be replayed.
#[test]
fn compacted_while_it_was_away() {
    let mut watched = Watched::new(fabric!(3, Some(VXLAN)));
    cut(&watched.fabric, "192.168.77.0/24");
    let fabric = &watched.fabric;
    join(fabric);
    for number in 0..50 {
        fabric.put(&format!("/registry/pods/{}", number % 7), "of no interest");
    }
    let revision = fabric.get(CONFIG)[0].revision + 40;
    fabric.ctl(&["compact", &revision.to_string()]);
    watched.endure(&[0, 1, 2]);
    mend(&watched.fabric);
    let begin = Instant::now();
    watched.converge("compacted", begin);
    watched.unharmed();
}

/// Dropped without a word, as a switch that fails does; the other hosts go on with etcd.
#[test]
fn one_host_cut_off() {
    let mut watched = Watched::new(fabric!(3, Some(VXLAN)));
    cut(&watched.fabric, "192.168.77.1");
    join(&watched.fabric);
    watched.fabric.wait_route(1, &subnet(NEWCOMER));
    watched.endure(&[0]);
    assert!(!watched.fabric.has_route(0, &subnet(NEWCOMER)));
    mend(&watched.fabric);
    let begin = Instant::now();
    watched.converge("cut", begin);
    watched.unharmed();
}

/// Lost with all its data and made anew: the hosts bring back what they hold.
#[test]
fn wiped() {
    let mut watched = Watched::new(fabric!(3, Some(VXLAN)));
    let uuids: Vec<_> = (0..3).map(|host| node_of(&watched, host)).collect();
    watched.fabric.etcd.stop().unwrap();
    watched.endure(&[0, 1, 2]);
    watched.fabric.etcd.wipe().unwrap();
    let begin = Instant::now();
    for (host, uuid) in uuids.iter().enumerate() {
        let key = &watched.keys[host];
        wait("the subnet claimed again", || watched.fabric.kv(key).map(drop).ok_or(watched.fabric.logs()));
        assert_eq!(node_of(&watched, host), *uuid);
    }
    println!("OUTAGE wiped: subnets claimed again in {} ms", begin.elapsed().as_millis());
    watched.fabric.put(CONFIG, VXLAN);
    let begin = Instant::now();
    join(&watched.fabric);
    watched.converge("wiped", begin);
    for agent in &watched.fabric.agents {
        wait_ok(agent);
    }
    watched.unharmed();
}

fn node_of(watched: &Watched, host: usize) -> serde_json::Value {
    watched.fabric.kv(&watched.keys[host]).unwrap().json()["NodeID"].clone()
}

/// Drops, in etcd's namespace, what goes between the hosts in `there` and etcd.
fn cut(fabric: &Fabric, there: &str) {
    let rules = format!(
        "add table inet cut; \
         add chain inet cut in {{ type filter hook input priority 0; }}; \
         add chain inet cut out {{ type filter hook output priority 0; }}; \
         add rule inet cut in iif != lo ip saddr {there} tcp dport 2379 drop; \
         add rule inet cut out oif != lo ip daddr {there} tcp sport 2379 drop"
    );
    fabric.lab.underlay.net.exec(&["nft", &rules]).unwrap();
}

fn mend(fabric: &Fabric) {
    fabric.lab.underlay.net.exec(&["nft", "delete table inet cut"]).unwrap();
}
