//! Reads what is ours. The kernel filters where it can: by device, and by table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourHeader, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use twill_backends::family::Family;
use twill_backends::state::{Fdb, Link, LinkName, NeighKey};

use super::known::Known;
use super::parse::{self, SeenLink, SeenNeigh};
use super::request::Requests;
use super::sysctl;
use crate::kernel::facts::{AddrFact, HostFacts, LinkFact, Reach, RouteFact};
use crate::kernel::ownership::Claim;
use crate::kernel::preflight::sysctl_name;
use crate::kernel::trial::stands_for;
use crate::kernel::{ForeignRoute, KernelError, Observed, Scope, Used};

/// Everything in scope.
pub(super) async fn observe(requests: &Requests, scope: &Scope) -> Result<(Observed, Known), KernelError> {
    let links = requests.links().await?;
    let mut known = Known::default();
    let mut observed = Observed::default();
    for seen in links.values() {
        if scope.owns_link(seen.name, &seen.link.alias) {
            let link = Link { addrs: addrs_of(requests, seen.index).await?, ..seen.link.clone() };
            known.links.insert(seen.index, (seen.name, link.clone()));
            observed.net.links.insert(seen.name, link);
            neighbours(requests, seen, &mut observed, &mut known).await?;
        } else if stand_in_of(scope, seen, &links) {
            // What it has goes with it.
            observed.net.links.insert(seen.name, seen.link.clone());
        } else if Some(seen.name) == scope.underlay {
            known.underlay = Some(seen.clone());
            known.underlay_addrs = addrs(requests, seen.index).await?;
            known.underlay_addrs.sort_by_key(|addr| addr.net);
        }
    }
    let name_of = |index: u32| links.get(&index).map(|seen| seen.name);
    for fact in routes(requests, name_of).await? {
        let tunnel = fact.dev.is_some_and(|dev| observed.net.links.contains_key(&dev));
        match scope.claim(&fact, tunnel) {
            Claim::Ours(key, route) => drop(observed.net.routes.insert(key, route)),
            Claim::Foreign => observed.foreign.push(ForeignRoute {
                dst: fact.dst,
                metric: fact.metric,
                line: fact.to_string(),
            }),
            Claim::Elsewhere => {}
        }
    }
    for path in &scope.sysctls {
        if let Some(value) = sysctl::read(path) {
            observed.net.sysctls.insert(path.clone(), value);
        }
    }
    for family in Family::ALL {
        let setting = format!("net/{}/neigh/default/gc_thresh3", sysctl_name(family));
        observed.neighbours.set(family, sysctl::read(&setting).and_then(|limit| limit.parse().ok()));
    }
    Ok((observed, known))
}

/// Whether a link is the stand-in of a trial of ours.
fn stand_in_of(scope: &Scope, seen: &SeenLink, links: &BTreeMap<u32, SeenLink>) -> bool {
    seen.link.vxlan().is_some()
        && stands_for(seen.name).is_some_and(|tunnel| {
            scope.owns_stand_in(links.get(&tunnel).map(|seen| seen.link.alias.as_str()))
        })
}

/// The host as it is, ours or not. `reach`: an address whose route is asked for.
pub(super) async fn facts(requests: &Requests, reach: Option<IpAddr>) -> Result<HostFacts, KernelError> {
    let links = requests.links().await?;
    let addrs = addrs(requests, 0).await?;
    let name_of = |index: u32| links.get(&index).map(|seen| seen.name);
    let routes = routes(requests, name_of).await?;
    let reach = match reach {
        Some(ip) => route_to(requests, ip).await?,
        None => None,
    };
    let links = links.into_values().map(|seen| LinkFact {
        index: seen.index,
        name: seen.name,
        mac: seen.ethernet.then_some(seen.link.mac),
        mtu: seen.link.mtu,
        up: seen.link.up,
        vxlan: seen.link.vxlan().cloned(),
        alias: seen.link.alias,
        running: seen.link.up && seen.running,
    });
    Ok(HostFacts { links: links.collect(), addrs, routes, reach })
}

/// The addresses of one link, without link-local ones.
pub(super) async fn addrs_of(requests: &Requests, index: u32) -> Result<BTreeSet<IpNet>, KernelError> {
    let found = addrs(requests, index).await?;
    Ok(found.into_iter().map(|fact| fact.net).filter(|net| !parse::is_link_local(net.addr())).collect())
}

