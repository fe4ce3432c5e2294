//! Each check on a host without a flaw, and on one with a single flaw.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::json;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;
use twill_backends::state::{Checksums, LinkName, NetState, Vxlan};

use super::*;
use crate::agent::preview::Preview;
use crate::cni::fabric::Fabric as Env;
use crate::doctor::facts::{Agent, Fabric, Folder, Program, Refused, Socket, Store, Udp};
use crate::doctor::sign::Sign;
use crate::filter::PolicyDrop;
use crate::filter::look::Firewall;
use crate::kernel::Scope;
use crate::kernel::facts::tests::{addr, link, route};
use crate::kernel::facts::{BY_RA, HostFacts, RouteFact};
use crate::migrate::cni::{Cni, Network};
use crate::store::Entry;

const CONFIG: &str =
    r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
const NODE: &str = "0d6e6d5e-0000-4000-8000-000000000001";

fn name(text: &str) -> LinkName {
    text.try_into().unwrap()
}

fn own() -> Subnets {
    Subnets { v4: "10.5.1.0/24".parse().ok(), v6: "fd00:5:0:1::/64".parse().ok() }
}

fn entry(key: &str, node: &str, addr: &str) -> Entry {
    let key = LeaseKey::new(key);
    let attrs = Attrs { public_ip: addr.parse().ok(), node_id: Some(node.to_owned()), ..Attrs::default() };
    let subnets = key.subnets().unwrap();
    Entry {
        key: key.clone(),
        lease: Ok(Lease { key, subnets, attrs, vacant: false }),
        permanent: false,
        expires_in: None,
    }
}

fn status(faults: serde_json::Value, converged: bool) -> Agent {
    let tally = json!({ "passes": 3, "observations": 1, "operations": 4, "refusals": 0, "last_pass_us": 9 });
    let status = json!({
        "version": 1, "state": "ok", "build": "0.1.0", "pid": 77, "uptime_s": 9, "node": NODE, "instance": "ff82d74b",
        "store": { "place": "file:/x", "connected": true, "revision": 1, "error": null },
        "underlay": { "interface": "eth0", "mtu": 1500, "public": ["192.0.2.1"] },
        "network": { "networks": ["10.5.0.0/16"], "backend": "vxlan", "mtu": 1430, "firewall": "nftables" },
        "lease": { "key": "10.5.1.0-24", "subnets": ["10.5.1.0/24"], "standing": "held", "expires_in_s": 9 },
        "peers": [], "faults": faults,
        "reconcile": { "converged": converged, "tally": tally, "repairs": 0 },
    });
    Agent::Answers(Box::new(serde_json::from_value(status).unwrap()))
}

/// A host without a flaw.
fn healthy() -> Facts {
    let tunnels = vec![name("flannel.1"), name("flannel-v6.1")];
    let links = [(2, "eth0"), (3, "flannel.1"), (4, "flannel-v6.1"), (5, "cni0")];
    let mut links = links.map(|(index, name)| link(index, name)).to_vec();
    links[3].mtu = 1430;
    let addrs = vec![addr(2, "192.0.2.1/24"), addr(5, "10.5.1.1/24"), addr(5, "fe80::1/64")];
    let network = NetworkConfig::parse(CONFIG).unwrap();
    let settings =
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(|path| (path.to_owned(), "1".to_owned()));
    Facts {
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        privileged: true,
        agent: status(json!([]), true),
        store: Store {
            network: Ok(network.clone()),
            entries: Ok(vec![
                entry("10.5.1.0-24", NODE, "192.0.2.1"),
                entry("10.5.2.0-24", "2", "192.0.2.2"),
            ]),
        },
        fabric: Fabric {
            node: Some(NODE.to_owned()),
            own: own(),
            scope: Scope {
                links: tunnels.iter().copied().collect(),
                own: own().iter().map(|(_, net)| *net).collect(),
                networks: network.pools.iter().map(|(_, pool)| (pool.network, pool.subnet_len)).collect(),
                ..Scope::default()
            },
            network: Some(network),
            tunnels,
            vxlan: Some((1, 8472)),
            underlay: Some(name("eth0")),
        },
        host: HostFacts { links, addrs, routes: Vec::new(), reach: None },
        ahead: None,
        no_vxlan: None,
        settings: settings.into(),
        udp: Udp { received: 1_000_000, spoilt: 99 },
        sockets: Vec::new(),
        programs: Vec::new(),
        told: BTreeSet::new(),
        firewall: Ok(Firewall::default()),
        env: Ok(Some(env("10.5.1.1/24"))),
        env_path: "/run/flannel/subnet.env".into(),
        folders: vec![Folder { path: "/var/lib".into(), free: 1 << 30, inodes: 1_000, unwritable: None }],
        snapshot: None,
        synchronized: Some(true),
        cni: Cni::default(),
        missing: Vec::new(),
    }
}

