//! What agents find out about each other: faults of the network between hosts have names, and end when they do.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::probe::tcp_gbps;
use twill::lab::{Cancel, Lab, LabOptions, UPLINK};

use crate::dump;
use crate::fabric::{Fabric, Families, PATIENCE, need_namespaces, wait_for};
use crate::faults::{drop_at, mend, silence};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
/// How long the issue gives for finding a pair of hosts that cannot talk.
const FOUND: Duration = Duration::from_secs(10);

/// What the host at `index` found out about the one at `peer`.
fn probe(fabric: &Fabric, index: usize, peer: usize) -> Value {
    let key = fabric.status(peer)["lease"]["key"].clone();
    probe_of(fabric, index, &key)
}

/// The same of a peer whose agent may not run.
fn probe_of(fabric: &Fabric, index: usize, key: &Value) -> Value {
    let status = fabric.status(index);
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().find(|peer| peer["key"] == *key).unwrap_or_default()["probe"].clone()
}

fn wait_verdict(fabric: &Fabric, index: usize, key: &Value, verdict: &str) -> Value {
    wait_for(&format!("{verdict} of {key}"), || {
        let probe = probe_of(fabric, index, key);
        if probe["verdict"] == verdict { Ok(probe) } else { Err(probe) }
    })
}

fn wait_well(fabric: &Fabric) {
    for index in 0..fabric.agents.len() {
        for peer in (0..fabric.agents.len()).filter(|peer| *peer != index) {
            wait_for("peers that are well", || {
                let probe = probe(fabric, index, peer);
                if probe["verdict"] == "ok" { Ok(()) } else { Err(probe) }
            });
        }
    }
}

