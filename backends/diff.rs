//! From the state wanted and the state observed to the operations between them.
//!
//! The law: `apply(have, diff(want, have)) == want`, and `diff(x, x)` is empty.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use crate::mac::Mac;
use crate::state::{Fdb, Link, LinkKind, LinkName, NeighKey, NetState, Route, RouteKey, RouteKind};

/// One change of a host's network stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Create the link, change it in place, or replace it, see [`Link::replaces`].
    SetLink(LinkName, Link),
    /// Write a setting below `/proc/sys`.
    SetSysctl(String, String),
    /// Create or replace a permanent neighbour.
    SetNeigh(NeighKey, Mac),
    /// Create an FDB entry, or point an existing one of the same Ethernet address elsewhere.
    SetFdb(Fdb),
    /// Create or replace a route.
    SetRoute(RouteKey, Route),
    /// Remove exactly this route.
    DelRoute(RouteKey, Route),
    /// Remove an FDB entry.
    DelFdb(Fdb),
    /// Remove a neighbour.
    DelNeigh(NeighKey),
    /// Remove a link, with everything on it.
    DelLink(LinkName),
}

/// Which object an [`Op`] is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A link.
    Link(LinkName),
    /// A setting.
    Sysctl(String),
    /// A neighbour.
    Neigh(NeighKey),
    /// An FDB entry.
    Fdb(Fdb),
    /// A route.
    Route(RouteKey),
}

/// The operations that make `have` into `want`, in the order in which they must be done: what a packet needs last is
/// made first (link, setting, neighbour, FDB, route), and only then is what nobody wants removed, in reverse. A
/// setting nobody wants is left as it is: there is no value it would have to go back to.
#[must_use]
pub fn diff(want: &NetState, have: &NetState) -> Vec<Op> {
    let mut ops = Vec::new();
    ops.extend(differing(&want.links, &have.links).map(|(k, v)| Op::SetLink(*k, v.clone())));
    ops.extend(differing(&want.sysctls, &have.sysctls).map(|(k, v)| Op::SetSysctl(k.clone(), v.clone())));
    ops.extend(differing(&want.neighs, &have.neighs).map(|(k, v)| Op::SetNeigh(*k, *v)));
    ops.extend(want.fdb.difference(&have.fdb).map(|entry| Op::SetFdb(*entry)));
    ops.extend(differing(&want.routes, &have.routes).map(|(k, v)| Op::SetRoute(*k, *v)));
    ops.extend(surplus(&want.routes, &have.routes).map(|(k, v)| Op::DelRoute(*k, *v)));
    ops.extend(have.fdb.difference(&want.fdb).map(|entry| Op::DelFdb(*entry)));
    ops.extend(surplus(&want.neighs, &have.neighs).map(|(k, _)| Op::DelNeigh(*k)));
    ops.extend(surplus(&want.links, &have.links).map(|(k, _)| Op::DelLink(*k)));
    ops
}

/// The part of [`diff`] that concerns these objects, in the same order.
#[must_use]
pub fn diff_keys<'a>(want: &NetState, have: &NetState, keys: impl IntoIterator<Item = &'a Key>) -> Vec<Op> {
    let mut ops: Vec<Op> = keys.into_iter().filter_map(|key| diff_key(want, have, key)).collect();
    ops.sort_by_key(Op::rank);
    ops
}

fn diff_key(want: &NetState, have: &NetState, key: &Key) -> Option<Op> {
    match key {
        Key::Link(k) => match (want.links.get(k), have.links.get(k)) {
            (Some(w), h) => (Some(w) != h).then(|| Op::SetLink(*k, w.clone())),
            (None, h) => h.map(|_| Op::DelLink(*k)),
        },
        Key::Sysctl(k) => {
            let w = want.sysctls.get(k)?;
            (Some(w) != have.sysctls.get(k)).then(|| Op::SetSysctl(k.clone(), w.clone()))
        }
        Key::Neigh(k) => match (want.neighs.get(k), have.neighs.get(k)) {
            (Some(w), h) => (Some(w) != h).then_some(Op::SetNeigh(*k, *w)),
            (None, h) => h.map(|_| Op::DelNeigh(*k)),
        },
        Key::Fdb(entry) => match (want.fdb.contains(entry), have.fdb.contains(entry)) {
            (true, false) => Some(Op::SetFdb(*entry)),
            (false, true) => Some(Op::DelFdb(*entry)),
            (true, true) | (false, false) => None,
        },
        Key::Route(k) => match (want.routes.get(k), have.routes.get(k)) {
            (Some(w), h) => (Some(w) != h).then_some(Op::SetRoute(*k, *w)),
            (None, h) => h.map(|h| Op::DelRoute(*k, *h)),
        },
    }
}

