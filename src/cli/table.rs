//! Every flag of the agent, once: its name, value, default, help, and what becomes of it. Both spellings of the
//! command line, their help texts and the README's table are made from it.

use super::go;

/// One flag of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagRow {
    /// Without dashes.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// As it would be typed; empty for no value.
    pub default: &'static str,
    /// One line for the help texts.
    pub help: &'static str,
    /// What setting it does.
    pub fate: Fate,
}

/// What a flag's value looks like, in the terms of Go's `flag` package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// May stand without a value; one given has to be joined by `=`.
    Bool,
    /// Any base Go knows, with a prefix.
    Int,
    /// Anything.
    Text,
    /// Text, once per occurrence; commas do not split.
    List,
}

/// What setting a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As flanneld's, or as its help says.
    Works,
    /// Accepted; a value other than the default is answered by a warning with this reason.
    Ignored(&'static str),
    /// Any value other than the default ends the start with this advice.
    Refused(&'static str),
}

/// flanneld's flags.
pub const FLANNELD_FLAGS: &[FlagRow] = &[
    row(
        "etcd-endpoints",
        Kind::Text,
        "http://127.0.0.1:4001,http://127.0.0.1:2379",
        "etcd endpoints, separated by commas; any of them is asked first",
    ),
    row("etcd-prefix", Kind::Text, "/coreos.com/network", "prefix of the fabric's keys in etcd"),
    row("etcd-keyfile", Kind::Text, "", "PEM key of the client certificate for etcd"),
    row("etcd-certfile", Kind::Text, "", "PEM client certificate for etcd"),
    row(
        "etcd-cafile",
        Kind::Text,
        "",
        "PEM roots to verify etcd with; works without a client certificate too",
    ),
    row("etcd-username", Kind::Text, "", "etcd user"),
    row(
        "etcd-password",
        Kind::Text,
        "",
        "password of the etcd user; safer in the environment, where ps does not show it",
    ),
    row(
        "iface",
        Kind::List,
        "",
        "underlay interface, by name or address; repeat it to give alternatives, tried in order",
    ),
    row(
        "iface-regex",
        Kind::List,
        "",
        "regular expression for the underlay's address or name, tried after every iface; repeatable",
    ),
    row("iface-can-reach", Kind::Text, "", "take the interface that routes to this address; tried last"),
    row(
        "subnet-file",
        Kind::Text,
        "/run/flannel/subnet.env",
        "file written for CNI plugins (subnet, MTU, ...)",
    ),
    row("public-ip", Kind::Text, "", "IPv4 address told to the other hosts"),
    row("public-ipv6", Kind::Text, "", "IPv6 address told to the other hosts"),
    row(
        "subnet-lease-renew-margin",
        Kind::Int,
        "60",
        "renew a lease this many minutes before it ends at the latest, 1 to 1439",
    ),
    row("ip-masq", Kind::Bool, "false", "masquerade what leaves the fabric"),
    row(
        "ip-masq-fully-random-disable",
        Kind::Bool,
        "false",
        "do not pick source ports fully at random when masquerading",
    ),
    FlagRow {
        fate: Fate::Refused(NO_KUBE),
        ..row("kube-subnet-mgr", Kind::Bool, "false", "read leases from Kubernetes (refused)")
    },
    ignored("kube-api-url", Kind::Text, "", KUBE_ONLY),
    ignored("kubeconfig-file", Kind::Text, "", KUBE_ONLY),
    ignored("kube-annotation-prefix", Kind::Text, "flannel.alpha.coreos.com", KUBE_ONLY),
    ignored("net-config-path", Kind::Text, "/etc/kube-flannel/net-conf.json", NET_CONFIG),
    ignored("set-node-network-unavailable", Kind::Bool, "true", KUBE_ONLY),
    row("version", Kind::Bool, "false", "print the version and exit"),
    row("healthz-ip", Kind::Text, "0.0.0.0", "address that serves /healthz and /readyz"),
    row("healthz-port", Kind::Int, "0", "its port; 0 serves nothing"),
    row(
        "iptables-resync",
        Kind::Int,
        "5",
        "check rules whose changes the kernel does not announce every so many seconds",
    ),
    row("iptables-forward-rules", Kind::Bool, "true", "accept forwarded traffic of the fabric"),
    row("ip-blackhole-route", Kind::Bool, "false", "add a blackhole route for this host's subnet"),
    row("v", Kind::Int, "0", "log verbosity: 0 info, 1 to 4 debug, 5 and more trace"),
    ignored("vmodule", Kind::Text, "", "logs are filtered by target with RUST_LOG"),
    ignored("log_backtrace_at", Kind::Text, "", "logs carry no stack traces"),
];

/// Flags flanneld does not have; accepted under both names of the binary.
pub const TWILL_FLAGS: &[FlagRow] = &[
    row("store", Kind::Text, "etcd", "where leases live: etcd, or file:/absolute/dir"),
    row("state-dir", Kind::Text, "/var/lib/twill", "directory for the node's identity and snapshots"),
    row("run-dir", Kind::Text, "/run/twill", "directory for the lock and the agent's socket"),
    row("firewall", Kind::Text, "auto", "whose rules to load: auto, nftables or iptables"),
    row(
        "datapath",
        Kind::Text,
        "auto",
        "who carries VXLAN frames: auto, kernel, userspace, or plain (userspace without offloads)",
    ),
    row(
        "outer-source-check",
        Kind::Text,
        "on",
        "on: the tunnel's port takes frames only from the addresses of live leases; off: the kernel takes any",
    ),
    row(
        "inner-source-check",
        Kind::Text,
        "on",
        "on: packets whose source is outside the subnet of the host that sent them are dropped; off: they are not",
    ),
    row(
        "checksum-offload",
        Kind::Text,
        "auto",
        "whether the underlay's device finishes checksums inside the tunnel: auto (as a trial shows), on, off",
    ),
    row(
        "datapath-queues",
        Kind::Int,
        "0",
        "threads of the userspace datapath, each a queue of the TAP; 0: half as many as processors, at most 8",
    ),
    row(
        "probe-port",
        Kind::Int,
        "8475",
        "UDP port at which hosts probe each other; each host may have its own; 0: no probes",
    ),
    row(
        "ready-peers",
        Kind::Int,
        "50",
        "/readyz asks for this share of the probed peers to be reachable, in percent; 50: with this host, a majority",
    ),
    row(
        "ui-listen",
        Kind::Text,
        "",
        "address and port that show the page to others, read-only, such as 0.0.0.0:8474; this host sees it anyway",
    ),
    row(
        "confine",
        Kind::Text,
        "on",
        "on: the agent and what it runs give up every privilege but those over the network; off: they keep all",
    ),
    row(
        "take-over",
        Kind::Bool,
        "false",
        "take over from the agent that runs, without a gap; start as usual if none does",
    ),
    row("force", Kind::Bool, "false", "start although the preflight checks object"),
    row("cleanup-on-exit", Kind::Bool, "false", "remove every object of ours from this host on a clean exit"),
    row("delete-hold", Kind::Int, "300", "hold back suspicious mass deletions for this many seconds"),
];

const KUBE_ONLY: &str = "it is for leases in Kubernetes, and Twill keeps them in etcd";
const NET_CONFIG: &str = "the network config is read from the store; write it with `twill config set`";
const NO_KUBE: &str = "write the network config to etcd and start without this flag";

impl FlagRow {
    /// The variable behind it: `prefix`, `_`, and the name in capitals with `_` for `-`.
    pub fn variable(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Its identifier among clap's, which is that of a struct field.
    pub(super) fn id(&self) -> String {
        self.name.replace('-', "_")
    }
}

impl Kind {
    /// Whether `value` can be this flag's.
    pub(super) fn check(self, value: &str) -> Result<(), go::ValueError> {
        match self {
            Kind::Bool => go::boolean(value).map(|_| ()),
            Kind::Int => go::int(value).map(|_| ()),
            Kind::Text | Kind::List => Ok(()),
        }
    }
}

/// All flags: flanneld's, then Twill's own.
pub(super) fn rows() -> impl Iterator<Item = &'static FlagRow> {
    FLANNELD_FLAGS.iter().chain(TWILL_FLAGS)
}

/// The flag of this name.
pub(super) fn find(name: &str) -> Option<&'static FlagRow> {
    rows().find(|row| row.name == name)
}

