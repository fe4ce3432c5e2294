//! What the userspace datapath makes of bad lines, of packets of all sizes, and of an underlay that carries less.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use twill::lab::{Pod, UPLINK};

use crate::datapath::{BYTES, KERNEL, PLAIN, USERSPACE, VXLAN, count, datapath, noise, transfer};
use crate::dump::sh;
use crate::fabric::{Fabric, Families, need_namespaces, wait_for};
use crate::relay::{Line, Relay};
use crate::strain::stack;

/// How long an answer is waited for.
const SOON: Duration = Duration::from_secs(30);
/// Payload of the largest datagram that leaves a pod whole, with IPv4.
const FITS: usize = 1450 - 28;

/// Sends datagrams of these sizes to an echo in another pod, a few at a time, and compares what comes back.
fn echoes(from: &Pod, to: &Pod, target: IpAddr, sizes: impl IntoIterator<Item = usize>) {
    let far = to.net.run(|| UdpSocket::bind(SocketAddr::new(target, 0))).unwrap().unwrap();
    let echo = far.local_addr().unwrap();
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let near = from.net.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    near.connect(echo).unwrap();
    [&near, &far].into_iter().for_each(|socket| socket.set_read_timeout(Some(SOON)).unwrap());
    let mut bytes = vec![0; 65_536];
    let sizes: Vec<usize> = sizes.into_iter().collect();
    for few in sizes.chunks(8) {
        let sent: Vec<Vec<u8>> = few.iter().map(|size| noise(*size as u64, *size)).collect();
        for datagram in &sent {
            assert_eq!(near.send(datagram).unwrap(), datagram.len());
        }
        for _ in &sent {
            let (len, back) =
                far.recv_from(&mut bytes).unwrap_or_else(|e| panic!("{target} of {few:?}: {e}"));
            far.send_to(&bytes[..len], back).unwrap();
        }
        let mut came: Vec<Vec<u8>> = sent
            .iter()
            .map(|_| {
                let len = near.recv(&mut bytes).unwrap_or_else(|e| panic!("{target} back, {few:?}: {e}"));
                bytes[..len].to_vec()
            })
            .collect();
        // What is fragmented may be overtaken.
        came.sort_by_key(Vec::len);
        let mut sent = sent;
        sent.sort_by_key(Vec::len);
        assert!(came == sent, "{target}: datagrams of {few:?} were changed");
    }
}

/// Every pair of hosts, and every family.
fn each_way(fabric: &Fabric, mut run: impl FnMut(&Pod, &Pod, IpAddr)) {
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        for target in &fabric.pods[to].addresses {
            run(&fabric.pods[from], &fabric.pods[to], *target);
        }
    }
}

#[test]
fn a_line_that_loses_and_reorders_harms_no_transfer() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [USERSPACE, USERSPACE, KERNEL]);
    let relay = Relay::start(&fabric.lab, 0, Line { lost: 10, late: 10 });
    for peer in [1, 2] {
        for target in &fabric.pods[peer].addresses {
            transfer(&fabric.pods[0], &fabric.pods[peer], *target, 256 << 10);
        }
    }
    let toll = relay.stop();
    println!("LINE {toll:?}");
    assert!(toll.lost > 50 && toll.late > 50, "the line was not bad: {toll:?}");
}

#[test]
fn eight_streams_at_once_arrive_unharmed() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [USERSPACE, USERSPACE, KERNEL]);
    each_way(&fabric, |from, to, target| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| transfer(from, to, target, BYTES / 2));
            }
        });
    });
}

#[test]
fn datagrams_of_all_sizes_come_back_unharmed() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [USERSPACE, PLAIN, KERNEL]);
    let around = FITS - 60..FITS + 10;
    each_way(&fabric, |from, to, target| {
        // Many of one size are what is joined; what exceeds the MTU is cut by the stack, without DF.
        let alike = [vec![1000; 64], vec![1; 64]].concat();
        echoes(
            from,
            to,
            target,
            (0..64).chain(around.clone()).chain(alike).chain([4000, 9000, 30_000, 65_000]),
        );
    });
}

