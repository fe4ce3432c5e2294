//! An etcd that is away, slow, compacted, or has lost what it knew; leases that end or are given away: packets flow on.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dump::sh;
use crate::fabric::wait_for;
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, CONFIG, World, fault, lasting, long};

/// Somebody who joins, and who has no agent.
pub(crate) const JOINS: &str = "192.168.77.200";

/// How long etcd is away.
fn outage() -> Duration {
    lasting(Duration::from_secs(600), Duration::from_secs(4))
}

/// Waits until all agents say that the store is down, and the doctor, too; they are ready all the same.
pub(crate) fn wait_down(world: &mut World, since: Instant) {
    world.name(0, "store-down", since);
    for host in 0..world.fabric.agents.len() {
        wait_for("an agent that misses its store", || {
            let status = world.fabric.status(host);
            let told = status["state"] == "degraded" && fault(&status, "store-down").is_some();
            told.then_some(()).ok_or(status)
        });
        let (code, why) = world.fabric.agents[host].get("/readyz").unwrap();
        assert_eq!(code, 200, "pods can be started during an outage: {why}");
    }
}

fn outages(world: &World) -> Vec<Scenario> {
    let lossless = |name: &str, rows: &'static [u8], run: fn(&mut World)| {
        Scenario::new(name, rows, Allowed::Nothing, run).everybody()
    };
    let started = if world.backend.in_kernel() {
        Allowed::Nothing
    } else {
        // As long as a process takes to start, on all hosts at once.
        Allowed::Gap(Duration::from_secs(1))
    };
    vec![
        // Whoever left in the ten seconds before is taken for lost with the rest: nobody has so far.
        lossless("etcd wiped", &[2, 13], wiped),
        lossless("etcd restored from a backup", &[1, 2], restored),
        lossless("etcd frozen", &[13, 14], frozen),
        lossless("etcd gone", &[13, 31], gone),
        lossless("etcd takes seconds to answer", &[13, 14], slow),
        lossless("history compacted", &[1, 31], compacted),
        Scenario::new("agents started without etcd", &[12, 13], started, started_alone).everybody(),
        lossless("lease revoked", &[14], revoked),
        lossless("lease deleted", &[2, 14], deleted),
        Scenario::new("frozen until the lease ended", &[2, 14], Allowed::WhileItLasts, ended).everybody(),
        Scenario::new("lease given to another host", &[2], Allowed::WhileItLasts, given_away).everybody(),
        Scenario::new("cut off", &[13, 14], Allowed::WhileItLasts, partitioned),
        lossless("etcd went back in time", &[1, 2], rewound),
    ]
}

fn frozen(world: &mut World) {
    let since = Instant::now();
    world.etcd[0].signal(Signal::SIGSTOP).unwrap();
    wait_down(world, since);
    world.etcd[0].signal(Signal::SIGCONT).unwrap();
}

fn gone(world: &mut World) {
    let since = Instant::now();
    world.etcd[0].signal(Signal::SIGKILL).unwrap();
    wait_down(world, since);
    thread::sleep(outage());
    world.etcd[0].restart().unwrap();
}