const fn row(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> FlagRow {
    FlagRow { name, kind, default, help, fate: Fate::Works }
}

const fn ignored(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> FlagRow {
    FlagRow { name, kind, default, help: "accepted without effect", fate: Fate::Ignored(why) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Section 1 of the specification of flanneld, by name.
    const SPECIFIED: &str = "etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username \
        etcd-password iface iface-regex iface-can-reach subnet-file public-ip public-ipv6 \
        subnet-lease-renew-margin ip-masq ip-masq-fully-random-disable kube-subnet-mgr kube-api-url \
        kubeconfig-file kube-annotation-prefix net-config-path set-node-network-unavailable version healthz-ip \
        healthz-port iptables-resync iptables-forward-rules ip-blackhole-route v vmodule log_backtrace_at";

    #[test]
    fn every_flag_of_flanneld_has_a_row() {
        let specified: BTreeSet<_> = SPECIFIED.split_whitespace().collect();
        let listed: BTreeSet<_> = FLANNELD_FLAGS.iter().map(|row| row.name).collect();
        assert_eq!(listed, specified);
        assert_eq!(FLANNELD_FLAGS.len(), specified.len(), "a name occurs twice");
    }

    #[test]
    fn twills_own_flags_have_other_names() {
        for own in TWILL_FLAGS {
            assert!(FLANNELD_FLAGS.iter().all(|row| row.name != own.name), "{}", own.name);
        }
    }

    #[test]
    fn defaults_are_values_of_their_flags() {
        for row in rows() {
            row.kind.check(row.default).unwrap();
        }
    }

    #[test]
    fn variables_are_capitals() {
        assert_eq!(find("ip-masq").unwrap().variable("FLANNELD"), "FLANNELD_IP_MASQ");
        assert_eq!(find("log_backtrace_at").unwrap().variable("FLANNELD"), "FLANNELD_LOG_BACKTRACE_AT");
    }
}
