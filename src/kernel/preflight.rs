//! Is the network free on this host? Pure, over what the host looks like; asked once, before anything is touched.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::{Code, Fault};

use super::Scope;
use super::facts::{BY_KERNEL, HostFacts, RouteFact};
use super::ownership::Claim;

/// What the fabric is going to use.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    /// The pod networks of the current configuration.
    pub networks: Vec<IpNet>,
    /// This host's addresses on the underlay.
    pub underlay: Vec<IpAddr>,
    /// The peers' public addresses.
    pub peers: Vec<IpAddr>,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Why starting would break something. Each prints the line that is in the way.
    pub refusals: Vec<Fault>,
    /// What may be a mistake.
    pub warnings: Vec<Fault>,
}

/// What a fabric of this size takes of this host and of the network.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// How many neighbours the kernel keeps, of each family: `gc_thresh3`.
    pub limits: PerFamily<u32>,
    /// How many peers are neighbours on the underlay.
    pub on_link: PerFamily<usize>,
    /// The pod networks.
    pub pools: PerFamily<Use>,
}

/// How much of a pod network is used.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// The network.
    pub network: IpNet,
    /// How many subnets hosts may have.
    pub size: u128,
    /// How many of them are leased.
    pub leased: usize,
}

/// Neighbours that are no peers: pods, gateways, the store.
const OTHERS: usize = 256;
/// How much of a pool may be used before somebody should know, in percent.
const FULL: u128 = 80;

/// Compares the plans with the host. What is ours, what flanneld left, and what lies inside of `scope.own` (our
/// current and previous subnets) is not in the way.
#[must_use]
pub fn check(facts: &HostFacts, scope: &Scope, plans: &Plans) -> Preflight {
    let mut verdict = Preflight::default();
    for network in &plans.networks {
        let overlap = |cause: String| Fault::new(Code::NetworkOverlap, network.to_string(), cause);
        let covered = |cause: String| Fault::new(Code::NetworkCovered, network.to_string(), cause);
        let clash = |what: &str, ip: &IpAddr| format!("{what} {ip} lies in the pod network {network}");
        let within = |ip: &&IpAddr| network.contains(*ip);
        let own = plans.underlay.iter().filter(within).map(|ip| clash("the underlay address", ip));
        let peers = plans.peers.iter().filter(within).map(|ip| clash("the peer address", ip));
        let foreign = foreign_addrs(facts, scope, *network).chain(foreign_routes(facts, scope, *network));
        verdict.refusals.extend(foreign.chain(own).chain(peers).map(overlap));
        verdict.warnings.extend(wider_routes(facts, scope, *network).map(covered));
    }
    verdict
}

/// What is about to run out.
///
/// # Why
/// Permanent neighbours, as those on the tunnel devices are, do not count against `gc_thresh3`. Those that the kernel
/// learns do: one on the underlay for each peer that is on a network of this host, and one for each pod here.
#[must_use]
pub fn room(room: &Room) -> Vec<Fault> {
    let neighbours = room.limits.iter().filter_map(|(family, limit)| {
        let wanted = room.on_link.get(family).copied().unwrap_or_default() + OTHERS;
        let small = usize::try_from(*limit).is_ok_and(|limit| limit < wanted);
        small.then(|| neighbour_table(family, *limit, wanted))
    });
    let low = room.pools.iter().filter_map(|(_, Use { network, size, leased })| {
        let used = u128::try_from(*leased).unwrap_or(u128::MAX);
        let cause = format!("{leased} of {size} subnets of {network} are leased");
        (used.saturating_mul(100) > size.saturating_mul(FULL))
            .then(|| Fault::new(Code::PoolLow, network.to_string(), cause))
    });
    neighbours.chain(low).collect()
}

fn neighbour_table(family: Family, limit: u32, wanted: usize) -> Fault {
    let setting = format!("net.{}.neigh.default.gc_thresh", sysctl_name(family));
    let enough = (wanted * 2).next_power_of_two();
    let cause = format!(
        "{setting}3 is {limit}, and {wanted} neighbours are to be expected; \
         next: sysctl -w {setting}3={enough} {setting}2={}, and the same in /etc/sysctl.d",
        enough / 2
    );
    Fault::new(Code::NeighbourTable, format!("{family} neighbours"), cause)
}