/// It works for a moment every other second; who joins is known all the same.
fn slow(world: &mut World) {
    let end = Instant::now() + lasting(Duration::from_secs(60), Duration::from_secs(6));
    let (key, subnet) = world.put_lease(JOINS);
    let since = Instant::now();
    while Instant::now() < end {
        world.etcd[0].signal(Signal::SIGSTOP).unwrap();
        if world.named.is_empty() {
            world.name(0, "store-down", since);
        } else {
            thread::sleep(Duration::from_secs(2));
        }
        world.etcd[0].signal(Signal::SIGCONT).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    world.wait_route(&subnet);
    world.ctl(&["del", &key]);
}

/// Cut off from etcd while it forgets how it came to be what it is.
fn compacted(world: &mut World) {
    let net = world.fabric.lab.underlay.net.clone();
    let rules = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; \
                 add rule inet cut in iif != lo tcp dport 2379 drop";
    let since = Instant::now();
    net.exec(&["nft", rules]).unwrap();
    wait_down(world, since);
    let (key, subnet) = world.put_lease(JOINS);
    for number in 0..if long() { 5000 } else { 50 } {
        world.ctl(&["put", &format!("/registry/pods/{}", number % 7), "of no interest"]);
    }
    let status = world.ctl(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let revision = status[0]["Status"]["header"]["revision"].as_u64().unwrap();
    world.ctl(&["compact", &revision.to_string()]);
    net.exec(&["nft", "delete table inet cut"]).unwrap();
    world.wait_route(&subnet);
    world.ctl(&["del", &key]);
}

/// Everybody claims what they had.
fn wiped(world: &mut World) {
    let config = world.ctl(&["get", "--print-value-only", CONFIG]);
    let own = world.own_lease();
    let since = Instant::now();
    world.etcd[0].wipe().unwrap();
    wait_own(world, &own);
    world.name(0, "no-config", since);
    world.ctl(&["put", CONFIG, &config]);
}

/// Revisions go backwards; who joins then is known, and who leaves. Nobody has left in the ten seconds before: that would
/// be taken back.
fn restored(world: &mut World) {
    let backup = world.fabric.lab.dir().join("backup");
    world.ctl(&["snapshot", "save", backup.to_str().unwrap()]);
    for number in 0..50 {
        world.ctl(&["put", "/registry/junk", &number.to_string()]);
    }
    world.etcd[0].restore(&backup).unwrap();
    std::fs::remove_file(&backup).unwrap();
    let key = world.join(JOINS);
    world.ctl(&["del", &key]);
}

/// Revisions of leases go backwards, which agents notice: nobody loses what is there all the same. Deletions are held from
/// then on.
fn rewound(world: &mut World) {
    let backup = world.fabric.lab.dir().join("backup");
    let (own, _) = world.own_lease();
    let written = world.revision(&own);
    world.ctl(&["snapshot", "save", backup.to_str().unwrap()]);
    for number in 0..50 {
        world.ctl(&["put", "/registry/junk", &number.to_string()]);
    }
    world.ctl(&["put", "--ignore-value", "--ignore-lease", &own]);
    let touched = world.revision(&own);
    let heard = |world: &World| world.fabric.status(0)["store"]["revision"].as_u64();
    wait_for("a revision", || (heard(world) >= Some(touched)).then_some(()).ok_or("it is not heard of"));
    let lives = |world: &World| world.fabric.status(0)["lease"]["expires_in_s"].as_u64();
    let before = lives(world);
    world.etcd[0].restore(&backup).unwrap();
    std::fs::remove_file(&backup).unwrap();
    wait_for("the restored store", || {
        (heard(world) < Some(touched)).then_some(()).ok_or("it is not heard of")
    });
    wait_for("a renewal", || (lives(world) >= before).then_some(()).ok_or("its lease only gets older"));
    assert_eq!(world.revision(&own), written, "it took its lease for lost, and claimed it again");
}

fn started_alone(world: &mut World) {
    let since = Instant::now();
    world.etcd[0].stop().unwrap();
    for agent in &mut world.fabric.agents {
        agent.kill(Signal::SIGKILL).unwrap();
        agent.restart().unwrap();
    }
    world.fabric.wait_ready();
    wait_down(world, since);
    world.etcd[0].restart().unwrap();
}

fn wait_own(world: &World, want: &(String, String)) {
    wait_for("the lease", || {
        let value = world.ctl(&["get", "--print-value-only", &want.0]);
        if value == want.1 { Ok(()) } else { Err(value) }
    });
}

fn revoked(world: &mut World) {
    let (own, before, since) = (world.own_lease(), world.repairs("lease"), Instant::now());
    world.revoke(&own.0);
    wait_own(world, &own);
    world.name_repair("lease", before, since);
}

fn deleted(world: &mut World) {
    let (own, before, since) = (world.own_lease(), world.repairs("lease"), Instant::now());
    world.ctl(&["del", &own.0]);
    wait_own(world, &own);
    world.name_repair("lease", before, since);
}

/// The subnet is free when it wakes up: it has it again.
fn ended(world: &mut World) {
    let own = world.own_lease();
    let since = Instant::now();
    world.fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    world.revoke(&own.0);
    world.name(0, "agent-silent", since);
    world.fabric.agents[0].signal(Signal::SIGCONT).unwrap();
    wait_own(world, &own);
}

/// The subnet is another host's when it wakes up: it writes nothing until that one has left.
fn given_away(world: &mut World) {
    let own = world.own_lease();
    let other = own.1.replace("192.168.77.1\"", "192.168.77.200\"");
    let (from, to) = (other.find("\"NodeID\":\"").unwrap() + 10, "7a3f4ab8-5d38-4b8f-9c55-0a1e0d7a2c11");
    let other = format!("{}{to}{}", &other[..from], &other[from + to.len()..]);
    assert_ne!(own.1, other);
    world.fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    world.revoke(&own.0);
    world.ctl(&["put", &own.0, &other]);
    let since = Instant::now();
    world.fabric.agents[0].signal(Signal::SIGCONT).unwrap();
    let fault = world.wait_fault("lease-lost");
    assert!(fault.to_string().contains(to), "it names who has it: {fault}");
    world.name(0, "lease-lost", since);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(world.ctl(&["get", "--print-value-only", &own.0]), other, "it wrote what is not its own");
    }
    world.ctl(&["del", &own.0]);
    wait_own(world, &own);
}

/// The first host is on one side, the others and etcd on the other.
fn partitioned(world: &mut World) {
    let (net, port) = (world.fabric.lab.underlay.net.clone(), world.fabric.lab.hosts[0].name.clone());
    let since = Instant::now();
    sh(&net, &format!("ip link set {port} nomaster"));
    world.name_all(&[(0, "peer-unreachable"), (1, "peer-unreachable"), (0, "store-down")], since);
    thread::sleep(lasting(Duration::from_secs(600), Duration::ZERO));
    sh(&net, &format!("ip link set {port} master ub0"));
}

fn stores(backend: Backend) {
    play(|| World::new(backend), outages);
}

#[test]
fn vxlan() {
    stores(Backend::Vxlan);
}

#[test]
fn host_gw() {
    stores(Backend::HostGw);
}

#[test]
fn userspace() {
    stores(Backend::Userspace);
}