/// The addresses of one link; with index 0, of all.
async fn addrs(requests: &Requests, index: u32) -> Result<Vec<AddrFact>, KernelError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = index;
        let answers = match requests.dump("list addresses", RouteNetlinkMessage::GetAddress(message)).await {
            // The link went away meanwhile.
            Err(KernelError::Unreachable { cause, .. }) if cause.starts_with(Errno::ENODEV.desc()) => {
                continue;
            }
            answers => answers?,
        };
        found.extend(answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => parse::addr(message),
            _ => None,
        }));
    }
    Ok(found)
}

/// The permanent neighbours and FDB entries of one link of ours.
async fn neighbours(
    requests: &Requests,
    link: &SeenLink,
    observed: &mut Observed,
    known: &mut Known,
) -> Result<(), KernelError> {
    let dev = link.name;
    for seen in entries(requests, AddressFamily::Unspec, link.index).await? {
        if let (Some(mac), true) = (seen.mac, seen.permanent) {
            observed.net.neighs.insert(NeighKey { dev, ip: seen.ip }, mac);
        }
    }
    if link.link.vxlan().is_none() {
        return Ok(());
    }
    for seen in entries(requests, AddressFamily::Bridge, link.index).await? {
        if let (Some(mac), true, true) = (seen.mac, seen.permanent, seen.fdb) {
            observed.net.fdb.insert(Fdb { dev, mac, dst: seen.ip });
            known.fdb.insert((link.index, mac), seen.ip);
        }
    }
    Ok(())
}

/// The FDB entries of these links that led somewhere within this time.
pub(super) async fn used(
    requests: &Requests,
    links: Vec<(u32, LinkName)>,
    within: Duration,
) -> Result<Used, KernelError> {
    let mut used = Used::new();
    for (index, name) in links {
        let entries = entries(requests, AddressFamily::Bridge, index).await?;
        let now = Instant::now();
        used.extend(entries.filter_map(|seen| {
            let age = seen.idle.filter(|age| *age <= within)?;
            Some(((name, seen.mac.filter(|_| seen.fdb)?), now.checked_sub(age)?))
        }));
    }
    Ok(used)
}

async fn entries(
    requests: &Requests,
    family: AddressFamily,
    index: u32,
) -> Result<impl Iterator<Item = SeenNeigh> + use<>, KernelError> {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader { family, ..NeighbourHeader::default() };
    if family == AddressFamily::Bridge {
        message.header.ifindex = index;
    } else {
        message.attributes.push(NeighbourAttribute::IfIndex(index));
    }
    let answers = requests.dump("list neighbours", RouteNetlinkMessage::GetNeighbour(message)).await?;
    let found = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => parse::neigh(&message),
        _ => None,
    });
    Ok(found.filter(move |seen| seen.index == index))
}

/// The main table of both families.
async fn routes(
    requests: &Requests,
    name_of: impl Fn(u32) -> Option<LinkName>,
) -> Result<Vec<RouteFact>, KernelError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let answers = requests.dump("list routes", RouteNetlinkMessage::GetRoute(message)).await?;
        found.extend(answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => parse::route(message, &name_of),
            _ => None,
        }));
    }
    Ok(found)
}

/// How the kernel would reach an address.
async fn route_to(requests: &Requests, ip: IpAddr) -> Result<Option<Reach>, KernelError> {
    let mut message = RouteMessage::default();
    message.header.address_family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(ip.into()));
    let answers = match requests.ask(RouteNetlinkMessage::GetRoute(message), 0).await {
        Ok(answers) => answers,
        Err(refusal) if matches!(refusal.errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH) => return Ok(None),
        Err(refusal) => {
            return Err(KernelError::Unreachable { attempt: "look up a route", cause: refusal.to_string() });
        }
    };
    let Some(RouteNetlinkMessage::NewRoute(route)) = answers.first() else { return Ok(None) };
    let mut reach = Reach { index: 0, via: None, source: None, mtu: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => reach.index = *index,
            RouteAttribute::Gateway(to) => reach.via = parse::ip(to),
            RouteAttribute::PrefSource(from) => reach.source = parse::ip(from),
            RouteAttribute::Metrics(metrics) => reach.mtu = metrics.iter().find_map(parse::mtu),
            _ => {}
        }
    }
    Ok((reach.index != 0).then_some(reach))
}