/// How settings call a family.
#[must_use]
pub const fn sysctl_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn foreign_addrs(facts: &HostFacts, scope: &Scope, network: IpNet) -> impl Iterator<Item = String> {
    facts.addrs.iter().filter_map(move |addr| {
        let ip = addr.net.addr();
        let link = facts.links.iter().find(|link| link.index == addr.index)?;
        let theirs = network.contains(&ip)
            && !scope.owns_link(link.name, &link.alias)
            && !scope.own.iter().any(|own| own.contains(&ip));
        theirs.then(|| format!("address {} on {} lies in the pod network {network}", addr.net, link.name))
    })
}

/// The kernel's own routes follow from addresses, which are judged by themselves.
fn foreign_routes(facts: &HostFacts, scope: &Scope, network: IpNet) -> impl Iterator<Item = String> {
    let inside = move |route: &&RouteFact| network.contains(&route.dst) && route.protocol != BY_KERNEL;
    facts.routes.iter().filter(inside).filter_map(move |route| {
        let own = scope.own.iter().any(|own| own.contains(&route.dst));
        let theirs = !own && scope.claim(route, is_tunnel(facts, scope, route)) == Claim::Foreign;
        theirs.then(|| format!("the route `{route}` lies in the pod network {network}"))
    })
}

fn wider_routes(facts: &HostFacts, scope: &Scope, network: IpNet) -> impl Iterator<Item = String> {
    facts.routes.iter().filter_map(move |route| {
        let wider = route.dst.prefix_len() > 0 && route.dst != network && route.dst.contains(&network);
        let on_link = wider && route.via.is_none() && !is_tunnel(facts, scope, route);
        on_link
            .then(|| format!("the route `{route}` covers the pod network {network}: are there hosts in it?"))
    })
}

fn is_tunnel(facts: &HostFacts, scope: &Scope, route: &RouteFact) -> bool {
    let link = route.dev.and_then(|dev| facts.link(dev));
    link.is_some_and(|link| scope.owns_link(link.name, &link.alias))
}

#[cfg(test)]
mod tests {
    use super::super::facts::AddrFact;
    use super::super::facts::tests::{addr, link, route};
    use super::*;

    fn scope() -> Scope {
        Scope {
            links: ["flannel.1".try_into().unwrap()].into(),
            networks: vec![("10.5.0.0/16".parse().unwrap(), 24)],
            own: vec!["10.5.1.0/24".parse().unwrap(), "10.5.9.0/24".parse().unwrap()],
            underlay: "eth0".try_into().ok(),
            flanneld_ran: true,
            ..Scope::default()
        }
    }

    fn plans() -> Plans {
        Plans { networks: vec!["10.5.0.0/16".parse().unwrap()], ..Plans::default() }
    }

    fn host(addrs: Vec<AddrFact>, routes: Vec<RouteFact>) -> HostFacts {
        let links = vec![link(2, "eth0"), link(3, "flannel.1"), link(4, "cni0"), link(5, "docker0")];
        HostFacts { links, addrs, routes, reach: None }
    }

    fn causes(faults: &[Fault]) -> Vec<&str> {
        faults.iter().map(|fault| fault.cause.as_str()).collect()
    }

    #[test]
    fn a_table_and_a_pool_that_are_about_to_be_full_are_told() {
        let v4 = |value| PerFamily { v4: Some(value), v6: None };
        let pool = |network: &str, size, leased| Use { network: network.parse().unwrap(), size, leased };
        let small = Room {
            limits: PerFamily { v4: Some(1024), v6: Some(1024) },
            on_link: v4(768),
            pools: PerFamily {
                v4: Some(pool("10.5.0.0/16", 255, 204)),
                v6: Some(pool("fd00:5::/48", 1 << 16, 204)),
            },
        };
        assert_eq!(room(&small), [], "just enough");
        assert_eq!(room(&Room::default()), [], "nothing is known");
        let faults = room(&Room {
            on_link: v4(769),
            pools: PerFamily { v4: Some(pool("10.5.0.0/16", 255, 205)), ..small.pools },
            ..small
        });
        let said: Vec<_> = faults.iter().map(|fault| (fault.code, fault.cause_and_next())).collect();
        let table = (
            "net.ipv4.neigh.default.gc_thresh3 is 1024, and 1025 neighbours are to be expected",
            "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096 net.ipv4.neigh.default.gc_thresh2=2048, and the same in \
             /etc/sysctl.d",
        );
        let pool = ("205 of 255 subnets of 10.5.0.0/16 are leased", Code::PoolLow.entry().next);
        assert_eq!(said, [(Code::NeighbourTable, table), (Code::PoolLow, pool)]);
    }