fn env(subnet: &str) -> Env {
    let text = format!(
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n\
         FLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
    );
    Env::parse(&text).unwrap()
}

fn runs(program: &str) -> impl Fn(&mut Facts) {
    move |facts| facts.programs.push(Program { pid: 7, name: program.to_owned() })
}

fn set(path: &str, value: &str) -> impl Fn(&mut Facts) {
    move |facts| drop(facts.settings.insert(path.to_owned(), value.to_owned()))
}

fn preview(want: NetState) -> Preview {
    Preview {
        key: LeaseKey::new("10.5.1.0-24"),
        claim: false,
        subnets: own(),
        mtu: 1430,
        want,
        have: NetState::default(),
        rules: Vec::new(),
        faults: Vec::new(),
    }
}

type Change = Box<dyn Fn(&mut Facts)>;
type Flaw = (&'static str, Change);

fn flaw(code: &'static str, make: impl Fn(&mut Facts) + 'static) -> Flaw {
    (code, Box::new(make))
}

fn flaws_of_the_agent() -> Vec<Flaw> {
    vec![
        flaw("no-agent", |facts| facts.agent = Agent::Absent("no socket".to_owned())),
        flaw("agent-silent", |facts| facts.agent = Agent::Silent(Duration::from_secs(2))),
        flaw("not-settled", |facts| facts.agent = status(json!([]), false)),
        flaw("store-down", |facts| {
            let fault =
                json!({ "code": "store-down", "subject": "store", "cause": "refused", "next": "wait" });
            facts.agent = status(json!([fault]), true);
        }),
        flaw("no-privilege", |facts| facts.privileged = false),
        flaw("cannot-start", |facts| {
            facts.ahead = Some(Err(Refused::Error("no underlay; next: bring it up".to_owned())));
        }),
        flaw("bad-config", |facts| {
            facts.ahead = Some(Err(Refused::Faults(vec![Fault::new(Code::BadConfig, "config", "junk")])));
        }),
        flaw("kernel-differs", |facts| {
            let routes = ["10.5.2.0/24", "10.5.3.0/24", "10.5.4.0/24", "10.5.9.0/24"].map(route);
            let want = NetState {
                routes: routes.iter().filter_map(RouteFact::entry).collect(),
                ..NetState::default()
            };
            facts.ahead = Some(Ok(preview(want)));
        }),
    ]
}

fn flaws_of_leases() -> Vec<Flaw> {
    let add = |facts: &mut Facts, entry| facts.store.entries.as_mut().unwrap().push(entry);
    vec![
        flaw("no-config", |facts| facts.store.network = Err(Fault::new(Code::NoConfig, "file:/x", "none"))),
        flaw("store-down", |facts| facts.store.entries = Err(Fault::new(Code::StoreDown, "file:/x", "no"))),
        flaw("no-lease", |facts| facts.fabric.own = Subnets::default()),
        flaw("duplicate-node", move |facts| add(facts, entry("10.5.3.0-24", "2", "192.0.2.3"))),
        flaw("duplicate-address", move |facts| add(facts, entry("10.5.3.0-24", "3", "192.0.2.2"))),
        flaw("network-overlap", move |facts| add(facts, entry("10.5.3.0-24", "3", "10.5.3.9"))),
        flaw("bad-lease-value", move |facts| {
            let mut junk = entry("10.5.3.0-24", "3", "192.0.2.3");
            junk.lease = Err(Fault::new(Code::BadLeaseValue, "10.5.3.0-24", "junk"));
            add(facts, junk);
        }),
    ]
}

/// The agent found that the underlay's device spoils checksums.
fn spoilt(facts: &mut Facts) {
    let device = json!({
        "device": "flannel.1", "offload": false, "because": "0 of 24", "udp": true, "udp_because": "",
        "spoilt": "0 of 24", "tested": true,
    });
    let Agent::Answers(status) = &mut facts.agent else { return };
    let datapath = json!({ "kind": "kernel", "because": "", "tunnels": [], "checksums": [device] });
    status.network.as_mut().unwrap().datapath = serde_json::from_value(datapath).unwrap();
}

fn flaws_of_the_kernel() -> Vec<Flaw> {
    vec![
        flaw("forwarding-off", set("net/ipv4/ip_forward", "0")),
        flaw("forwarding-off", set("net/ipv6/conf/all/forwarding", "0")),
        flaw("forwarding-off", set("net/ipv4/conf/flannel.1/forwarding", "0")),
        flaw("rp-filter-strict", set("net/ipv4/conf/eth0/rp_filter", "1")),
        flaw("ipv6-off", set("net/ipv6/conf/flannel-v6.1/disable_ipv6", "1")),
        flaw("ra-ignored", |facts| {
            facts.host.routes.push(RouteFact { protocol: BY_RA, ..route("::/0") });
            set("net/ipv6/conf/eth0/accept_ra", "1")(facts);
        }),
        flaw("no-vxlan", |facts| facts.no_vxlan = Some("Operation not supported".to_owned())),
        flaw("bridge-netfilter-off", runs("kubelet")),
        flaw("conntrack-full", |facts| {
            set("net/netfilter/nf_conntrack_count", "90")(facts);
            set("net/netfilter/nf_conntrack_max", "100")(facts);
        }),
        flaw("offload-spoilt", spoilt),
        flaw("bad-checksums", |facts| facts.udp = Udp { received: 50_000, spoilt: 101 }),
    ]
}

fn flaws_of_links() -> Vec<Flaw> {
    vec![
        flaw("tunnel-down", |facts| facts.host.links[1].up = false),
        flaw("tunnel-down", |facts| drop(facts.host.links.remove(2))),
        flaw("vni-taken", |facts| {
            let vxlan = Vxlan {
                vni: 1,
                port: 8472,
                local: std::net::Ipv4Addr::UNSPECIFIED.into(),
                learning: true,
                gbp: false,
                checksums: Checksums::default(),
            };
            let mut other = link(9, "other0");
            other.vxlan = Some(vxlan);
            facts.host.links.push(other);
        }),
        flaw("port-taken", |facts| facts.sockets.push(Socket { port: 8472, holder: None })),
        flaw("port-taken", |facts| {
            let holder = Some(Program { pid: 7, name: "nc".to_owned() });
            facts.sockets.push(Socket { port: 8472, holder });
        }),
        flaw("network-overlap", |facts| facts.host.addrs.push(addr(2, "10.5.200.1/24"))),
        flaw("network-covered", |facts| facts.host.routes.push(route("10.0.0.0/8"))),
        flaw("bridge-address", |facts| facts.host.addrs.insert(0, addr(5, "10.99.0.1/24"))),
        flaw("bridge-mtu", |facts| facts.host.links[3].mtu = 1500),
    ]
}

fn flaws_of_others() -> Vec<Flaw> {
    let drops = |facts: &mut Facts| {
        let drop = PolicyDrop { v6: false, chain: "ip filter FORWARD".to_owned(), iptables: true };
        facts.firewall.as_mut().unwrap().drops.push(drop);
    };
    vec![
        flaw("managed-devices", runs("NetworkManager")),
        flaw("managed-devices", runs("systemd-network")),
        flaw("managed-devices", runs("dhcpcd")),
        flaw("flanneld-runs", runs("flanneld")),
        flaw("forward-dropped", drops),
        flaw("firewall-failed", |facts| facts.firewall = Err("nft ended".to_owned())),
        flaw("iptables-mixed", |facts| {
            let firewall = facts.firewall.as_mut().unwrap();
            firewall.legacy.push("-A INPUT".to_owned());
            firewall.compat.push("table ip filter".to_owned());
        }),
        flaw("subnet-env-missing", |facts| facts.env = Ok(None)),
        flaw("subnet-env-differs", |facts| facts.env = Ok(Some(env("10.5.7.1/24")))),
        flaw("subnet-env-differs", |facts| facts.env = Err("no FLANNEL_MTU".to_owned())),
        flaw("subnet-env-differs", |facts| {
            let mut other = env("10.5.1.1/24");
            other.mtu = 1450;
            facts.env = Ok(Some(other));
        }),
        flaw("state-unwritable", |facts| {
            facts.folders[0].unwritable = Some("Read-only file system".to_owned());
        }),
        flaw("disk-full", |facts| facts.folders[0].free = 4096),
        flaw("disk-full", |facts| facts.folders[0].inodes = 0),
        flaw("clock-behind", |facts| facts.snapshot = Some(facts.now + Duration::from_secs(61))),
        flaw("clock-unsynchronized", |facts| facts.synchronized = Some(false)),
        flaw("cni-plugin-missing", |facts| facts.missing.push(("bridge".to_owned(), "/etc/x.conf".into()))),
        flaw("cni-file-bad", |facts| facts.cni.odd.push(("/etc/x.conf".into(), "no JSON".to_owned()))),
    ]
}

#[test]
fn each_flaw_is_named_and_nothing_else() {
    assert_eq!(examine(&healthy()), []);
    let flaws =
        [flaws_of_the_agent(), flaws_of_leases(), flaws_of_the_kernel(), flaws_of_links(), flaws_of_others()];
    let mut named = BTreeSet::new();
    for (code, make) in flaws.into_iter().flatten() {
        let mut facts = healthy();
        make(&mut facts);
        let findings = examine(&facts);
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code], "{findings:#?}");
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert!(
            !finding.subject.is_empty() && !finding.found.is_empty() && !finding.next.is_empty(),
            "{finding:?}"
        );
        named.insert(code);
    }
    let untested: Vec<&str> =
        Sign::ENTRIES.iter().map(|entry| entry.code).filter(|code| !named.contains(code)).collect();
    assert!(untested.is_empty(), "no flaw shows {untested:?}");
}

