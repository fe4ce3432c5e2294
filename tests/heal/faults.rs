//! What can be broken under an agent, each as a line of shell on one of three hosts.

use twill::lab::{Host, LabError, Netns, UPLINK};

use crate::dump;
use crate::fabric::Fabric;

/// A fault: a name for the table, and what makes it.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) how: How,
}

/// What makes a fault.
#[derive(Debug, Clone)]
pub(crate) enum How {
    /// A line of shell in the host's namespace.
    Shell(String),
    /// The uplink goes down and up; whoever manages the host gives it its addresses and default route back.
    UplinkDownUp,
    /// The uplink is taken out, and another put in.
    UplinkReplaced,
}

impl Fault {
    fn sh(name: &'static str, line: impl Into<String>) -> Self {
        Self { name, how: How::Shell(line.into()) }
    }

    /// Breaks it, on the host that it was made for.
    pub(crate) fn inject(&self, fabric: &Fabric, at: usize) {
        self.try_inject(fabric, at).unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`Fault::inject`], unless what is to be broken is not there.
    pub(crate) fn try_inject(&self, fabric: &Fabric, at: usize) -> Result<(), LabError> {
        let host = &fabric.lab.hosts[at];
        match &self.how {
            How::Shell(line) => return host.net.exec(&["sh", "-ec", line]).map(drop),
            How::UplinkDownUp => fabric.lab.readdress(at).unwrap(),
            How::UplinkReplaced => {
                // Neighbours go on using the Ethernet address they know, as when a driver is loaded again.
                let mac = dump::mac_of(&host.net, UPLINK);
                host.net.delete_link(UPLINK).unwrap();
                let underlay = &fabric.lab.underlay.net;
                underlay.add_veth(&host.name, &host.net, UPLINK, 1500).unwrap();
                underlay.join_bridge(&host.name, "ub0").unwrap();
                underlay.link_up(&host.name).unwrap();
                dump::run(&host.net, &format!("ip link set {UPLINK} address {mac}"));
                // Addresses are usable at once, as in the lab before.
                if fabric.families.ipv6() {
                    host.net.set_sysctl(&format!("net/ipv6/conf/{UPLINK}/accept_dad"), "0").unwrap();
                }
                fabric.lab.readdress(at).unwrap();
            }
        }
        Ok(())
    }
}

/// The words of a family's commands.
struct Words {
    ip: &'static str,
    dev: &'static str,
    /// The host's own subnet without length, and the length of an address.
    base: String,
    full: &'static str,
    /// The next host's subnet with and without length, and its address; a third host's address.
    peer: String,
    peer_base: String,
    public: String,
    other: String,
}

impl Words {
    fn new(fabric: &Fabric, at: usize, v6: bool) -> Self {
        let (next, third) = ((at + 1) % 3, (at + 2) % 3);
        let address = |index: usize| {
            let all = &fabric.lab.hosts[index].addresses;
            all.iter().find(|address| address.is_ipv6() == v6).unwrap().to_string()
        };
        let (own, peer) = (fabric.subnet(at, v6), fabric.subnet(next, v6));
        Self {
            ip: if v6 { "ip -6" } else { "ip -4" },
            dev: if v6 { "flannel-v6.1" } else { "flannel.1" },
            base: own.addr().to_string(),
            full: if v6 { "128" } else { "32" },
            peer: peer.to_string(),
            peer_base: peer.addr().to_string(),
            public: address(next),
            other: address(third),
        }
    }
}