    #[test]
    fn what_is_ours_or_flannelds_is_not_in_the_way() {
        let addrs = vec![
            addr(2, "192.168.77.1/24"),
            addr(3, "10.5.77.0/32"),
            addr(4, "10.5.1.1/24"),
            addr(5, "10.5.9.1/24"),
        ];
        let routes = vec![
            RouteFact { protocol: BY_KERNEL, scope: 253, ..route("10.5.1.0/24") },
            RouteFact { via: "192.168.77.2".parse().ok(), ..route("10.5.2.0/24") },
            RouteFact {
                via: "10.5.3.0".parse().ok(),
                dev: "flannel.1".try_into().ok(),
                onlink: true,
                ..route("10.5.3.0/24")
            },
            RouteFact { protocol: 70, ..route("10.5.4.0/24") },
            RouteFact { via: "192.168.77.3".parse().ok(), protocol: 4, ..route("10.5.9.0/24") },
            route("0.0.0.0/0"),
        ];
        assert_eq!(check(&host(addrs, routes), &scope(), &plans()), Preflight::default());
    }

    #[test]
    fn each_foreign_thing_is_refused_with_its_line() {
        let routes = vec![
            RouteFact { via: "192.168.77.9".parse().ok(), protocol: 4, ..route("10.5.40.0/24") },
            RouteFact { dev: "docker0".try_into().ok(), ..route("10.5.0.0/16") },
        ];
        let plans = Plans {
            underlay: vec!["10.5.200.1".parse().unwrap(), "192.168.77.1".parse().unwrap()],
            peers: vec!["10.5.200.2".parse().unwrap()],
            ..plans()
        };
        let verdict = check(&host(vec![addr(5, "10.5.17.1/24")], routes), &scope(), &plans);
        assert_eq!(
            causes(&verdict.refusals),
            [
                "address 10.5.17.1/24 on docker0 lies in the pod network 10.5.0.0/16",
                "the route `10.5.40.0/24 via 192.168.77.9 dev eth0 proto static` lies in the pod network 10.5.0.0/16",
                "the route `10.5.0.0/16 dev docker0` lies in the pod network 10.5.0.0/16",
                "the underlay address 10.5.200.1 lies in the pod network 10.5.0.0/16",
                "the peer address 10.5.200.2 lies in the pod network 10.5.0.0/16",
            ]
        );
    }

    #[test]
    fn flannelds_routes_are_foreign_where_it_never_ran() {
        let facts =
            host(vec![], vec![RouteFact { via: "192.168.77.2".parse().ok(), ..route("10.5.2.0/24") }]);
        let never_ran = Scope { flanneld_ran: false, ..scope() };
        assert_eq!(check(&facts, &never_ran, &plans()).refusals.len(), 1);
    }

    #[test]
    fn a_wider_on_link_route_warns() {
        let wide = RouteFact { protocol: BY_KERNEL, scope: 253, ..route("10.0.0.0/8") };
        let through_a_gateway = RouteFact { via: "192.168.77.9".parse().ok(), ..route("10.0.0.0/9") };
        let verdict = check(&host(vec![], vec![wide, through_a_gateway]), &scope(), &plans());
        assert!(verdict.refusals.is_empty());
        assert_eq!(verdict.warnings.len(), 1);
        assert!(verdict.warnings[0].cause.contains("`10.0.0.0/8 dev eth0 proto kernel scope link`"));
    }
}
