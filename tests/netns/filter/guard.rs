//! The guard: silent when right, back at once when broken, and nobody is shut out on the way.

use std::time::{Duration, Instant};

use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{Firewall, HostFirewall};
use twill_backends::guard::{Guard, GuardNetwork, GuardRules, Sender};

pub(super) const GUARD: &str = "twill-guard-test";

pub(super) fn sender(addr: &str, subnet: &str) -> Sender {
    Sender { addr: addr.parse().unwrap(), subnet: subnet.parse().unwrap() }
}

/// Two peers of both families.
pub(super) fn guard() -> Guard {
    let network = |net: &str, subnet_len| GuardNetwork { net: net.parse().unwrap(), subnet_len };
    let networks = vec![network("10.5.0.0/16", 24), network("fc00::/48", 64)];
    let senders = [
        sender("192.0.2.7", "10.5.7.0/24"),
        sender("192.0.2.8", "10.5.8.0/24"),
        sender("2001:db8::7", "fc00:0:0:7::/64"),
        sender("2001:db8::8", "fc00:0:0:8::/64"),
    ];
    Guard {
        rules: GuardRules { port: 8472, vni: 1, networks, outer: true, inner: true },
        senders: senders.into(),
    }
}

pub(super) fn with(more: &[Sender]) -> Guard {
    let mut guard = guard();
    guard.senders.extend(more);
    guard
}

pub(super) fn elements(set: &str) -> String {
    sh(&format!("nft list set inet {GUARD} {set}"))
}

/// One who is no peer any more.
pub(super) fn leftover() -> Sender {
    sender("192.0.2.9", "10.5.9.0/24")
}

async fn nothing_heard(firewall: &HostFirewall) {
    let heard = tokio::time::timeout(Duration::from_millis(200), firewall.changed()).await;
    assert_eq!(heard.map_err(drop), Err(()));
}

/// Hears, and answers, what is left of the echo of a load.
async fn settle(firewall: &HostFirewall, want: &Guard) {
    while tokio::time::timeout(Duration::from_millis(100), firewall.changed()).await.is_ok() {
        assert!(firewall.guard(Some(want), None, true).await.unwrap().is_unchanged());
    }
}

#[test]
fn what_is_right_is_left_alone() {
    in_netns(|| async {
        let first = open(FirewallMode::Auto).await;
        let planned = first.describe(&want(), Some(&guard())).await.unwrap();
        let applied = first.guard(Some(&guard()), None, true).await.unwrap();
        assert!(
            applied.warnings.is_empty() && planned.contains(&applied.loaded[0]),
            "{applied:?} {planned:?}"
        );
        let loaded = rules();
        // A restarted agent knows nothing of the first one.
        let second = open(FirewallMode::Auto).await;
        assert!(second.guard(Some(&guard()), None, true).await.unwrap().is_unchanged());
        nothing_heard(&second).await;
        assert_eq!(rules(), loaded);
        second.apply(&want()).await.unwrap();
        assert_eq!(second.describe(&want(), Some(&guard())).await.unwrap(), Vec::<String>::new());
        // The rules of either mode come and go without it.
        second.apply(&Default::default()).await.unwrap();
        assert_eq!(rules(), loaded);
        assert_eq!(second.remove().await.unwrap().removed.len(), 1);
        assert!(!sh("nft list tables").contains("twill-"));
        assert!(second.guard(None, None, true).await.unwrap().is_unchanged());
    });
}

#[test]
fn a_peer_that_comes_or_goes_is_an_element_and_its_echo_is_no_news() {
    in_netns(|| async {
        let firewall = open(FirewallMode::Nftables).await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        settle(&firewall, &guard()).await;
        // One more on an address that is known, one in the place of a smaller one, one of the other family.
        let more = with(&[
            sender("192.0.2.7", "10.5.70.0/24"),
            sender("192.0.2.9", "10.5.9.0/24"),
            sender("2001:db8::9", "fc00:0:0:9::/64"),
        ]);
        assert!(
            firewall.guard(Some(&more), None, true).await.unwrap().is_unchanged(),
            "nothing was repaired"
        );
        assert!(
            elements("from4").contains("192.0.2.9")
                && elements("carries4-24").contains("192.0.2.7 . 0xa054600")
        );
        nothing_heard(&firewall).await;
        let mut wider = more.clone();
        wider.senders.remove(&sender("192.0.2.9", "10.5.9.0/24"));
        wider.senders.insert(sender("192.0.2.9", "10.5.8.0/21"));
        firewall.guard(Some(&wider), None, true).await.unwrap();
        assert!(elements("carries4").contains("192.0.2.9 . 0xa050800-0xa050fff"));
        nothing_heard(&firewall).await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        assert!(!elements("from4").contains("192.0.2.9") && elements("from4").contains("192.0.2.7"));
        nothing_heard(&firewall).await;
    });
}

#[test]
fn it_is_read_again_once_an_hour_while_every_change_is_heard_of() {
    in_netns(|| async {
        let firewall = open(FirewallMode::Nftables).await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        settle(&firewall, &guard()).await;
        sh("nft add table inet others");
        nothing_heard(&firewall).await;
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        while !firewall.changed().await.guard {}
        let minutes = began.elapsed().as_secs() / 60;
        assert!((59..=61).contains(&minutes), "{minutes} minutes");
    });
}

