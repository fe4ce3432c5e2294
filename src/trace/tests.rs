//! Every way in which a packet can be stopped, one change at a time, on a host that is otherwise as wanted.

use std::time::{Duration, Instant};

use twill_backends::backend::from_config;
use twill_backends::fault::Code;
use twill_backends::filter::Masquerade;
use twill_backends::host::{Address, Host, Own, Policy};
use twill_backends::leases::{LeaseEvent, Leases};
use twill_backends::network::NetworkConfig;
use twill_backends::probe::Verdict as Seen;
use twill_backends::state::{Datapath, Fdb, NeighKey, Route, RouteKey};

use super::*;
use crate::catalogue::refusal::Refusal;
use crate::kernel::ForeignRoute;
use crate::kernel::facts::tests::{addr, link};
use crate::verify::Deviation;

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
    agents: BTreeMap<LeaseKey, Asked>,
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

/// A peer that answers.
fn well(lease: &Lease) -> (LeaseKey, PerFamily<Probe>) {
    let probe = Probe {
        verdict: Seen::Ok,
        since_s: Some(754),
        rtt_us: Some(310),
        answer_age_ms: Some(400),
        ..Probe::unknown("")
    };
    (lease.key.clone(), PerFamily { v4: Some(probe.clone()), v6: Some(probe) })
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
    let agent = |of: &Lease| Agent {
        state: "ok".to_owned(),
        fault: None,
        settled: true,
        serves: net.links.keys().map(ToString::to_string).collect(),
        peers: leases.iter().filter(|lease| lease.key != of.key).map(well).collect(),
    };
    World {
        agents: leases.iter().map(|lease| (lease.key.clone(), Asked::Says(agent(lease)))).collect(),
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

    fn key(&self, host: usize) -> LeaseKey {
        self.leases[host - 1].key.clone()
    }

    /// What the agent of a host says.
    fn agent(&mut self, host: usize) -> &mut Agent {
        match self.agents.get_mut(&self.leases[host - 1].key) {
            Some(Asked::Says(agent)) => agent,
            other => panic!("{other:?}"),
        }
    }

    /// What the agent of one host measured of another, over IPv4.
    fn probe(&mut self, by: usize, of: usize) -> &mut Probe {
        let of = self.key(of);
        self.agent(by).peers.get_mut(&of).unwrap().v4.as_mut().unwrap()
    }

    fn link(&mut self, name: &str) -> &mut twill_backends::state::Link {
        self.observed.net.links.get_mut(&dev(name)).unwrap()
    }
}

/// The answer in short: how the command exits, the entry it names, and the cause with its code.
fn answer(trace: &Trace) -> (u8, String, String) {
    let answer = trace.answer();
    let named = match answer {
        Answer::Through => (String::new(), String::new()),
        Answer::But(_, hop, why) | Answer::Stops(_, hop, why) => {
            assert!(!why.next.is_empty(), "{trace}");
            assert!(crate::catalogue::find(&why.code).is_some(), "{} is not explained", why.code);
            (hop.what.clone(), why.to_string())
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
        ("192.0.2.1", "10.5.2.7", 0, 12),
        ("10.5.1.7", "192.0.2.2", 0, 7),
        ("10.5.1.7", "198.51.100.9", 0, 4),
        ("10.5.2.7", "10.5.1.7", 0, 11),
        ("10.5.2.7", "10.5.3.7", 0, 7),
        ("10.5.2.7", "10.5.2.8", 0, 2),
        ("198.51.100.9", "10.5.1.7", 0, 4),
        ("10.5.1.7", "10.5.99.7", 2, 4),
        ("10.5.99.7", "10.5.1.7", 2, 1),
        ("10.5.1.7", "fd00:5:0:2::7", 2, 1),
    ] {
        let trace = world.trace(src, dst);
        assert_eq!((answer(&trace).0, trace.hops.len()), (code, hops), "{src} {dst}\n{trace}");
    }
}

/// What is done to the host, how the command exits, which entry the answer names, with which code, and what of the cause.
type Broken = (fn(&mut World), u8, &'static str, &'static str, &'static str);

/// The tunnel device.
const DEVICE: &[Broken] = &[
    (
        |w| drop(w.observed.net.links.remove(&dev("flannel.1"))),
        2,
        "device flannel.1",
        "tunnel-down",
        "missing",
    ),
    (|w| w.link("flannel.1").up = false, 2, "device flannel.1", "tunnel-down", "state down"),
    (
        |w| w.link("flannel.1").mac = "02:00:00:00:00:99".parse().unwrap(),
        2,
        "device flannel.1",
        "device-differs",
        "02:00:00:00:00:99",
    ),
    (|w| w.link("flannel.1").vxlan_mut().unwrap().vni = 7, 2, "device flannel.1", "device-differs", "id 7"),
    (
        |w| w.link("flannel.1").vxlan_mut().unwrap().port = 4789,
        2,
        "device flannel.1",
        "device-differs",
        "port 4789",
    ),
    (
        |w| w.link("flannel.1").vxlan_mut().unwrap().local = ip("192.0.2.9"),
        2,
        "device flannel.1",
        "device-differs",
        "local 192.0.2.9",
    ),
    (|w| w.link("flannel.1").mtu = 1300, 1, "device flannel.1", "device-differs", "mtu 1300"),
    (
        |w| w.link("flannel.1").addrs.clear(),
        1,
        "device flannel.1",
        "device-differs",
        "addr 10.5.1.0/32 is wanted",
    ),
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
        "route-missing",
        "packets leave through eth0 via 192.0.2.254",
    ),
    (
        |w| {
            w.observed.net.routes.remove(&route_key());
            w.ways.insert(ip("10.5.2.7"), Way::Nowhere("Network is unreachable".to_owned()));
        },
        2,
        "route 10.5.2.0/24",
        "route-missing",
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
        "route-differs",
        "leads elsewhere: via 192.0.2.3 dev eth0",
    ),
    (
        |w| w.observed.net.routes.get_mut(&route_key()).unwrap().mtu = Some(900),
        1,
        "route 10.5.2.0/24",
        "route-differs",
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
        "foreign-route",
        "10.5.2.0/25 via 192.0.2.254 dev eth0 proto static goes first",
    ),
    (
        |w| drop(w.ways.insert(ip("10.5.2.7"), through("wg0", None))),
        2,
        "route 10.5.2.0/24",
        "foreign-route",
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
        "foreign-route",
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
        "neighbour-missing",
        "missing",
    ),
    (
        |w| {
            w.observed.net.neighs.insert(neigh_key(), "02:00:00:00:00:03".parse().unwrap());
        },
        2,
        "neighbour 10.5.2.0 on flannel.1",
        "neighbour-differs",
        "go to 02:00:00:00:00:03",
    ),
    (
        |w| {
            w.observed.net.fdb.remove(&fdb());
        },
        2,
        "FDB entry 02:00:00:00:00:02 on flannel.1",
        "fdb-missing",
        "missing",
    ),
    (
        |w| {
            w.observed.net.fdb.remove(&fdb());
            w.observed.net.fdb.insert(Fdb { dst: ip("192.0.2.3"), ..fdb() });
        },
        2,
        "FDB entry 02:00:00:00:00:02 on flannel.1",
        "fdb-differs",
        "go to 192.0.2.3",
    ),
];

/// What is between the pod and the tunnel, and between the tunnel and the peer.
const HOST: &[Broken] = &[
    (
        |w| drop(w.observed.net.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned())),
        2,
        "setting net.ipv4.ip_forward",
        "forwarding-off",
        "does not forward",
    ),
    (
        |w| w.drops = vec![PolicyDrop { v6: false, chain: "ip filter FORWARD".to_owned(), iptables: true }],
        2,
        "firewall",
        "forward-dropped",
        "ip filter FORWARD",
    ),
    (
        |w| w.rules = vec!["load nftables table inet twill-x: missing".to_owned()],
        1,
        "firewall",
        "firewall-differs",
        "missing",
    ),
    (
        |w| {
            w.shut_out.insert(Element::From(ip("192.0.2.2")));
        },
        2,
        "guard of UDP 8472",
        "peer-shut-out",
        "192.0.2.2 are dropped",
    ),
    (
        |w| drop(w.ways.insert(ip("192.0.2.2"), Way::Nowhere("Network is unreachable".to_owned()))),
        2,
        "underlay to 192.0.2.2",
        "no-way",
        "Network is unreachable",
    ),
    (|w| w.facts.links[1].running = false, 2, "underlay to 192.0.2.2", "no-way", "eth0 is down"),
    (|w| w.facts.links[1].mtu = 1400, 1, "underlay to 192.0.2.2", "path-mtu", "packets of 1350 bytes"),
    (
        |w| {
            drop(
                w.ways.insert(ip("192.0.2.2"), Way::Through { dev: dev("eth0"), via: None, mtu: Some(1300) }),
            )
        },
        1,
        "underlay to 192.0.2.2",
        "path-mtu",
        "packets of 1250 bytes",
    ),
    (
        |w| drop(w.ways.insert(ip("10.5.1.7"), through("eth0", None))),
        2,
        "pod 10.5.1.7",
        "pod-unattached",
        "would leave through eth0",
    ),
    (|w| w.facts.links[2].running = false, 2, "pod 10.5.1.7", "pod-unattached", "cni0 is down"),
];

/// What leases say, and the agents of other hosts.
const LEASE: &[Broken] = &[
    (|w| drop(w.leases.remove(0)), 2, "own lease", "no-lease", "no lease of this host"),
    (
        |w| w.leases[0].attrs.public_ip = "192.0.2.77".parse().ok(),
        2,
        "own lease",
        "lease-outdated",
        "192.0.2.77",
    ),
    (
        |w| {
            w.leases[1].attrs.backend_data = None;
            w.plan = plan(VXLAN, Datapath::Kernel, &w.leases);
        },
        2,
        "lease 10.5.2.0-24&fd00:5:0:2::-64",
        "incomplete-lease",
        "no VtepMAC",
    ),
    (
        |w| {
            w.leases[1].attrs.public_ip = None;
            w.plan = plan(VXLAN, Datapath::Kernel, &w.leases);
        },
        2,
        "lease 10.5.2.0-24&fd00:5:0:2::-64",
        "incomplete-lease",
        "no public IPv4 address",
    ),
    (
        |w| {
            let why = Cause::new(Code::StoreDown.entry(), "etcd: away", "bring it back");
            let agent = w.agent(2);
            (agent.state, agent.fault) = ("degraded".to_owned(), Some(why));
        },
        1,
        "agent",
        "store-down",
        "etcd: away",
    ),
    (|w| w.agent(2).settled = false, 1, "agent", "not-settled", "not as wanted yet"),
    (
        |w| {
            let own = w.plan.own().key.clone();
            w.agent(2).peers.remove(&own);
        },
        2,
        "probe of 10.5.1.0-24&fd00:5:0:1::-64",
        "leases-differ",
        "does not know that lease",
    ),
];

fn is_named(at: usize, (breaks, exit, entry, code, cause): &Broken, src: &str, dst: &str) {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    breaks(&mut world);
    let trace = world.trace(src, dst);
    let (found, named, why) = answer(&trace);
    assert_eq!((found, named.as_str()), (*exit, *entry), "row {at}\n{trace}");
    assert!(why.starts_with(&format!("{code}: ")) && why.contains(cause), "row {at}: {cause:?} in {why:?}");
}

#[test]
fn every_broken_entry_is_named() {
    let rows = [DEVICE, ROUTE, ENTRY, HOST, LEASE].into_iter().flatten();
    for (at, row) in rows.enumerate() {
        is_named(at, row, "10.5.1.7", "10.5.2.7");
    }
}

#[test]
fn a_datapath_of_the_agents_needs_the_agent() {
    let mut world = healthy(VXLAN, Datapath::Userspace);
    let own = world.key(1);
    world.agents.remove(&own);
    let (code, entry, cause) = answer(&world.trace("10.5.1.7", "10.5.2.7"));
    assert_eq!((code, entry.as_str()), (2, "datapath"), "{cause}");
    assert!(cause.starts_with("no-agent: "), "{cause}");
    world.agents.insert(own, Asked::Says(Agent::default()));
    let (code, entry, cause) = answer(&world.trace("10.5.1.7", "10.5.2.7"));
    assert_eq!((code, entry.as_str()), (2, "datapath"), "{cause}");
    assert!(cause.starts_with("datapath-failed: "), "{cause}");
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
            "peer-shut-out",
            "192.0.2.2",
        ),
        (|w| w.link("flannel.1").up = false, 2, "device flannel.1", "tunnel-down", "down"),
        (|w| w.facts.links[2].running = false, 2, "pod 10.5.1.7", "pod-unattached", "cni0"),
    ];
    for (at, row) in rows.iter().enumerate() {
        is_named(at, row, "10.5.2.7", "10.5.1.7");
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
        through.starts_with("goes through: 10.5.1.7 to 10.5.2.7, 14 hops, packets of up to 1450 bytes\n"),
        "{through}"
    );
    assert!(through.contains("told: not seen"), "{through}");
    world.observed.net.fdb.remove(&fdb());
    let stops = text(&world);
    let first = "stops at hop 7 (here, FDB entry 02:00:00:00:00:02 on flannel.1): fdb-missing: the FDB entry is missing: the device \
                 knows no host to send to; next: bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 self \
                 permanent, or see why the agent does not (twill status)\n";
    assert!(stops.starts_with(first), "{stops}");
}

