//! Who may send into the fabric: a value, rendered into nftables by the shell.
//!
//! # What is checked, and by what
//!
//! A VXLAN frame proves nothing of itself; the underlay vouches for the outer source address, as far as it drops forged
//! ones. Two questions can be asked of that: whether it is the public address of a live lease, and whether the packet
//! inside comes from the subnet of that very lease. Both are asked before the frame is unwrapped: the tunnel device
//! forgets who sent it, so that a reverse-path check behind it could only say that *some* host has such a subnet.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::network::Pool;
use crate::state::PeerState;

/// Who may send to the tunnel's port of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// What does not depend on who the peers are.
    pub rules: GuardRules,
    /// Every live peer.
    pub senders: BTreeSet<Sender>,
}

/// What does not depend on who the peers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardRules {
    /// The UDP port of the tunnel.
    pub port: u16,
    /// Frames of other networks are none of our business, though they may share the port.
    pub vni: u32,
    /// The networks of the families that have a tunnel, IPv4 first. Their pods never send to a tunnel port themselves:
    /// masqueraded they would look like their host.
    pub networks: Vec<GuardNetwork>,
    /// Whether frames from an address without a lease are dropped.
    pub outer: bool,
    /// Whether frames are dropped whose inner source does not belong to their sender.
    pub inner: bool,
}

/// The network of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GuardNetwork {
    /// All its subnets.
    pub net: IpNet,
    /// The prefix length that the subnets have. Peers may have others, from before the configuration changed.
    pub subnet_len: u8,
}

/// One peer, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Sender {
    /// Its public address, from which its frames come.
    pub addr: IpAddr,
    /// Its subnet. The first address is that of its tunnel device.
    pub subnet: IpNet,
}

/// One element of a set of the guard. Those of one sender lie together in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Frames from this address are taken.
    From(IpAddr),
    /// They may carry packets with these sources.
    Carries(IpAddr, IpNet),
}

impl Guard {
    /// Peers that were programmed in one way are in another. Returns the addresses of those concerned.
    pub(crate) fn exchange(&mut self, old: &[PeerState], new: &[PeerState]) -> BTreeSet<IpAddr> {
        let senders = |peers: &[PeerState]| peers.iter().filter_map(Sender::of).collect::<Vec<_>>();
        let (old, new) = (senders(old), senders(new));
        for sender in &old {
            self.senders.remove(sender);
        }
        self.senders.extend(&new);
        old.iter().chain(&new).map(|sender| sender.addr).collect()
    }

    /// The elements of the sets.
    #[must_use]
    pub fn elements(&self) -> BTreeSet<Element> {
        self.elements_from(&self.senders)
    }

    /// The elements that say what may come from `addr`.
    #[must_use]
    pub fn elements_of(&self, addr: IpAddr) -> BTreeSet<Element> {
        let first = Sender { addr, subnet: IpNet::default() };
        self.elements_from(self.senders.range(first..).take_while(|sender| sender.addr == addr))
    }

    /// Besides what its pods send, a host may send from its public address: that is what a process on it has that was
    /// connected to an address of a service.
    fn elements_from<'s>(&self, senders: impl IntoIterator<Item = &'s Sender>) -> BTreeSet<Element> {
        let mut elements = BTreeSet::new();
        for Sender { addr, subnet } in senders {
            elements.insert(Element::From(*addr));
            if self.rules.inner {
                elements.insert(Element::Carries(*addr, subnet.trunc()));
                if !subnet.contains(addr) {
                    elements.insert(Element::Carries(*addr, IpNet::from(*addr)));
                }
            }
        }
        elements
    }
}

impl Element {
    /// The sender's address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        match self {
            Self::From(addr) | Self::Carries(addr, _) => *addr,
        }
    }

    const fn net(&self) -> Option<IpNet> {
        match self {
            Self::From(_) => None,
            Self::Carries(_, net) => Some(*net),
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.addr(), self.net()).cmp(&(other.addr(), other.net()))
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<&Pool> for GuardNetwork {
    fn from(pool: &Pool) -> Self {
        Self { net: pool.network, subnet_len: pool.subnet_len }
    }
}

impl GuardRules {
    /// Whether anything is checked.
    #[must_use]
    pub const fn checks(&self) -> bool {
        self.outer || self.inner
    }
}

impl Sender {
    /// The sender that a peer is: where its frames go they also come from, and without a tunnel its gateway is its host.
    #[must_use]
    pub fn of(peer: &PeerState) -> Option<Self> {
        let (key, route) = &peer.route;
        let addr = peer.fdb.map(|fdb| fdb.dst).or(route.via)?;
        Some(Self { addr, subnet: key.dst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(inner: bool, senders: &[(&str, &str)]) -> Guard {
        let sender = |(addr, subnet): &(&str, &str)| Sender {
            addr: addr.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
        };
        let networks = vec![GuardNetwork { net: "10.5.0.0/16".parse().unwrap(), subnet_len: 24 }];
        let rules = GuardRules { port: 8472, vni: 1, networks, outer: true, inner };
        Guard { rules, senders: senders.iter().map(sender).collect() }
    }

    #[test]
    fn two_peers_may_share_an_address_and_then_share_its_element() {
        let both = guard(true, &[("192.0.2.7", "10.5.7.0/24"), ("192.0.2.7", "10.5.8.0/24")]);
        let one = guard(true, &[("192.0.2.7", "10.5.7.0/24")]);
        assert_eq!((both.elements().len(), one.elements().len()), (4, 3));
        assert!(one.elements().is_subset(&both.elements()));
        assert_eq!(guard(false, &[("192.0.2.7", "10.5.7.0/24")]).elements().len(), 1);
    }

    #[test]
    fn the_elements_of_an_address_are_those_of_all_that_have_it() {
        let all = [("192.0.2.6", "10.5.6.0/24"), ("192.0.2.7", "10.5.0.0/24"), ("192.0.2.7", "10.5.8.0/24")];
        let guard = guard(true, &all);
        let addr = "192.0.2.7".parse().unwrap();
        let of: BTreeSet<Element> =
            guard.elements().into_iter().filter(|element| element.addr() == addr).collect();
        assert_eq!((guard.elements_of(addr), of.len()), (of, 4));
        assert_eq!(guard.elements_of("192.0.2.9".parse().unwrap()), BTreeSet::new());
    }

    #[test]
    fn no_element_lies_inside_another() {
        let odd = guard(true, &[("10.5.7.9", "10.5.7.0/24")]);
        assert_eq!(odd.elements().len(), 2);
    }
}
