//! Which subnet to take, given those taken, the previous one, reservations and a random number.
//!
//! # Why
//! A host that comes back must find the subnet its pods use, whatever it has lost: its state directory, its lease,
//! the store. So everything that can prove a lease to be ours is tried, the strongest first, and only a host that
//! nothing is known of takes a subnet at random. Two hosts must never believe in one lease. So an address alone
//! proves nothing once another node's id stands beside it.

use std::fmt;

use crate::family::{Family, PerFamily};
use crate::lease::{Attrs, Lease, LeaseKey, Subnets};
use crate::mac::Mac;
use crate::network::NetworkConfig;

mod desk;
mod space;

pub use desk::choose;

/// What a host brings along when it asks for a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Claim {
    /// What it will publish, with its node id and session.
    pub attrs: Attrs,
    /// The subnet it had before: from its state directory, else from subnet.env.
    pub previous: Subnets,
    /// Whether only the previous subnet will do, because pods use it.
    pub pinned: bool,
    /// What the kernel says about leases that carry this host's address but not its id.
    pub evidence: Evidence,
}

/// What the kernel knows of an earlier life of this host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Evidence {
    /// The Ethernet addresses of the tunnel devices that exist.
    pub macs: PerFamily<Mac>,
    /// The subnets that subnet.env names and that local routes or a bridge carry.
    pub carried: Subnets,
}

/// A key of the store that takes subnets, whether or not its value decodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its key.
    pub key: LeaseKey,
    /// What it takes.
    pub subnets: Subnets,
    /// The lease, if its value decodes.
    pub lease: Option<Lease>,
    /// Whether it never expires.
    pub permanent: bool,
    /// The revision that created it: of two that overlap, the older one counts.
    pub created: u64,
}

/// What to do to hold a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Rewrite this key: it is ours, or reserved for us.
    Rewrite(LeaseKey),
    /// Delete this key, which is ours, and choose again: an older lease of another host takes part of what it takes.
    Yield(LeaseKey),
    /// Create a key for these subnets, which nobody has.
    Create(Subnets),
}

/// Why no lease can be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClaimError {
    /// Every subnet is taken.
    Exhausted {
        /// How many leases there are.
        taken: usize,
        /// How many subnets there are in all, for the family that ran out.
        size: u128,
    },
    /// Another host publishes our address.
    DuplicateAddress {
        /// Its lease.
        key: LeaseKey,
        /// The address.
        address: String,
        /// Its node id.
        node: String,
    },
    /// Another host has the subnet that pods of this host use.
    SubnetTaken {
        /// Its lease.
        key: LeaseKey,
        /// Its node id or address.
        owner: String,
    },
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { taken, size } => write!(
                f,
                "the pool is exhausted: {taken} leases take all of its {size} subnets; next: release leases of hosts \
                 that are gone (twill lease list), or widen Network"
            ),
            Self::SubnetTaken { key, owner } => write!(
                f,
                "pods of this host use a subnet that {owner} holds by now as {key}; next: drain this host's pods and \
                 restart the agent, or run on the other host: twill lease release --own; by its key only if that host \
                 is gone: twill lease release {key}"
            ),
            Self::DuplicateAddress { key, address, node } => write!(
                f,
                "the address {address} is announced twice: node {node} holds lease {key} with it; next: give this \
                 host an address of its own, or choose one with --iface or --public-ip; if that node is gone: twill \
                 lease release {key}"
            ),
        }
    }
}

impl std::error::Error for ClaimError {}

/// Whether a host could be given these subnets under this configuration.
#[must_use]
pub fn fits(subnets: &Subnets, config: &NetworkConfig) -> bool {
    misfit(subnets, config).is_none()
}

/// Why a lease does not fit the configuration, in words.
///
/// Such a lease is kept by its holder, since pods use it, and reported as
/// [`LeaseOutgrown`](crate::fault::Code::LeaseOutgrown). In particular a lease of one family stays one when the
/// other family is enabled: its key names its subnets, so it cannot gain one.
#[must_use]
pub fn misfit(subnets: &Subnets, config: &NetworkConfig) -> Option<String> {
    Family::ALL.into_iter().find_map(|family| match (subnets.get(family), config.pools.get(family)) {
        (Some(net), Some(pool)) if !pool.holds(net) => Some(format!(
            "the lease has {net}, which is not a /{} between {} and {}",
            pool.subnet_len, pool.min, pool.max
        )),
        (Some(net), None) => Some(format!("the lease has {net}, but {family} is not enabled")),
        (None, Some(_)) => Some(format!("the lease has no {family} subnet, but {family} is enabled")),
        (Some(_), Some(_)) | (None, None) => None,
    })
}

#[cfg(test)]
mod tests;