fn codes(fabric: &Fabric, index: usize) -> Vec<String> {
    let faults = fabric.status(index)["faults"].as_array().cloned().unwrap_or_default();
    faults.iter().map(|fault| fault["code"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn healthy_peers_are_well_on_every_path() {
    need_namespaces!();
    for (backend, flags, path, families, ways) in [
        (VXLAN, &[][..], "kernel", Families::Dual, 4),
        (VXLAN, &["--datapath=userspace"], "userspace", Families::V4, 2),
        (HOST_GW, &[], "direct", Families::V4, 1),
        (r#"{"Type":"vxlan","DirectRouting":true}"#, &[], "direct", Families::V6, 2),
    ] {
        let fabric = Fabric::new(families, backend, flags);
        wait_well(&fabric);
        let found = wait_for("sizes of every way", || {
            let found = probe(&fabric, 0, 1);
            let sized =
                found["ways"].as_array().is_some_and(|ways| ways.iter().all(|way| way["mtu"].is_u64()));
            if sized { Ok(found) } else { Err(found) }
        });
        assert_eq!(
            (found["path"].as_str(), found["mtu"] == found["mtu_wanted"]),
            (Some(path), true),
            "{found:#}"
        );
        let all = found["ways"].as_array().unwrap();
        assert_eq!(all.len(), ways, "{found:#}");
        for way in all {
            assert!(way["up"] == true && way["rtt_p99_us"].as_u64() >= way["rtt_p50_us"].as_u64(), "{way:#}");
            assert!(way["rtt_p50_us"].as_u64() > Some(0) && way["loss"].is_f64(), "{way:#}");
        }
        fabric.wait_settled();
        assert!(!codes(&fabric, 0).iter().any(|code| code == "path-mtu"));
    }
}

#[test]
fn what_the_network_does_has_a_name() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    wait_well(&fabric);
    let hosts = &fabric.lab.hosts;
    let keys: Vec<Value> = (0..3).map(|index| fabric.status(index)["lease"]["key"].clone()).collect();
    let from = |index: usize| format!("ip saddr {}", hosts[index].addresses[0]);
    // Where what is dropped, and what the first two hosts make of each other.
    for (at, rule, verdicts, code) in [
        (1, format!("{} udp dport 8472", from(0)), ["port-eaten", "port-eaten"], "port-eaten"),
        (1, format!("{} udp dport 8475", from(0)), ["underlay-down", "underlay-down"], "underlay-down"),
        // One direction only: the one who is not heard is told by the other's packets.
        (1, from(0), ["one-way", "peer-down"], "one-way"),
        (0, from(1), ["peer-down", "one-way"], "peer-unreachable"),
    ] {
        let begun = Instant::now();
        drop_at(&hosts[at], &rule);
        wait_verdict(&fabric, 0, &keys[1], verdicts[0]);
        wait_verdict(&fabric, 1, &keys[0], verdicts[1]);
        let took = begun.elapsed();
        println!("FOUND {} after {} ms", verdicts.join(", "), took.as_millis());
        wait_for(code, || {
            let codes = codes(&fabric, 0);
            if codes.iter().any(|found| found == code) { Ok(()) } else { Err(codes) }
        });
        assert_eq!(probe_of(&fabric, 0, &keys[2])["verdict"], "ok", "a peer that has nothing to do with it");
        mend(&hosts[at]);
        wait_well(&fabric);
        assert!(took < FOUND * 2, "{took:?}");
    }
}

#[test]
fn a_host_that_is_down_is_told_from_an_agent_that_is() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &[]);
    wait_well(&fabric);
    let key = fabric.status(1)["lease"]["key"].clone();
    fabric.agents[1].kill(Signal::SIGKILL).unwrap();
    let found = wait_verdict(&fabric, 0, &key, "agent-down");
    assert!(found["cause"].as_str().unwrap().contains("through the fabric too"), "{found:#}");
    fabric.wait_reachable();
    assert_eq!(codes(&fabric, 0), ["agent-down"]);
    fabric.lab.hosts[1].net.link_down(UPLINK).unwrap();
    wait_verdict(&fabric, 0, &key, "peer-down");
    assert_eq!(codes(&fabric, 0), ["peer-unreachable"]);
    fabric.lab.readdress(1).unwrap();
    fabric.agents[1].restart().unwrap();
    wait_verdict(&fabric, 0, &key, "ok");
    fabric.wait_reachable();
    wait_well(&fabric);
}

/// As on hosts that had flannel, which needs no port for probes.
#[test]
fn a_firewall_that_drops_probes_is_told_from_a_host_that_is_down() {
    need_namespaces!();
    for backend in [VXLAN, HOST_GW] {
        let fabric = Fabric::new(Families::V4, backend, &[]);
        wait_well(&fabric);
        let keys: Vec<Value> = (0..3).map(|index| fabric.status(index)["lease"]["key"].clone()).collect();
        drop_at(&fabric.lab.hosts[1], "udp dport 8475");
        for (index, peer) in [(0, 1), (1, 0), (1, 2)] {
            let found = wait_verdict(&fabric, index, &keys[peer], "agent-down");
            assert!(found["cause"].as_str().unwrap().contains("firewall"), "{found:#}");
        }
        fabric.wait_reachable();
        let readiness = fabric.status(1)["readiness"].clone();
        assert_eq!(
            (&readiness["ready"], &readiness["reachable"]),
            (&true.into(), &2.into()),
            "{readiness:#}"
        );
        assert_eq!(codes(&fabric, 0), ["agent-down"]);
        mend(&fabric.lab.hosts[1]);
        wait_well(&fabric);
    }
}

#[test]
fn an_agent_that_is_not_to_probe_is_unknown_and_not_complained_of() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::V4, VXLAN, [&[], &["--probe-port=0"], &["--probe-port=9475"]]);
    let keys: Vec<Value> = (0..3).map(|index| fabric.status(index)["lease"]["key"].clone()).collect();
    wait_verdict(&fabric, 0, &keys[1], "unknown");
    wait_verdict(&fabric, 0, &keys[2], "ok");
    wait_verdict(&fabric, 2, &keys[0], "ok");
    assert!(probe_of(&fabric, 1, &keys[0]).is_null());
    fabric.wait_settled();
}

#[test]
fn a_port_that_is_taken_is_a_fault_and_no_end() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::V4, HOST_GW, [&["--probe-port=9475"], &[], &[]]);
    let host = &fabric.lab.hosts[0];
    let addr = (host.addresses[0], 9476);
    let taken = host.net.run(|| std::net::UdpSocket::bind(addr)).unwrap().unwrap();
    let mut fabric = fabric;
    let options = crate::fabric::options(crate::fabric::files(&fabric.lab), &["--probe-port=9476"]);
    fabric.agents[0].restart_with(options).unwrap();
    fabric.wait_ready();
    wait_for("the fault", || {
        let codes = codes(&fabric, 0);
        if codes.iter().any(|code| code == "probe-failed") { Ok(()) } else { Err(codes) }
    });
    assert_eq!(codes(&fabric, 0), ["probe-failed"], "no peer is blamed");
    drop(taken);
    wait_well(&fabric);
}

