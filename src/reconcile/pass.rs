//! What a pass is given, and what it leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use twill_backends::diff::{Key, Op};
use twill_backends::fault::Fault;
use twill_backends::state::{LinkName, NetState};

use crate::kernel::Scope;

/// From a pass that finds nothing to do to one over ten thousand peers on a slow machine.
const BOUNDS: [f64; 8] = [0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0];

/// Counts since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tally {
    /// Passes that compared something.
    pub passes: u64,
    /// Passes that read the whole state back.
    pub observations: u64,
    /// Operations done.
    pub operations: u64,
    /// Operations refused.
    pub refusals: u64,
    /// How long the last pass took, in microseconds.
    pub last_pass_us: u64,
}

/// How long passes took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Durations {
    /// Each counts those that took longer than the bound before its own.
    pub buckets: Vec<Bucket>,
    /// All of them together, in seconds.
    pub sum_s: f64,
}

/// How many took no longer than this, and longer than the bound before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bucket {
    /// The bound in seconds; the last bucket has none.
    pub up_to_s: Option<f64>,
    /// How many.
    pub count: u64,
}

impl Default for Durations {
    fn default() -> Self {
        let bounds = BOUNDS.iter().copied().map(Some).chain([None]);
        Self { buckets: bounds.map(|up_to_s| Bucket { up_to_s, count: 0 }).collect(), sum_s: 0.0 }
    }
}

impl Durations {
    /// One more pass.
    pub(super) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let fits = |bucket: &&mut Bucket| bucket.up_to_s.is_none_or(|bound| seconds <= bound);
        self.buckets.iter_mut().find(fits).into_iter().for_each(|bucket| bucket.count += 1);
        self.sum_s += seconds;
    }
}

/// What a pass is to compare.
#[derive(Debug, Default)]
pub(super) enum Todo {
    #[default]
    Everything,
    These(BTreeSet<Key>),
}

/// What a pass did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) done: Vec<Op>,
    pub(super) faults: Vec<Fault>,
    /// Links that could not be written: what would be on them cannot be either.
    pub(super) refused: BTreeSet<LinkName>,
}

/// What a pass is to reach.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    /// What counts as ours.
    pub scope: &'a Scope,
    /// The state wanted.
    pub want: &'a NetState,
    /// Whether what nobody wants may be taken away: not before the store's first snapshot of this run.
    pub removals: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_is_counted_once_below_its_bound() {
        let mut durations = Durations::default();
        for micros in [0, 500, 501, 30_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = durations.buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert!((durations.sum_s - 30.001_001).abs() < 1e-9);
    }
}
