//! The guard's table of another make: what an older agent left, or what was loaded for another network. It is replaced, and
//! nobody is shut out meanwhile or afterwards.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::guard::{elements, guard, sender, with};
use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{Firewall, HostFirewall};
use twill_backends::guard::{Guard, GuardNetwork, Sender};

/// What agents loaded that kept all inner sources as intervals of one set, and counted nothing by sender. Besides the peers of
/// `guard()` there is the one that talks, and another one.
const BEFORE: &str = r#"
table inet twill-guard-test {
    counter forged { packets 1 bytes 42
    }
    counter pods { packets 0 bytes 0
    }
    counter strangers { packets 17 bytes 900
    }
    set from4 { type ipv4_addr; }
    set carries4 { typeof ip saddr . @th,336,32; flags interval; }
    set from6 { type ipv6_addr; }
    set carries6 { typeof ip6 saddr . @th,304,128; flags interval; }
}
add element inet twill-guard-test from4 { 127.0.0.7, 192.0.2.7, 192.0.2.8, 192.0.2.9 }
add element inet twill-guard-test carries4 { 127.0.0.7 . 0xa054600-0xa0546ff, 127.0.0.7 . 0x7f000007 }
add element inet twill-guard-test carries4 { 192.0.2.7 . 0xa050700-0xa0507ff, 192.0.2.7 . 0xc0000207 }
add element inet twill-guard-test carries4 { 192.0.2.8 . 0xa050800-0xa0508ff, 192.0.2.8 . 0xc0000208 }
add element inet twill-guard-test carries4 { 192.0.2.9 . 0xa050900-0xa0509ff, 192.0.2.9 . 0xc0000209 }
add element inet twill-guard-test from6 { 2001:db8::7, 2001:db8::8 }
add element inet twill-guard-test carries6 { 2001:db8::7 . 0x20010db8000000000000000000000007 }
add element inet twill-guard-test carries6 { 2001:db8::8 . 0x20010db8000000000000000000000008 }
add element inet twill-guard-test carries6 { 2001:db8::7 . 0xfc000000000000070000000000000000-0xfc00000000000007ffffffffffffffff }
add element inet twill-guard-test carries6 { 2001:db8::8 . 0xfc000000000000080000000000000000-0xfc00000000000008ffffffffffffffff }
table inet twill-guard-test {
    chain senders {
        ip saddr != @from4 counter name strangers drop comment "no live lease has this address"
        ip saddr @from4 @th,224,16 != 0x800 counter name forged drop comment "no packet of this family"
        ip saddr @from4 ip saddr . @th,336,32 != @carries4 counter name forged drop comment "a source of another host"
        ip6 saddr != @from6 counter name strangers drop comment "no live lease has this address"
        ip6 saddr @from6 @th,224,16 != 0x86dd counter name forged drop comment "no packet of this family"
        ip6 saddr @from6 ip6 saddr . @th,304,128 != @carries6 counter name forged drop comment "a source of another host"
    }
    chain input {
        type filter hook input priority -10; policy accept;
        udp dport 8472 @th,96,24 1 jump senders comment "frames of the fabric"
    }
    chain forward {
        type filter hook forward priority -10; policy accept;
        udp dport 8472 @th,96,24 1 ip saddr 10.5.0.0/16 ip daddr @from4 counter name pods drop comment "pods send no frames"
        udp dport 8472 @th,96,24 1 ip6 saddr fc00::/48 ip6 daddr @from6 counter name pods drop comment "pods send no frames"
    }
}
"#;

/// The peer that talks, with a subnet of the usual length.
fn talker() -> Sender {
    sender("127.0.0.7", "10.5.70.0/24")
}

/// A frame of the fabric with a packet from this address.
fn frame(source: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0; 8 + 14 + 20];
    (frame[0], frame[6]) = (8, 1);
    frame[20..22].copy_from_slice(&0x0800_u16.to_be_bytes());
    frame[34..38].copy_from_slice(&source);
    frame
}

/// Sends frames to the tunnel's port here, and hears which come through.
struct Talk {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Talk {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (told, port) = (Arc::clone(&over), port());
        let thread = std::thread::spawn(move || {
            let (mut passed, mut lost) = (0, 0);
            while !told.load(Ordering::Relaxed) {
                let came = comes_through(&port, "127.0.0.7", [10, 5, 70, 3]);
                (passed, lost) = (passed + u64::from(came), lost + u64::from(!came));
            }
            (passed, lost)
        });
        Self { over, thread }
    }

    fn lost_nothing(self) {
        self.over.store(true, Ordering::Relaxed);
        let (passed, lost) = self.thread.join().unwrap();
        println!("GUARD {passed} frames came through meanwhile");
        assert!(passed > 0 && lost == 0, "{lost} of {passed} frames were dropped");
    }
}

/// The tunnel's port, with nobody behind it.
fn port() -> UdpSocket {
    let port = UdpSocket::bind("127.0.0.1:8472").unwrap();
    port.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    port
}

fn comes_through(port: &UdpSocket, from: &str, source: [u8; 4]) -> bool {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.send_to(&frame(source), "127.0.0.1:8472").unwrap();
    port.recv(&mut [0; 99]).is_ok()
}