fn differing<'a, K: Ord, V: PartialEq>(
    want: &'a BTreeMap<K, V>,
    have: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    want.iter().filter(|(k, v)| have.get(k) != Some(v))
}

fn surplus<'a, K: Ord, V>(
    want: &'a BTreeMap<K, V>,
    have: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    have.iter().filter(|(k, _)| !want.contains_key(k))
}

impl Op {
    /// Operations of one rank do not depend on each other; ranks are done in ascending order.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::SetLink(..) => 0,
            Self::SetSysctl(..) => 1,
            Self::SetNeigh(..) => 2,
            Self::SetFdb(..) => 3,
            Self::SetRoute(..) => 4,
            Self::DelRoute(..) => 5,
            Self::DelFdb(..) => 6,
            Self::DelNeigh(..) => 7,
            Self::DelLink(..) => 8,
        }
    }

    /// Which object this is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::SetLink(k, _) | Self::DelLink(k) => Key::Link(*k),
            Self::SetSysctl(k, _) => Key::Sysctl(k.clone()),
            Self::SetNeigh(k, _) | Self::DelNeigh(k) => Key::Neigh(*k),
            Self::SetFdb(entry) | Self::DelFdb(entry) => Key::Fdb(*entry),
            Self::SetRoute(k, _) | Self::DelRoute(k, _) => Key::Route(*k),
        }
    }

    /// Whether this takes something away.
    #[must_use]
    pub const fn is_removal(&self) -> bool {
        self.rank() > 4
    }
}

impl NetState {
    /// Whether carrying out `op` would change nothing.
    #[must_use]
    pub fn has(&self, op: &Op) -> bool {
        match op {
            Op::SetLink(k, v) => self.links.get(k) == Some(v),
            Op::SetSysctl(k, v) => self.sysctls.get(k) == Some(v),
            Op::SetNeigh(k, v) => self.neighs.get(k) == Some(v),
            Op::SetFdb(entry) => self.fdb.contains(entry),
            Op::SetRoute(k, v) => self.routes.get(k) == Some(v),
            Op::DelRoute(k, _) => !self.routes.contains_key(k),
            Op::DelFdb(entry) => !self.fdb.contains(entry),
            Op::DelNeigh(k) => !self.neighs.contains_key(k),
            Op::DelLink(k) => !self.links.contains_key(k),
        }
    }

    /// Changes this state as the kernel does when it carries out `op`.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::SetLink(k, v) => drop(self.links.insert(*k, v.clone())),
            Op::SetSysctl(k, v) => drop(self.sysctls.insert(k.clone(), v.clone())),
            Op::SetNeigh(k, v) => drop(self.neighs.insert(*k, *v)),
            Op::SetFdb(entry) => drop(self.fdb.insert(*entry)),
            Op::SetRoute(k, v) => drop(self.routes.insert(*k, *v)),
            Op::DelRoute(k, _) => drop(self.routes.remove(k)),
            Op::DelFdb(entry) => drop(self.fdb.remove(entry)),
            Op::DelNeigh(k) => drop(self.neighs.remove(k)),
            Op::DelLink(k) => drop(self.links.remove(k)),
        }
    }
}

