//! Whose is it? How a restarted agent recognises its own.
//!
//! # Why
//! A link is ours by its name, unless its alias names another instance, or by our alias whatever its name. A route is
//! ours by its protocol number and a destination inside a network of ours; so is one that flanneld left, recognised
//! by the exact form it gives its routes, on a host where it is known to have run. Everything else is somebody
//! else's, and is never touched.

use twill_backends::family::Family;
use twill_backends::lease::Subnets;
use twill_backends::network::NetworkConfig;
use twill_backends::state::{LinkName, ROUTE_PROTOCOL, Route, RouteKey};

use super::Scope;
use super::facts::{BY_BOOT, BY_KERNEL, BY_RA, RouteFact};

/// What begins the alias of every instance.
pub const ALIAS_PREFIX: &str = "twill:";

/// Whose a route is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Ours.
    Ours(RouteKey, Route),
    /// Somebody else's, inside a network of ours.
    Foreign,
    /// Of no concern.
    Elsewhere,
}

impl Scope {
    /// What an instance owns whatever is planned: links of its names, and what lies in its network and its subnets.
    #[must_use]
    pub fn bare(
        instance: &str,
        links: impl IntoIterator<Item = LinkName>,
        network: Option<&NetworkConfig>,
        own: &Subnets,
    ) -> Self {
        let pools = network.into_iter().flat_map(|network| network.pools.iter());
        Self {
            alias: format!("{ALIAS_PREFIX}{instance}"),
            links: links.into_iter().collect(),
            networks: pools.map(|(_, pool)| (pool.network, pool.subnet_len)).collect(),
            own: own.iter().map(|(_, net)| *net).collect(),
            ..Self::default()
        }
    }

    /// Whether a link of this name and alias is ours.
    #[must_use]
    pub fn owns_link(&self, name: LinkName, alias: &str) -> bool {
        if !self.alias.is_empty() && alias == self.alias {
            return true;
        }
        self.links.contains(&name) && !alias.starts_with(ALIAS_PREFIX)
    }

    /// Whether a stand-in for a tunnel's device with this alias is ours. Where that device is gone, nobody else will miss
    /// it; `None`.
    #[must_use]
    pub fn owns_stand_in(&self, tunnel: Option<&str>) -> bool {
        let others = |alias: &str| alias.starts_with(ALIAS_PREFIX) && alias != self.alias;
        self.stand_ins && !tunnel.is_some_and(others)
    }

    /// Whose a route of the main table is. `tunnel`: it leads through a link of ours.
    #[must_use]
    pub fn claim(&self, fact: &RouteFact, tunnel: bool) -> Claim {
        if !self.networks.iter().any(|(network, _)| network.contains(&fact.dst)) {
            return Claim::Elsewhere;
        }
        if tunnel && matches!(fact.protocol, BY_KERNEL | BY_RA) {
            return Claim::Elsewhere;
        }
        if fact.protocol == ROUTE_PROTOCOL || (self.flanneld_ran && self.is_flannelds(fact, tunnel)) {
            return fact.entry().map_or(Claim::Foreign, |(key, route)| Claim::Ours(key, route));
        }
        // The containers of this host hang on such routes: the bridge's network, or one route for each of them.
        if fact.via.is_none() && !fact.multipath && self.own.iter().any(|own| own.contains(&fact.dst)) {
            return Claim::Elsewhere;
        }
        Claim::Foreign
    }