/// What agents measured: by which host of which, with which verdict; how the command exits, at which hop, with which code.
type Verdicts = ((usize, usize, Seen), u8, &'static str, &'static str);

/// Between the first two hosts, seen from the first.
const MEASURED: &[Verdicts] = &[
    ((1, 2, Seen::PortEaten), 2, "10.5.2.0-24&fd00:5:0:2::-64", "port-eaten"),
    ((1, 2, Seen::OverlayDown), 2, "10.5.2.0-24&fd00:5:0:2::-64", "overlay-down"),
    ((1, 2, Seen::OneWay), 2, "10.5.2.0-24&fd00:5:0:2::-64", "one-way"),
    ((1, 2, Seen::PeerDown), 2, "10.5.2.0-24&fd00:5:0:2::-64", "peer-unreachable"),
    ((1, 2, Seen::AgentDown), 1, "10.5.2.0-24&fd00:5:0:2::-64", "agent-down"),
    ((1, 2, Seen::UnderlayDown), 1, "10.5.2.0-24&fd00:5:0:2::-64", "underlay-down"),
    ((1, 2, Seen::Unknown), 0, "", ""),
    ((1, 3, Seen::PeerDown), 0, "", ""),
    ((2, 1, Seen::PortEaten), 2, "10.5.1.0-24&fd00:5:0:1::-64", "port-eaten"),
    ((2, 1, Seen::AgentDown), 1, "10.5.1.0-24&fd00:5:0:1::-64", "agent-down"),
    ((2, 3, Seen::PeerDown), 0, "", ""),
];

