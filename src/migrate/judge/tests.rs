use std::collections::BTreeMap;

use ipnet::IpNet;
use twill_backends::family::PerFamily;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::LeaseKey;
use twill_backends::network::NetworkConfig;
use twill_backends::state::{Checksums, Link, LinkKind, NetState, Route, RouteKey, RouteKind, Vxlan};

use super::*;
use crate::agent::flanneld::Flanneld;
use crate::agent::preview::Preview;
use crate::cli::{Command, Env, parse};
use crate::cni::fabric::Fabric;
use crate::migrate::cni::Cni;
use crate::migrate::{Device, Report, Severity};

const ENV: &str =
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn config(flags: &[&str]) -> Result<crate::config::Config, String> {
    let args: Vec<_> = std::iter::once("flanneld").chain(flags.iter().copied()).map(Into::into).collect();
    match parse(&args, &Env::new()) {
        Ok(Command::Agent(config)) => Ok(config),
        other => Err(other.unwrap_err().text.trim_start_matches("flanneld: ").to_owned()),
    }
}

fn network(backend: &str) -> Option<Result<NetworkConfig, String>> {
    let text = format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#);
    Some(NetworkConfig::parse(&text).map_err(|fault| fault.to_string()))
}

fn link() -> Link {
    Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 1,
            port: 8472,
            local: "192.168.7.1".parse().unwrap(),
            learning: false,
            gbp: false,
            checksums: Checksums::default(),
        }),
        mac: "0e:00:00:00:00:01".parse().unwrap(),
        mtu: 1450,
        up: true,
        alias: String::new(),
        addrs: ["10.5.1.0/32".parse().unwrap()].into(),
    }
}

fn route(protocol: u8) -> Route {
    let via = "10.5.2.0".parse().ok();
    Route {
        kind: RouteKind::Unicast,
        via,
        dev: "flannel.1".try_into().ok(),
        onlink: true,
        mtu: None,
        protocol,
    }
}

fn key(dst: &str) -> RouteKey {
    RouteKey { dst: dst.parse().unwrap(), metric: 0 }
}

