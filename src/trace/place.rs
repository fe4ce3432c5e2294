//! Where an address is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::family::Family;
use twill_backends::lease::{Lease, LeaseKey};

use super::Scene;

/// Where an address is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place<'a> {
    /// On this host.
    Here(Side),
    /// On another host of the fabric.
    There(&'a Lease, Side),
    /// In this network of the fabric, and on no host.
    Free(IpNet),
    /// In no network of the fabric.
    Outside,
}

/// On which side of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It is an address of the host.
    Host,
    /// It is one of its pods'.
    Pod,
}

/// The addresses that a kernel is to be asked about before a trace.
#[must_use]
pub fn questions(leases: &[Lease], src: IpAddr, dst: IpAddr) -> BTreeSet<IpAddr> {
    let publics =
        [src, dst].map(|addr| leases.iter().find(|lease| has(lease, addr))?.attrs.public(Family::of(&addr)));
    [src, dst].into_iter().chain(publics.into_iter().flatten()).collect()
}

/// The other hosts at which the ends are, whose agents know more of it.
#[must_use]
pub fn others<'a>(leases: &'a [Lease], own: &LeaseKey, src: IpAddr, dst: IpAddr) -> Vec<&'a Lease> {
    let ends = |lease: &&Lease| {
        let at = |addr: IpAddr| has(lease, addr) || lease.attrs.public(Family::of(&addr)) == Some(addr);
        lease.key != *own && (at(src) || at(dst))
    };
    leases.iter().filter(ends).collect()
}

pub(super) fn place<'a>(scene: &Scene<'a>, addr: IpAddr) -> Place<'a> {
    let own = scene.plan.own();
    if scene.facts.addrs.iter().any(|fact| fact.net.addr() == addr) {
        return Place::Here(Side::Host);
    }
    if own.subnets.iter().any(|(_, net)| net.contains(&addr)) {
        return Place::Here(Side::Pod);
    }
    let others = || scene.leases.iter().filter(|lease| lease.key != own.key);
    if let Some(lease) = others().find(|lease| has(lease, addr)) {
        return Place::There(lease, Side::Pod);
    }
    if let Some(lease) = others().find(|lease| lease.attrs.public(Family::of(&addr)) == Some(addr)) {
        return Place::There(lease, Side::Host);
    }
    let pools = own.network.pools.iter().map(|(_, pool)| pool.network);
    match pools.chain(own.former.iter().copied()).find(|network| network.contains(&addr)) {
        Some(network) => Place::Free(network),
        None => Place::Outside,
    }
}

fn has(lease: &Lease, addr: IpAddr) -> bool {
    lease.subnets.iter().any(|(_, net)| net.contains(&addr))
}
