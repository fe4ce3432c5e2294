//! Tools that fail: what can be done is done, and the error says the rest.

use std::process::Command;

use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{FilterError, Firewall, HostFirewall, Options};

const IPV4: [&str; 3] = ["iptables", "iptables-save", "iptables-restore"];
const IPV6: [&str; 3] = ["ip6tables", "ip6tables-save", "ip6tables-restore"];

#[test]
fn a_family_that_fails_keeps_no_rules_of_the_other_out() {
    in_netns(|| async {
        let dir = only(&[&["sh", "nft"], &IPV4[..]].concat());
        let lame = || HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Iptables) });
        let chains = |program: &str| sh(&format!("{program}-save")).matches(":FLANNEL-").count();

        let firewall = lame().await;
        let error = firewall.apply(&want()).await.unwrap_err();
        assert!(
            matches!(&error, FilterError::Missing { program, .. } if program == "ip6tables-save"),
            "{error}"
        );
        assert_eq!((chains("iptables"), chains("ip6tables")), (2, 0));

        // A kernel that cannot translate addresses of IPv6.
        for program in IPV6 {
            let no_nat = "case \"$*\" in *nat*) echo 'no such table' >&2; exit 3;; esac";
            script(&dir, program, &format!("{no_nat}\nPATH=/usr/sbin:/sbin exec {program} \"$@\""));
        }
        sh("nft flush ruleset");
        let firewall = lame().await;
        for _ in 0..2 {
            let error = firewall.apply(&want()).await.unwrap_err();
            assert!(
                matches!(&error, FilterError::Failed { detail, .. } if detail == "no such table"),
                "{error}"
            );
            assert_eq!((chains("iptables"), chains("ip6tables")), (2, 1));
        }
        let missing = open(FirewallMode::Iptables).await.describe(&want(), None).await.unwrap();
        assert_eq!(missing, ["load chain FLANNEL-POSTRTG into ip6tables table nat: the chain is missing"]);
    });
}

/// Runs iptables-legacy with a lock of their own in the place of each of these programs, and notes each load.
fn legacy(dir: &tempfile::TempDir) {
    let (lock, loads) = (dir.path().join("lock"), dir.path().join("loads"));
    for program in IPV4.into_iter().chain(IPV6) {
        let legacy = program.replace("tables", "tables-legacy");
        let run = format!("PATH=/usr/sbin:/sbin XTABLES_LOCKFILE={} exec {legacy}", lock.display());
        let text = match program.ends_with("-restore") {
            true => format!(
                "echo >> {}; [ \"$*\" = '--noflush --wait=4' ] || exit 9; {run} --noflush --wait=1",
                loads.display()
            ),
            false => format!("{run} \"$@\""),
        };
        script(dir, program, &text);
    }
}

#[test]
fn who_holds_the_xtables_lock_is_waited_for_once() {
    in_netns(|| async {
        if !Command::new("iptables-legacy")
            .args(["-t", "nat", "-S"])
            .output()
            .is_ok_and(|o| o.status.success())
        {
            println!("SKIP: this kernel has no iptables-legacy");
            return;
        }
        let dir = only(&["sh", "nft"]);
        legacy(&dir);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let hold = || {
            let lock = std::fs::File::create(at("lock")).unwrap();
            lock.lock().unwrap();
            lock
        };
        let loads = || std::fs::read_to_string(at("loads")).unwrap_or_default().lines().count();
        let open = |mode| HostFirewall::open(Options { path: path(&dir), ..options(mode) });

        let holder = hold();
        let firewall = open(FirewallMode::Iptables).await;
        let error = firewall.apply(&want()).await.unwrap_err();
        assert!(matches!(error, FilterError::Locked { .. }), "{error}");
        assert_eq!(loads(), 1);
        drop(holder);
        assert_eq!(firewall.apply(&want()).await.unwrap().loaded.len(), 4);
        assert_eq!(loads(), 5);

        // What the other engine left is in the way of nothing.
        let holder = hold();
        let firewall = open(FirewallMode::Nftables).await;
        let applied = firewall.apply(&want()).await.unwrap();
        assert!(applied.loaded.len() == 1 && applied.warnings[0].contains("xtables lock"), "{applied:?}");
        assert_eq!((loads(), applied.warnings.len()), (6, 1));
        drop(holder);
        assert_eq!(firewall.apply(&want()).await.unwrap().removed.len(), 4);
    });
}