/// A host on which flanneld ran until a moment ago.
fn seen() -> Seen {
    let net: IpNet = "10.5.1.0/24".parse().unwrap();
    let name = "flannel.1".try_into().unwrap();
    let have = NetState {
        links: [(name, link())].into(),
        routes: [(key("10.5.2.0/24"), route(3))].into(),
        ..NetState::default()
    };
    let mut want = have.clone();
    want.routes.insert(key("10.5.2.0/24"), route(70));
    let preview = Preview {
        key: LeaseKey::new("10.5.1.0-24"),
        claim: false,
        subnets: PerFamily { v4: Some(net), v6: None },
        mtu: 1450,
        want,
        have,
        rules: Vec::new(),
        faults: Vec::new(),
    };
    Seen {
        running: Vec::new(),
        source: Source::Given,
        config: config(&["-ip-masq"]),
        agent: false,
        env: Ok(Some(Fabric::parse(ENV).unwrap())),
        network: network(r#"{"Type":"vxlan"}"#),
        preview: Some(Ok(preview)),
        devices: vec![device("flannel.1", "10.5.1.0")],
        cni: Cni { containers: [("c1".to_owned(), vec![net])].into(), ..Cni::default() },
        privileged: true,
    }
}

fn device(name: &str, addr: &str) -> Device {
    Device { name: name.to_owned(), addrs: vec![addr.parse().unwrap()] }
}

/// An agent would not start, and says why.
fn refused(seen: &mut Seen, text: &str) {
    seen.preview = Some(Err(vec![text.to_owned()]));
}

fn preview(seen: &mut Seen) -> &mut Preview {
    seen.preview.as_mut().unwrap().as_mut().unwrap()
}

fn own(seen: &mut Seen) -> &mut Link {
    preview(seen).have.links.values_mut().next().unwrap()
}

fn vxlan(link: &mut Link) -> &mut Vxlan {
    link.vxlan_mut().unwrap()
}

#[test]
fn a_host_that_flanneld_left_in_order_is_fine() {
    let report = Report::of(&seen());
    let worse: Vec<_> = report.findings.iter().filter(|one| one.severity != Severity::Ok).collect();
    assert_eq!(worse.iter().map(|one| one.about.to_string()).collect::<Vec<_>>(), ["cni"], "{worse:?}");
    assert_eq!(report.plan.len(), 1, "{:?}", report.plan);
    assert!(report.findings.iter().all(|one| !one.cause.is_empty() && !one.next.is_empty()));
}

type Change = fn(&mut Seen);

/// What an agent says of flanneld's routes that it does not know for such.
const FOREIGN: &str = "the route `10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink` lies in the pod network";

#[test]
fn each_thing_that_would_break_is_named_with_a_next_step() {
    let rows: &[(&str, &str, &str, Change)] = &[
        ("flags", "does not read leases from Kubernetes", "podCIDR", |seen| {
            seen.config = config(&["-kube-subnet-mgr"]);
        }),
        ("flags", "not defined: -nope", "correct the flag", |seen| seen.config = config(&["-nope"])),
        ("store", "etcd at x does not answer", "check that it runs", |seen| {
            seen.network =
                Some(Err("etcd at x does not answer: refused; next: check that it runs".to_owned()));
            seen.preview = None;
        }),
        ("store", "there is no network", "is it flanneld's prefix", |seen| {
            seen.network = Some(Err("there is no network configuration at /x; next: set it".to_owned()));
        }),
        ("network", "`wireguard` is not supported", "keep flanneld", |seen| {
            seen.network = network(r#"{"Type":"wireguard"}"#);
        }),
        ("network", "no `Backend`, which flannel takes for", "keep flanneld", |seen| {
            seen.network =
                Some(NetworkConfig::parse(r#"{"Network":"10.5.0.0/16"}"#).map_err(|f| f.to_string()));
        }),
        ("network", "bare packets", "keep flanneld", |seen| seen.network = network(r#"{"Type":"udp"}"#)),
        ("start", "the route `10.5.0.0/17 dev x` lies in", "remove what is in the way", |seen| {
            seen.preview =
                Some(Err(vec!["the route `10.5.0.0/17 dev x` lies in the pod network".to_owned()]));
        }),
        (
            "lease",
            "are in 10.5.1.0/24, and this host's subnet would be 10.5.9.0/24",
            "twill lease list",
            |seen| {
                let net = "10.5.9.0/24".parse().ok();
                preview(seen).subnets.v4 = net;
            },
        ),
        ("fabric", "10.5.1.0-25: overlaps", "twill lease release", |seen| {
            preview(seen).faults = vec![Fault::new(Code::OverlapsOwnSubnet, "10.5.1.0-25", "overlaps")];
        }),
        ("device", "would be made anew: it is vxlan 1 port 4789", "drain the host", |seen| {
            vxlan(own(seen)).port = 4789;
        }),
        ("device", "it is of another kind", "drain the host", |seen| own(seen).kind = LinkKind::Other),
        ("subnet.env", "does not name the network 10.6.0.0/16", "put back the Network", |seen| {
            let text = r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}"#;
            seen.network = Some(NetworkConfig::parse(text).map_err(|fault| fault.to_string()));
        }),
        ("subnet.env", "--ip-masq is not among the flags", "give --ip-masq", |seen| {
            seen.config = config(&[])
        }),
    ];
    check(rows, Severity::Breaks);
}

/// The configuration was changed after flanneld had read it. Nothing may tell the operator to remove what is in use.
#[test]
fn what_flanneld_did_not_start_with_breaks_and_nobody_is_told_to_remove_what_it_made() {
    let rows: &[(&str, &str, &str, Change)] = &[
        (
            "device",
            "made flannel.1 for this host's subnet, and the configuration asks for flannel.5",
            "VNI",
            |seen| {
                seen.network = network(r#"{"Type":"vxlan","VNI":5}"#);
            },
        ),
        ("device", "asks for no device", "Backend.Type", |seen| {
            seen.network = network(r#"{"Type":"host-gw"}"#)
        }),
        ("device", "made flannel0 for", "Backend.Type", |seen| {
            seen.devices = vec![device("flannel0", "10.5.1.0")]
        }),
        ("lease", "is 10.5.1.0/24, and the configuration has subnets of /26", "SubnetLen", |seen| {
            let text = r#"{"Network":"10.5.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}"#;
            seen.network = Some(NetworkConfig::parse(text).map_err(|fault| fault.to_string()));
        }),
        (
            "routes",
            "would go, since their leases cannot be used (see fabric): 10.5.2.0/24",
            "leases first",
            |seen| {
                preview(seen).want.routes.clear();
                preview(seen).faults = vec![Fault::new(Code::OtherBackend, "10.5.2.0-24", "host-gw")];
            },
        ),
        ("start", FOREIGN, "leave it", |seen| refused(seen, FOREIGN)),
        ("start", "on cni0", "leave it", |seen| refused(seen, "address 10.5.1.1/24 on cni0 lies in the")),
        ("start", "dev eth0", "leave it", |seen| {
            seen.network = network(r#"{"Type":"vxlan","VNI":5}"#);
            refused(seen, "the route `10.5.2.0/24 via 192.168.7.2 dev eth0` lies in the pod network");
        }),
        ("subnet.env", "cannot be told", "write it again", |seen| {
            seen.env = Ok(None);
            refused(seen, FOREIGN);
        }),
    ];
    check(rows, Severity::Breaks);
    let mut other = seen();
    other.devices.push(device("flannel.7", "10.6.1.0"));
    assert_eq!(Report::of(&other).verdict, Severity::Note, "the device of another fabric");
}

#[test]
fn what_is_to_be_known_of_flanneld_and_the_fabric_is_a_note() {
    let rows: &[(&str, &str, &str, Change)] = &[
        ("flanneld", "it runs (pid 7, prefix /p)", "systemctl stop", |seen| {
            let flags = vec!["-etcd-prefix=/p/".to_owned()];
            seen.running = vec![Flanneld { pid: 7, flags, vars: Some(BTreeMap::new()), contained: false }];
            seen.config = config(&["-ip-masq", "-etcd-prefix=/p"]);
        }),
        ("flanneld", "of another fabric runs (pid 7, prefix /q)", "move it too", |seen| {
            let flags = vec!["-etcd-prefix=/q".to_owned()];
            seen.running = vec![Flanneld { pid: 7, flags, vars: Some(BTreeMap::new()), contained: false }];
        }),
        ("flanneld", "several run", "after --", |seen| {
            seen.running =
                vec![Flanneld { pid: 7, ..Flanneld::default() }, Flanneld { pid: 8, ..Flanneld::default() }];
            seen.source = Source::Process(7);
        }),
        ("flanneld", "the process 7 is in a container", "on the host", |seen| {
            seen.running = vec![Flanneld { pid: 7, contained: true, ..Flanneld::default() }];
        }),
        ("flanneld", "environment of the process 7", "as root", |seen| {
            seen.running = vec![Flanneld { pid: 7, ..Flanneld::default() }];
        }),
        ("agent", "runs already", "twill status", |seen| seen.agent = true),
        ("privilege", "without privilege", "as root", |seen| seen.privileged = false),
        ("flags", "--vmodule=x=1 is ignored", "no effect", |seen| {
            seen.config = config(&["-ip-masq", "-vmodule=x=1"])
        }),
        ("lease", "claimed again as 10.5.1.0-24", "soon", |seen| preview(seen).claim = true),
        ("lease", "no subnet.env says", "--etcd-prefix", |seen| {
            preview(seen).claim = true;
            seen.env = Ok(None);
        }),
        ("fabric", "10.5.7.0-24: garbage", "let its host write it", |seen| {
            preview(seen).faults = vec![Fault::new(Code::BadLeaseValue, "10.5.7.0-24", "garbage")];
        }),
    ];
    check(rows, Severity::Note);
}

#[test]
fn what_containers_do_not_notice_is_a_note() {
    let rows: &[(&str, &str, &str, Change)] = &[
        ("device", "flannel.1 is not there", "until Twill starts", |seen| preview(seen).have.links.clear()),
        ("device", "address 0e:00:00:00:00:02, its lease says", "peers send", |seen| {
            own(seen).mac = "0e:00:00:00:00:02".parse().unwrap();
        }),
        ("device", "its MTU becomes 1450", "nothing", |seen| own(seen).mtu = 1400),
        ("device", "flannel.7 is of another", "ip link del flannel.7", |seen| {
            seen.devices.push(device("flannel.7", "10.6.1.0"))
        }),
        ("routes", "would go: 10.5.9.0/24", "no host has", |seen| {
            preview(seen).have.routes.insert(key("10.5.9.0/24"), route(3));
        }),
        ("subnet.env", "FLANNEL_MTU is 1450 and becomes 1430", "restart containers", |seen| {
            preview(seen).mtu = 1430
        }),
        ("subnet.env", "there is none", "--subnet-file", |seen| seen.env = Ok(None)),
        ("subnet.env", "cannot use", "writes it anew", |seen| {
            seen.env = Err("cannot use subnet.env".to_owned())
        }),
        ("subnet.env", "denied", "as root", |seen| {
            seen.env = Err("Permission denied".to_owned());
            seen.privileged = false;
        }),
        ("subnet.env", "does not masquerade", "leave --ip-masq out", |seen| {
            seen.env = Ok(Some(Fabric::parse(&ENV.replace("IPMASQ=true", "IPMASQ=false")).unwrap()));
        }),
        ("cni", "/x cannot be used: why", "mend or remove", |seen| {
            seen.cni.odd.push(("/x".into(), "why".to_owned()));
        }),
        ("cni", "c1, c2, c3, c4, c5 and 1 more", "GC", |seen| {
            seen.cni.lost = (1..=6).map(|n| format!("c{n}")).collect();
        }),
        ("containers", "another subnet than this host's: c2", "restart", |seen| {
            seen.cni.containers.insert("c2".to_owned(), vec!["10.5.8.0/24".parse().unwrap()]);
        }),
    ];
    check(rows, Severity::Note);
}

/// Makes each change on a host in order and looks for its finding, which must be the worst.
fn check(rows: &[(&str, &str, &str, Change)], severity: Severity) {
    for (about, cause, next, change) in rows {
        let mut seen = seen();
        change(&mut seen);
        let report = Report::of(&seen);
        let found = report.findings.iter().find(|one| one.severity == severity && one.cause.contains(cause));
        let found = found.unwrap_or_else(|| panic!("{cause}: {:#?}", report.findings));
        assert!(found.about.to_string() == **about && found.next.contains(next), "{found:?}");
        assert_eq!(report.verdict, severity, "{:#?}", report.findings);
    }
}
