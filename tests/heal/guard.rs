//! Who may send into the fabric: frames forged by hand, from hosts with and without a lease.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::PacketBuilder;
use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::{Host, Netns};

use crate::datapath::{KERNEL, PORT, USERSPACE, VXLAN, count};
use crate::dump::{firewall, mac_of, run, sh};
use crate::fabric::{Fabric, Families, files, lab, need_namespaces, options, wait_for};

/// Where the pod listens that frames are forged for.
const EAR: u16 = 7777;
/// How long what must not come is waited for, after what must come has come.
const QUIET: Duration = Duration::from_millis(100);

/// Three hosts with agents, and a fourth on the same underlay that has none.
fn fabric(families: Families, flags: [&[&str]; 3]) -> Fabric {
    Fabric::on(lab(4, families), families, VXLAN, flags)
}

/// A pod's ear for forged packets.
struct Ear(UdpSocket);

impl Ear {
    fn new(fabric: &Fabric, v6: bool) -> Self {
        let addr = pod(fabric, 0, v6);
        let socket = fabric.pods[0].net.run(|| UdpSocket::bind(SocketAddr::new(addr, EAR))).unwrap().unwrap();
        socket.set_read_timeout(Some(QUIET)).unwrap();
        Self(socket)
    }

    /// Sends until it is heard: a way that is open.
    fn hears(&self, what: &str, mut send: impl FnMut(u64)) {
        let mut mark = 0;
        wait_for(what, || {
            mark += 1;
            send(mark);
            self.heard().contains(&mark).then_some(()).ok_or("nothing came")
        });
    }

    /// What has come, until it is quiet.
    fn heard(&self) -> Vec<u64> {
        let mut bytes = [0; 64];
        let next = || self.0.recv(&mut bytes).ok().map(|len| (len, bytes));
        std::iter::from_fn(next)
            .filter_map(|(_, bytes)| Some(u64::from_be_bytes(*bytes.first_chunk()?)))
            .collect()
    }
}

fn pod(fabric: &Fabric, index: usize, v6: bool) -> IpAddr {
    *fabric.pods[index].addresses.iter().find(|addr| addr.is_ipv6() == v6).unwrap()
}

fn underlay(host: &Host, v6: bool) -> IpAddr {
    *host.addresses.iter().find(|addr| addr.is_ipv6() == v6).unwrap()
}

/// A VXLAN frame for the first host's pod: what its tunnel device would take from the second host.
fn frame(fabric: &Fabric, source: IpAddr, vni: u32, mark: u64) -> Vec<u8> {
    let v6 = source.is_ipv6();
    let device = if v6 { "flannel-v6.1" } else { "flannel.1" };
    let mac = |index: usize| {
        let text = mac_of(&fabric.lab.hosts[index].net, device);
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        <[u8; 6]>::try_from(bytes).unwrap()
    };
    let ethernet = PacketBuilder::ethernet2(mac(1), mac(0));
    let ip = match (source, pod(fabric, 0, v6)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        families => panic!("{families:?}"),
    };
    let mut bytes = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes()].concat();
    ip.udp(1, EAR).write(&mut bytes, &mark.to_be_bytes()).unwrap();
    bytes
}

/// Sends a frame from a namespace to the tunnel port of the first host.
fn send(fabric: &Fabric, net: &Netns, frame: &[u8], v6: bool) {
    let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
    let socket = net.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.send_to(frame, (underlay(&fabric.lab.hosts[0], v6), PORT)).unwrap();
}

fn dropped(fabric: &Fabric, index: usize, reason: &str) -> u64 {
    let status = fabric.status(index);
    status["network"]["guard"]["dropped"][reason].as_u64().unwrap_or_else(|| panic!("{status:#}"))
}

/// Nothing of this comes through, and the counter says so.
fn refused(fabric: &Fabric, ear: &Ear, reason: &str, send: impl Fn(u64)) {
    let before = dropped(fabric, 0, reason);
    (0..10).for_each(|n| send(1000 + n));
    wait_for(reason, || {
        let more = dropped(fabric, 0, reason) - before;
        (more == 10).then_some(()).ok_or(more)
    });
    assert_eq!(ear.heard(), Vec::<u64>::new(), "{reason}");
}

