//! One transaction, planned: what to run, with what input, and why. Printed by `twill plan`, run by `apply`.

use std::fmt;

use super::FilterError;

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Whether it loads ours (`true`) or removes something.
    pub(super) load: bool,
    /// What it does, as an operator would say it.
    pub(super) what: String,
    /// What was seen that makes it necessary.
    pub(super) why: String,
    /// What was read, canonically: the same text after a load means the tool reads back otherwise than written.
    pub(super) seen: String,
    /// Whether what was read has every rule we wrote, if differently spelled.
    pub(super) close: bool,
    /// The program to run.
    pub(super) program: String,
    /// Its arguments.
    pub(super) args: &'static [&'static str],
    /// Its standard input.
    pub(super) input: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What a pass would do: loads first, then removals.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order in which they run.
    pub(super) steps: Vec<Step>,
    /// What could not be looked at, and does not stop the rest.
    pub(super) warnings: Vec<String>,
    /// Why some of ours could not be looked at, first of all. What else is to be loaded is among the steps.
    pub(super) failure: Option<FilterError>,
}
