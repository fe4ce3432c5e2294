//! What is said of each kind of entry, missing, altered and left over.

use twill_backends::lease::Lease;
use twill_backends::state::{
    Checksums, Fdb, Link, LinkKind, NeighKey, NetState, ROUTE_PROTOCOL, Route, RouteKey, RouteKind, Vxlan,
};

use super::*;

fn dev() -> LinkName {
    "flannel.1".try_into().unwrap()
}

fn lease(n: u8) -> Lease {
    let value = format!(r#"{{"PublicIP":"192.0.2.{n}","BackendType":"vxlan"}}"#);
    Lease::decode(&format!("10.5.{n}.0-24"), value.as_bytes()).unwrap()
}

fn neigh(n: u8) -> NeighKey {
    NeighKey { dev: dev(), ip: IpAddr::from([10, 5, n, 0]) }
}

fn fdb(n: u8) -> Fdb {
    Fdb {
        dev: dev(),
        mac: format!("02:00:00:00:00:0{n}").parse().unwrap(),
        dst: IpAddr::from([192, 0, 2, n]),
    }
}

fn route(n: u8) -> (RouteKey, Route) {
    let key = RouteKey { dst: format!("10.5.{n}.0/24").parse().unwrap(), metric: 0 };
    let via = Some(IpAddr::from([10, 5, n, 0]));
    let protocol = ROUTE_PROTOCOL;
    (key, Route { kind: RouteKind::Unicast, via, dev: Some(dev()), onlink: true, mtu: None, protocol })
}

/// Host 1 with peers 2 and 3.
fn wanted() -> NetState {
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: "192.0.2.1".parse().unwrap(),
        learning: false,
        gbp: false,
        checksums: Checksums::default(),
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450,
        up: true,
        alias: "twill:x".to_owned(),
        addrs: ["10.5.1.0/32".parse().unwrap()].into(),
    };
    let mut net = NetState { links: [(dev(), link)].into(), ..NetState::default() };
    net.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    for n in [2, 3] {
        net.neighs.insert(neigh(n), fdb(n).mac);
        net.fdb.insert(fdb(n));
        net.routes.extend([route(n)]);
    }
    net
}

fn told(change: impl FnOnce(&mut NetState)) -> Vec<(String, String, String, String)> {
    let mut have = wanted();
    change(&mut have);
    let text = |text: Option<String>| text.unwrap_or_else(|| "nothing".to_owned());
    differences(&wanted(), &have, &[lease(2), lease(3)])
        .into_iter()
        .map(|one| {
            let peer = one.peer.map(|peer| peer.to_string());
            (one.entry, text(peer), text(one.wanted), text(one.found))
        })
        .collect()
}

/// The codes of what differs after a change.
fn coded<T>(change: impl FnOnce(&mut NetState) -> T) -> Vec<&'static str> {
    let mut have = wanted();
    drop(change(&mut have));
    differences(&wanted(), &have, &[]).into_iter().map(|one| one.code).collect()
}

#[test]
fn each_difference_has_a_code_that_is_explained() {
    let link = |change: fn(&mut Link)| coded(|have| change(have.links.get_mut(&dev()).unwrap()));
    let ([route_key, other_key], other) = ([route(2).0, route(7).0], route(7).1);
    let rows = [
        (link(|link| link.mtu = 1300), "device-differs"),
        (link(|link| link.up = false), "tunnel-down"),
        (
            coded(|have| *have = NetState { sysctls: have.sysctls.clone(), ..NetState::default() }),
            "tunnel-down",
        ),
        (coded(|have| have.routes.remove(&route_key)), "route-missing"),
        (coded(|have| have.routes.insert(route_key, other)), "route-differs"),
        (coded(|have| have.routes.insert(other_key, other)), "stray-entry"),
        (coded(|have| have.neighs.remove(&neigh(2))), "neighbour-missing"),
        (coded(|have| have.neighs.insert(neigh(2), fdb(3).mac)), "neighbour-differs"),
        (coded(|have| have.neighs.insert(neigh(7), fdb(3).mac)), "stray-entry"),
        (coded(|have| have.fdb.remove(&fdb(2))), "fdb-missing"),
        (
            coded(|have| {
                have.fdb.remove(&fdb(2));
                have.fdb.insert(Fdb { dst: "192.0.2.99".parse().unwrap(), ..fdb(2) });
            }),
            "fdb-differs",
        ),
        (coded(|have| have.fdb.insert(fdb(7))), "stray-entry"),
        (coded(|have| have.sysctls.remove("net/ipv4/ip_forward")), "forwarding-off"),
    ];
    for (at, (codes, code)) in rows.into_iter().enumerate() {
        assert_eq!(codes, [code], "row {at}");
        assert!(crate::catalogue::find(code).is_some(), "{code}");
    }
}

