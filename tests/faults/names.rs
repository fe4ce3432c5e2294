//! What operators, other programs and bad data do to a host: nothing that an agent could mend by itself, so each is
//! called by its name while it lasts. On a healthy fabric there is nothing to name.

use std::time::Instant;

use crate::dump::sh;
use crate::examine::{Doctor, MACHINES};
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, CONFIG, LEASES, Shape, World};

/// A subnet that no host of the world has, as nobody takes one of this length.
const ODD: &str = "10.244.0.0-30";

fn scenarios(world: &World) -> Vec<Scenario> {
    let mut all = vec![Scenario::new("nothing", &[30], Allowed::Nothing, nothing).everybody()];
    all.extend(on_the_host(world));
    all.extend(in_the_store(world));
    all
}

/// Nobody complains of a healthy fabric, on any host.
fn nothing(world: &mut World) {
    for host in 0..world.fabric.agents.len() {
        let doctor = Doctor::new(&world.fabric, host);
        assert_eq!(doctor.codes(), Vec::<String>::new());
        let output = doctor.run(&[], &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let silent = output.status.success() && text == "nothing to complain of\n";
        assert!(silent || MACHINES.iter().any(|code| text.contains(code)), "{text}");
    }
}

/// Lines of shell on the first host: what is done, and what undoes it.
fn shell(about: (&'static str, &'static [u8], Allowed), code: &'static str, lines: [String; 2]) -> Scenario {
    let [does, undoes] = lines;
    let run = |line: String| move |world: &mut World| drop(sh(&world.fabric.lab.hosts[0].net, &line));
    Scenario::lasting(about, code, run(does), run(undoes))
}

fn on_the_host(world: &World) -> Vec<Scenario> {
    let peer = world.fabric.subnet(1, false).addr();
    // Pods are in the lower half.
    let upper = u32::from_be_bytes(match peer {
        std::net::IpAddr::V4(addr) => addr.octets(),
        std::net::IpAddr::V6(_) => panic!("an IPv4 fabric"),
    }) + 128;
    let route = format!("{}/25", std::net::Ipv4Addr::from(upper));
    let policy = "'{ type filter hook forward priority 0; policy drop; }'";
    let filter = "/proc/sys/net/ipv4/conf/all/rp_filter";
    let lines = |does: &str, undoes: &str| [does.to_owned(), undoes.to_owned()];
    vec![
        shell(
            ("an operator's route in the way", &[28], Allowed::Nothing),
            "foreign-route",
            lines(
                &format!("ip route add {route} via 192.168.77.3 dev eth0"),
                &format!("ip route del {route}"),
            ),
        ),
        shell(
            ("another bridge in the Network", &[28], Allowed::Nothing),
            "network-overlap",
            lines(
                "ip link add docker0 type bridge; ip addr add 10.244.0.1/30 dev docker0",
                "ip link del docker0",
            ),
        ),
        shell(
            ("another firewall drops what is forwarded", &[20], Allowed::WhileItLasts),
            "forward-dropped",
            lines(
                &format!("nft add table inet theirs; nft add chain inet theirs forward {policy}"),
                "nft delete table inet theirs",
            ),
        ),
        shell(
            ("a strict reverse path filter", &[33], Allowed::Nothing),
            "rp-filter-strict",
            lines(&format!("echo 1 >{filter}"), &format!("echo 0 >{filter}")),
        ),
    ]
}

/// A key of etcd is written; afterwards it is as it was.
fn key(about: (&'static str, &'static [u8]), code: &'static str, key: String, value: String) -> Scenario {
    let (name, rows) = about;
    Scenario::new(name, rows, Allowed::Nothing, move |world| {
        let (before, since) = (world.ctl(&["get", "--print-value-only", &key]), Instant::now());
        if value.is_empty() {
            world.ctl(&["del", &key])
        } else {
            world.ctl(&["put", &key, &value])
        };
        world.name(0, code, since);
        if before.is_empty() {
            world.ctl(&["del", &key])
        } else {
            world.ctl(&["put", &key, before.trim_end()])
        };
    })
}

fn in_the_store(world: &World) -> Vec<Scenario> {
    let own = world.fabric.subnet(0, false).addr();
    let (kind, other) =
        if world.backend == Backend::HostGw { ("host-gw", "vxlan") } else { ("vxlan", "host-gw") };
    let lease = |kind: &str, public: &str| {
        let data = if kind == "vxlan" { r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:fb"}"# } else { "null" };
        format!(r#"{{"PublicIP":"{public}","BackendType":"{kind}","BackendData":{data}}}"#)
    };
    let at = |name: &str| format!("{LEASES}/{name}");
    let config = || CONFIG.to_owned();
    let changed = format!(r#"{{"Network":"10.244.0.0/16","SubnetLen":26,"Backend":{{"Type":"{kind}"}}}}"#);
    let mut all = vec![
        key(("the configuration deleted", &[13]), "no-config", config(), String::new()),
        key(("a lease that is none", &[31]), "bad-lease-value", at(ODD), "{".to_owned()),
        key(("a host with another backend", &[33]), "other-backend", at(ODD), lease(other, "192.168.77.200")),
        key(
            ("a lease outside the Network", &[28]),
            "outside-network",
            at("10.99.0.0-24"),
            lease(kind, "192.168.77.200"),
        ),
        key(
            ("a lease inside the host's own", &[2, 33]),
            "overlaps-own-subnet",
            at(&format!("{own}-30")),
            lease(kind, "192.168.77.200"),
        ),
        key(
            ("a lease with a peer's address", &[17]),
            "duplicate-address",
            at(ODD),
            lease(kind, "192.168.77.2"),
        ),
        key(("the configuration spoilt", &[13]), "bad-config", config(), "{".to_owned()),
        key(("the configuration changed", &[40]), "restart-to-apply", config(), changed),
    ];
    if world.backend == Backend::HostGw {
        let lease = lease(kind, "203.0.113.9");
        all.push(key(("a peer behind a router", &[33]), "peer-off-link", at(ODD), lease));
    }
    all
}

fn names(backend: Backend) {
    // Somebody who leaves after the configuration went would be held for long.
    let shape = Shape { flags: &["--delete-hold=1"], ..Shape::usual(backend) };
    play(|| World::shaped(backend, shape), scenarios);
}

#[test]
fn vxlan() {
    names(Backend::Vxlan);
}

#[test]
fn host_gw() {
    names(Backend::HostGw);
}

#[test]
fn userspace() {
    names(Backend::Userspace);
}
