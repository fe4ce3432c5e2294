//! The guard where `nft` fails, is old, or is not there: what can be checked is, and what was counted or loaded stays.

use super::guard::{GUARD, elements, guard, leftover, with};
use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{FilterError, Firewall, HostFirewall, Options};

#[test]
fn who_flushes_all_rules_while_it_is_loaded_ends_no_check() {
    for load in [1, 2] {
        in_netns(|| async move {
            let dir = only(&["sh"]);
            let loads = dir.path().join("loads").display().to_string();
            let flush = format!("echo >> {loads}; [ $(wc -l < {loads}) != {load} ] || nft flush ruleset");
            script(
                &dir,
                "nft",
                &format!(
                    "PATH=/usr/sbin:/sbin:/usr/bin:/bin; [ \"$1\" = -f ] || exec nft \"$@\"\nnft \"$@\"\n{flush}"
                ),
            );
            let options = Options { path: path(&dir), ..options(FirewallMode::Nftables) };
            let firewall = HostFirewall::open(options).await;
            let error = firewall.guard(Some(&guard()), None, true).await.unwrap_err();
            assert!(matches!(error, FilterError::Failed { .. }), "{error}");
            let applied = firewall.guard(Some(&guard()), None, true).await.unwrap();
            assert!(applied.loaded.len() == 1 && applied.warnings.is_empty(), "{applied:?}");
            assert!(elements("carries4-24").contains("192.0.2.7 . 0xa050700"));
        });
    }
}

#[test]
fn an_old_nft_checks_what_it_can_and_says_what_not() {
    in_netns(|| async {
        let dir = only(&["sh", "cat", "grep"]);
        script(
            &dir,
            "nft",
            "case \"$*\" in *'-f -') ;; *) PATH=/usr/sbin:/sbin exec nft \"$@\";; esac; text=$(cat)
             ! echo \"$text\" | grep -q typeof || { echo 'Error: syntax error' >&2; exit 1; }
             echo \"$text\" | PATH=/usr/sbin:/sbin nft \"$@\"",
        );
        let options = Options { path: path(&dir), ..options(FirewallMode::Nftables) };
        let firewall = HostFirewall::open(options).await;
        for loads in [1, 0] {
            let applied = firewall.guard(Some(&guard()), None, true).await.unwrap();
            assert_eq!(applied.loaded.len(), loads);
            assert!(applied.warnings[0].contains("--inner-source-check off"), "{applied:?}");
        }
        assert!(elements("from4").contains("192.0.2.7") && !rules().contains("carries"));
    });
}

#[test]
fn a_table_that_could_not_be_read_is_not_taken_for_a_damaged_one() {
    in_netns(|| async {
        open(FirewallMode::Nftables).await.guard(Some(&with(&[leftover()])), None, true).await.unwrap();
        let loaded = rules();
        let dir = only(&["sh"]);
        let ended = format!("case \"$*\" in *'list table inet {GUARD}'*) kill -9 $$;; esac");
        script(&dir, "nft", &format!("{ended}\nPATH=/usr/sbin:/sbin exec nft \"$@\""));
        let options = Options { path: path(&dir), ..options(FirewallMode::Nftables) };
        let error = HostFirewall::open(options).await.guard(Some(&guard()), None, false).await;
        assert!(error.is_err(), "{error:?}");
        assert_eq!(rules(), loaded);
    });
}

#[test]
fn what_one_family_was_counted_is_not_told_alone_and_one_it_has_not_is_not_asked_of() {
    in_netns(|| async {
        let dir = only(&["sh"]);
        let refuse = "case \"$*\" in *' from6') echo 'Operation not permitted' >&2; exit 1;; esac";
        script(&dir, "nft", &format!("{refuse}\nPATH=/usr/sbin:/sbin exec nft \"$@\""));
        let options = Options { path: path(&dir), ..options(FirewallMode::Nftables) };
        let firewall = HostFirewall::open(options).await;
        firewall.guard(Some(&guard()), None, true).await.unwrap();
        assert_eq!(firewall.counters().read().await, None);
        let mut one = guard();
        one.rules.networks.truncate(1);
        one.senders.retain(|sender| sender.addr.is_ipv4());
        firewall.guard(Some(&one), None, true).await.unwrap();
        let counted = firewall.counters().read().await.unwrap();
        assert_eq!((counted.dropped.len(), counted.received.len()), (3, 2), "{counted:?}");
    });
}

#[test]
fn without_nft_this_is_an_error_and_to_want_nothing_is_none() {
    in_netns(|| async {
        let dir = only(&["sh"]);
        let firewall = HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Auto) }).await;
        let error = firewall.guard(Some(&guard()), None, true).await.unwrap_err();
        assert!(error.to_string().contains("nftables"), "{error}");
        assert!(firewall.guard(None, None, true).await.unwrap().is_unchanged());
        assert_eq!(firewall.counters().read().await, None);
    });
}
