//! What an agent says of what was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What has gone wrong since the start, over or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryStatus {
    /// How many faults came up, by code.
    pub faults: BTreeMap<String, u64>,
    /// When the last one did, in seconds since 1970.
    pub last_fault_unix_s: Option<u64>,
}