/// What can be broken of a tunnel, and of what hangs on it.
pub(crate) fn tunnel(fabric: &Fabric, at: usize, v6: bool) -> Vec<Fault> {
    let Words { ip, dev, base, full, peer, peer_base, public, other } = Words::new(fabric, at, v6);
    let vtep = dump::mac_of(&fabric.lab.hosts[(at + 1) % 3].net, dev);
    let fake = "0a:00:00:00:00:01";
    let foreign = if v6 { "fd99::9/128" } else { "10.99.0.9/32" };
    let elsewhere = if v6 { "fd00:244:0:ffff::9/128" } else { "10.244.255.9/32" };
    vec![
        Fault::sh("device-deleted", format!("ip link del {dev}")),
        Fault::sh("device-down", format!("ip link set {dev} down")),
        Fault::sh("device-mac", format!("ip link set {dev} address {fake}")),
        Fault::sh("device-mtu", format!("ip link set {dev} mtu 1300")),
        Fault::sh("device-alias", format!("ip link set {dev} alias somebody")),
        Fault::sh("device-renamed", format!("ip link set {dev} down; ip link set {dev} name renamed0")),
        Fault::sh("address-removed", format!("{ip} addr del {base}/{full} dev {dev}")),
        Fault::sh(
            "address-changed",
            format!("{ip} addr del {base}/{full} dev {dev}; {ip} addr add {elsewhere} dev {dev}"),
        ),
        Fault::sh("address-foreign", format!("{ip} addr add {foreign} dev {dev}")),
        Fault::sh("route-deleted", format!("{ip} route del {peer}")),
        Fault::sh("route-altered", format!("{ip} route replace {peer} via {other} dev eth0")),
        Fault::sh(
            "route-retagged",
            format!("{ip} route replace {peer} via {peer_base} dev {dev} onlink proto 4"),
        ),
        Fault::sh("route-blackhole", format!("{ip} route replace blackhole {peer}")),
        Fault::sh("neighbour-deleted", format!("{ip} neigh del {peer_base} dev {dev}")),
        Fault::sh("neighbour-altered", format!("{ip} neigh replace {peer_base} lladdr {fake} dev {dev}")),
        Fault::sh(
            "neighbour-aging",
            format!("{ip} neigh change {peer_base} lladdr {vtep} dev {dev} nud stale"),
        ),
        Fault::sh("fdb-deleted", format!("bridge fdb del {vtep} dev {dev} dst {public}")),
        Fault::sh("fdb-altered", format!("bridge fdb replace {vtep} dev {dev} dst {other} self permanent")),
        Fault::sh("all-neighbours", format!("{ip} neigh flush dev {dev} nud permanent")),
    ]
}

/// Another kind of device under the tunnel's name; while an agent runs, it takes the name first.
pub(crate) fn another_kind(v6: bool) -> Fault {
    let dev = if v6 { "flannel-v6.1" } else { "flannel.1" };
    Fault::sh(
        "device-replaced",
        format!("ip link del {dev}; ip link add {dev} type bridge; ip link set {dev} up"),
    )
}

/// What can be broken of direct routes.
pub(crate) fn direct(fabric: &Fabric, at: usize, v6: bool) -> Vec<Fault> {
    let Words { ip, peer, public, other, .. } = Words::new(fabric, at, v6);
    vec![
        Fault::sh("route-deleted", format!("{ip} route del {peer}")),
        Fault::sh("route-rerouted", format!("{ip} route replace {peer} via {other} dev eth0 proto 70")),
        Fault::sh("route-altered", format!("{ip} route replace {peer} via {other} dev eth0")),
        Fault::sh("route-retagged", format!("{ip} route replace {peer} via {public} dev eth0 proto 4")),
        Fault::sh("route-blackhole", format!("{ip} route replace blackhole {peer}")),
        Fault::sh("all-routes", format!("{ip} route flush proto 70")),
    ]
}