/// The path MTU to a target that a pod was told; nothing if it was not.
fn told(pod: &Pod, target: IpAddr) -> Option<u32> {
    let route = sh(&pod.net, &format!("ip route get {target}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

/// Lets a pod and its host's bridge send packets that no tunnel carries.
fn widen(fabric: &Fabric, index: usize) {
    let host = &fabric.lab.hosts[index].net;
    for (net, device) in [(host, "cni0"), (host, "veth1"), (&fabric.pods[index].net, "eth0")] {
        net.set_mtu(device, 1500).unwrap();
    }
}

/// The MTU of a host's tunnel for the family of `target`.
fn tunnel_mtu(fabric: &Fabric, index: usize, target: IpAddr) -> u32 {
    let device = if target.is_ipv4() { "flannel.1" } else { "flannel-v6.1" };
    let link = sh(&fabric.lab.hosts[index].net, &format!("ip -o link show {device}"));
    link.split_whitespace().skip_while(|word| *word != "mtu").nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_pod_is_told_what_the_overlay_carries() {
    need_namespaces!();
    for flags in [USERSPACE, PLAIN] {
        let fabric = Fabric::new(Families::Dual, VXLAN, flags);
        widen(&fabric, 0);
        let (from, to) = (&fabric.pods[0], &fabric.pods[1]);
        for target in &to.addresses {
            assert_eq!(told(from, *target), None);
            let socket = from.net.run(|| {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(any).unwrap()
            });
            // A datagram of 1500 bytes, which Linux sends with DF.
            let len = if target.is_ipv4() { 1472 } else { 1452 };
            let socket = socket.unwrap();
            wait_for("the path MTU", || {
                // Of the first, which is lost, the answer may come while the next is sent.
                socket.send_to(&vec![7; len], SocketAddr::new(*target, 9)).ok();
                told(from, *target).ok_or("nothing told")
            });
            assert_eq!(told(from, *target), Some(tunnel_mtu(&fabric, 0, *target)));
            echoes(from, to, *target, [len, len + 1000]);
            transfer(from, to, *target, BYTES);
        }
    }
}

#[test]
fn an_underlay_that_carries_less_slows_nothing_for_long() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    let hosts = &fabric.lab.hosts;
    let targets = &fabric.pods[0].addresses;
    let overhead: Vec<u32> = targets.iter().map(|target| 1500 - tunnel_mtu(&fabric, 0, *target)).collect();
    std::thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            for _ in 0..4 {
                each_way(&fabric, |from, to, target| transfer(from, to, target, BYTES));
            }
        });
        // 1350 is the least in which IPv6 fits: the kernel takes it away from a device of less than 1280 bytes.
        for less in [1400, 1350, 1500, 1400] {
            hosts.iter().for_each(|host| host.net.set_mtu(UPLINK, less).unwrap());
            for index in 0..hosts.len() {
                for (target, overhead) in targets.iter().zip(&overhead) {
                    wait_for("the MTU of the tunnel", || {
                        let now = tunnel_mtu(&fabric, index, *target);
                        (now + overhead == less).then_some(()).ok_or(now)
                    });
                }
            }
        }
        transfers.join().unwrap();
    });
    // A path that is found to be narrower costs the datagram from which its sender learns it.
    fabric.wait_settled();
    each_way(&fabric, |from, to, target| echoes(from, to, target, [1200, 1350, FITS, 5000]));
    println!("LESS {} frames too large", count(&fabric, 0, "underlay_too_big"));
}

#[test]
fn what_this_hosts_underlay_cannot_carry_is_counted_and_never_fragmented() {
    need_namespaces!();
    const LESS: u32 = 1400;
    let fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    let (host, pods) = (&fabric.lab.hosts[0].net, &fabric.pods);
    let too_big = |tunnel: usize| {
        datapath(&fabric, 0)["tunnels"][tunnel]["frames"]["underlay_too_big"].as_u64().unwrap()
    };
    for (tunnel, target) in pods[1].addresses.iter().enumerate() {
        let (any, header) = if target.is_ipv4() { ("0.0.0.0:0", 28) } else { ("[::]:0", 48) };
        let full = tunnel_mtu(&fabric, 0, *target).min(1430) as usize - header;
        let before = too_big(tunnel);
        wait_for("what is too big", || {
            sh(&pods[0].net, "ip route flush cache; ip -6 route flush cache");
            std::thread::scope(|scope| {
                let (stop, stopped) = std::sync::mpsc::channel::<()>();
                // Linux sends it with DF, and what a pod cuts itself never exceeds what it was told.
                scope.spawn(move || {
                    let socket = pods[0].net.run(|| UdpSocket::bind(any).unwrap()).unwrap();
                    while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                        socket.send_to(&vec![7; full], SocketAddr::new(*target, 9)).ok();
                        // Several at once leave in one message, of which the kernel fragments none in any case.
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
                for mtu in [LESS, 1500] {
                    host.set_mtu(UPLINK, mtu).unwrap();
                    wait_for("the MTU of the tunnel", || {
                        let overhead = if target.is_ipv4() { 50 } else { 70 };
                        let now = tunnel_mtu(&fabric, 0, *target);
                        (now + overhead == mtu).then_some(()).ok_or(now)
                    });
                }
                drop(stop);
            });
            let now = too_big(tunnel);
            (now > before).then_some(()).ok_or(now)
        });
        println!("NARROW {target} {} frames too large", too_big(tunnel) - before);
    }
    for name in ["IpFragCreates", "Ip6FragCreates"] {
        assert_eq!(stack(host, name), 0, "{name}");
    }
    fabric.wait_reachable();
    fabric.wait_settled();
    each_way(&fabric, |from, to, target| transfer(from, to, target, BYTES));
}
