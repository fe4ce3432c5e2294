//! What was carried to and from peers, of those with most of it: a fabric has more peers than a scrape has room for.
//! What counts is the sum since a peer is known, so that who is told of rarely changes.

use std::cmp::Reverse;

use super::sample::{float, labelled};
use super::{Sample, Scrape};
use crate::agent::status::{PeerStatus, TrafficStatus};

/// Of how many peers each is told.
const MOST: usize = 50;

/// The places of the peers that most is carried to and from.
pub(super) fn busiest(peers: &[PeerStatus]) -> Vec<usize> {
    most(peers, TrafficStatus::bytes)
}

/// The places of the peers that lost most.
pub(super) fn losing(peers: &[PeerStatus]) -> Vec<usize> {
    let mut most = most(peers, TrafficStatus::lost);
    most.retain(|at| peers[*at].traffic.as_ref().is_some_and(|traffic| traffic.lost() > 0));
    most
}

fn most(peers: &[PeerStatus], of: fn(&TrafficStatus) -> u64) -> Vec<usize> {
    let known =
        peers.iter().enumerate().filter_map(|(at, peer)| Some((at, peer, of(peer.traffic.as_ref()?))));
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(_, peer, amount)| (Reverse(*amount), &peer.key));
    known.iter().take(MOST).map(|(at, ..)| *at).collect()
}

fn told<'s>(scrape: &'s Scrape, places: &'s [usize]) -> impl Iterator<Item = (&'s str, &'s TrafficStatus)> {
    let peers = places.iter().filter_map(|at| scrape.status.peers.get(*at));
    peers.filter_map(|peer| Some((peer.key.as_str(), peer.traffic.as_ref()?)))
}

/// A sample for each of the busiest.
pub(super) fn carried(scrape: &Scrape, of: fn(&TrafficStatus) -> Option<u64>) -> Vec<Sample> {
    let known = told(scrape, &scrape.busiest).filter_map(|(peer, traffic)| Some((peer, of(traffic)?)));
    known.map(|(peer, amount)| labelled([("peer", peer)], float(amount))).collect()
}

/// A sample for each reason of each of those that lost most.
pub(super) fn dropped(scrape: &Scrape) -> Vec<Sample> {
    let of = |(peer, traffic): (&str, &TrafficStatus)| -> Vec<Sample> {
        let counts = traffic.dropped.iter();
        counts.map(|(reason, count)| labelled([("peer", peer), ("reason", reason)], float(*count))).collect()
    };
    told(scrape, &scrape.losing).flat_map(of).collect()
}