#[test]
fn what_probes_say_of_the_pair_decides_in_both_directions() {
    for ((by, of, verdict), exit, entry, code) in MEASURED {
        let mut world = healthy(VXLAN, Datapath::Kernel);
        let probe = world.probe(*by, *of);
        (probe.verdict, probe.cause) = (*verdict, "as measured".to_owned());
        for (src, dst) in [("10.5.1.7", "10.5.2.7"), ("10.5.2.7", "10.5.1.7"), ("192.0.2.1", "10.5.2.7")] {
            let trace = world.trace(src, dst);
            let (found, named, why) = answer(&trace);
            assert_eq!(found, *exit, "{by} {of} {verdict}\n{trace}");
            assert!(named.ends_with(entry) && why.starts_with(code), "{by} {of} {verdict}\n{trace}");
            assert!(*exit == 0 || (named.starts_with("probe of ") && why.contains("as measured")), "{trace}");
        }
        // The other family was not measured to be broken.
        assert_eq!(answer(&world.trace("fd00:5:0:1::7", "fd00:5:0:2::7")).0, 0);
    }
}

#[test]
fn of_two_other_hosts_both_are_asked() {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    let probe = world.probe(2, 3);
    (probe.verdict, probe.cause) = (Seen::OneWay, "nothing arrives there".to_owned());
    let trace = world.trace("10.5.2.7", "10.5.3.7");
    let Answer::Stops(_, hop, why) = trace.answer() else { panic!("{trace}") };
    assert_eq!((hop.host.as_str(), &*why.code), ("10.5.2.0-24&fd00:5:0:2::-64", "one-way"));
    assert_eq!(why.cause, "its agent says: nothing arrives there");
    let back = world.trace("10.5.3.7", "10.5.2.7");
    let Answer::Stops(_, hop, _) = back.answer() else { panic!("{back}") };
    assert_eq!(hop.host, "10.5.2.0-24&fd00:5:0:2::-64");
    assert_eq!(others(&world.leases, &world.key(1), ip("10.5.2.7"), ip("10.5.3.7")).len(), 2);
    assert_eq!(others(&world.leases, &world.key(1), ip("10.5.1.7"), ip("192.0.2.3")).len(), 1);
    assert_eq!(others(&world.leases, &world.key(1), ip("10.5.1.7"), ip("198.51.100.9")).len(), 0);
}

