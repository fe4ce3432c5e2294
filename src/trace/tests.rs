//! Every way in which a packet can be stopped, one change at a time, on a host that is otherwise as wanted.

use std::time::{Duration, Instant};

use twill_backends::backend::from_config;
use twill_backends::family::PerFamily;
use twill_backends::filter::Masquerade;
use twill_backends::host::{Address, Host, Own, Policy};
use twill_backends::leases::{LeaseEvent, Leases};
use twill_backends::network::NetworkConfig;
use twill_backends::state::{Datapath, Fdb, NeighKey, Route, RouteKey};

use super::*;
use crate::kernel::ForeignRoute;
use crate::kernel::facts::tests::{addr, link};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const UDP: &str = r#"{"Type":"udp"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// Host 1 of three, and all it knows.
struct World {
    plan: Plan,
    leases: Vec<Lease>,
    observed: Observed,
    facts: HostFacts,
    ways: BTreeMap<IpAddr, Way>,
    rules: Vec<String>,
    shut_out: BTreeSet<Element>,
    drops: Vec<PolicyDrop>,
    agents: BTreeMap<LeaseKey, Agent>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn dev(name: &str) -> LinkName {
    name.try_into().unwrap()
}

fn lease(n: u8, kind: &str) -> Lease {
    let value = format!(
        r#"{{"PublicIP":"192.0.2.{n}","PublicIPv6":"2001:db8::{n}","BackendType":"{kind}",
        "BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{n}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"02:00:00:00:06:0{n}"}}}}"#
    );
    Lease::decode(&format!("10.5.{n}.0-24&fd00:5:0:{n}::-64"), value.as_bytes()).unwrap()
}

fn plan(backend: &str, datapath: Datapath, leases: &[Lease]) -> Plan {
    let config = format!(
        r#"{{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{backend}}}"#
    );
    let network = NetworkConfig::parse(&config).unwrap();
    let address = |text| Some(Address { local: ip(text), public: ip(text) });
    let host = Host {
        instance: "x".to_owned(),
        iface: dev("eth0"),
        mtu: 1500,
        addrs: PerFamily { v4: address("192.0.2.1"), v6: address("2001:db8::1") },
        on_link: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        checksums: PerFamily::NONE,
        macs: PerFamily { v4: "02:00:00:00:00:01".parse().ok(), v6: "02:00:00:00:06:01".parse().ok() },
        datapath,
    };
    let own = leases[0].clone();
    let masquerade = Some(Masquerade { random_fully: true });
    let policy =
        Policy { masquerade, forward: true, outer_check: true, inner_check: true, ..Policy::default() };
    let own = Own { key: own.key, subnets: own.subnets, former: Vec::new(), policy, network };
    let mut plan = Plan::new(from_config(&own.network).unwrap(), host, own);
    let mut all = Leases::new(Duration::ZERO);
    all.apply(LeaseEvent::Snapshot { leases: leases.to_vec(), faults: Vec::new() }, Instant::now());
    plan.reset(&all);
    plan
}

fn through(name: &str, via: Option<&str>) -> Way {
    Way::Through { dev: dev(name), via: via.map(ip), mtu: None }
}

/// A host as wanted.
fn healthy(backend: &str, datapath: Datapath) -> World {
    let kind = if backend == HOST_GW {
        "host-gw"
    } else if backend == UDP {
        "udp"
    } else {
        "vxlan"
    };
    let mut leases: Vec<Lease> = (1..=3).map(|n| lease(n, kind)).collect();
    if backend == HOST_GW {
        leases
            .iter_mut()
            .for_each(|lease| (lease.attrs.backend_data, lease.attrs.backend_v6_data) = (None, None));
    }
    let plan = plan(backend, datapath, &leases);
    let net = plan.want().clone();
    let mut links = vec![link(1, "lo"), link(2, "eth0"), link(3, "cni0")];
    links.extend((10..).zip(net.links.keys()).map(|(index, name)| link(index, name.as_str())));
    links.iter_mut().for_each(|link| link.mtu = net.links.get(&link.name).map_or(1500, |ours| ours.mtu));
    let addrs = ["192.0.2.1/24", "2001:db8::1/64", "10.5.1.1/24", "fd00:5:0:1::1/64"];
    let addrs = [2, 2, 3, 3].into_iter().zip(addrs).map(|(index, net)| addr(index, net)).collect();
    let mut ways: BTreeMap<IpAddr, Way> = BTreeMap::new();
    for (pod, host) in [("10.5.1.7", "192.0.2.1"), ("fd00:5:0:1::7", "2001:db8::1")] {
        ways.extend([(ip(pod), through("cni0", None)), (ip(host), through("lo", None))]);
    }
    ways.extend([(ip("192.0.2.2"), through("eth0", None)), (ip("2001:db8::2"), through("eth0", None))]);
    ways.extend([(ip("198.51.100.9"), through("eth0", Some("192.0.2.254")))]);
    for pod in ["10.5.2.7", "fd00:5:0:2::7"] {
        let (_, route) = net.routes.iter().find(|(key, _)| key.dst.contains(&ip(pod))).unwrap();
        ways.insert(ip(pod), Way::Through { dev: route.dev.unwrap(), via: route.via, mtu: None });
    }
    let own = Agent {
        state: "ok".to_owned(),
        fault: None,
        serves: net.links.keys().map(ToString::to_string).collect(),
    };
    World {
        agents: [(plan.own().key.clone(), own)].into(),
        plan,
        leases,
        observed: Observed { net, ..Observed::default() },
        facts: HostFacts { links, addrs, ..HostFacts::default() },
        ways,
        rules: Vec::new(),
        shut_out: BTreeSet::new(),
        drops: Vec::new(),
    }
}

impl World {
    fn trace(&self, src: &str, dst: &str) -> Trace {
        let firewall = Firewall { rules: &self.rules, shut_out: &self.shut_out, drops: &self.drops };
        let scene = Scene {
            plan: &self.plan,
            leases: &self.leases,
            observed: &self.observed,
            facts: &self.facts,
            ways: self.ways.clone(),
            firewall,
            agents: self.agents.clone(),
        };
        trace(&scene, ip(src), ip(dst))
    }

