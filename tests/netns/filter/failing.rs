//! Tools that fail: what can be done is done, and the error says the rest.

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