#[test]
fn nobody_goes_before_it_is_known_who_is_gone() {
    in_netns(|| async {
        let (old, new) = (leftover(), sender("192.0.2.10", "10.5.10.0/24"));
        open(FirewallMode::Nftables).await.guard(Some(&with(&[old])), None, true).await.unwrap();
        // After a restart, as long as nothing was heard of the store: whether the table is as left, or has to be loaded.
        for damage in ["true", "nft insert rule inet twill-guard-test senders drop"] {
            sh(damage);
            let firewall = open(FirewallMode::Nftables).await;
            firewall.guard(Some(&with(&[new])), None, false).await.unwrap();
            assert!(elements("from4").contains("192.0.2.9 ") && elements("from4").contains("192.0.2.10"));
            // Even what takes part of its place leaves the rest.
            let inside = sender("192.0.2.9", "10.5.9.128/25");
            firewall.guard(Some(&with(&[inside])), None, false).await.unwrap();
            assert!(elements("carries4").contains("192.0.2.9 . 0xa050980-0xa0509ff"));
            firewall.guard(Some(&with(&[old])), None, true).await.unwrap();
            assert!(!elements("from4").contains("192.0.2.10"));
        }
    });
}

#[test]
fn a_damaged_guard_is_heard_and_mended_and_goes_on_counting() {
    let damages = [
        format!("nft delete table inet {GUARD}"),
        format!("nft flush table inet {GUARD}"),
        "nft flush ruleset".to_owned(),
        format!("nft add table inet {GUARD} '{{ flags dormant; }}'"),
        format!("nft insert rule inet {GUARD} senders drop"),
        format!("nft add chain inet {GUARD} input '{{ policy drop; }}'"),
        format!("nft flush set inet {GUARD} from4"),
        format!("nft delete element inet {GUARD} from6 '{{ 2001:db8::7 }}'"),
        format!("nft add element inet {GUARD} from4 '{{ 203.0.113.9 }}'"),
        format!("nft delete element inet {GUARD} carries4-24 '{{ 192.0.2.7 . 0xa050700 }}'"),
        format!("nft add element inet {GUARD} carries4-24 '{{ 192.0.2.7 . 0xa054600 }}'"),
        format!("nft add element inet {GUARD} carries4 '{{ 192.0.2.7 . 0xa050700-0xa0507ff }}'"),
        format!("nft add element inet {GUARD} carries4 '{{ 192.0.2.7 . 5-6 }}'"),
        format!("nft add set inet {GUARD} s '{{ type ipv4_addr; }}'"),
    ];
    in_netns(|| async move {
        let firewall = open(FirewallMode::Nftables).await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        settle(&firewall, &guard()).await;
        let good = rules();
        for damage in &damages {
            sh(damage);
            let broken = Instant::now();
            let heard = tokio::time::timeout(PATIENCE, firewall.changed()).await;
            assert!(heard.is_ok_and(|heard| heard.guard), "not heard: {damage}");
            let applied = firewall.guard(Some(&guard()), None, true).await.unwrap();
            println!("GUARD {damage}: mended after {} ms", broken.elapsed().as_millis());
            assert!(applied.loaded.len() == 1 && applied.warnings.is_empty(), "{damage}: {applied:?}");
            assert_eq!(rules(), good, "{damage}");
            settle(&firewall, &guard()).await;
        }
        // What was counted is kept when rules are loaded again.
        let pods = "pods packets 7 bytes 700";
        sh(&format!(
            "nft delete table inet {GUARD}; nft add table inet {GUARD}; nft add counter inet {GUARD} {pods}"
        ));
        firewall.changed().await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        let counted = firewall.counters().read().await.unwrap();
        assert_eq!((counted.dropped["pods"], counted.dropped["strangers"]), (7, 0));
        let senders: Vec<String> = counted.received.keys().map(ToString::to_string).collect();
        assert_eq!(senders, ["192.0.2.7", "192.0.2.8", "2001:db8::7", "2001:db8::8"]);
    });
}

#[test]
fn ten_thousand_peers_cost_one_load_and_come_and_go_as_elements() {
    in_netns(|| async {
        let mut many = guard();
        many.senders = (0..10_000_u32)
            .map(|n| {
                let (high, low) = (n >> 8, n & 255);
                sender(&format!("172.16.{high}.{low}"), &format!("10.{high}.{low}.0/24"))
            })
            .collect();
        let firewall = open(FirewallMode::Nftables).await;
        let start = Instant::now();
        firewall.guard(Some(&many), None, true).await.unwrap();
        let loaded = start.elapsed();
        // What came of that is no news.
        nothing_heard(&firewall).await;
        let firewall = open(FirewallMode::Nftables).await;
        let start = Instant::now();
        assert!(firewall.guard(Some(&many), None, true).await.unwrap().is_unchanged());
        let read = start.elapsed();
        many.senders.insert(sender("192.0.2.7", "10.5.7.0/24"));
        let start = Instant::now();
        firewall.guard(Some(&many), None, true).await.unwrap();
        let more = start.elapsed();
        assert!(elements("from4").contains("192.0.2.7"));
        let start = Instant::now();
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        let (gone, left) = (start.elapsed(), elements("carries4-24"));
        println!(
            "GUARD 10000 peers: load {loaded:?}, read {read:?}, one more {more:?}, all but two gone {gone:?}"
        );
        assert_eq!(left.matches(" . ").count(), 2 + 1, "{left}");
    });
}
