//! Hosts whose frames this program carries, among themselves and beside hosts whose kernel does.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::Pod;

use crate::dump::sh;
use crate::fabric::{Fabric, Families, PATIENCE, files, need_namespaces, options, wait_for};

pub(crate) const VXLAN: &str = r#"{"Type":"vxlan"}"#;
pub(crate) const USERSPACE: &[&str] = &["--datapath", "userspace"];
/// What the firewall would drop already, the datapath has to; and what is counted, the test has sent.
pub(crate) const ALONE: &[&str] =
    &["--datapath", "userspace", "--outer-source-check", "off", "--probe-port", "0"];
pub(crate) const PLAIN: &[&str] = &["--datapath", "plain"];
pub(crate) const KERNEL: &[&str] = &["--datapath", "kernel"];
/// How many bytes a transfer moves in each direction.
pub(crate) const BYTES: usize = 4 << 20;
pub(crate) const PORT: u16 = 8472;

/// Bytes from a seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Moves `len` bytes each way at once over one connection between two pods, and compares all of them.
pub(crate) fn transfer(from: &Pod, to: &Pod, target: IpAddr, len: usize) {
    let patience = Some(PATIENCE);
    let listener = to.net.run(|| TcpListener::bind(SocketAddr::new(target, 0))).unwrap().unwrap();
    let server = listener.local_addr().unwrap();
    let near = from.net.run(|| TcpStream::connect_timeout(&server, PATIENCE)).unwrap().unwrap();
    let (far, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        for (seed, mut stream) in [(3, near.try_clone().unwrap()), (5, far.try_clone().unwrap())] {
            scope.spawn(move || {
                stream.set_write_timeout(patience).unwrap();
                stream.write_all(&noise(seed, len)).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
        }
        for (seed, mut stream) in [(5, near), (3, far)] {
            scope.spawn(move || {
                let mut bytes = Vec::with_capacity(len);
                stream.set_read_timeout(patience).unwrap();
                stream.read_to_end(&mut bytes).unwrap();
                assert!(
                    bytes == noise(seed, len),
                    "{target}: {} bytes of {len} came, or not the same",
                    bytes.len()
                );
            });
        }
    });
}

pub(crate) fn transfers(fabric: &Fabric) {
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        for target in &fabric.pods[to].addresses {
            transfer(&fabric.pods[from], &fabric.pods[to], *target, BYTES);
        }
    }
}

/// What `status` says of the datapath of a host.
pub(crate) fn datapath(fabric: &Fabric, index: usize) -> Value {
    fabric.status(index)["network"]["datapath"].clone()
}

/// A count of the tunnel device for IPv4.
pub(crate) fn count(fabric: &Fabric, index: usize, name: &str) -> u64 {
    datapath(fabric, index)["tunnels"][0]["frames"][name].as_u64().unwrap_or(0)
}

pub(crate) fn assert_served(fabric: &Fabric, index: usize, offload: Option<bool>) {
    let datapath = datapath(fabric, index);
    assert_eq!(datapath["kind"], "userspace", "{datapath}");
    let tunnels = datapath["tunnels"].as_array().unwrap();
    assert_eq!(tunnels.len(), fabric.pods[0].addresses.len());
    for tunnel in tunnels {
        assert!(tunnel["frames"]["sent"].as_u64() > Some(0), "{tunnel}");
        assert!(tunnel["frames"]["received"].as_u64() > Some(0), "{tunnel}");
        assert_eq!(tunnel["frames"]["tap_refused"], 0, "{tunnel}");
        assert!(offload.is_none_or(|offload| tunnel["offload"] == offload), "{tunnel}");
    }
    let link = sh(&fabric.lab.hosts[index].net, "ip -d link show flannel.1");
    assert!(link.contains("tun type tap") && link.contains("persist on"), "{link}");
}

#[test]
fn userspace_hosts_carry_tcp_unharmed() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    transfers(&fabric);
    (0..3).for_each(|index| assert_served(&fabric, index, None));
}

#[test]
fn userspace_hosts_carry_both_families() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    transfers(&fabric);
    (0..3).for_each(|index| assert_served(&fabric, index, None));
}

#[test]
fn plain_frames_go_everywhere_too() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [PLAIN, USERSPACE, KERNEL]);
    transfers(&fabric);
    assert_served(&fabric, 0, Some(false));
}

#[test]
fn a_userspace_host_joins_kernel_hosts() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [USERSPACE, KERNEL, &[]]);
    transfers(&fabric);
    assert_served(&fabric, 0, None);
    for (index, because) in [(1, "--datapath kernel"), (2, "the kernel has VXLAN")] {
        let datapath = datapath(&fabric, index);
        assert_eq!((&datapath["kind"], &datapath["because"]), (&"kernel".into(), &because.into()));
    }
    let left = sh(&fabric.lab.hosts[2].net, "ip -o link");
    assert!(!left.contains("twill-probe"), "{left}");
}