fn only_leases_may_send(families: Families) {
    let fabric =
        fabric(families, [&["--ip-masq", "--firewall=nftables", "--datapath", "kernel"], KERNEL, KERNEL]);
    let [_, second, _, stranger] = &fabric.lab.hosts[..] else { panic!("four hosts") };
    for v6 in [families.ipv6().then_some(true), families.ipv4().then_some(false)].into_iter().flatten() {
        let ear = Ear::new(&fabric, v6);
        let frame = |source: IpAddr, mark| frame(&fabric, source, 1, mark);
        let (own, other) = (pod(&fabric, 1, v6), pod(&fabric, 2, v6));
        ear.hears("a lease's own packets", |mark| send(&fabric, &second.net, &frame(own, mark), v6));
        let host = underlay(second, v6);
        ear.hears("what a process on its host sends", |mark| {
            send(&fabric, &second.net, &frame(host, mark), v6)
        });
        let base = fabric.subnet(1, v6).addr();
        ear.hears("what has the address of its tunnel", |mark| {
            send(&fabric, &second.net, &frame(base, mark), v6)
        });
        refused(&fabric, &ear, "strangers", |mark| send(&fabric, &stranger.net, &frame(own, mark), v6));
        // A process of the host itself has no lease to send by either.
        let here = &fabric.lab.hosts[0].net;
        refused(&fabric, &ear, "strangers", |mark| send(&fabric, here, &frame(own, mark), v6));
        let pod_net = &fabric.pods[0].net;
        refused(&fabric, &ear, "strangers", |mark| send(&fabric, pod_net, &frame(own, mark), v6));
        let outside: IpAddr = if v6 { "2001:db8::5".parse().unwrap() } else { "8.8.8.8".parse().unwrap() };
        for source in [other, pod(&fabric, 0, v6), outside, underlay(stranger, v6)] {
            refused(&fabric, &ear, "forged", |mark| send(&fabric, &second.net, &frame(source, mark), v6));
        }
        let arp = {
            let mut arp = frame(own, 0);
            arp[20..22].copy_from_slice(&[8, 6]);
            arp
        };
        refused(&fabric, &ear, "forged", |_| send(&fabric, &second.net, &arp, v6));
        // What is none of our network's frames is left to whoever wants it.
        let strangers = dropped(&fabric, 0, "strangers");
        send(&fabric, &stranger.net, &self::frame(&fabric, own, 2, 1), v6);
        ear.hears("and still", |mark| send(&fabric, &second.net, &frame(own, mark), v6));
        assert_eq!(dropped(&fabric, 0, "strangers"), strangers);
    }
    let text = String::from_utf8(fabric.twill(0, &["status"]).stdout).unwrap();
    assert!(
        text.contains("guard     UDP 8472: ") && text.contains("outer and inner source checked"),
        "{text}"
    );
}

#[test]
fn only_leases_may_send_over_ipv4() {
    need_namespaces!();
    only_leases_may_send(Families::V4);
}

#[test]
fn only_leases_may_send_over_both_families() {
    need_namespaces!();
    only_leases_may_send(Families::Dual);
}

#[test]
fn a_pod_does_not_send_frames_in_the_name_of_its_host() {
    need_namespaces!();
    let off = ["--outer-source-check", "off", "--datapath", "kernel"];
    for (flags, counted) in [(&off[..], false), (KERNEL, true)] {
        let masquerades = [flags, &["--ip-masq", "--firewall=nftables"]].concat();
        let fabric = Fabric::mixed(Families::V4, VXLAN, [KERNEL, &masquerades, KERNEL]);
        let ear = Ear::new(&fabric, false);
        let own = pod(&fabric, 1, false);
        let frame = |mark| frame(&fabric, own, 1, mark);
        let from_pod = |mark| send(&fabric, &fabric.pods[1].net, &frame(mark), false);
        if !counted {
            ear.hears("a masqueraded frame", from_pod);
            continue;
        }
        (0..10).for_each(from_pod);
        wait_for("the count", || {
            let pods = dropped(&fabric, 1, "pods");
            (pods == 10).then_some(()).ok_or(pods)
        });
        assert_eq!(ear.heard(), Vec::<u64>::new());
    }
}

