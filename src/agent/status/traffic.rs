//! What an agent says of what was carried to and from another host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was carried to and from another host since this agent knows it. Packets and bytes are those of the underlay, outer
/// headers included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrafficStatus {
    /// Packets that came from it and were let in; where the kernel carries them, also those whose inner source is forged.
    pub received_packets: u64,
    /// Their bytes, from the outer IP header on.
    pub received_bytes: u64,
    /// Packets that were sent to it; absent where the kernel carries them: what its agent received from here is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_packets: Option<u64>,
    /// Their bytes, from the outer IP header on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Packets to or from it that were not carried, by reason; absent where there are none, and where the kernel carries
    /// them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

impl TrafficStatus {
    /// What was carried at all, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.received_bytes.saturating_add(self.sent_bytes.unwrap_or_default())
    }

    /// What was not, in packets.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }
}
