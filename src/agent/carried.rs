//! What was carried to and from each peer, for those who ask: put together when they do, not by the loop.
//!
//! # Who counts
//! The userspace datapath counts both directions. Where the kernel carries packets, the guard counts what it takes from each
//! public address; nothing in the kernel counts what goes to one, but its agent says what it received from here. Without
//! a tunnel (host-gw) nobody counts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::census::Peer;
use super::status::{PeerStatus, TrafficStatus};
use crate::datapath::peers::{Amount, Peers, Traffic};

/// Where what is carried to and from peers is counted: the peers of each tunnel device that this program serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried(pub(super) Vec<Arc<Peers>>);

impl Carried {
    /// Tells of each peer what was carried to and from it, where that is known. `known` are the same peers.
    pub(super) fn tell(&self, peers: &mut [PeerStatus], known: &[Peer]) {
        for (peer, known) in peers.iter_mut().zip(known) {
            peer.traffic = self.of(&known.subnets).map(TrafficStatus::from).or(peer.traffic.take());
        }
    }

    /// What this program carried to and from the peer with these subnets.
    fn of(&self, subnets: &[IpNet]) -> Option<Traffic> {
        let of = |subnet| self.0.iter().filter_map(move |peers| peers.traffic_of(subnet));
        subnets.iter().flat_map(of).reduce(|sum, more| sum + more)
    }
}

/// Tells of each peer what the guard took from its addresses. Peers behind one address cannot be told apart, so nothing is
/// told of them. `known` are the same peers.
pub(super) fn take(peers: &mut [PeerStatus], known: &[Peer], received: &BTreeMap<IpAddr, Amount>) {
    let mut owners: BTreeMap<IpAddr, usize> = BTreeMap::new();
    known.iter().flat_map(|peer| &peer.public).for_each(|addr| *owners.entry(*addr).or_default() += 1);
    for (peer, known) in peers.iter_mut().zip(known) {
        let from = || known.public.iter().filter(|addr| received.contains_key(addr));
        if from().next().is_none() || from().any(|addr| owners[addr] > 1) {
            continue;
        }
        let mut sum = Amount::default();
        from().filter_map(|addr| received.get(addr)).for_each(|amount| sum += *amount);
        let Amount { packets: received_packets, bytes: received_bytes } = sum;
        peer.traffic = Some(TrafficStatus { received_packets, received_bytes, ..TrafficStatus::default() });
    }
}

impl From<Traffic> for TrafficStatus {
    fn from(Traffic { sent, received, dropped }: Traffic) -> Self {
        Self {
            received_packets: received.packets,
            received_bytes: received.bytes,
            sent_packets: Some(sent.packets),
            sent_bytes: Some(sent.bytes),
            dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use twill_backends::frame::table::{self, Table};
    use twill_backends::mac::Mac;

    use super::*;
    use crate::agent::status::tests::status;

    fn tunnel(subnets: &[&str]) -> Arc<Peers> {
        let peer = |(n, subnet): (u8, &&str)| table::Peer {
            mac: Some(Mac([2, 0, 0, 0, 0, n])),
            addr: [192, 0, 2, n].into(),
            subnet: subnet.parse().unwrap(),
            mtu: 1450,
        };
        Arc::new(Peers::after(&Peers::default(), Table::new((1..).zip(subnets).map(peer)), 1450))
    }

    /// Peers with these public addresses, of which nothing is known yet.
    fn public(addresses: &[&[&str]]) -> (Vec<PeerStatus>, Vec<Peer>) {
        let one = PeerStatus { traffic: None, ..status().peers.remove(0) };
        let peers: Vec<PeerStatus> = addresses.iter().map(|_| one.clone()).collect();
        let mut known: Vec<Peer> = peers.iter().cloned().map(Peer::from).collect();
        for (known, addresses) in known.iter_mut().zip(addresses) {
            known.public = addresses.iter().map(|addr| addr.parse().unwrap()).collect();
        }
        (peers, known)
    }

    #[test]
    fn what_the_guard_took_is_told_of_the_peer_it_came_from_or_of_nobody() {
        let (mut peers, known) = public(&[
            &["192.0.2.1", "2001:db8::1"],
            &["192.0.2.2"],
            &["192.0.2.2", "2001:db8::2"],
            &["192.0.2.3"],
            &["192.0.2.4"],
        ]);
        let amount = |packets| Amount { packets, bytes: packets * 100 };
        let received = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.4", "192.0.2.9"];
        let received = received.iter().map(|addr| addr.parse().unwrap()).zip((0..).map(amount));
        take(&mut peers, &known, &received.collect());
        let told = peers.iter().map(|peer| peer.traffic.as_ref().map(|traffic| traffic.received_packets));
        assert_eq!(told.collect::<Vec<_>>(), [Some(1), None, None, None, Some(4)]);
        let traffic = TrafficStatus { received_packets: 4, received_bytes: 400, ..TrafficStatus::default() };
        assert_eq!(peers[4].traffic, Some(traffic));
        let json = serde_json::to_value(&peers[4]).unwrap();
        assert_eq!(json["traffic"], serde_json::json!({ "received_packets": 4, "received_bytes": 400 }));
        assert_eq!(serde_json::to_value(&peers[3]).unwrap().get("traffic"), None);
    }

    #[test]
    fn both_families_of_a_peer_count_as_one_and_who_is_not_served_has_no_counts() {
        let tunnels = [tunnel(&["10.5.2.0/24", "10.5.3.0/24"]), tunnel(&["fd00:5:0:2::/64"])];
        for (tunnel, bytes) in tunnels.iter().zip([100, 20]) {
            tunnel.count_one(0, bytes);
        }
        let mut peers = status().peers;
        peers.iter_mut().for_each(|peer| peer.traffic = None);
        peers.push(PeerStatus { key: "10.5.4.0-24".to_owned(), ..peers[0].clone() });
        let subnets = [vec!["10.5.2.0/24", "fd00:5:0:2::/64"], vec!["10.5.3.0/24"], vec!["10.5.4.0/24"]];
        let mut known: Vec<Peer> = peers.iter().cloned().map(Peer::from).collect();
        for (known, subnets) in known.iter_mut().zip(subnets) {
            known.subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
        }
        Carried(tunnels.to_vec()).tell(&mut peers, &known);
        let sent =
            |at: usize| peers[at].traffic.as_ref().map(|traffic| (traffic.sent_packets, traffic.sent_bytes));
        assert_eq!(sent(0), Some((Some(2), Some(120))));
        assert_eq!(sent(1), Some((Some(0), Some(0))));
        assert_eq!(sent(2), None);
    }
}