fn row(entry: &str, peer: &str, wanted: &str, found: &str) -> (String, String, String, String) {
    (entry.to_owned(), peer.to_owned(), wanted.to_owned(), found.to_owned())
}

#[test]
fn a_host_as_wanted_has_no_difference() {
    assert_eq!(told(|_| {}), []);
}

#[test]
fn what_is_missing_is_named_with_its_peer() {
    let peer = "10.5.2.0-24 at 192.0.2.2";
    let via = "via 10.5.2.0 dev flannel.1 onlink proto 70";
    assert_eq!(
        told(|have| {
            have.routes.remove(&route(2).0);
        }),
        [row("route 10.5.2.0/24", peer, via, "nothing")]
    );
    let mac = "02:00:00:00:00:02";
    assert_eq!(
        told(|have| {
            have.neighs.remove(&neigh(2));
        }),
        [row("neighbour 10.5.2.0 on flannel.1", peer, mac, "nothing")]
    );
    assert_eq!(
        told(|have| {
            have.fdb.remove(&fdb(2));
        }),
        [row("FDB entry 02:00:00:00:00:02 on flannel.1", peer, "to 192.0.2.2", "nothing")]
    );
}

#[test]
fn what_was_altered_is_told_once_with_both_values() {
    let peer = "10.5.2.0-24 at 192.0.2.2";
    let moved = Fdb { dst: "192.0.2.99".parse().unwrap(), ..fdb(2) };
    let rows = told(|have| {
        have.fdb.remove(&fdb(2));
        have.fdb.insert(moved);
    });
    assert_eq!(
        rows,
        [row("FDB entry 02:00:00:00:00:02 on flannel.1", peer, "to 192.0.2.2", "to 192.0.2.99")]
    );
    let rows = told(|have| {
        have.neighs.insert(neigh(2), fdb(3).mac);
    });
    let (want, found) = ("02:00:00:00:00:02", "02:00:00:00:00:03");
    assert_eq!(rows, [row("neighbour 10.5.2.0 on flannel.1", peer, want, found)]);
    let rows = told(|have| have.links.get_mut(&dev()).unwrap().mtu = 1300);
    assert_eq!(rows, [row("device flannel.1", "nothing", "mtu 1450", "mtu 1300")]);
    let rows = told(|have| have.links.get_mut(&dev()).unwrap().addrs.clear());
    assert_eq!(rows, [row("device flannel.1", "nothing", "addr 10.5.1.0/32", "nothing more")]);
    let rows = told(|have| drop(have.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned())));
    assert_eq!(rows, [row("setting net.ipv4.ip_forward", "nothing", "1", "0")]);
}

#[test]
fn what_nobody_wants_is_of_no_peer() {
    let (key, other) = route(7);
    let found = "via 10.5.7.0 dev flannel.1 onlink proto 70";
    let rows = told(|have| {
        have.routes.insert(key, other);
    });
    assert_eq!(rows, [row("route 10.5.7.0/24", "nothing", "nothing", found)]);
}

#[test]
fn a_missing_device_takes_what_is_on_it_along() {
    let rows = told(|have| {
        let sysctls = std::mem::take(&mut have.sysctls);
        *have = NetState { sysctls, ..NetState::default() };
    });
    assert_eq!(rows.len(), 1, "{rows:?}");
    let (entry, _, wanted, found) = &rows[0];
    assert_eq!((entry.as_str(), found.as_str()), ("device flannel.1, and 6 entries on it", "nothing"));
    assert!(wanted.contains("kind vxlan, id 1, port 8472, local 192.0.2.1"), "{wanted}");
}

#[test]
fn the_fix_is_what_an_operator_would_type() {
    let mut have = wanted();
    have.fdb.remove(&fdb(3));
    let all = differences(&wanted(), &have, &[]);
    assert_eq!((all.len(), &all[0].peer), (1, &None));
    assert_eq!(all[0].fix, "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.3 self permanent");
}
