//! The hops a packet takes between two addresses of a fabric, as far as one host can tell: what is on this host is
//! compared with what its kernel has, what is on others is told from their leases, and by their agents where these were
//! asked. What the agents measured says whether packets arrive. Pure.
//!
//! ```text
//! pod --bridge--> forwarding, firewall --route--> neighbour --> FDB --> tunnel device --> underlay --> probe --> the peer
//! ```

mod code;
mod hop;
mod leave;
mod local;
mod peer;
mod place;
mod probe;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use twill_backends::family::PerFamily;
use twill_backends::guard::Element;
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::plan::Plan;
use twill_backends::state::LinkName;

pub use code::Hitch;
pub use hop::{Answer, Cause, Hop, Verdict};
pub use place::{others, questions};
pub use probe::Probe;

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
    /// The agents that were asked, this host's among them.
    pub agents: BTreeMap<LeaseKey, Asked>,
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

/// What came of asking an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It answered.
    Says(Agent),
    /// It did not.
    Silent(Cause),
}

/// What an agent says of itself, and of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Its state in one word.
    pub state: String,
    /// Its first fault, if it has any beside those of single peers.
    pub fault: Option<Cause>,
    /// Whether its kernel is as it wants it.
    pub settled: bool,
    /// The devices whose frames it carries itself.
    pub serves: BTreeSet<String>,
    /// The other hosts that it knows, with what it measured of each.
    pub peers: BTreeMap<LeaseKey, PerFamily<Probe>>,
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
        let entry = Hitch::MixedFamilies.entry();
        let hop = Hop::here("addresses");
        walk.hops.push(hop.stops(entry, "one is of IPv4 and the other of IPv6", entry.next));
    }
    Trace { src, dst, hops: walk.hops }
}

impl<'a> Walk<'a> {
    fn walk(&mut self, from: &Place<'a>, to: &Place<'a>) {
        let own = &self.scene.plan.own().key;
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
                self.probed(&lease.key, own, *other);
                if *other == Side::Pod {
                    self.arrive(lease);
                }
                self.probed(own, &lease.key, *other);
                self.enter(*other);
            }
            (Place::There(lease, _), Place::There(other, _)) if lease.key == other.key => {
                self.hops.push(Hop::at(&lease.key, "pods").told("both addresses are on this host"));
                self.said(lease);
            }
            (Place::There(lease, side), Place::There(other, end)) => {
                self.sent_by(lease, *side);
                self.probed(&lease.key, &other.key, *end);
                self.taken_by(other, *end);
                self.probed(&other.key, &lease.key, *end);
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
            Place::There(lease, side) => {
                if *side == Side::Pod {
                    if !self.reach_peer(lease) {
                        return;
                    }
                    self.known_to_peers();
                } else {
                    self.underlay(self.dst, 0, None);
                }
                let own = &self.scene.plan.own().key;
                self.probed(own, &lease.key, *side);
                self.taken_by(lease, *side);
                self.probed(&lease.key, own, *side);
            }
            Place::Outside => self.underlay(self.dst, 0, None),
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
        let entry = Hitch::NoHost.entry();
        self.hops.push(Hop::here(format!("lease of {addr}")).stops(entry, cause, entry.next));
    }
}

#[cfg(test)]
mod tests;
