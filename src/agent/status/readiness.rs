//! Whether containers can be started and reach others.

use serde::{Deserialize, Serialize};

/// Whether containers can be started and reach others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether they can.
    pub ready: bool,
    /// Why not; empty if they can.
    pub because: Vec<String>,
}
