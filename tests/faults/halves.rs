//! A network that falls into halves, one with etcd and one without.

use std::time::{Duration, Instant};

use crate::dump::sh;
use crate::fabric::{PATIENCE, wait_for};
use crate::hosts::{leave, newcomer};
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, LEASES, Shape, World, fault, lasting};

/// Four hosts with agents: the first two are to be on one side, the others and etcd on the other.
fn halves(backend: Backend) {
    let shape = Shape { hosts: 4, ..Shape::usual(backend) };
    let scenario = |_: &World| vec![Scenario::new("halves", &[13, 14], Allowed::Inside, fall_apart)];
    play(|| World::shaped(backend, shape), scenario);
}

/// What is between the halves, in one transaction: no packet finds one way open and the other shut.
const CUT: &str = "\
    add table bridge cut; \
    add chain bridge cut in { type filter hook input priority 0; }; \
    add chain bridge cut between { type filter hook forward priority 0; }; \
    add chain bridge cut out { type filter hook output priority 0; }; \
    add rule bridge cut in iifname { n1, n2 } drop; \
    add rule bridge cut between iifname { n1, n2 } oifname { n3, n4, n5 } drop; \
    add rule bridge cut between iifname { n3, n4, n5 } oifname { n1, n2 } drop; \
    add rule bridge cut out oifname { n1, n2 } drop";

fn fall_apart(world: &mut World) {
    let leases = world.ctl(&["get", "--prefix", LEASES]);
    let (since, net) = (Instant::now(), world.fabric.lab.underlay.net.clone());
    net.exec(&["nft", CUT]).unwrap();
    let cut = [0, 1, 2, 3].map(|host| (host, "peer-unreachable"));
    world.name_all(&[&cut[..], &[(0, "store-down")]].concat(), since);
    for host in 0..4 {
        miss_the_others(world, host);
    }
    // Whoever comes meanwhile gets what nobody has, and is known on its side.
    let mut fifth = newcomer(world, &["--ready-peers=0"]);
    fifth.wait_ready(PATIENCE).unwrap();
    let got = fifth.subnet().unwrap().gateways()[0].trunc();
    for host in 0..4 {
        assert_ne!(world.fabric.subnet(host, false), got, "it was given away");
    }
    for host in [2, 3] {
        wait_for("a route to who came", || {
            let routes = sh(&world.fabric.lab.hosts[host].net, "ip route");
            routes.contains(&got.to_string()).then_some(()).ok_or(routes)
        });
    }
    std::thread::sleep(lasting(Duration::from_secs(600), Duration::ZERO));
    leave(world, &mut fifth);
    sh(&net, "nft delete table bridge cut");
    wait_for("the leases as they were", || {
        let found = world.ctl(&["get", "--prefix", LEASES]);
        if found == leases { Ok(()) } else { Err(found) }
    });
}

/// A host that reaches one of three others is not ready, and says so; that etcd is away is no reason.
fn miss_the_others(world: &World, host: usize) {
    let (near, beyond) = if host < 2 { (1 - host, [2, 3]) } else { (5 - host, [0, 1]) };
    wait_for("a host that misses the other half", || {
        let status = world.fabric.status(host);
        let faults = status["faults"].as_array().cloned().unwrap_or_default();
        let lost = |peer: &usize| {
            let key = world.fabric.subnet(*peer, false).to_string().replace('/', "-");
            faults.iter().any(|fault| fault["code"] == "peer-unreachable" && fault["subject"] == key)
        };
        let (code, why) = world.fabric.agents[host].get("/readyz").unwrap();
        let told = code == 503 && why.contains("1 of 3 probed peers") && !why.contains("store");
        let right = beyond.iter().all(lost) && !lost(&near);
        let apart = fault(&status, "store-down").is_some() == (host < 2);
        if told && right && apart { Ok(()) } else { Err((why, faults)) }
    });
}

#[test]
fn vxlan() {
    halves(Backend::Vxlan);
}

#[test]
fn host_gw() {
    halves(Backend::HostGw);
}

#[test]
fn userspace() {
    halves(Backend::Userspace);
}