    /// Whether a route inside one of our networks has the form flanneld gives its routes.
    fn is_flannelds(&self, fact: &RouteFact, tunnel: bool) -> bool {
        let metric = match Family::of_net(&fact.dst) {
            Family::V4 => 0,
            Family::V6 => 1024,
        };
        let subnet = self
            .networks
            .iter()
            .any(|(network, length)| network.contains(&fact.dst) && fact.dst.prefix_len() == *length);
        subnet
            && fact.protocol == BY_BOOT
            && fact.kind == RouteFact::UNICAST
            && fact.scope == 0
            && fact.metric == metric
            && fact.via.is_some()
            && !fact.multipath
            && (tunnel || (fact.dev.is_some() && fact.dev == self.underlay))
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::route;
    use super::*;

    fn scope() -> Scope {
        Scope {
            alias: "twill:abc".to_owned(),
            links: ["flannel.1".try_into().unwrap()].into(),
            networks: vec![("10.5.0.0/16".parse().unwrap(), 24), ("fd00:5::/48".parse().unwrap(), 64)],
            own: vec!["10.5.1.0/24".parse().unwrap()],
            underlay: "eth0".try_into().ok(),
            flanneld_ran: true,
            ..Scope::default()
        }
    }

    #[test]
    fn links_are_ours_by_name_or_alias() {
        let (flannel, other) = ("flannel.1".try_into().unwrap(), "flannel.2".try_into().unwrap());
        assert!(scope().owns_link(flannel, ""));
        assert!(scope().owns_link(flannel, "put here by hand"));
        assert!(scope().owns_link(flannel, "twill:abc"));
        assert!(!scope().owns_link(flannel, "twill:another"));
        assert!(scope().owns_link(other, "twill:abc"));
        assert!(!scope().owns_link(other, ""));
        assert!(!Scope::default().owns_link(other, ""));
    }

    #[test]
    fn a_stand_in_is_whose_tunnel_it_stands_for() {
        let all = Scope { stand_ins: true, ..scope() };
        assert!(
            all.owns_stand_in(None) && all.owns_stand_in(Some("")) && all.owns_stand_in(Some("twill:abc"))
        );
        assert!(!all.owns_stand_in(Some("twill:another")));
        assert!(!scope().owns_stand_in(None), "a trial may be under way");
    }

    #[test]
    fn only_flannelds_exact_fingerprint_is_taken_over() {
        let left = RouteFact { via: "192.168.77.2".parse().ok(), ..route("10.5.2.0/24") };
        let ours = |fact: &RouteFact, tunnel| matches!(scope().claim(fact, tunnel), Claim::Ours(..));
        assert!(ours(&left, false));
        let tunnel = RouteFact { dev: "flannel.1".try_into().ok(), ..left.clone() };
        assert!(ours(&tunnel, true));
        assert!(!ours(&tunnel, false), "another device");
        for (why, fact) in [
            ("protocol", RouteFact { protocol: 4, ..left.clone() }),
            ("type", RouteFact { kind: 7, ..left.clone() }),
            ("scope", RouteFact { scope: 253, ..left.clone() }),
            ("metric", RouteFact { metric: 5, ..left.clone() }),
            ("gateway", RouteFact { via: None, ..left.clone() }),
            ("several next hops", RouteFact { multipath: true, ..left.clone() }),
            ("device", RouteFact { dev: "eth1".try_into().ok(), ..left.clone() }),
            ("prefix length", RouteFact { dst: "10.5.2.0/25".parse().unwrap(), ..left.clone() }),
        ] {
            assert_eq!(scope().claim(&fact, false), Claim::Foreign, "{why}");
        }
        let never_ran = Scope { flanneld_ran: false, ..scope() };
        assert_eq!(never_ran.claim(&left, false), Claim::Foreign);
        let v6 = RouteFact { via: "fd77::2".parse().ok(), metric: 1024, ..route("fd00:5:0:2::/64") };
        assert!(ours(&v6, false));
        assert!(!ours(&RouteFact { metric: 256, ..v6 }, false));
    }

    #[test]
    fn a_tag_counts_only_inside_our_networks() {
        let tagged = RouteFact { protocol: ROUTE_PROTOCOL, ..route("10.5.9.0/24") };
        assert!(matches!(scope().claim(&tagged, false), Claim::Ours(..)));
        let outside = RouteFact { dst: "10.6.9.0/24".parse().unwrap(), ..tagged };
        assert_eq!(scope().claim(&outside, false), Claim::Elsewhere);
        assert_eq!(scope().claim(&route("10.0.0.0/8"), false), Claim::Elsewhere);
    }

    #[test]
    fn the_containers_own_routes_are_nobodys_business() {
        let bridge = RouteFact { protocol: BY_KERNEL, scope: 253, ..route("10.5.1.0/24") };
        assert_eq!(scope().claim(&bridge, false), Claim::Elsewhere);
        assert_eq!(scope().claim(&route("10.5.1.7/32"), false), Claim::Elsewhere);
        let shadow = RouteFact { via: "192.168.77.2".parse().ok(), protocol: 4, ..route("10.5.1.0/24") };
        assert_eq!(scope().claim(&shadow, false), Claim::Foreign);
        let stale = RouteFact { protocol: BY_KERNEL, ..route("10.5.7.0/24") };
        assert_eq!(scope().claim(&stale, false), Claim::Foreign);
        assert_eq!(scope().claim(&stale, true), Claim::Elsewhere);
    }
}