impl fmt::Display for Op {
    /// The operation as an operator would type it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetLink(name, link) => write_link(f, name, link),
            Self::SetSysctl(path, value) => write!(f, "sysctl -w {path}={value}"),
            Self::SetNeigh(k, mac) => {
                write!(f, "ip neigh replace {} lladdr {mac} dev {} nud permanent", k.ip, k.dev)
            }
            Self::SetFdb(e) => {
                write!(f, "bridge fdb replace {} dev {} dst {} self permanent", e.mac, e.dev, e.dst)
            }
            Self::SetRoute(k, route) => write_route(f, "replace", k, route),
            Self::DelRoute(k, route) => write_route(f, "del", k, route),
            Self::DelFdb(e) => write!(f, "bridge fdb del {} dev {} dst {} self", e.mac, e.dev, e.dst),
            Self::DelNeigh(k) => write!(f, "ip neigh del {} dev {}", k.ip, k.dev),
            Self::DelLink(name) => write!(f, "ip link del {name}"),
        }
    }
}

fn write_link(f: &mut fmt::Formatter<'_>, name: &LinkName, link: &Link) -> fmt::Result {
    write!(
        f,
        "ip link set {name} address {} mtu {} {}",
        link.mac,
        link.mtu,
        if link.up { "up" } else { "down" }
    )?;
    if link.kind == LinkKind::Tap {
        f.write_str(" type tun mode tap")?;
    }
    if let Some(vxlan) = link.vxlan() {
        let learning = if vxlan.learning { "learning" } else { "nolearning" };
        write!(f, " type vxlan id {} local {} dstport {} {learning}", vxlan.vni, vxlan.local, vxlan.port)?;
        f.write_str(if vxlan.gbp { " gbp" } else { "" })?;
    }
    link.addrs.iter().try_for_each(|addr| write!(f, " addr {addr}"))
}

