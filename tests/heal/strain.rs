//! The userspace datapath under strain: floods, many peers that come and go, and an underlay that helps with nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use twill::lab::{Lab, LabOptions, Netns, UPLINK};

use crate::datapath::{ALONE, PORT, USERSPACE, VXLAN, assert_served, count, datagram, noise, transfers};
use crate::dump::sh;
use crate::fabric::{Fabric, Families, need_namespaces, wait_for};

/// What becomes of a datagram that reaches the socket.
const FATES: [&str; 8] = [
    "received",
    "dropped_truncated",
    "dropped_bad_vxlan",
    "dropped_other_vni",
    "dropped_no_lease",
    "dropped_foreign_source",
    "dropped_not_ip",
    "dropped_bad_inner",
];

/// How many datagrams the kernel dropped because the tunnel's socket was full.
fn overflown(net: &Netns) -> u64 {
    let sockets = sh(net, "cat /proc/net/udp");
    let port = format!(":{PORT:04X}");
    let ours =
        sockets.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&port)));
    ours.unwrap().split_whitespace().last().unwrap().parse().unwrap()
}

/// A number of a host's network stack.
pub(crate) fn stack(net: &Netns, name: &str) -> u64 {
    let text = sh(net, &format!("nstat -asz {name}"));
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()).unwrap()
}

#[test]
fn a_flood_of_forgeries_is_counted_to_the_last_datagram() {
    need_namespaces!();
    const EACH: u64 = 20_000;
    let fabric = Fabric::new(Families::V4, VXLAN, ALONE);
    let host = &fabric.lab.hosts[0];
    let target = SocketAddr::new(host.addresses[0], PORT);
    let IpAddr::V4(pod) = fabric.pods[1].addresses[0] else { panic!("an IPv4 pod") };
    let pod = pod.octets();
    let random: Vec<Vec<u8>> = (0..64).map(|n| noise(n, 8 + n as usize * 22)).collect();
    let honest = datagram(8, 1, pod);
    // From a host with a lease: let in, another VNI, no VNI, a foreign source, cut off, not IP, an IP version of 5.
    let (mut alien, mut broken) = (honest.clone(), honest.clone());
    (alien[20], broken[22]) = (0x99, 0x55);
    let kinds = [
        honest.clone(),
        datagram(8, 2, pod),
        datagram(0, 1, pod),
        datagram(8, 1, [192, 0, 2, 7]),
        honest[..30].to_vec(),
        alien,
        broken,
    ];
    let fates = || FATES.map(|fate| count(&fabric, 0, fate));
    let (before, lost_before) = (fates(), overflown(&host.net));
    let flood = |net: &Netns, kinds: &[Vec<u8>], rounds: u64| {
        net.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(target).unwrap();
            for bytes in (0..rounds).flat_map(|_| kinds) {
                assert_eq!(socket.send(bytes).unwrap(), bytes.len());
            }
        })
        .unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&fabric.lab.hosts[1].net, &kinds, EACH));
        scope.spawn(|| flood(&fabric.lab.hosts[1].net, &random, EACH / 64));
        scope.spawn(|| flood(&fabric.lab.underlay.net, &kinds[..1], EACH));
    });
    let sent = EACH * (kinds.len() as u64 + 1) + EACH / 64 * 64;
    let counted = wait_for("all datagrams", || {
        let now = fates();
        let counted: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        let lost = overflown(&host.net) - lost_before;
        let all = counted.iter().sum::<u64>() + lost;
        if all == sent { Ok((counted, lost)) } else { Err((counted, lost, all, sent)) }
    });
    println!("FLOOD {FATES:?} {counted:?}");
    let (counted, lost) = counted;
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
    if lost == 0 {
        assert_eq!((counted[0], counted[3], counted[5], counted[6]), (EACH, EACH, EACH, EACH));
        // Random bytes from a host with a lease, as the kernel would judge them.
        assert_eq!(counted[1] + counted[2], 2 * EACH + EACH / 64 * 64);
    }
    fabric.wait_reachable();
    fabric.wait_settled();
}

/// The file of a lease that a peer might have written.
fn lease(fabric: &Fabric, subnet: u8) -> PathBuf {
    fabric.lab.dir().join("leases/subnets").join(format!("10.244.{subnet}.0-24"))
}

