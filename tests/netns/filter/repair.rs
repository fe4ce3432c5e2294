//! What is right is left alone, without a sound; what is broken is heard and mended.

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::lab::*;
use twill::config::FirewallMode;
use twill::filter::{Engine, FilterError, Firewall, HostFirewall, Options};
use twill_backends::filter::{Filter, Masquerade};

/// `nft monitor`, read up to markers that the test sets.
struct Listener {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Running,
}

impl Listener {
    fn new() -> Self {
        // It listens once one more netlink socket is a member of the group: what it misses earlier proves nothing.
        let before = listeners();
        let mut child = Running(Command::new("nft").arg("monitor").stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        until("nft monitor to listen", || listeners() > before);
        Self { lines, _child: child }
    }

    /// What was announced since the last call.
    fn heard(&mut self) -> Vec<String> {
        sh("nft add table ip marker; nft delete table ip marker");
        let mut heard = Vec::new();
        loop {
            let line = self.lines.next().unwrap().unwrap();
            if line == "delete table ip marker" {
                return heard;
            }
            if !line.starts_with('#') && !line.ends_with("table ip marker") {
                heard.push(line);
            }
        }
    }
}

/// How many netfilter sockets of this namespace are members of the nftables group.
fn listeners() -> usize {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let groups = fields.filter(|f| f[1] == "12").map(|f| u32::from_str_radix(f[3], 16).unwrap());
    groups.filter(|groups| groups & 0x40 != 0).count()
}

async fn right_is_left_alone(mode: FirewallMode) {
    let first = open(mode).await;
    let applied = first.apply(&want()).await.unwrap();
    assert!(!applied.loaded.is_empty() && applied.warnings.is_empty(), "{applied:?}");
    let loaded = rules();
    let mut listener = Listener::new();
    assert!(first.apply(&want()).await.unwrap().is_unchanged());
    // A restarted agent knows nothing of the first one.
    let second = open(mode).await;
    assert_eq!(second.describe(&want(), None).await.unwrap(), Vec::<String>::new());
    assert!(second.apply(&want()).await.unwrap().is_unchanged());
    assert_eq!(listener.heard(), Vec::<String>::new());
    assert_eq!(rules(), loaded);
    // The listener does hear what is written.
    second.apply(&Filter { masquerade: None, ..want() }).await.unwrap();
    assert_ne!(listener.heard(), Vec::<String>::new());
}

#[test]
fn what_is_right_is_left_alone_in_silence() {
    in_netns(|| right_is_left_alone(FirewallMode::Nftables));
    in_netns(|| right_is_left_alone(FirewallMode::Iptables));
}

/// Breaks something, and expects it to be heard and mended.
async fn mended(mode: FirewallMode, damages: &[&str]) {
    let firewall = open(mode).await;
    firewall.apply(&want()).await.unwrap();
    let good = rules();
    // Our own echo is heard at most once, and answered without a word.
    while tokio::time::timeout(Duration::from_millis(50), firewall.changed()).await.is_ok() {
        assert!(firewall.apply(&want()).await.unwrap().is_unchanged());
    }
    for damage in damages {
        sh(damage);
        let heard = tokio::time::timeout(PATIENCE, firewall.changed()).await;
        assert!(heard.is_ok(), "not heard: {damage}");
        let planned = firewall.describe(&want(), None).await.unwrap();
        let applied = firewall.apply(&want()).await.unwrap();
        assert_eq!(applied.loaded, planned, "{damage}");
        assert!(!applied.is_unchanged() && applied.warnings.is_empty(), "{damage}: {applied:?}");
        assert_eq!(rules(), good, "{damage}");
    }
}

#[test]
fn a_damaged_table_is_heard_and_mended() {
    let rule = |chain: &str, comment: &str| {
        format!(
            "$(nft -a list chain inet {TABLE} {chain} | sed -n '/{comment}/s/.*# handle //p' | head -n 1)"
        )
    };
    let (masquerade, from) = (rule("postrouting", "pods to outside"), rule("forward", "from the fabric"));
    let damages = [
        format!("nft flush table inet {TABLE}"),
        format!("nft delete table inet {TABLE}"),
        "nft flush ruleset".to_owned(),
        format!("nft delete rule inet {TABLE} forward handle {from}"),
        format!(
            "nft replace rule inet {TABLE} postrouting handle {masquerade} \
             ip saddr 10.5.0.0/16 masquerade comment '\"pods to outside\"'"
        ),
        format!("nft insert rule inet {TABLE} forward drop"),
        format!("nft add set inet {TABLE} s '{{ type ipv4_addr; }}'"),
        format!("nft add chain inet {TABLE} forward '{{ policy drop; }}'"),
        format!("nft add table inet {TABLE} '{{ flags dormant; }}'"),
    ];
    in_netns(|| async move { mended(FirewallMode::Nftables, &damages.each_ref().map(String::as_str)).await });
}

#[test]
fn damaged_iptables_chains_are_heard_and_mended() {
    let damages = [
        "iptables -t nat -F",
        "iptables -F FLANNEL-FWD",
        "iptables -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
        "iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
        "iptables -t nat -D FLANNEL-POSTRTG 3",
        "iptables -t nat -R FLANNEL-POSTRTG 5 -s 10.5.0.0/16 -m comment --comment 'flanneld masq' -j MASQUERADE",
        "iptables -t nat -I FLANNEL-POSTRTG -j RETURN",
        "ip6tables -t nat -F; ip6tables -t nat -X",
        "nft flush ruleset",
    ];
    in_netns(|| async move { mended(FirewallMode::Iptables, &damages).await });
}

#[test]
fn what_others_do_is_not_heard() {
    in_netns(|| async {
        sh("iptables -t nat -A POSTROUTING -j ACCEPT");
        for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
            let firewall = open(mode).await;
            firewall.apply(&want()).await.unwrap();
            while tokio::time::timeout(Duration::from_millis(50), firewall.changed()).await.is_ok() {}
            sh("iptables -t nat -N KUBE-SERVICES; iptables -t nat -A KUBE-SERVICES -j RETURN
                nft add table inet other; nft add chain inet other forward; nft delete table inet other
                iptables -t nat -F KUBE-SERVICES; iptables -t nat -X KUBE-SERVICES");
            let heard = tokio::time::timeout(Duration::from_millis(200), firewall.changed()).await;
            assert!(heard.is_err(), "{mode:?}");
            sh(&format!("nft delete table inet {TABLE} 2>/dev/null || true"));
        }
    });
}

#[test]
fn iptables_legacy_is_looked_at_every_resync() {
    in_netns(|| async {
        let tools = [
            ("iptables", "iptables-legacy"),
            ("iptables-save", "iptables-legacy-save"),
            ("iptables-restore", "iptables-legacy-restore"),
        ];
        let dir = only(&["nft", "sh"]);
        for (name, target) in tools {
            script(&dir, name, &format!("PATH=/usr/sbin:/sbin exec {target} \"$@\""));
        }
        if Command::new("iptables-legacy")
            .args(["-t", "nat", "-S"])
            .output()
            .is_ok_and(|o| !o.status.success())
        {
            println!("SKIP: this kernel has no iptables-legacy");
            return;
        }
        let want = Filter { nets: vec![net("10.5.0.0/16", "10.5.1.0/24")], ..want() };
        let firewall =
            HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Iptables) }).await;
        assert_eq!(firewall.apply(&want).await.unwrap().loaded.len(), 2);
        assert!(firewall.apply(&want).await.unwrap().is_unchanged());
        let good = sh("iptables-legacy -t nat -S; iptables-legacy -S");
        sh("iptables-legacy -t nat -F");
        let heard = tokio::time::timeout(PATIENCE, firewall.changed()).await;
        assert!(heard.is_ok());
        assert_eq!(firewall.apply(&want).await.unwrap().loaded.len(), 1);
        assert_eq!(sh("iptables-legacy -t nat -S; iptables-legacy -S"), good);
    });
}