    fn link(&mut self, name: &str) -> &mut twill_backends::state::Link {
        self.observed.net.links.get_mut(&dev(name)).unwrap()
    }
}

/// The answer in short: its code, the entry it names, and the cause.
fn answer(trace: &Trace) -> (u8, String, String) {
    let answer = trace.answer();
    let named = match answer {
        Answer::Through => (String::new(), String::new()),
        Answer::But(_, hop, why) | Answer::Stops(_, hop, why) => {
            assert!(!why.next.is_empty(), "{trace}");
            (hop.what.clone(), why.cause.clone())
        }
    };
    (answer.code(), named.0, named.1)
}

fn route_key() -> RouteKey {
    RouteKey { dst: "10.5.2.0/24".parse().unwrap(), metric: 0 }
}

fn neigh_key() -> NeighKey {
    NeighKey { dev: dev("flannel.1"), ip: ip("10.5.2.0") }
}

fn fdb() -> Fdb {
    Fdb { dev: dev("flannel.1"), mac: "02:00:00:00:00:02".parse().unwrap(), dst: ip("192.0.2.2") }
}

#[test]
fn a_healthy_host_lets_packets_through() {
    for (backend, datapath, mtu) in [
        (VXLAN, Datapath::Kernel, [1450, 1430]),
        (VXLAN, Datapath::Userspace, [1450, 1430]),
        (UDP, Datapath::Userspace, [1450, 1430]),
        (r#"{"Type":"vxlan","DirectRouting":true}"#, Datapath::Kernel, [1500, 1500]),
        (HOST_GW, Datapath::Kernel, [1500, 1500]),
    ] {
        let world = healthy(backend, datapath);
        for (src, dst, mtu) in [("10.5.1.7", "10.5.2.7", mtu[0]), ("fd00:5:0:1::7", "fd00:5:0:2::7", mtu[1])]
        {
            let trace = world.trace(src, dst);
            assert_eq!(answer(&trace).0, 0, "{backend} {datapath:?}: {trace}");
            assert_eq!(trace.mtu(), Some(mtu), "{backend} {datapath:?}: {trace}");
        }
    }
}

#[test]
fn every_place_a_packet_can_come_from_or_go_to_has_an_answer() {
    let world = healthy(VXLAN, Datapath::Kernel);
    for (src, dst, code, hops) in [
        ("10.5.1.7", "10.5.1.1", 0, 2),
        ("192.0.2.1", "10.5.2.7", 0, 9),
        ("10.5.1.7", "192.0.2.2", 0, 4),
        ("10.5.1.7", "198.51.100.9", 0, 4),
        ("10.5.2.7", "10.5.1.7", 0, 8),
        ("10.5.2.7", "10.5.3.7", 0, 4),
        ("10.5.2.7", "10.5.2.8", 0, 1),
        ("198.51.100.9", "10.5.1.7", 0, 4),
        ("10.5.1.7", "10.5.99.7", 2, 4),
        ("10.5.99.7", "10.5.1.7", 2, 1),
        ("10.5.1.7", "fd00:5:0:2::7", 2, 1),
    ] {
        let trace = world.trace(src, dst);
        assert_eq!((answer(&trace).0, trace.hops.len()), (code, hops), "{src} {dst}\n{trace}");
    }
}

/// What is done to the host, what the answer's code is, which entry it names, and what of the cause.
type Broken = (fn(&mut World), u8, &'static str, &'static str);

/// The tunnel device.
const DEVICE: &[Broken] = &[
    (|w| drop(w.observed.net.links.remove(&dev("flannel.1"))), 2, "device flannel.1", "missing"),
    (|w| w.link("flannel.1").up = false, 2, "device flannel.1", "state down"),
    (
        |w| w.link("flannel.1").mac = "02:00:00:00:00:99".parse().unwrap(),
        2,
        "device flannel.1",
        "02:00:00:00:00:99",
    ),
    (|w| w.link("flannel.1").vxlan_mut().unwrap().vni = 7, 2, "device flannel.1", "id 7"),
    (|w| w.link("flannel.1").vxlan_mut().unwrap().port = 4789, 2, "device flannel.1", "port 4789"),
    (
        |w| w.link("flannel.1").vxlan_mut().unwrap().local = ip("192.0.2.9"),
        2,
        "device flannel.1",
        "local 192.0.2.9",
    ),
    (|w| w.link("flannel.1").mtu = 1300, 1, "device flannel.1", "mtu 1300"),
    (|w| w.link("flannel.1").addrs.clear(), 1, "device flannel.1", "addr 10.5.1.0/32 is wanted"),
];

/// The route to the peer's subnet.
const ROUTE: &[Broken] = &[
    (
        |w| {
            w.observed.net.routes.remove(&route_key());
            w.ways.insert(ip("10.5.2.7"), through("eth0", Some("192.0.2.254")));
        },
        2,
        "route 10.5.2.0/24",
        "packets leave through eth0 via 192.0.2.254",
    ),
    (
        |w| {
            w.observed.net.routes.remove(&route_key());
            w.ways.insert(ip("10.5.2.7"), Way::Nowhere("Network is unreachable".to_owned()));
        },
        2,
        "route 10.5.2.0/24",
        "packets are dropped: Network is unreachable",
    ),
    (
        |w| {
            let via = Some(ip("192.0.2.3"));
            let route = w.observed.net.routes.get_mut(&route_key()).unwrap();
            *route = Route { via, dev: Some(dev("eth0")), onlink: false, ..*route };
            w.ways.insert(ip("10.5.2.7"), through("eth0", Some("192.0.2.3")));
        },
        2,
        "route 10.5.2.0/24",
        "leads elsewhere: via 192.0.2.3 dev eth0",
    ),
    (
        |w| w.observed.net.routes.get_mut(&route_key()).unwrap().mtu = Some(900),
        1,
        "route 10.5.2.0/24",
        "mtu 900",
    ),
    (
        |w| {
            let line = "10.5.2.0/25 via 192.0.2.254 dev eth0 proto static".to_owned();
            w.observed.foreign = vec![ForeignRoute { dst: "10.5.2.0/25".parse().unwrap(), metric: 0, line }];
            w.ways.insert(ip("10.5.2.7"), through("eth0", Some("192.0.2.254")));
        },
        2,
        "route 10.5.2.0/24",
        "10.5.2.0/25 via 192.0.2.254 dev eth0 proto static goes first",
    ),
    (
        |w| drop(w.ways.insert(ip("10.5.2.7"), through("wg0", None))),
        2,
        "route 10.5.2.0/24",
        "packets leave through wg0: a rule or a route of another table",
    ),
    (
        |w| {
            w.observed.net.routes.remove(&route_key());
            let line = "10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink".to_owned();
            w.observed.foreign = vec![ForeignRoute { dst: "10.5.2.0/24".parse().unwrap(), metric: 0, line }];
        },
        1,
        "route 10.5.2.0/24",
        "somebody else's",
    ),
];

/// The neighbour and the FDB entry.
const ENTRY: &[Broken] = &[
    (
        |w| {
            w.observed.net.neighs.remove(&neigh_key());
        },
        2,
        "neighbour 10.5.2.0 on flannel.1",
        "missing",
    ),
    (
        |w| {
            w.observed.net.neighs.insert(neigh_key(), "02:00:00:00:00:03".parse().unwrap());
        },
        2,
        "neighbour 10.5.2.0 on flannel.1",
        "go to 02:00:00:00:00:03",
    ),
    (
        |w| {
            w.observed.net.fdb.remove(&fdb());
        },
        2,
        "FDB entry 02:00:00:00:00:02 on flannel.1",
        "missing",
    ),
    (
        |w| {
            w.observed.net.fdb.remove(&fdb());
            w.observed.net.fdb.insert(Fdb { dst: ip("192.0.2.3"), ..fdb() });
        },
        2,
        "FDB entry 02:00:00:00:00:02 on flannel.1",
        "go to 192.0.2.3",
    ),
];

/// What is between the pod and the tunnel, and between the tunnel and the peer.
const HOST: &[Broken] = &[
    (
        |w| drop(w.observed.net.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned())),
        2,
        "setting net.ipv4.ip_forward",
        "does not forward",
    ),
    (
        |w| w.drops = vec![PolicyDrop { v6: false, chain: "ip filter FORWARD".to_owned(), iptables: true }],
        2,
        "firewall",
        "ip filter FORWARD",
    ),
    (|w| w.rules = vec!["load nftables table inet twill-x: missing".to_owned()], 1, "firewall", "missing"),
    (
        |w| {
            w.shut_out.insert(Element::From(ip("192.0.2.2")));
        },
        2,
        "guard of UDP 8472",
        "192.0.2.2 are dropped",
    ),
    (
        |w| drop(w.ways.insert(ip("192.0.2.2"), Way::Nowhere("Network is unreachable".to_owned()))),
        2,
        "underlay to 192.0.2.2",
        "Network is unreachable",
    ),
    (|w| w.facts.links[1].running = false, 2, "underlay to 192.0.2.2", "eth0 is down"),
    (|w| w.facts.links[1].mtu = 1400, 1, "underlay to 192.0.2.2", "packets of 1350 bytes"),
    (
        |w| {
            drop(
                w.ways.insert(ip("192.0.2.2"), Way::Through { dev: dev("eth0"), via: None, mtu: Some(1300) }),
            )
        },
        1,
        "underlay to 192.0.2.2",
        "packets of 1250 bytes",
    ),
    (
        |w| drop(w.ways.insert(ip("10.5.1.7"), through("eth0", None))),
        2,
        "pod 10.5.1.7",
        "would leave through eth0",
    ),
    (|w| w.facts.links[2].running = false, 2, "pod 10.5.1.7", "cni0 is down"),
];

/// What leases say, and the agents of other hosts.
const LEASE: &[Broken] = &[
    (|w| drop(w.leases.remove(0)), 2, "own lease", "no lease of this host"),
    (|w| w.leases[0].attrs.public_ip = "192.0.2.77".parse().ok(), 2, "own lease", "192.0.2.77"),
    (
        |w| {
            w.leases[1].attrs.backend_data = None;
            w.plan = plan(VXLAN, Datapath::Kernel, &w.leases);
        },
        2,
        "lease 10.5.2.0-24&fd00:5:0:2::-64",
        "no VtepMAC",
    ),
    (
        |w| {
            w.leases[1].attrs.public_ip = None;
            w.plan = plan(VXLAN, Datapath::Kernel, &w.leases);
        },
        2,
        "lease 10.5.2.0-24&fd00:5:0:2::-64",
        "no public IPv4 address",
    ),
    (
        |w| {
            let why = Cause { cause: "store-down: away".to_owned(), next: "bring it back".to_owned() };
            let state = "degraded".to_owned();
            w.agents.insert(w.leases[1].key.clone(), Agent { state, fault: Some(why), ..Agent::default() });
        },
        1,
        "agent",
        "store-down",
    ),
];

#[test]
fn every_broken_entry_is_named() {
    let rows = [DEVICE, ROUTE, ENTRY, HOST, LEASE].into_iter().flatten();
    for (at, (breaks, code, entry, cause)) in rows.enumerate() {
        let mut world = healthy(VXLAN, Datapath::Kernel);
        breaks(&mut world);
        let trace = world.trace("10.5.1.7", "10.5.2.7");
        let (found, named, why) = answer(&trace);
        assert_eq!((found, named.as_str()), (*code, *entry), "row {at}\n{trace}");
        assert!(why.contains(cause), "row {at}: {cause:?} in {why:?}");
    }
}

#[test]
fn a_datapath_of_the_agents_needs_the_agent() {
    let mut world = healthy(VXLAN, Datapath::Userspace);
    world.agents.clear();
    let (code, entry, cause) = answer(&world.trace("10.5.1.7", "10.5.2.7"));
    assert_eq!((code, entry.as_str()), (2, "datapath"), "{cause}");
    world.agents.insert(world.plan.own().key.clone(), Agent::default());
    assert_eq!(answer(&world.trace("10.5.1.7", "10.5.2.7")).0, 2);
}

#[test]
fn what_comes_from_a_peer_meets_the_guard_the_device_and_the_pod() {
    let rows: &[Broken] = &[
        (
            |w| {
                w.shut_out.insert(Element::Carries(ip("192.0.2.2"), "10.5.2.0/24".parse().unwrap()));
            },
            2,
            "guard of UDP 8472",
            "192.0.2.2",
        ),
        (|w| w.link("flannel.1").up = false, 2, "device flannel.1", "down"),
        (|w| w.facts.links[2].running = false, 2, "pod 10.5.1.7", "cni0"),
    ];
    for (breaks, code, entry, cause) in rows {
        let mut world = healthy(VXLAN, Datapath::Kernel);
        breaks(&mut world);
        let trace = world.trace("10.5.2.7", "10.5.1.7");
        let (found, named, why) = answer(&trace);
        assert_eq!((found, named.as_str()), (*code, *entry), "{trace}");
        assert!(why.contains(cause), "{why}");
    }
}

#[test]
fn only_what_leaves_the_fabric_gets_the_hosts_source() {
    let world = healthy(VXLAN, Datapath::Kernel);
    let said = |dst: &str| {
        let trace = world.trace("10.5.1.7", dst);
        trace.hops.iter().find(|hop| hop.what == "firewall").unwrap().found.clone().unwrap()
    };
    assert_eq!(said("10.5.2.7"), "accepted; source is kept");
    assert_eq!(said("198.51.100.9"), "accepted; source becomes this host's");
}

#[test]
fn people_read_the_answer_first() {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    let text = |world: &World| {
        anstream::adapter::strip_str(&world.trace("10.5.1.7", "10.5.2.7").to_string()).to_string()
    };
    let through = text(&world);
    assert!(
        through.starts_with("goes through: 10.5.1.7 to 10.5.2.7, 11 hops, packets of up to 1450 bytes\n"),
        "{through}"
    );
    assert!(through.contains("told: on another host"), "{through}");
    world.observed.net.fdb.remove(&fdb());
    let stops = text(&world);
    let first = "stops at hop 7 (here, FDB entry 02:00:00:00:00:02 on flannel.1): the FDB entry is missing: the device \
                 knows no host to send to; next: bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 self \
                 permanent, or see why the agent does not (twill status)\n";
    assert!(stops.starts_with(first), "{stops}");
}
