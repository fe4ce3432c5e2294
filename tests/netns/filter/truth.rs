//! What the rules do to packets: whose source is kept, what a policy DROP stops, and that no switch opens a gap.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lab::*;
use super::switch::{FLANNELD_CHAINS, FLANNELD_TABLES};
use nix::sched::{CloneFlags, setns};
use twill::config::FirewallMode;
use twill::filter::Firewall;
use twill_backends::filter::{Filter, Masquerade};

/// This namespace is the host: a pod of its own, a pod of another host, and the world outside.
struct Fabric {
    pod: Peer,
    far: Peer,
    outside: Peer,
}

impl Fabric {
    fn new() -> Self {
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        Self {
            pod: Peer::new("pod", "10.5.1.1/24", "10.5.1.2/24"),
            far: Peer::new("far", "10.5.2.1/24", "10.5.2.2/24"),
            outside: Peer::new("out", "192.0.2.1/24", "192.0.2.2/24"),
        }
    }
}

fn want() -> Filter {
    Filter {
        nets: vec![net("10.5.0.0/16", "10.5.1.0/24")],
        masquerade: Some(Masquerade { random_fully: true }),
        forward: true,
    }
}

fn ping(from: &Peer, to: &str) {
    from.sh(&format!("ping -c 1 -W 2 {to}"));
}

#[test]
fn only_what_leaves_the_fabric_changes_its_source() {
    for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
        in_netns(|| async move {
            let fabric = Fabric::new();
            open(mode).await.apply(&want()).await.unwrap();
            fabric.outside.count(&["10.5.1.2", "192.0.2.1"]);
            ping(&fabric.pod, "192.0.2.2");
            assert_eq!(fabric.outside.counted(), [0, 1], "{mode:?}: pod to outside");
            fabric.far.count(&["10.5.1.2", "192.0.2.2", "10.5.2.1"]);
            ping(&fabric.pod, "10.5.2.2");
            assert_eq!(fabric.far.counted(), [1, 0, 0], "{mode:?}: pod to pod");
            fabric.pod.count(&["192.0.2.2", "10.5.2.2", "10.5.1.1"]);
            ping(&fabric.outside, "10.5.1.2");
            ping(&fabric.far, "10.5.1.2");
            assert_eq!(fabric.pod.counted(), [1, 1, 0], "{mode:?}: inbound to this host's pods");
            // Inbound to another host's pods: here flannel hides the source, and our own table does not.
            ping(&fabric.outside, "10.5.2.2");
            let hidden = u64::from(mode == FirewallMode::Iptables);
            // The first counter has the pod's answer as well.
            assert_eq!(fabric.far.counted(), [2, 1 - hidden, hidden], "{mode:?}: inbound to far pods");
            // One answer of the pod's has been counted. kube-proxy's mark: the packet is not ours to rewrite.
            sh("nft add table ip marking; nft add chain ip marking f '{ type filter hook forward priority -10; }'
                nft add rule ip marking f udp dport 7 meta mark set 0x14000");
            fabric.pod.sh("bash -c \"echo x > /dev/udp/192.0.2.2/7\"");
            until("the marked packet", || fabric.outside.counted() == [2, 1]);
        });
    }
}

#[test]
fn a_policy_drop_is_lifted_by_iptables_and_reported_by_nftables() {
    in_netns(|| async {
        let fabric = Fabric::new();
        sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        let nftables = open(FirewallMode::Nftables).await;
        nftables.apply(&want()).await.unwrap();
        let drops = nftables.obstacles(&want()).await;
        assert_eq!(drops.len(), 1, "IPv6 is not wanted: {drops:?}");
        assert!(drops[0].to_string().contains("--firewall iptables"), "{}", drops[0]);
        assert!(nftables.obstacles(&Filter { forward: false, ..want() }).await.is_empty());

        let iptables = open(FirewallMode::Auto).await;
        iptables.apply(&want()).await.unwrap();
        assert!(iptables.obstacles(&want()).await.is_empty());
        ping(&fabric.pod, "10.5.2.2");
        ping(&fabric.pod, "192.0.2.2");
    });
}

/// Packets from ever new ports: each is a connection of its own, so each meets the rules of its moment.
struct Storm {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn from(pod: &Peer) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let netns = std::fs::File::open(pod.netns()).unwrap();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"x", "192.0.2.2:9").unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many were sent in all.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_packet_meets_a_moment_without_rules() {
    for before in [FLANNELD_CHAINS, FLANNELD_TABLES] {
        in_netns(|| async move {
            let fabric = Fabric::new();
            sh(before);
            fabric.outside.count(&["10.5.1.2", "192.0.2.1"]);
            let storm = Storm::from(&fabric.pod);
            for mode in [
                FirewallMode::Nftables,
                FirewallMode::Iptables,
                FirewallMode::Nftables,
                FirewallMode::Iptables,
            ] {
                let mark = storm.sent();
                until("packets under the rules before", || storm.sent() > mark + 20);
                let firewall = open(mode).await;
                firewall.apply(&want()).await.unwrap();
                // Other ports are another rule set: everything is loaded again, under traffic.
                let masquerade = Some(Masquerade { random_fully: false });
                firewall.apply(&Filter { masquerade, ..want() }).await.unwrap();
                assert!(!firewall.apply(&want()).await.unwrap().is_unchanged());
            }
            let total = storm.end();
            until("the last packets", || fabric.outside.counted().iter().sum::<u64>() >= total);
            assert_eq!(fabric.outside.counted(), [0, total], "every source was rewritten");
        });
    }
}
