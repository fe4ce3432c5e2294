//! What every backend wants of a host, whoever else exists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::family::{Family, PerFamily};
use crate::fault::{Code, Fault};
use crate::filter::{Filter, FilterNet};
use crate::host::{Fact, Host, Own};
use crate::lease::{Attrs, Endpoint};
use crate::network::NetworkConfig;
use crate::state::{Desired, LinkName, NetState, ROUTE_PROTOCOL, Route, RouteKey, RouteKind};

/// The metric of the route that drops packets to pods of this host that do not exist.
///
/// # Why
/// A bridge's connected route to the same subnet has metric 0 (IPv4) or 256 (IPv6). Had the blackhole the lower
/// metric, or the same and been there first, it would swallow the traffic of pods that do exist.
pub(crate) const BLACKHOLE_METRIC: u32 = 1_000_000_000;

/// The families that a configuration enables.
pub(crate) fn families(config: &NetworkConfig) -> PerFamily<()> {
    config.pools.map(|_, _| ())
}

/// Forwarding, firewall and blackhole, and the complaint if the host does not fit.
pub(crate) fn desired(host_fits: Result<(), Fault>, own: &Own) -> Desired {
    let mut net = NetState { sysctls: forwarding(own), ..NetState::default() };
    if own.policy.blackhole {
        net.routes
            .extend(own.parts().map(|(subnet, _)| {
                (RouteKey { dst: subnet.trunc(), metric: BLACKHOLE_METRIC }, blackhole())
            }));
    }
    Desired {
        net,
        filter: filter(own),
        guard: None,
        tunnels: Vec::new(),
        faults: host_fits.err().into_iter().collect(),
    }
}

/// The address of each family, and what kind of backend publishes it.
pub(crate) fn attrs(kind: &str, families: PerFamily<()>, host: &Host) -> Attrs {
    let public = |family| families.get(family).and(host.addrs.get(family)).map(|addr| addr.public);
    Attrs {
        public_ip: public(Family::V4).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
        public_ipv6: public(Family::V6).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
        backend_type: Some(kind.to_owned()),
        ..Attrs::default()
    }
}

/// Whether the host has an address of each family in use.
pub(crate) fn has_addresses(families: PerFamily<()>, host: &Host) -> Result<(), Fault> {
    match families.iter().find(|(family, ())| host.addrs.get(*family).is_none()) {
        Some((family, ())) => Err(Fault::new(
            Code::NoUnderlay,
            host.iface.to_string(),
            format!("the interface has no {family} address, which the network configuration asks for"),
        )),
        None => Ok(()),
    }
}

/// The key of the route to a peer's subnet.
pub(crate) fn route_key(peer: &Endpoint<'_>) -> RouteKey {
    let metric = match peer.family {
        Family::V4 => 0,
        // What the kernel makes of 0.
        Family::V6 => 1024,
    };
    RouteKey { dst: peer.subnet.trunc(), metric }
}

/// A route through `via` on `dev`.
pub(crate) fn unicast(via: IpAddr, dev: LinkName, fact: &Fact) -> Route {
    Route {
        kind: RouteKind::Unicast,
        via: Some(via),
        dev: Some(dev),
        onlink: false,
        mtu: fact.mtu,
        protocol: ROUTE_PROTOCOL,
    }
}

const fn blackhole() -> Route {
    Route {
        kind: RouteKind::Blackhole,
        via: None,
        dev: None,
        onlink: false,
        mtu: None,
        protocol: ROUTE_PROTOCOL,
    }
}

fn forwarding(own: &Own) -> BTreeMap<String, String> {
    let on = |family: Family| (family.forwarding().to_owned(), "1".to_owned());
    own.parts().map(|(subnet, _)| on(Family::of_net(&subnet))).collect()
}

fn filter(own: &Own) -> Filter {
    Filter {
        nets: own.parts().map(|(subnet, pool)| FilterNet { network: pool.network, subnet }).collect(),
        masquerade: own.policy.masquerade,
        forward: own.policy.forward,
    }
}