#[test]
fn what_looks_like_a_flaw_and_is_none() {
    let no_flaws: [Change; 8] = [
        // The kernel's own socket, and the agent's.
        Box::new(|facts| {
            let local = std::net::Ipv4Addr::UNSPECIFIED.into();
            facts.host.links[1].vxlan = Some(Vxlan {
                vni: 1,
                port: 8472,
                local,
                learning: false,
                gbp: false,
                checksums: Checksums::default(),
            });
            facts.sockets.push(Socket { port: 8472, holder: None });
        }),
        Box::new(|facts| {
            let holder = Some(Program { pid: 77, name: "twill".to_owned() });
            facts.sockets.push(Socket { port: 8472, holder });
        }),
        // The agent, under flanneld's name.
        Box::new(|facts| facts.programs.push(Program { pid: 77, name: "flanneld".to_owned() })),
        // A manager that was told.
        Box::new(|facts| {
            runs("NetworkManager")(facts);
            facts.told.insert("NetworkManager");
        }),
        // In iptables mode the chains are in the table that drops.
        Box::new(|facts| {
            let drop = PolicyDrop { v6: false, chain: "ip filter FORWARD".to_owned(), iptables: true };
            facts.firewall = Ok(Firewall { drops: vec![drop], chains: true, ..Firewall::default() });
        }),
        // Loose, whatever the device says.
        Box::new(|facts| {
            set("net/ipv4/conf/eth0/rp_filter", "1")(facts);
            set("net/ipv4/conf/all/rp_filter", "2")(facts);
        }),
        // A second lease that is a reservation.
        Box::new(|facts| {
            let reserved = Entry { permanent: true, ..entry("10.5.3.0-24", "2", "192.0.2.2") };
            facts.store.entries.as_mut().unwrap().push(reserved);
        }),
        // Another bridge is the containers'.
        Box::new(|facts| {
            facts.host.addrs.push(addr(5, "10.99.0.1/24"));
            facts.cni.networks.push(network("br7"));
        }),
    ];
    for (index, make) in no_flaws.iter().enumerate() {
        let mut facts = healthy();
        make(&mut facts);
        assert_eq!(examine(&facts), [], "{index}");
    }
}

