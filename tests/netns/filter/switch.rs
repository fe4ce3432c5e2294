//! Which engine is chosen, and taking over from flanneld or from the other engine.

use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{Engine, Firewall, HostFirewall, Options};
use twill_backends::filter::Filter;

/// What flanneld leaves in iptables mode: older rules, a flushed-and-refilled chain, an appended jump.
pub(super) const FLANNELD_CHAINS: &str = r#"
c='-m comment --comment "flanneld masq"'; f='-m comment --comment "flanneld forward"'
iptables-restore --noflush --wait <<E
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING $c -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 $c -j RETURN
-A FLANNEL-POSTRTG -s 10.5.1.0/24 -d 10.5.0.0/16 $c -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.1.0/24 $c -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.1.0/24 $c -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 $c -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 $c -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD $f -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 $f -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 $f -j ACCEPT
COMMIT
E"#;

/// What flanneld leaves in nftables mode.
pub(super) const FLANNELD_TABLES: &str = r#"nft -f - <<E
table ip flannel-ipv4 {
  chain postrtg {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark 0x00004000 return
    ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip saddr 10.5.0.0/16 accept
    ip daddr 10.5.0.0/16 accept
  }
}
table ip6 flannel-ipv6 { }
E"#;

fn v4() -> Filter {
    Filter { nets: vec![net("10.5.0.0/16", "10.5.1.0/24")], ..want() }
}

/// Foreign rules that must survive whatever we do.
const FOREIGN: &str =
    "iptables -A FORWARD -s 192.0.2.9 -j DROP; iptables -t nat -A POSTROUTING -s 192.0.2.9 -j ACCEPT
    nft add table inet theirs; nft add chain inet theirs flannel-ipv4; nft add table ip twill-other";

fn foreign_is_there() {
    let all = rules();
    for part in [
        "-A FORWARD -s 192.0.2.9/32 -j DROP",
        "-A POSTROUTING -s 192.0.2.9/32 -j ACCEPT",
        "table inet theirs",
        "table ip twill-other",
    ] {
        assert!(all.contains(part), "{part} is gone from\n{all}");
    }
}

#[test]
fn the_engine_follows_what_the_host_has() {
    let cases = [
        ("true", Engine::Nftables, "no flanneld chains"),
        (FLANNELD_TABLES, Engine::Nftables, "no flanneld chains"),
        (FLANNELD_CHAINS, Engine::Iptables, "flanneld's chains exist"),
        ("iptables -P FORWARD DROP", Engine::Iptables, "ip filter FORWARD has policy DROP"),
        ("ip6tables -P FORWARD DROP", Engine::Iptables, "ip6 filter FORWARD has policy DROP"),
        (
            "nft add table inet t; nft add chain inet t f '{ type filter hook forward priority 0; policy drop; }'",
            Engine::Nftables,
            "no flanneld chains",
        ),
    ];
    for (before, engine, reason) in cases {
        in_netns(|| async move {
            sh(before);
            let firewall = open(FirewallMode::Auto).await;
            assert_eq!(firewall.engine(), engine, "{before}");
            assert!(firewall.reason().contains(reason), "{before}: {}", firewall.reason());
            assert_eq!(open(FirewallMode::Nftables).await.engine(), Engine::Nftables);
            assert_eq!(open(FirewallMode::Iptables).await.engine(), Engine::Iptables);
        });
    }
}

#[test]
fn one_of_the_tools_is_enough() {
    in_netns(|| async {
        let nft = only(&["nft"]);
        let tables = only(&["iptables", "iptables-save", "iptables-restore"]);
        for (dir, engine) in [(&nft, Engine::Nftables), (&tables, Engine::Iptables)] {
            let firewall =
                HostFirewall::open(Options { path: path(dir), ..options(FirewallMode::Auto) }).await;
            assert_eq!(firewall.engine(), engine);
            let applied = firewall.apply(&v4()).await.unwrap();
            assert!(!applied.loaded.is_empty() && applied.warnings.is_empty(), "{applied:?}");
            assert!(firewall.apply(&v4()).await.unwrap().is_unchanged());
            assert!(!firewall.remove().await.unwrap().removed.is_empty());
        }
    });
}

#[test]
fn flannelds_own_rules_are_right_as_they_are() {
    in_netns(|| async {
        sh(FLANNELD_CHAINS);
        sh(FOREIGN);
        let before = rules();
        let applied = open(FirewallMode::Auto).await.apply(&v4()).await.unwrap();
        assert!(applied.is_unchanged(), "{applied:?}");
        assert_eq!(rules(), before);
    });
}

#[test]
fn what_flanneld_left_goes_after_ours_is_there() {
    for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
        in_netns(|| async move {
            sh(FLANNELD_CHAINS);
            sh(FLANNELD_TABLES);
            sh(FOREIGN);
            let firewall = open(mode).await;
            let planned = firewall.describe(&want(), None).await.unwrap();
            let applied = firewall.apply(&want()).await.unwrap();
            assert_eq!([applied.loaded, applied.removed].concat(), planned);
            assert!(
                planned.iter().any(|line| line.contains("flannel-ipv4: left by flanneld")),
                "{planned:?}"
            );
            let all = rules();
            assert!(!all.contains("table ip flannel-ipv4") && !all.contains("flannel-ipv6"), "{all}");
            assert_eq!(all.contains("FLANNEL-POSTRTG"), mode == FirewallMode::Iptables, "{all}");
            assert_eq!(all.contains("FLANNEL-FWD"), mode == FirewallMode::Iptables, "{all}");
            foreign_is_there();
            assert!(firewall.apply(&want()).await.unwrap().is_unchanged());
        });
    }
}

