//! From what the status says to samples.

use std::collections::BTreeMap;

use twill_backends::fault::Code;

use super::{Sample, Scrape};
use crate::agent::status::{GuardStatus, PoolStatus};

pub(super) const fn sample(value: f64) -> Sample {
    Sample { suffix: "", labels: Vec::new(), value }
}

pub(super) fn labelled<const N: usize>(labels: [(&'static str, &str); N], value: f64) -> Sample {
    let labels = labels.map(|(name, value)| (name, value.to_owned())).into();
    Sample { labels, ..sample(value) }
}

pub(super) fn one(value: f64) -> Vec<Sample> {
    vec![sample(value)]
}

pub(super) fn some(value: Option<f64>) -> Vec<Sample> {
    value.map(sample).into_iter().collect()
}

pub(super) fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Exact up to 2^53, as all of Prometheus is.
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

pub(super) fn count(count: usize) -> Vec<Sample> {
    one(float(u64::try_from(count).unwrap_or(u64::MAX)))
}

/// A sample for each entry.
pub(super) fn named(label: &'static str, counts: &BTreeMap<String, u64>) -> Vec<Sample> {
    counts.iter().map(|(name, count)| labelled([(label, name)], float(*count))).collect()
}

/// A sample for each code there is, so that the first fault of a kind is an increase.
pub(super) fn codes(count: impl Fn(&str) -> u64) -> Vec<Sample> {
    Code::ENTRIES.iter().map(|entry| labelled([("code", entry.code)], float(count(entry.code)))).collect()
}

pub(super) fn pools(scrape: &Scrape, of: fn(&PoolStatus) -> u64) -> Vec<Sample> {
    let pools = scrape.status.network.iter().flat_map(|network| &network.pools);
    pools.map(|pool| labelled([("network", &pool.network)], float(of(pool)))).collect()
}

pub(super) fn guard(scrape: &Scrape) -> Option<&GuardStatus> {
    scrape.status.network.as_ref()?.guard.as_ref()
}

/// One of the numbers of each tunnel device.
pub(super) fn devices(scrape: &Scrape, at: usize) -> Vec<Sample> {
    let names = scrape.status.network.iter().flat_map(|network| &network.devices);
    let found = names.filter_map(|name| Some((name, scrape.figures.devices.get(name)?)));
    found.map(|(name, numbers)| labelled([("device", name)], numbers[at])).collect()
}

/// Whether a count of the userspace datapath is one of frames that were not carried.
pub(super) fn is_drop(name: &str) -> bool {
    ["dropped_", "underlay_", "tap_refused"].iter().any(|start| name.starts_with(start))
}

/// Counts of the userspace datapath, as far as they have a name here.
pub(super) fn frames(
    scrape: &Scrape,
    label: &'static str,
    name: impl Fn(&str) -> Option<&str>,
) -> Vec<Sample> {
    let datapath = scrape.status.network.as_ref().and_then(|network| network.datapath.as_ref());
    let mut samples = Vec::new();
    for tunnel in datapath.iter().flat_map(|datapath| &datapath.tunnels) {
        let named = tunnel.frames.iter().filter_map(|(counted, count)| Some((name(counted)?, *count)));
        samples.extend(
            named.map(|(name, count)| labelled([("device", &tunnel.device), (label, name)], float(count))),
        );
    }
    samples
}

/// A histogram's buckets count all below their bound.
pub(super) fn durations(scrape: &Scrape) -> Vec<Sample> {
    let durations = &scrape.status.reconcile.durations;
    let mut below = 0;
    let mut samples = Vec::new();
    for bucket in &durations.buckets {
        below += bucket.count;
        let le = bucket.up_to_s.map_or("+Inf".to_owned(), |bound| bound.to_string());
        samples.push(Sample { suffix: "_bucket", ..labelled([("le", &le)], float(below)) });
    }
    samples.push(Sample { suffix: "_sum", ..sample(durations.sum_s) });
    samples.push(Sample { suffix: "_count", ..sample(float(below)) });
    samples
}