fn network(bridge: &str) -> Network {
    let root = tempfile::tempdir().unwrap();
    let conf = format!(r#"{{"name":"n","type":"flannel","delegate":{{"bridge":"{bridge}"}}}}"#);
    std::fs::write(root.path().join("10.conf"), conf).unwrap();
    let dirs = crate::migrate::cni::Dirs {
        conf: root.path().to_owned(),
        state: root.path().join("state"),
        networks: root.path().join("networks"),
    };
    let cni = crate::migrate::cni::read(&dirs);
    assert_eq!(cni.networks[0].plugins, ["bridge", "host-local", "flannel"]);
    cni.networks.into_iter().next().unwrap()
}

#[test]
fn the_line_that_mends_a_setting_can_be_pasted() {
    for (path, value, next) in [
        ("net/ipv4/ip_forward", "0", "sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d"),
        (
            "net/ipv6/conf/flannel-v6.1/disable_ipv6",
            "1",
            "echo 0 > /proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6",
        ),
    ] {
        let mut facts = healthy();
        set(path, value)(&mut facts);
        let findings = examine(&facts);
        assert!(findings[0].next.starts_with(next), "{findings:?}");
    }
}

#[test]
fn what_the_agent_says_comes_first_and_once() {
    let mut facts = healthy();
    let fault = json!({ "code": "duplicate-address", "subject": "10.5.3.0-24", "cause": "both", "next": "change it" });
    facts.agent = status(json!([fault]), true);
    facts.store.entries.as_mut().unwrap().push(entry("10.5.3.0-24", "3", "192.0.2.2"));
    let findings = examine(&facts);
    let said: Vec<_> = findings.iter().map(|one| (one.code, one.found.as_str(), one.next.as_str())).collect();
    assert_eq!(said, [("duplicate-address", "both", "change it")]);
}