fn write_route(f: &mut fmt::Formatter<'_>, verb: &str, key: &RouteKey, route: &Route) -> fmt::Result {
    let family = if matches!(key.dst, IpNet::V6(_)) { "ip -6" } else { "ip" };
    let kind = if route.kind == RouteKind::Blackhole { "blackhole " } else { "" };
    write!(f, "{family} route {verb} {kind}{}", key.dst)?;
    if let Some(via) = route.via {
        write!(f, " via {via}")?;
    }
    if let Some(dev) = route.dev {
        write!(f, " dev {dev}")?;
    }
    write!(f, " proto {}", route.protocol)?;
    if key.metric != 0 {
        write!(f, " metric {}", key.metric)?;
    }
    if let Some(mtu) = route.mtu {
        write!(f, " mtu {mtu}")?;
    }
    f.write_str(if route.onlink { " onlink" } else { "" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;
    use crate::state::{Checksums, Vxlan};

    fn dev() -> impl Strategy<Value = LinkName> {
        proptest::sample::select(vec!["flannel.1", "flannel-v6.1", "eth0"])
            .prop_map(|name| LinkName::try_from(name).unwrap())
    }

    fn mac() -> impl Strategy<Value = Mac> {
        (0_u8..4).prop_map(|n| Mac([2, 0, 0, 0, 0, n]))
    }

    fn ip() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0_u8..4).prop_map(|(v6, n)| match v6 {
            true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)).into(),
            false => Ipv4Addr::new(10, 0, 0, n).into(),
        })
    }

    prop_compose! {
        fn link()(vxlan in any::<Option<(u8, bool, bool, bool, bool)>>(), tap in any::<bool>(), local in ip(), mac in mac(), mtu in 1400_u32..1403,
                  up in any::<bool>(), addrs in btree_set(ip().prop_map(IpNet::from), 0..2)) -> Link {
            let vxlan = vxlan.map(|(vni, learning, gbp, offload, udp)| Vxlan {
                vni: vni.into(), port: 8472, local, learning, gbp, checksums: Checksums { offload, udp },
            });
            let kind = vxlan.map_or(if tap { LinkKind::Tap } else { LinkKind::Other }, LinkKind::Vxlan);
            Link { kind, mac, mtu, up, alias: "twill:x".to_owned(), addrs }
        }
    }

    prop_compose! {
        fn route()(blackhole in any::<bool>(), via in proptest::option::of(ip()), dev in proptest::option::of(dev()),
                   onlink in any::<bool>(), mtu in proptest::option::of(1400_u32..1403), protocol in 3_u8..5) -> Route {
            let kind = if blackhole { RouteKind::Blackhole } else { RouteKind::Unicast };
            Route { kind, via, dev, onlink, mtu, protocol }
        }
    }

    prop_compose! {
        fn state()(
            links in btree_map(dev(), link(), 0..3),
            neighs in btree_map((dev(), ip()).prop_map(|(dev, ip)| NeighKey { dev, ip }), mac(), 0..6),
            fdb in btree_set((dev(), mac(), ip()).prop_map(|(dev, mac, dst)| Fdb { dev, mac, dst }), 0..6),
            routes in btree_map((ip(), 0_u32..2).prop_map(|(ip, metric)| RouteKey { dst: ip.into(), metric }), route(), 0..6),
        ) -> NetState {
            NetState { links, sysctls: BTreeMap::new(), neighs, fdb, routes }
        }
    }

    fn all_keys(state: &NetState) -> impl Iterator<Item = Key> {
        let links = state.links.keys().copied().map(Key::Link);
        let neighs = state.neighs.keys().copied().map(Key::Neigh);
        let fdb = state.fdb.iter().copied().map(Key::Fdb);
        links.chain(neighs).chain(fdb).chain(state.routes.keys().copied().map(Key::Route))
    }

    proptest! {
        #[test]
        fn what_is_applied_is_what_was_wanted(want in state(), have in state()) {
            let mut done = have.clone();
            let ops = diff(&want, &have);
            ops.iter().for_each(|op| done.apply(op));
            prop_assert_eq!(&done, &want);
            prop_assert!(ops.is_sorted_by_key(Op::rank));
        }

        #[test]
        fn what_is_as_wanted_is_left_alone(state in state()) {
            prop_assert_eq!(diff(&state, &state), vec![]);
        }

        #[test]
        fn comparing_every_key_is_comparing_all(want in state(), have in state()) {
            let keys: BTreeSet<Key> = all_keys(&want).chain(all_keys(&have)).collect();
            prop_assert_eq!(diff_keys(&want, &have, &keys), diff(&want, &have));
            prop_assert!(diff(&want, &have).iter().all(|op| keys.contains(&op.key())));
        }
    }

    #[test]
    fn a_setting_is_written_but_never_taken_back() {
        let forwarding = |value: &str| NetState {
            sysctls: BTreeMap::from([("net/ipv4/ip_forward".to_owned(), value.to_owned())]),
            ..NetState::default()
        };
        let ops = diff(&forwarding("1"), &forwarding("0"));
        assert_eq!(
            ops.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["sysctl -w net/ipv4/ip_forward=1"]
        );
        assert_eq!(diff_keys(&forwarding("1"), &forwarding("0"), &[ops[0].key()]), ops);
        assert_eq!(diff(&NetState::default(), &forwarding("1")), []);
    }

    #[test]
    fn operations_read_as_an_operator_would_type_them() {
        let dev = LinkName::try_from("flannel.1").unwrap();
        let key = RouteKey { dst: "10.5.9.0/24".parse().unwrap(), metric: 0 };
        let mut route = Route {
            kind: RouteKind::Unicast,
            via: Some("10.5.9.0".parse().unwrap()),
            dev: Some(dev),
            onlink: true,
            mtu: Some(1400),
            protocol: 70,
        };
        let text = Op::SetRoute(key, route).to_string();
        assert_eq!(text, "ip route replace 10.5.9.0/24 via 10.5.9.0 dev flannel.1 proto 70 mtu 1400 onlink");
        route = Route { kind: RouteKind::Blackhole, via: None, dev: None, onlink: false, mtu: None, ..route };
        let key = RouteKey { dst: "fd00::/64".parse().unwrap(), metric: 1024 };
        let text = Op::DelRoute(key, route).to_string();
        assert_eq!(text, "ip -6 route del blackhole fd00::/64 proto 70 metric 1024");
        assert!(Op::DelRoute(key, route).is_removal() && !Op::SetRoute(key, route).is_removal());
    }
}