#[test]
fn the_udp_backend_is_vxlan_on_port_8285() {
    need_namespaces!();
    let fabric = Fabric::mixed(Families::V4, r#"{"Type":"udp"}"#, [&[], &[], KERNEL]);
    transfers(&fabric);
    assert_served(&fabric, 0, None);
    let sockets = sh(&fabric.lab.hosts[0].net, "ss -Huln");
    assert!(sockets.contains(":8285"), "{sockets}");
    assert_eq!(datapath(&fabric, 2)["kind"], "kernel");
}

#[test]
fn peers_come_and_go_without_a_packet_lost_to_the_others() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    let streams = fabric.streams(1000);
    for _ in 0..3 {
        let key = fabric.status(2)["lease"]["key"].as_str().unwrap().to_owned();
        // The agent may end before it has answered.
        fabric.agents[2].twill(&["lease", "release"], &["--own"]).ok();
        fabric.agents[2].wait(Duration::from_secs(10)).unwrap();
        wait_for("the peer to go", || {
            let peers = fabric.status(0)["peers"].to_string();
            (!peers.contains(&key)).then_some(()).ok_or(peers)
        });
        streams.wait_running();
        fabric.agents[2].restart().unwrap();
        fabric.wait_ready();
        fabric.wait_settled();
    }
    streams.assert_lossless("peers come and go");
}

#[test]
fn a_deleted_tap_is_made_again_at_once() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let streams = fabric.streams(1000);
    sh(&fabric.lab.hosts[0].net, "ip link del flannel.1");
    wait_for("the device", || {
        let links = sh(&fabric.lab.hosts[0].net, "ip -o link");
        links.contains("flannel.1").then_some(()).ok_or(links)
    });
    streams.wait_running();
    let report = streams.stop();
    println!("HEAL deleted TAP {:?}", report.longest_gap);
    assert!(report.longest_gap < Duration::from_secs(10), "{report:?}");
    assert!(report.lost() > 0, "the device was not in use: {report:?}");
    fabric.wait_settled();
}

#[test]
fn a_host_changes_its_datapath_by_a_restart() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, &[]);
    for (flags, kind) in
        [(USERSPACE, "userspace"), (PLAIN, "userspace"), (USERSPACE, "userspace"), (KERNEL, "kernel")]
    {
        let streams = fabric.streams(1000);
        let again = options(files(&fabric.lab), flags);
        fabric.agents[0].restart_with(again).unwrap();
        fabric.wait_ready();
        fabric.wait_settled();
        streams.wait_running();
        println!("GAP {flags:?} {:?}", streams.stop().longest_gap);
        fabric.wait_reachable();
        assert_eq!(datapath(&fabric, 0)["kind"], kind);
    }
}

#[test]
fn a_killed_agent_takes_its_tap_up_again() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let index = |fabric: &Fabric| sh(&fabric.lab.hosts[0].net, "ip -o link show flannel.1 | cut -d: -f1");
    let before = index(&fabric);
    let streams = fabric.streams(1000);
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fabric.agents[0].restart().unwrap();
    fabric.wait_ready();
    streams.wait_running();
    println!("GAP killed {:?}", streams.stop().longest_gap);
    assert_eq!(index(&fabric), before, "the device was made again");
}

/// A datagram of VNI `vni` with an IPv4 packet from `source` inside.
pub(crate) fn datagram(flags: u8, vni: u8, source: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![flags, 0, 0, 0, 0, 0, vni, 0];
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source, [10, 244, 0, 1], 9)
        .udp(1, 2)
        .write(&mut bytes, b"forged")
        .unwrap();
    bytes
}

#[test]
fn what_is_forged_is_counted_and_goes_nowhere() {
    need_namespaces!();
    const EACH: u64 = 200;
    let fabric = Fabric::new(Families::V4, VXLAN, ALONE);
    let target = SocketAddr::new(fabric.lab.hosts[0].addresses[0], PORT);
    let IpAddr::V4(pod) = fabric.pods[1].addresses[0] else { panic!("an IPv4 pod") };
    let pod = pod.octets();
    let peer = &fabric.lab.hosts[1].net;
    let stranger = &fabric.lab.underlay.net;
    let streams = fabric.streams(500);
    let forgeries = [
        ("dropped_no_lease", stranger, datagram(8, 1, pod)),
        ("dropped_other_vni", peer, datagram(8, 2, pod)),
        ("dropped_bad_vxlan", peer, datagram(0, 1, pod)),
        ("dropped_foreign_source", peer, datagram(8, 1, [192, 0, 2, 7])),
        ("dropped_truncated", peer, datagram(8, 1, pod)[..20].to_vec()),
        ("dropped_truncated", peer, Vec::new()),
    ];
    for (name, net, bytes) in forgeries {
        let before = count(&fabric, 0, name);
        net.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..EACH {
                assert_eq!(socket.send_to(&bytes, target).unwrap(), bytes.len());
            }
        })
        .unwrap();
        wait_for(name, || {
            let now = count(&fabric, 0, name) - before;
            (now == EACH).then_some(()).ok_or(now)
        });
    }
    peer.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..2000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(n % 1400).collect();
            assert_eq!(socket.send_to(&bytes, target).unwrap(), bytes.len());
        }
    })
    .unwrap();
    streams.assert_lossless("forged datagrams");
    assert_eq!(fabric.status(0)["state"], "ok");
}