/// What can be broken of the host under any backend.
pub(crate) fn host(fabric: &Fabric, at: usize) -> Vec<Fault> {
    let env = fabric.agents[at].files.subnet.display().to_string();
    let mut faults = vec![
        Fault { name: "uplink-down-up", how: How::UplinkDownUp },
        Fault { name: "uplink-replaced", how: How::UplinkReplaced },
        Fault::sh("subnet-file-deleted", format!("rm {env}")),
        Fault::sh("subnet-file-changed", format!("echo FLANNEL_MTU=9 > {env}")),
    ];
    if fabric.families.ipv4() {
        faults.push(Fault::sh("forwarding-off", "echo 0 > /proc/sys/net/ipv4/ip_forward"));
    }
    if fabric.families.ipv6() {
        faults.push(Fault::sh("forwarding6-off", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"));
    }
    faults
}

/// What can be broken of our table.
pub(crate) fn nftables(fabric: &Fabric, at: usize) -> Vec<Fault> {
    let tables = dump::run(&fabric.lab.hosts[at].net, "nft list tables");
    let ours = tables.lines().filter_map(|line| line.strip_prefix("table ").filter(|t| t.contains("twill-")));
    let (guard, rules): (Vec<&str>, Vec<&str>) = ours.partition(|table| table.contains("guard"));
    let table = rules.first().unwrap_or_else(|| panic!("no table of ours in {tables}"));
    let mut faults: Vec<Fault> = guard.iter().flat_map(|guard| self::guard(fabric, at, guard)).collect();
    faults.extend([
        Fault::sh("table-flushed", format!("nft flush table {table}")),
        Fault::sh("table-deleted", format!("nft delete table {table}")),
        Fault::sh("ruleset-flushed", "nft flush ruleset"),
        Fault::sh(
            "drop-rule-added",
            format!(
                "nft insert rule {table} $(nft list table {table} | awk '/hook/{{print c}} /chain/{{c=$2}}' | head -1) drop"
            ),
        ),
    ]);
    faults
}

/// What can be broken of the guard's table: what shuts peers out, and what lets strangers in.
fn guard(fabric: &Fabric, at: usize, table: &str) -> Vec<Fault> {
    let v6 = !fabric.families.ipv4();
    let (from, carries) = if v6 { ("from6", "carries6") } else { ("from4", "carries4") };
    let Words { public, .. } = Words::new(fabric, at, v6);
    let stranger = if v6 { "2001:db8::9" } else { "198.51.100.9" };
    vec![
        Fault::sh("guard-deleted", format!("nft delete table {table}")),
        Fault::sh("guard-flushed", format!("nft flush table {table}")),
        Fault::sh("guard-dormant", format!("nft add table {table} '{{ flags dormant; }}'")),
        Fault::sh("guard-shut", format!("nft insert rule {table} senders drop")),
        Fault::sh("guard-open", format!("nft insert rule {table} input accept")),
        Fault::sh(
            "guard-emptied",
            format!(
                "nft -t list table {table} | awk '/set ({from}|{carries})/{{print \"flush set {table}\", $2}}' | nft -f -"
            ),
        ),
        Fault::sh("guard-peer-out", format!("nft delete element {table} {from} '{{ {public} }}'")),
        Fault::sh("guard-stranger-in", format!("nft add element {table} {from} '{{ {stranger} }}'")),
    ]
}

/// What can be broken of flanneld's chains.
pub(crate) fn iptables(v6: bool) -> Vec<Fault> {
    let t = if v6 { "ip6tables" } else { "iptables" };
    vec![
        Fault::sh("chain-flushed", format!("{t} -t nat -F FLANNEL-POSTRTG; {t} -F FLANNEL-FWD")),
        Fault::sh(
            "forward-jump",
            format!("{t} -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD"),
        ),
        Fault::sh(
            "masq-jump",
            format!("{t} -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG"),
        ),
        // An agent that repairs between two of the commands keeps a chain in use: then the table is emptied again.
        Fault::sh(
            "chains-deleted",
            ["filter", "nat"]
                .map(|table| format!("until {t} -t {table} -F && {t} -t {table} -X; do :; done"))
                .join("; "),
        ),
        Fault::sh("ruleset-flushed", "nft flush ruleset"),
    ]
}

/// A network that drops what comes to a host and matches `rule`, until it is mended.
pub(crate) fn drop_at(host: &Host, rule: &str) {
    let chain = format!(
        "add table inet net; add chain inet net in {{ type filter hook prerouting priority -450; }}; \
                         add rule inet net in {rule} drop"
    );
    host.net.exec(&["nft", &chain]).unwrap();
}

pub(crate) fn mend(host: &Host) {
    host.net.exec(&["nft", "delete table inet net"]).unwrap();
}

/// Nobody on the way says that a packet is too large.
pub(crate) fn silence(router: &Netns) {
    let rules = "add table inet silent; add chain inet silent out { type filter hook output priority 0; }; \
                 add rule inet silent out icmp type destination-unreachable drop; \
                 add rule inet silent out icmpv6 type packet-too-big drop";
    router.exec(&["nft", rules]).unwrap();
}
