//! What a plan says of peers, for those who carry their packets and those who look how they fare.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Plan;
use crate::family::{Family, PerFamily};
use crate::fault::Fault;
use crate::frame::table::{self, Table};
use crate::host::Fact;
use crate::lease::LeaseKey;
use crate::state::{NetState, PeerState, Tunnel};

/// Of whom something else may be planned than when this was last asked for.
#[derive(Debug, Default)]
pub struct Replanned {
    /// The peers.
    pub peers: BTreeSet<LeaseKey>,
    /// The public addresses from which something else may come.
    pub senders: BTreeSet<IpAddr>,
}

impl Plan {
    /// What the userspace datapath has to serve, each with where its frames go.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Tunnel, Table)> {
        self.base.tunnels.iter().map(|tunnel| {
            let family = Family::of(&tunnel.vxlan.local);
            let to = |state: &PeerState| {
                let (key, route) = &state.route;
                let (mac, addr) = match state.fdb {
                    Some(fdb) if fdb.dev == tunnel.dev => (Some(fdb.mac), fdb.dst),
                    None if Family::of_net(&key.dst) == family => (None, route.via?),
                    Some(_) | None => return None,
                };
                // Of a path that is narrower the route tells those who send. Here it would hide that it is wide again:
                // what finds that out has to pass.
                Some(table::Peer { mac, addr, subnet: key.dst, mtu: tunnel.mtu })
            };
            (tunnel, Table::new(self.programmed().filter_map(to)))
        })
    }

    /// This was measured, and nothing else is. Returns the leases of which it changes something; they are to be planned
    /// again.
    pub fn measured(&mut self, facts: BTreeMap<LeaseKey, PerFamily<Fact>>) -> BTreeSet<LeaseKey> {
        let before = std::mem::replace(&mut self.facts, facts);
        let keys = before.keys().chain(self.facts.keys());
        keys.filter(|key| before.get(*key) != self.facts.get(*key)).cloned().collect()
    }

    /// The peers there are.
    pub fn keys(&self) -> impl Iterator<Item = &LeaseKey> {
        self.peers.keys()
    }

    /// The way to one peer in the state wanted, of each family.
    pub fn ways_to(&self, peer: &LeaseKey) -> impl Iterator<Item = (Family, &PeerState)> {
        self.peers.get(peer).into_iter().flat_map(|peer| peer.programmed.iter())
    }

    pub(super) fn programmed(&self) -> impl Iterator<Item = &PeerState> {
        self.peers.values().flat_map(|peer| peer.programmed.iter().map(|(_, state)| state))
    }

    /// Of whom something else may be planned than when this was last asked for.
    pub fn replanned(&mut self) -> Replanned {
        std::mem::take(&mut self.replanned)
    }

    /// What could not be planned: the host's own faults, then those of leases in the order of their keys.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.base.faults.iter().chain(self.faults.values().flatten())
    }

    /// How many peers are in the state wanted, in at least one family.
    #[must_use]
    pub const fn peers(&self) -> usize {
        self.wanted
    }

    /// How many peers `have` leads to, in every family in which they are wanted.
    #[must_use]
    pub fn present(&self, have: &NetState) -> usize {
        let stands = |state: &PeerState| {
            let (key, route) = &state.route;
            have.routes.get(key) == Some(route)
                && state.fdb.is_none_or(|entry| have.fdb.contains(&entry))
                && state.neigh.is_none_or(|(key, mac)| have.neighs.get(&key) == Some(&mac))
        };
        let wanted = self.peers.values().filter(|peer| !peer.programmed.is_empty());
        wanted.filter(|peer| peer.programmed.iter().all(|(_, state)| stands(state))).count()
    }
}