/// Makes the guard so without removals; none of these is shut out by that, and it stays so.
async fn lets_in(firewall: &HostFirewall, want: &Guard, all: &[Sender]) {
    let applied = firewall.guard(Some(want), None, false).await.unwrap();
    assert!(applied.loaded.len() == 1 && applied.warnings.is_empty(), "{applied:?}");
    let everybody = Guard { senders: all.iter().copied().collect(), ..want.clone() };
    assert_eq!(firewall.shut_out(&everybody).await.unwrap(), Default::default());
    let restarted = open(FirewallMode::Nftables).await;
    assert!(restarted.guard(Some(want), None, false).await.unwrap().is_unchanged());
}

#[test]
fn a_table_of_an_older_agent_is_replaced_and_nobody_is_shut_out() {
    in_netns(|| async {
        sh(&format!("nft -f - <<'END'\n{BEFORE}\nEND"));
        assert!(!comes_through(&port(), "127.0.0.7", [10, 5, 71, 3]), "what was before is in force");
        let (old, new) = (sender("192.0.2.9", "10.5.9.0/24"), sender("192.0.2.10", "10.5.10.0/24"));
        let want = with(&[talker(), new]);
        let all: Vec<Sender> = want.senders.iter().copied().chain([old]).collect();
        let firewall = open(FirewallMode::Nftables).await;
        assert!(firewall.describe(&Default::default(), Some(&want)).await.unwrap()[0].starts_with("load"));
        let talk = Talk::begin();
        lets_in(&firewall, &want, &all).await;
        talk.lost_nothing();
        assert!(elements("from4").contains("192.0.2.9 counter"), "{}", elements("from4"));
        assert!(elements("carries4-24").contains("192.0.2.9 . 0xa050900"), "{}", elements("carries4-24"));
        assert!(!elements("carries4").contains("elements") && !elements("carries6").contains("elements"));
        let counted = firewall.counters().read().await.unwrap();
        assert_eq!((counted.dropped["forged"], counted.dropped["strangers"]), (2, 17));
        firewall.guard(Some(&want), None, true).await.unwrap();
        assert!(!elements("from4").contains("192.0.2.9 ") && !elements("carries4-24").contains("0xa050900"));
        let port = port();
        assert!(comes_through(&port, "127.0.0.7", [10, 5, 70, 3]));
        assert!(!comes_through(&port, "127.0.0.7", [10, 5, 71, 3]));
        assert!(!comes_through(&port, "127.0.0.9", [10, 5, 9, 3]));
        let counted = firewall.counters().read().await.unwrap();
        assert_eq!((counted.dropped["forged"], counted.dropped["strangers"]), (3, 18));
    });
}

/// Where the length of subnets changes, every element is in another set than before.
#[test]
fn subnets_of_another_length_move_and_nobody_is_shut_out() {
    in_netns(|| async {
        let old = sender("192.0.2.9", "10.5.9.0/24");
        let mut firewall = open(FirewallMode::Nftables).await;
        firewall.guard(Some(&with(&[talker(), old])), None, true).await.unwrap();
        let (mut want, mut all) = (with(&[talker()]), vec![talker(), old]);
        all.extend(guard().senders);
        let lens = [
            (20, 56, "10.5.16.0/20"),
            (28, 112, "10.5.10.16/28"),
            (30, 65, "10.5.11.4/30"),
            (24, 64, "10.5.12.0/24"),
        ];
        let talk = Talk::begin();
        for (host, (v4, v6, subnet)) in (10..).zip(lens) {
            for (network, len) in want.rules.networks.iter_mut().zip([v4, v6]) {
                *network = GuardNetwork { subnet_len: len, ..*network };
            }
            let newer = sender(&format!("192.0.2.{host}"), subnet);
            want.senders.insert(newer);
            all.push(newer);
            lets_in(&firewall, &want, &all).await;
            let (usual, other) = (elements(&format!("carries4-{v4}")), elements("carries4"));
            assert!(usual.contains(&format!("192.0.2.{host} . 0x")), "{usual}");
            assert_eq!(other.contains("192.0.2.9 . 0xa050900-0xa0509ff"), v4 != 24, "{other}");
            // Every second time the agent is another process.
            if host % 2 == 0 {
                firewall = open(FirewallMode::Nftables).await;
            }
        }
        talk.lost_nothing();
        firewall.guard(Some(&want), None, true).await.unwrap();
        assert!(!elements("from4").contains("192.0.2.9 ") && !elements("carries4-24").contains("192.0.2.9 "));
        assert_eq!(firewall.describe(&Default::default(), Some(&want)).await.unwrap(), Vec::<String>::new());
    });
}

/// Elements of a family that went have no set to stay in.
#[test]
fn a_family_goes_and_comes_before_it_is_known_who_is_gone() {
    in_netns(|| async {
        let (both, mut one) = (guard(), with(&[talker()]));
        one.rules.networks.truncate(1);
        one.senders.retain(|sender| sender.addr.is_ipv4());
        let firewall = open(FirewallMode::Nftables).await;
        firewall.guard(Some(&both), None, true).await.unwrap();
        lets_in(&firewall, &one, &one.senders.iter().copied().collect::<Vec<_>>()).await;
        assert!(elements("from4").contains("127.0.0.7") && !rules().contains("from6"));
        let all: Vec<Sender> = both.senders.union(&one.senders).copied().collect();
        lets_in(&firewall, &both, &all).await;
    });
}