#[test]
fn switching_back_and_forth_leaves_one_engines_rules() {
    in_netns(|| async {
        sh(FOREIGN);
        for mode in
            [FirewallMode::Nftables, FirewallMode::Iptables, FirewallMode::Nftables, FirewallMode::Iptables]
        {
            let firewall = open(mode).await;
            let applied = firewall.apply(&want()).await.unwrap();
            assert!(!applied.loaded.is_empty() && applied.warnings.is_empty(), "{applied:?}");
            let all = rules();
            assert_eq!(
                all.contains(&format!("table inet {TABLE} {{")),
                mode == FirewallMode::Nftables,
                "{all}"
            );
            assert_eq!(all.contains("FLANNEL-"), mode == FirewallMode::Iptables, "{all}");
        }
        let cleanup = open(FirewallMode::Auto).await;
        cleanup.remove().await.unwrap();
        assert!(!rules().contains("FLANNEL-") && !rules().contains(TABLE));
        foreign_is_there();
        assert!(cleanup.remove().await.unwrap().is_unchanged());
    });
}

#[test]
fn what_is_no_longer_wanted_goes() {
    in_netns(|| async {
        for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
            let firewall = open(mode).await;
            firewall.apply(&want()).await.unwrap();
            firewall.apply(&Filter { masquerade: None, ..want() }).await.unwrap();
            assert!(!sh("nft list ruleset").contains("masquerade"));
            firewall.apply(&Filter { forward: false, ..want() }).await.unwrap();
            assert!(!sh("nft list ruleset").contains("accept comment") && !rules().contains("FLANNEL-FWD"));
            firewall.apply(&v4()).await.unwrap();
            assert!(!rules().contains("fc00::"));
            firewall.apply(&Filter { nets: want().nets, ..Filter::default() }).await.unwrap();
            assert!(!rules().contains("FLANNEL-") && !rules().contains(TABLE));
        }
    });
}

#[test]
fn two_fabrics_share_flannelds_chains() {
    in_netns(|| async {
        let (one, two) = (open(FirewallMode::Iptables).await, open(FirewallMode::Iptables).await);
        let other = Filter { nets: vec![net("10.9.0.0/16", "10.9.7.0/24")], ..want() };
        one.apply(&v4()).await.unwrap();
        two.apply(&other).await.unwrap();
        assert!(one.apply(&v4()).await.unwrap().is_unchanged());
        assert!(two.apply(&other).await.unwrap().is_unchanged());
        two.apply(&Filter { nets: other.nets.clone(), ..Filter::default() }).await.unwrap();
        assert!(!rules().contains("10.9.") && one.apply(&v4()).await.unwrap().is_unchanged());
        // A network of an earlier run is not another fabric's.
        two.apply(&other).await.unwrap();
        let previous = vec![other.nets[0].network];
        let heir = HostFirewall::open(Options { previous, ..options(FirewallMode::Iptables) }).await;
        heir.apply(&v4()).await.unwrap();
        assert!(!rules().contains("10.9."));
    });
}

#[test]
fn foreign_native_tables_and_legacy_rules_do_no_harm() {
    in_netns(|| async {
        // iptables-nft cannot read this one; a host that runs it is served by nftables.
        sh("nft add table ip nat; nft add chain ip nat POSTROUTING '{ type nat hook postrouting priority 100; }'
            nft add rule ip nat POSTROUTING ip saddr '{ 192.0.2.1, 192.0.2.7 }' masquerade");
        let firewall = open(FirewallMode::Auto).await;
        assert_eq!(firewall.engine(), Engine::Nftables);
        assert!(!firewall.apply(&want()).await.unwrap().loaded.is_empty());
        assert!(firewall.apply(&want()).await.unwrap().is_unchanged());
        firewall.remove().await.unwrap();

        let legacy = FLANNELD_CHAINS.replace("iptables-restore", "iptables-legacy-restore");
        if std::process::Command::new("sh").args(["-ec", &legacy]).status().is_ok_and(|s| !s.success()) {
            println!("SKIP: this kernel has no iptables-legacy");
            return;
        }
        let firewall = open(FirewallMode::Auto).await;
        assert_eq!(
            firewall.engine(),
            Engine::Iptables,
            "chains of flanneld's in either kernel interface count"
        );
        sh("nft delete table ip nat");
        assert!(!firewall.apply(&v4()).await.unwrap().loaded.is_empty());
        assert!(!sh("iptables-legacy-save").contains("FLANNEL"));
        assert!(sh("iptables-save").contains("FLANNEL-POSTRTG"));
        assert!(firewall.apply(&v4()).await.unwrap().is_unchanged());
    });
}