/// The MTU of the route to the subnet of the host at `peer`.
fn route_mtu(fabric: &Fabric, index: usize, peer: usize) -> Option<u32> {
    let subnet = fabric.subnet(peer, fabric.families == Families::V6);
    let ip = if subnet.addr().is_ipv6() { "ip -6" } else { "ip" };
    let line = dump::run(&fabric.lab.hosts[index].net, &format!("{ip} route show {subnet}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find(|pair| pair[0] == "mtu").and_then(|pair| pair[1].parse().ok())
}

fn wait_route_mtu(fabric: &Fabric, mtu: Option<u32>) {
    for (index, peer) in [(0, 1), (1, 0)] {
        let begun = Instant::now();
        wait_for(&format!("a route MTU of {mtu:?}"), || {
            let found = route_mtu(fabric, index, peer);
            if found == mtu { Ok(()) } else { Err((found, probe(fabric, index, peer))) }
        });
        println!("MTU {mtu:?} after {} ms", begun.elapsed().as_millis());
    }
}

fn bulk(fabric: &Fabric) {
    let (from, to) = (&fabric.pods[0], &fabric.pods[1]);
    for target in &to.addresses {
        let rate = tcp_gbps(&from.net, &to.net, *target, Duration::from_secs(1), &Cancel::default()).unwrap();
        println!("BULK {rate:.2} Gbit/s to {target}");
        assert!(rate > 0.001, "{rate}");
    }
}

/// Hosts in two segments, a router between them that becomes narrower and wider again, all ICMP lost, and fragments too.
fn routed(families: Families, flags: &[&str], overhead: u32) {
    let (ipv4, ipv6) = (families.ipv4(), families.ipv6());
    let lab = Lab::new(&LabOptions { segments: 2, ipv4, ipv6, ..LabOptions::default() }).unwrap();
    for host in &lab.hosts {
        drop_at(host, "ip frag-off & 0x3fff != 0");
        host.net.exec(&["nft", "add rule inet net in exthdr frag exists drop"]).unwrap();
    }
    silence(&lab.underlay.net);
    let fabric = Fabric::on(lab, families, VXLAN, [flags; 3]);
    wait_well(&fabric);
    assert_eq!(route_mtu(&fabric, 0, 1), None);
    for mtu in [1400, 1500, 1380] {
        fabric.lab.underlay.net.set_mtu("ub1", mtu).unwrap();
        wait_route_mtu(&fabric, Some(mtu - overhead).filter(|_| mtu < 1500));
        bulk(&fabric);
    }
    assert!(codes(&fabric, 0).iter().any(|code| code == "path-mtu"));
    let mut fabric = fabric;
    // What was measured holds from the first moment of the next start.
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    let narrow = route_mtu(&fabric, 0, 1);
    fabric.agents[0].restart().unwrap();
    while fabric.agents[0].wait_ready(Duration::from_millis(1)).is_err() {
        assert_eq!(route_mtu(&fabric, 0, 1), narrow);
    }
    assert_eq!(route_mtu(&fabric, 0, 1), narrow);
    fabric.agents[0].wait_ready(PATIENCE).unwrap();
}

#[test]
fn routes_follow_the_path_of_the_kernels_tunnel() {
    need_namespaces!();
    routed(Families::V4, &[], 50);
}

#[test]
fn routes_follow_the_path_of_the_kernels_tunnel_over_ipv6() {
    need_namespaces!();
    routed(Families::V6, &[], 70);
}

#[test]
fn routes_follow_the_path_of_the_userspace_datapath() {
    need_namespaces!();
    routed(Families::V4, &["--datapath=userspace"], 50);
}

/// A switch that takes less than the interfaces behind it, and says nothing at all.
#[test]
fn routes_follow_a_path_without_a_tunnel() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, HOST_GW, &[]);
    wait_well(&fabric);
    for mtu in [1400, 1500] {
        fabric.lab.underlay.net.set_mtu("n2", mtu).unwrap();
        wait_route_mtu(&fabric, Some(mtu).filter(|mtu| *mtu < 1500));
        bulk(&fabric);
    }
}
