//! Is the network free on this host? Pure, over what the host looks like; asked once, before anything is touched.

use std::net::IpAddr;

use ipnet::IpNet;

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
    pub refusals: Vec<String>,
    /// What may be a mistake.
    pub warnings: Vec<String>,
}

/// Compares the plans with the host. What is ours, what flanneld left, and what lies inside of `scope.own` (our
/// current and previous subnets) is not in the way.
#[must_use]
pub fn check(facts: &HostFacts, scope: &Scope, plans: &Plans) -> Preflight {
    let mut verdict = Preflight::default();
    for network in &plans.networks {
        verdict.refusals.extend(foreign_addrs(facts, scope, *network));
        verdict.refusals.extend(foreign_routes(facts, scope, *network));
        let clash = |what: &str, ip: &IpAddr| format!("{what} {ip} lies in the pod network {network}");
        let within = |ip: &&IpAddr| network.contains(*ip);
        verdict
            .refusals
            .extend(plans.underlay.iter().filter(within).map(|ip| clash("the underlay address", ip)));
        verdict.refusals.extend(plans.peers.iter().filter(within).map(|ip| clash("the peer address", ip)));
        verdict.warnings.extend(wider_routes(facts, scope, *network));
    }
    verdict
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
            verdict.refusals,
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
        assert!(verdict.warnings[0].contains("`10.0.0.0/8 dev eth0 proto kernel scope link`"));
    }
}