#[test]
fn checks_can_be_switched_off() {
    need_namespaces!();
    let both = ["--outer-source-check", "off", "--inner-source-check", "off", "--datapath", "kernel"];
    let inner = ["--inner-source-check", "off", "--datapath", "kernel"];
    let outer = ["--outer-source-check", "off", "--datapath", "kernel"];
    let mut fabric = fabric(Families::V4, [&both, KERNEL, KERNEL]);
    let ear = Ear::new(&fabric, false);
    let stranger = fabric.lab.hosts[3].net.clone();
    let second = fabric.lab.hosts[1].net.clone();
    let (own, other) = (pod(&fabric, 1, false), pod(&fabric, 2, false));
    ear.hears("a stranger", |mark| send(&fabric, &stranger, &frame(&fabric, own, 1, mark), false));
    ear.hears("a forged source", |mark| send(&fabric, &second, &frame(&fabric, other, 1, mark), false));
    assert_eq!(fabric.status(0)["network"]["guard"], Value::Null);
    restart(&mut fabric, &inner);
    ear.hears("a forged source", |mark| send(&fabric, &second, &frame(&fabric, other, 1, mark), false));
    refused(&fabric, &ear, "strangers", |mark| {
        send(&fabric, &stranger, &frame(&fabric, own, 1, mark), false)
    });
    restart(&mut fabric, &outer);
    ear.hears("a stranger", |mark| send(&fabric, &stranger, &frame(&fabric, own, 1, mark), false));
    refused(&fabric, &ear, "forged", |mark| send(&fabric, &second, &frame(&fabric, other, 1, mark), false));
    // An agent that is to check nothing takes away what an earlier one left.
    restart(&mut fabric, &both);
    assert!(!run(&fabric.lab.hosts[0].net, "nft list tables").contains("twill-guard"));
}

/// Another agent on the first host, with the leases and files of the one before.
fn restart(fabric: &mut Fabric, flags: &[&str]) {
    let options = options(files(&fabric.lab), flags);
    fabric.agents[0].restart_with(options).unwrap();
    fabric.wait_ready();
    fabric.wait_settled();
}

#[test]
fn the_userspace_datapath_lets_nobody_in_either() {
    need_namespaces!();
    let fabric = fabric(Families::V4, [USERSPACE, KERNEL, KERNEL]);
    let ear = Ear::new(&fabric, false);
    let [_, second, _, stranger] = &fabric.lab.hosts[..] else { panic!("four hosts") };
    let (own, other) = (pod(&fabric, 1, false), pod(&fabric, 2, false));
    let frame = |source, mark| frame(&fabric, source, 1, mark);
    ear.hears("a lease's own packets", |mark| send(&fabric, &second.net, &frame(own, mark), false));
    let host = underlay(second, false);
    ear.hears("what a process on its host sends", |mark| {
        send(&fabric, &second.net, &frame(host, mark), false)
    });
    refused(&fabric, &ear, "strangers", |mark| send(&fabric, &stranger.net, &frame(own, mark), false));
    let before = count(&fabric, 0, "dropped_foreign_source");
    (0..10).for_each(|mark| send(&fabric, &second.net, &frame(other, mark), false));
    wait_for("what is forged", || {
        let more = count(&fabric, 0, "dropped_foreign_source") - before;
        (more == 10).then_some(()).ok_or(more)
    });
    assert_eq!(ear.heard(), Vec::<u64>::new());
}

#[test]
fn the_guard_outlives_its_agent_and_lets_newcomers_in() {
    need_namespaces!();
    let mut fabric = fabric(Families::Dual, [KERNEL, KERNEL, KERNEL]);
    let guard = |fabric: &Fabric| {
        let net = &fabric.lab.hosts[0].net;
        let table =
            run(net, "nft list tables").lines().find(|line| line.contains("guard")).map(str::to_owned);
        firewall(net).into_iter().chain(table).collect::<Vec<_>>()
    };
    let before = guard(&fabric);
    let streams = fabric.streams(1000);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        fabric.agents[0].kill(signal).unwrap();
        assert_eq!(guard(&fabric), before, "{signal}");
        fabric.agents[0].restart().unwrap();
        fabric.wait_ready();
        fabric.wait_settled();
        assert_eq!(guard(&fabric), before, "after {signal}");
    }
    streams.assert_lossless("guard");
    // A host that joins is let in; one whose lease goes is not any more.
    let host = &fabric.lab.hosts[3];
    let net = &fabric.lab.hosts[0].net;
    let newcomer = host.agent(&options(files(&fabric.lab), KERNEL)).unwrap();
    let (first, device) = (underlay(host, false), "flannel.1");
    let elements = |what: &str| sh(net, &format!("{what} 2>/dev/null || true")).contains(&first.to_string());
    wait_for("the newcomer", || {
        let (fdb, guard) = (elements(&format!("bridge fdb show dev {device}")), elements("nft list ruleset"));
        assert!(guard || !fdb, "frames are sent to it, and none taken");
        (fdb && guard).then_some(()).ok_or((fdb, guard))
    });
    newcomer.twill(&["lease", "release"], &["--own"]).unwrap();
    wait_for("its end", || if elements("nft list ruleset") { Err("it may still send") } else { Ok(()) });
    assert_eq!(guard(&fabric), before);
}
