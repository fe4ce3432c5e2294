//! Whether containers can be started and reach others.

use serde::{Deserialize, Serialize};

/// Whether containers can be started and reach others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Readiness {
    /// Whether they can.
    pub ready: bool,
    /// Why not; empty if they can.
    pub because: Vec<String>,
    /// Of how many other hosts probes can tell whether they are reachable.
    #[serde(default)]
    pub probed: usize,
    /// To the pods of how many of them packets pass.
    #[serde(default)]
    pub reachable: usize,
}