#[test]
fn random_ports_are_a_setting() {
    in_netns(|| async {
        for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
            let firewall = open(mode).await;
            firewall.apply(&want()).await.unwrap();
            let rules = || sh("nft list ruleset");
            assert!(rules().contains("masquerade fully-random"));
            let masquerade = Some(Masquerade { random_fully: false });
            let plain = Filter { masquerade, ..want() };
            assert!(!firewall.apply(&plain).await.unwrap().is_unchanged());
            assert!(firewall.apply(&plain).await.unwrap().is_unchanged());
            assert!(rules().contains("masquerade") && !rules().contains("fully-random"));
            firewall.remove().await.unwrap();
        }
    });
}

#[test]
fn a_kernel_without_random_ports_gets_plain_rules() {
    in_netns(|| async {
        let dir = only(&["sh", "cat", "grep"]);
        script(
            &dir,
            "nft",
            "[ \"$1\" = -c ] || PATH=/usr/sbin:/sbin exec nft \"$@\"; ! grep -q fully-random",
        );
        let firewall =
            HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Nftables) }).await;
        firewall.apply(&want()).await.unwrap();
        let rules = sh("nft list ruleset");
        assert!(rules.contains("masquerade") && !rules.contains("fully-random"), "{rules}");
    });
}

#[test]
fn missing_old_and_unprivileged_tools_say_what_to_do() {
    in_netns(|| async {
        let fails = async |dir: &tempfile::TempDir, mode| {
            let firewall = HostFirewall::open(Options { path: path(dir), ..options(mode) }).await;
            // Nothing wanted is nothing to fail at, whatever is installed.
            if dir.path().read_dir().unwrap().next().is_none() {
                assert!(firewall.remove().await.unwrap().is_unchanged());
            }
            firewall.apply(&want()).await.unwrap_err()
        };
        let none = only(&[]);
        let error = fails(&none, FirewallMode::Nftables).await;
        assert!(matches!(&error, FilterError::Missing { package: "nftables", .. }), "{error}");
        let error = fails(&none, FirewallMode::Iptables).await;
        assert!(matches!(&error, FilterError::Missing { package: "iptables", .. }), "{error}");
        assert!(matches!(fails(&none, FirewallMode::Auto).await, FilterError::Missing { .. }));

        let old = only(&["sh"]);
        script(&old, "nft", "echo 'nftables v0.9.8 (E.D.S.)'");
        let error = fails(&old, FirewallMode::Nftables).await;
        assert!(matches!(&error, FilterError::TooOld { found } if found == "0.9.8"), "{error}");

        let garbage = only(&["sh"]);
        script(&garbage, "nft", "echo oops");
        let error = fails(&garbage, FirewallMode::Nftables).await;
        assert!(matches!(&error, FilterError::Unreadable { .. }), "{error}");

        let denied = only(&["sh"]);
        let user = "PATH=/usr/sbin:/usr/bin:/bin exec setpriv --reuid 65534 --clear-groups";
        script(&denied, "nft", &format!("{user} nft \"$@\""));
        script(&denied, "iptables", &format!("{user} iptables \"$@\""));
        script(&denied, "iptables-save", &format!("{user} iptables-save \"$@\""));
        for mode in [FirewallMode::Nftables, FirewallMode::Iptables] {
            let error = fails(&denied, mode).await;
            assert!(matches!(&error, FilterError::Denied { .. }), "{error}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
    });
}

#[test]
fn a_load_that_does_not_stay_is_an_error_and_an_odd_reading_is_not_repeated() {
    in_netns(|| async {
        let dir = only(&["sh", "sed", "cat"]);
        // Loads nothing, and says all went well.
        script(&dir, "nft", "[ \"$2\" = -f ] || PATH=/usr/sbin:/sbin exec nft \"$@\"; cat >/dev/null");
        let firewall =
            HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Nftables) }).await;
        let error = firewall.apply(&want()).await.unwrap_err();
        assert!(matches!(&error, FilterError::NotAsWritten { .. }), "{error}");

        // Prints one expression in a way of its own.
        script(
            &dir,
            "nft",
            "PATH=/usr/sbin:/sbin:/usr/bin:/bin; nft \"$@\" | sed 's/\"prio\": 100/\"prio\": \"srcnat\"/'",
        );
        let firewall =
            HostFirewall::open(Options { path: path(&dir), ..options(FirewallMode::Nftables) }).await;
        let applied = firewall.apply(&want()).await.unwrap();
        assert!(applied.warnings.iter().any(|w| w.contains("srcnat")), "{applied:?}");
        assert!(firewall.apply(&want()).await.unwrap().is_unchanged());
        assert!(firewall.describe(&want(), None).await.unwrap().is_empty());
        sh(&format!("nft flush table inet {TABLE}"));
        assert!(!firewall.apply(&want()).await.unwrap().is_unchanged());
        assert_eq!(firewall.engine(), Engine::Nftables);
    });
}