/// Writes it whole at once.
fn announce(fabric: &Fabric, subnet: u8, mac: u8) {
    let value = format!(
        r#"{{"PublicIP":"192.168.77.{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:01:{mac:02x}:{subnet:02x}"}}}}"#,
        subnet.max(50)
    );
    let (path, draft) = (lease(fabric, subnet), fabric.lab.dir().join("draft"));
    std::fs::write(&draft, value).unwrap();
    std::fs::rename(draft, path).unwrap();
}

#[test]
fn hundreds_of_peers_come_and_go_without_a_packet_lost_to_the_others() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let taken: BTreeSet<String> =
        (0..3).map(|index| fabric.subnet(index, false).addr().to_string()).collect();
    let free = |n: &u8| !taken.contains(&format!("10.244.{n}.0"));
    let peers: Vec<u8> = (1..=250).filter(free).collect();
    let wait_peers = |count: usize| {
        wait_for("the peers", || {
            let known = fabric.status(0)["peers"].as_array().map_or(0, Vec::len);
            let routes = sh(&fabric.lab.hosts[0].net, "ip route show dev flannel.1").lines().count();
            ((known, routes) == (count + 2, count + 2)).then_some(()).ok_or((known, routes, count + 2))
        });
    };
    let streams = fabric.streams(1000);
    peers.iter().for_each(|n| announce(&fabric, *n, 0));
    wait_peers(peers.len());
    // Fewer at once than what would be held back.
    for (round, few) in (1..).zip(peers.chunks(30).take(4)) {
        for n in few {
            std::fs::remove_file(lease(&fabric, *n)).unwrap();
        }
        wait_peers(peers.len() - few.len());
        few.iter().for_each(|n| announce(&fabric, *n, round));
        wait_peers(peers.len());
        streams.wait_running();
    }
    streams.assert_lossless("hundreds of peers");
}

#[test]
fn an_underlay_without_offloads_carries_everything_unharmed() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    for host in &fabric.lab.hosts {
        sh(&host.net, &format!("ethtool -K {UPLINK} tx off sg off tso off gso off gro off"));
        let features = sh(&host.net, &format!("ethtool -k {UPLINK}"));
        assert!(features.contains("tx-checksumming: off"), "{features}");
    }
    transfers(&fabric);
    (0..3).for_each(|index| assert_served(&fabric, index, None));
}

#[test]
fn what_is_for_all_or_for_nobody_is_counted_and_goes_nowhere() {
    need_namespaces!();
    const EACH: u64 = 50;
    let fabric = Fabric::new(Families::V4, VXLAN, ALONE);
    let net = &fabric.lab.hosts[0].net;
    sh(net, "ip route add 239.7.7.7 dev flannel.1; ip route add 10.244.255.9 dev flannel.1");
    let before = ["dropped_multicast", "dropped_no_neighbour", "sent"].map(|name| count(&fabric, 0, name));
    net.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..EACH {
            socket.send_to(b"all", "239.7.7.7:9").unwrap();
        }
        // Asks who has the address, which no peer's tunnel has.
        socket.send_to(b"nobody", "10.244.255.9:9").unwrap();
    })
    .unwrap();
    wait_for("the counts", || {
        let multicast = count(&fabric, 0, "dropped_multicast") - before[0];
        let nobody = count(&fabric, 0, "dropped_no_neighbour") - before[1];
        (multicast >= EACH && nobody >= 1).then_some(()).ok_or((multicast, nobody))
    });
    assert_eq!(count(&fabric, 0, "sent"), before[2]);
}

#[test]
fn what_a_router_cannot_pass_on_is_counted_and_never_fragmented() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { segments: 2, ..LabOptions::default() }).unwrap();
    let fabric = Fabric::on(lab, Families::V4, VXLAN, [USERSPACE; 3]);
    let (router, host) = (&fabric.lab.underlay.net, &fabric.lab.hosts[0].net);
    // Between the segments of the first and the second host.
    router.set_mtu("ub1", 1400).unwrap();
    let far = fabric.pods[1].addresses[0];
    let before = count(&fabric, 0, "underlay_too_big");
    let socket = fabric.pods[0].net.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    wait_for("what is too big", || {
        socket.send_to(&[7; 1422], SocketAddr::new(far, 9)).ok();
        let now = count(&fabric, 0, "underlay_too_big");
        (now > before + 10).then_some(()).ok_or((before, now))
    });
    for (net, name) in [(router, "IpFragCreates"), (host, "IpFragCreates")] {
        assert_eq!(stack(net, name), 0, "{name}");
    }
    assert!(stack(router, "IpFragFails") > 0);
    fabric.wait_reachable();
}