#[test]
fn an_agent_that_is_degraded_for_others_hinders_nobody() {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    world.agent(2).state = "degraded".to_owned();
    let trace = world.trace("10.5.1.7", "10.5.2.7");
    assert_eq!(answer(&trace).0, 0, "{trace}");
    let found = &hop(&trace, "10.5.2.0-24&fd00:5:0:2::-64", "agent").found;
    assert_eq!(found.as_deref(), Some("degraded, though not for these two hosts"));
}

#[test]
fn between_addresses_of_hosts_the_tunnel_does_not_matter() {
    for (verdict, exit) in [
        (Seen::PortEaten, 0),
        (Seen::OverlayDown, 0),
        (Seen::UnderlayDown, 1),
        (Seen::OneWay, 2),
        (Seen::PeerDown, 2),
    ] {
        let mut world = healthy(VXLAN, Datapath::Kernel);
        world.probe(1, 2).verdict = verdict;
        assert_eq!(answer(&world.trace("192.0.2.1", "192.0.2.2")).0, exit, "{verdict}");
    }
}

/// The hop of this name, and what it says.
fn hop<'t>(trace: &'t Trace, host: &str, what: &str) -> &'t Hop {
    let is = |hop: &&Hop| hop.host == host && hop.what.starts_with(what);
    trace.hops.iter().find(is).unwrap_or_else(|| panic!("no {what} of {host}\n{trace}"))
}

