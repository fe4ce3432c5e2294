//! What probes found, of the peers that are worst off: a fabric has more peers than a scrape has room for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::sample::{float, labelled};
use super::{Sample, Scrape};
use crate::agent::status::{PeerStatus, ProbeStatus, WayStatus};

/// Of how many peers each is told.
const WORST: usize = 50;

/// The places of the peers that are worst off: by what their probes mean, then by loss and by round trip.
pub(super) fn worst(peers: &[PeerStatus]) -> Vec<usize> {
    let probed = peers.iter().enumerate().filter_map(|(at, peer)| Some((at, peer, peer.probe.as_ref()?)));
    let mut probed: Vec<_> = probed.collect();
    let badness = |probe: &ProbeStatus| {
        let slowest = probe.ways.iter().filter_map(|way| way.rtt_p99_us).max();
        (probe.verdict, probe.lost_ppm(), slowest)
    };
    probed.sort_by_cached_key(|(_, peer, probe)| (Reverse(badness(probe)), peer.key.clone()));
    probed.iter().take(WORST).map(|(at, ..)| *at).collect()
}

/// Those peers.
fn told(scrape: &Scrape) -> impl Iterator<Item = (&PeerStatus, &ProbeStatus)> {
    let peers = scrape.worst.iter().filter_map(|at| scrape.status.peers.get(*at));
    peers.filter_map(|peer| Some((peer, peer.probe.as_ref()?)))
}

/// A sample for each way to each of them that has been measured.
pub(super) fn ways(scrape: &Scrape, of: impl Fn(&WayStatus) -> Option<f64>) -> Vec<Sample> {
    let ways = told(scrape).flat_map(|(peer, probe)| probe.ways.iter().map(move |way| (peer, way)));
    let measured = ways.filter_map(|(peer, way)| Some((peer, way, of(way)?)));
    let sample = |(peer, way, value): (&PeerStatus, &WayStatus, f64)| {
        labelled([("peer", &peer.key), ("way", &way.way), ("family", &way.family)], value)
    };
    measured.map(sample).collect()
}

/// The MTU of the path to each of them.
pub(super) fn mtus(scrape: &Scrape) -> Vec<Sample> {
    let known = told(scrape).filter(|(_, probe)| probe.mtu > 0);
    known.map(|(peer, probe)| labelled([("peer", &peer.key)], f64::from(probe.mtu))).collect()
}

/// How many peers of each verdict there are.
pub(super) fn verdicts(scrape: &Scrape) -> Vec<Sample> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for probe in scrape.status.peers.iter().filter_map(|peer| peer.probe.as_ref()) {
        *counts.entry(probe.verdict.to_string()).or_default() += 1;
    }
    counts.iter().map(|(verdict, count)| labelled([("verdict", verdict)], float(*count))).collect()
}

/// Microseconds in seconds.
pub(super) fn seconds(micros: u64) -> f64 {
    float(micros) / 1e6
}
