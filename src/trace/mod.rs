//! The hops a packet takes between two addresses of a fabric, as far as one host can tell: what is on this host is
//! compared with what its kernel has, what is on others is told from their leases. Pure.
//!
//! ```text
//! pod --bridge--> forwarding, firewall --route--> neighbour --> FDB --> tunnel device --> underlay --> the peer
//! ```

mod hop;
mod leave;
mod local;
mod peer;
mod place;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use twill_backends::guard::Element;
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::plan::Plan;
use twill_backends::state::LinkName;

pub use hop::{Answer, Cause, Hop, Verdict};
pub use place::questions;

use crate::filter::PolicyDrop;
use crate::kernel::Observed;
use crate::kernel::facts::HostFacts;
use place::{Place, Side, place};

/// All that one host knows.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What the host must be.
    pub plan: &'a Plan,
    /// All leases.
    pub leases: &'a [Lease],
    /// What the host is, as far as it is ours.
    pub observed: &'a Observed,
    /// Its links and addresses.
    pub facts: &'a HostFacts,
    /// How its kernel sends to the addresses of [`questions`].
    pub ways: BTreeMap<IpAddr, Way>,
    /// Its firewall.
    pub firewall: Firewall<'a>,
    /// What agents say of themselves, those that were asked and answered.
    pub agents: BTreeMap<LeaseKey, Agent>,
}

/// How a kernel sends to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Through a device.
    Through {
        /// Which.
        dev: LinkName,
        /// The gateway, if there is one.
        via: Option<IpAddr>,
        /// The largest packet in bytes, where the kernel knows of less than the device carries.
        mtu: Option<u32>,
    },
    /// Not at all, and why.
    Nowhere(String),
}

/// What a firewall is like.
#[derive(Debug, Clone, Copy)]
pub struct Firewall<'a> {
    /// What would be loaded, and removed.
    pub rules: &'a [String],
    /// Who should be able to send to the tunnel's port, and is not.
    pub shut_out: &'a BTreeSet<Element>,
    /// What drops forwarded packets, and is not ours to change.
    pub drops: &'a [PolicyDrop],
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Its state in one word.
    pub state: String,
    /// Its first fault, if it has any.
    pub fault: Option<Cause>,
    /// The devices whose frames it carries itself.
    pub serves: BTreeSet<String>,
}

/// The hops between two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Where packets come from.
    pub src: IpAddr,
    /// Where they go.
    pub dst: IpAddr,
    /// In the order in which a packet takes them.
    pub hops: Vec<Hop>,
}

/// Follows a packet.
struct Walk<'a> {
    scene: &'a Scene<'a>,
    src: IpAddr,
    dst: IpAddr,
    hops: Vec<Hop>,
}

/// The hops a packet takes from one address to another.
#[must_use]
pub fn trace(scene: &Scene<'_>, src: IpAddr, dst: IpAddr) -> Trace {
    let mut walk = Walk { scene, src, dst, hops: Vec::new() };
    if src.is_ipv4() == dst.is_ipv4() {
        walk.walk(&place(scene, src), &place(scene, dst));
    } else {
        let next = "give two addresses of one family";
        walk.hops.push(Hop::here("addresses").stops("one is of IPv4 and the other of IPv6", next));
    }
    Trace { src, dst, hops: walk.hops }
}

impl<'a> Walk<'a> {
    fn walk(&mut self, from: &Place<'a>, to: &Place<'a>) {
        if let Place::Free(network) = from {
            return self.without_lease(self.src, network);
        }
        match (from, to) {
            (Place::Here(side), Place::Here(other)) => self.within(*side, *other),
            (Place::Here(side), to) => {
                self.depart(*side);
                self.go(to);
            }
            (Place::There(lease, side), Place::Here(other)) => {
                self.sent_by(lease, *side);
                self.arrive(lease, *other);
            }
            (Place::There(lease, _), Place::There(other, _)) if lease.key == other.key => {
                self.hops.push(Hop::at(lease, "pods").told("both addresses are on this host"));
                self.said(lease);
            }
            (Place::There(lease, side), to) => {
                self.sent_by(lease, *side);
                self.elsewhere(to);
            }
            (Place::Outside, Place::Here(side)) => {
                self.hops
                    .push(Hop::here("from outside").told("the fabric does not decide how it comes here"));
                self.enter(*side);
            }
            (Place::Outside | Place::Free(_), to) => self.elsewhere(to),
        }
    }

    /// What leaves this host.
    fn go(&mut self, to: &Place<'a>) {
        match to {
            Place::There(lease, Side::Pod) => self.reach_peer(lease),
            Place::There(..) | Place::Outside => self.underlay(self.dst, 0, None),
            Place::Free(network) => self.without_lease(self.dst, network),
            Place::Here(side) => self.enter(*side),
        }
    }

    /// What neither leaves nor reaches this host.
    fn elsewhere(&mut self, to: &Place<'a>) {
        match to {
            Place::There(lease, side) => self.taken_by(lease, *side),
            Place::Free(network) => self.without_lease(self.dst, network),
            Place::Outside => {
                self.hops.push(
                    Hop::here("to outside").told("neither end is on this host; the fabric does not decide"),
                );
            }
            Place::Here(side) => self.enter(*side),
        }
    }

    fn without_lease(&mut self, addr: IpAddr, network: &ipnet::IpNet) {
        let cause = format!("no host has a lease with {addr}, though it is in {network}");
        let next = "see twill lease list; the agent of the host that should have it may not run";
        self.hops.push(Hop::here(format!("lease of {addr}")).stops(cause, next));
    }
}

#[cfg(test)]
mod tests;
