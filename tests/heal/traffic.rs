//! What was carried to and from each host, as `/metrics` and `status` of the others tell it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::datapath::{ALONE, BYTES, KERNEL, PORT, VXLAN, datagram, transfer};
use crate::dump::sh;
use crate::fabric::{Fabric, Families, all_reach_each_other, need_namespaces, wait_for};

/// A figure of `/metrics` of a host about a peer: its name without `twill_peer_` and `_total`.
fn figure(fabric: &Fabric, index: usize, name: &str, labels: &str) -> Option<u64> {
    let (code, scrape) = fabric.agents[index].get("/metrics").unwrap();
    assert_eq!(code, 200, "{scrape}");
    let start = format!("twill_peer_{name}_total{{{labels}}} ");
    let figure = scrape.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(figure.parse::<f64>().unwrap() as u64)
}

/// The same of one that is there sooner or later, and large enough.
fn at_least(fabric: &Fabric, index: usize, name: &str, labels: &str, least: u64) -> u64 {
    wait_for(name, || {
        let figure = figure(fabric, index, name, labels);
        figure.filter(|figure| *figure >= least).ok_or(figure)
    })
}

fn key(fabric: &Fabric, index: usize) -> String {
    fabric.status(index)["lease"]["key"].as_str().unwrap().to_owned()
}

#[test]
fn what_two_hosts_exchange_is_told_of_the_right_peer_on_both() {
    need_namespaces!();
    const FORGED: u64 = 200;
    let mut fabric = Fabric::new(Families::V4, VXLAN, ALONE);
    let peers = [0, 1, 2].map(|index| format!("peer=\"{}\"", key(&fabric, index)));
    transfer(&fabric.pods[0], &fabric.pods[1], fabric.pods[1].addresses[0], BYTES);
    let least = BYTES as u64;
    for (here, there) in [(0, 1), (1, 0)] {
        let sent = at_least(&fabric, here, "transmit_bytes", &peers[there], least);
        let received = at_least(&fabric, there, "receive_bytes", &peers[here], least);
        assert!(
            received <= at_least(&fabric, here, "transmit_bytes", &peers[there], sent),
            "{sent} {received}"
        );
        // As many packets as that takes, and each with the headers of three layers.
        let packets = at_least(&fabric, there, "receive_packets", &peers[here], least / 1500);
        let received = at_least(&fabric, there, "receive_bytes", &peers[here], least);
        assert!((packets * 90..=packets * 1500).contains(&received), "{packets} {received}");
    }
    // The third host has had no part in it.
    for (here, there) in [(2, 0), (2, 1), (0, 2), (1, 2)] {
        for name in ["transmit_bytes", "receive_bytes"] {
            assert!(figure(&fabric, here, name, &peers[there]) < Some(least / 10), "{here} {there} {name}");
        }
    }
    let forged = datagram(8, 1, [192, 0, 2, 7]);
    let target = SocketAddr::new(fabric.lab.hosts[0].addresses[0], PORT);
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..FORGED).for_each(|_| assert_eq!(socket.send_to(&forged, target).unwrap(), forged.len()));
    };
    fabric.lab.hosts[1].net.run(send).unwrap();
    let reason = format!("{},reason=\"foreign_source\"", peers[1]);
    assert_eq!(at_least(&fabric, 0, "dropped_packets", &reason, FORGED), FORGED);
    let shown = fabric.twill(0, &["peers", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let of = |peer: &Value| {
        (peer["traffic"]["dropped"]["foreign_source"] == FORGED, peer["key"] == key(&fabric, 1))
    };
    assert!(shown["peers"].as_array().unwrap().iter().map(of).all(|(drops, is)| drops == is), "{shown:#}");

    // Another host goes, and with it what is told of it; of those who stay nothing is lost.
    let before = at_least(&fabric, 0, "receive_bytes", &peers[1], least);
    // The agent may end before it has answered.
    fabric.agents[2].twill(&["lease", "release"], &["--own"]).ok();
    fabric.agents[2].wait(Duration::from_secs(10)).unwrap();
    wait_for("the peer to go", || {
        let figure = figure(&fabric, 0, "receive_bytes", &peers[2]);
        if figure.is_none() { Ok(()) } else { Err(figure) }
    });
    assert!(figure(&fabric, 0, "receive_bytes", &peers[1]) >= Some(before));
    assert_eq!(figure(&fabric, 0, "dropped_packets", &reason), Some(FORGED));

    // Nor where other threads go on because the device was made again.
    sh(&fabric.lab.hosts[0].net, "ip link del flannel.1");
    all_reach_each_other(&fabric.pods[..2]);
    transfer(&fabric.pods[1], &fabric.pods[0], fabric.pods[0].addresses[0], BYTES);
    at_least(&fabric, 0, "receive_bytes", &peers[1], before + least);
    assert_eq!(figure(&fabric, 0, "dropped_packets", &reason), Some(FORGED));
}

#[test]
fn what_kernels_exchange_is_told_by_who_received_it() {
    need_namespaces!();
    let quiet = [KERNEL, &["--probe-port", "0"]].concat();
    let fabric = Fabric::new(Families::Dual, VXLAN, &quiet);
    let peers = [0, 1, 2].map(|index| format!("peer=\"{}\"", key(&fabric, index)));
    // In both families, each of which comes from an address of its own.
    for target in &fabric.pods[1].addresses {
        transfer(&fabric.pods[0], &fabric.pods[1], *target, BYTES);
    }
    for (here, there) in [(0, 1), (1, 0)] {
        at_least(&fabric, here, "receive_bytes", &peers[there], 2 * BYTES as u64);
        // The kernel may put up to 64 KiB together.
        at_least(&fabric, here, "receive_packets", &peers[there], 2 * BYTES as u64 / (64 << 10));
        assert_eq!(figure(&fabric, here, "transmit_bytes", &peers[there]), None, "nobody counts that");
    }
    for (here, there) in [(2, 0), (2, 1), (0, 2), (1, 2)] {
        let few = figure(&fabric, here, "receive_bytes", &peers[there]);
        assert!(few > Some(0) && few < Some(BYTES as u64 / 10), "{here} {there} {few:?}");
    }
}
