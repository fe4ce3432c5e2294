//! What a pass is given, and what it leaves behind.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use twill_backends::diff::Op;
use twill_backends::fault::Fault;
use twill_backends::state::{LinkName, NetState};

use crate::kernel::Scope;

/// Counts since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