#[test]
fn the_path_that_was_measured_is_the_largest_packet() {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    let probe = world.probe(1, 2);
    (probe.mtu, probe.mtu_wanted) = (Some(1450), 1450);
    let trace = world.trace("10.5.1.7", "10.5.2.7");
    let found = hop(&trace, "here", "probe of ");
    assert_eq!((found.mtu, &found.verdict), (Some(1450), &Verdict::Passes));
    assert_eq!(found.found.as_deref(), Some("ok for 12m34s, 0.31 ms, answered 0.4 s ago"));
    let json = serde_json::to_value(found).unwrap();
    assert_eq!((&json["probe"]["verdict"], &json["probe"]["rtt_us"]), (&"ok".into(), &310.into()));
    world.probe(1, 2).mtu = Some(1350);
    let trace = world.trace("10.5.1.7", "10.5.2.7");
    let (exit, _, why) = answer(&trace);
    assert_eq!((exit, trace.mtu()), (1, Some(1350)), "{trace}");
    assert!(why.starts_with("path-mtu: packets of at most 1350 bytes arrive"), "{why}");
}

#[test]
fn what_agents_do_not_say_is_told_and_stops_nothing() {
    let mut world = healthy(VXLAN, Datapath::Kernel);
    let peer = "10.5.2.0-24&fd00:5:0:2::-64";
    let told = |world: &World, host: &str, what: &str| {
        let trace = world.trace("10.5.1.7", "10.5.2.7");
        let hop = hop(&trace, host, what);
        assert_eq!((answer(&trace).0, &hop.verdict), (0, &Verdict::Told), "{trace}");
        hop.wanted.clone().unwrap()
    };
    world.probe(1, 2).verdict = Seen::Unknown;
    world.probe(1, 2).cause = "no answer has come yet".to_owned();
    assert_eq!(told(&world, "here", "probe of "), "not known: no answer has come yet");
    let silent = Cause::new(Deviation::HostSilent.entry(), "refused", "open it");
    world.agents.insert(world.key(2), Asked::Silent(silent));
    assert_eq!(told(&world, peer, "agent"), "silent: refused; next: open it");
    world.agents.remove(&world.key(2));
    assert!(told(&world, peer, "agent").contains("flanneld wrote its lease"));
    world.leases[1].attrs.node_id = Some("node-2".to_owned());
    assert!(told(&world, peer, "agent").contains("--healthz-port"));
    world.agents.clear();
    assert_eq!(told(&world, "here", "probe of "), "not known: this host's agent does not answer");
    let away = Cause::new(Refusal::NoAgent.entry(), "no such file", "start it");
    world.agents.insert(world.key(1), Asked::Silent(away));
    assert!(told(&world, "here", "probe of ").ends_with("does not answer: no such file"));
}
