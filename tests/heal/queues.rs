//! Tunnel devices with several queues, each served by a thread of its own.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::datapath::{BYTES, KERNEL, PLAIN, PORT, USERSPACE, VXLAN, datapath, transfer, transfers};
use crate::dump::sh;
use crate::fabric::{Fabric, Families, files, need_namespaces, options, wait_for};

/// More than this machine may have processors.
pub(crate) const QUEUES: &[&str] = &["--datapath", "userspace", "--datapath-queues", "3"];
const PLAIN_QUEUES: &[&str] = &["--datapath", "plain", "--datapath-queues", "2"];

/// How many queues each tunnel device of a host has, by what serves them and by the kernel's count.
fn assert_queues(fabric: &Fabric, index: usize, count: usize) {
    let datapath = datapath(fabric, index);
    for tunnel in datapath["tunnels"].as_array().unwrap() {
        assert_eq!(tunnel["queues"], count, "{datapath}");
        let device = tunnel["device"].as_str().unwrap();
        let link = sh(&fabric.lab.hosts[index].net, &format!("ip -d link show {device}"));
        // Of a device that was made for one queue, the kernel tells no number.
        let queues = link.split_whitespace().skip_while(|word| *word != "numqueues").nth(1).unwrap_or("1");
        assert_eq!(queues, count.to_string(), "{link}");
    }
}

/// Notes the source ports of what arrives for the tunnel's port.
fn note_sources(fabric: &Fabric, index: usize) {
    let rules = format!(
        "add table inet noted
         add set inet noted ports {{ typeof udp sport; flags dynamic; }}
         add chain inet noted input {{ type filter hook input priority 0; }}
         add rule inet noted input udp dport {PORT} add @ports {{ udp sport }}"
    );
    sh(&fabric.lab.hosts[index].net, &format!("nft '{rules}'"));
}

fn sources(fabric: &Fabric, index: usize) -> BTreeSet<u64> {
    let json = sh(&fabric.lab.hosts[index].net, "nft -j list set inet noted ports");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let sets = json["nftables"].as_array().unwrap();
    let elements = sets.iter().find_map(|object| object["set"]["elem"].as_array());
    elements.into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
}

/// Many flows at once between two pods.
fn flows(fabric: &Fabric, from: usize, to: usize) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (from, to) = (&fabric.pods[from], &fabric.pods[to]);
            scope.spawn(|| transfer(from, to, to.addresses[0], BYTES / 4));
        }
    });
}

#[test]
fn flows_spread_over_queues_and_source_ports() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::V4, VXLAN, [QUEUES, QUEUES, KERNEL]);
    (0..2).for_each(|index| assert_queues(&fabric, index, 3));
    (1..3).for_each(|index| note_sources(&fabric, index));
    for to in [1, 2] {
        // The stack spreads by a hash, so that few flows may share a queue.
        wait_for("more than one source port", || {
            flows(&fabric, 0, to);
            let seen = sources(&fabric, to);
            (seen.len() > 1).then_some(()).ok_or(seen)
        });
        let seen = sources(&fabric, to);
        assert!(!seen.contains(&PORT.into()), "{seen:?}");
    }
    transfers(&fabric);
}

#[test]
fn several_queues_carry_both_families_beside_hosts_with_one() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [QUEUES, USERSPACE, PLAIN_QUEUES]);
    assert_queues(&fabric, 0, 3);
    assert_queues(&fabric, 2, 2);
    transfers(&fabric);
    flows(&fabric, 0, 2);
    flows(&fabric, 2, 1);
}

#[test]
fn a_device_of_several_queues_comes_back() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, QUEUES);
    sh(&fabric.lab.hosts[0].net, "ip link del flannel.1");
    wait_for("the device", || {
        let links = sh(&fabric.lab.hosts[0].net, "ip -o link");
        links.contains("flannel.1").then_some(()).ok_or(links)
    });
    fabric.wait_settled();
    fabric.wait_reachable();
    assert_queues(&fabric, 0, 3);
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fabric.agents[0].restart().unwrap();
    fabric.wait_ready();
    fabric.wait_reachable();
    assert_queues(&fabric, 0, 3);
}

#[test]
fn a_device_stays_with_its_queues_whatever_is_asked_for_later() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, QUEUES);
    for (flags, count) in [(PLAIN_QUEUES, 2), (USERSPACE, 1), (PLAIN, 1), (QUEUES, 3)] {
        fabric.agents[0].restart_with(options(files(&fabric.lab), flags)).unwrap();
        fabric.wait_ready();
        fabric.wait_reachable();
        assert_queues(&fabric, 0, count);
    }
    // One that is made for one queue goes on with one.
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    sh(&fabric.lab.hosts[0].net, "ip link del flannel.1");
    for flags in [USERSPACE, QUEUES] {
        fabric.agents[0].restart_with(options(files(&fabric.lab), flags)).unwrap();
        fabric.wait_ready();
        fabric.wait_reachable();
        assert_queues(&fabric, 0, 1);
    }
}
