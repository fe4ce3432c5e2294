//! What an agent says of the network, and of who carries its frames.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::GuardStatus;

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkStatus {
    /// The network of each family.
    pub networks: Vec<String>,
    /// The backend.
    pub backend: String,
    /// The MTU of pods in bytes.
    pub mtu: u32,
    /// Which firewall carries the rules.
    pub firewall: String,
    /// Who carries frames; `None` where there is no tunnel.
    #[serde(default)]
    pub datapath: Option<DatapathStatus>,
    /// Who may send; `None` where everybody may, or where there is no tunnel.
    #[serde(default)]
    pub guard: Option<GuardStatus>,
    /// What subnets are taken from, each family by itself.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
    /// The tunnel's devices.
    #[serde(default)]
    pub devices: Vec<String>,
}

/// What subnets of one family are taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PoolStatus {
    /// The network.
    pub network: String,
    /// How many subnets it has for hosts.
    pub size: u64,
    /// How many are leased.
    pub leased: u64,
}

/// Who carries frames between tunnel devices and the underlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatapathStatus {
    /// `kernel` or `userspace`.
    pub kind: String,
    /// Why it, and not the other.
    pub because: String,
    /// What the userspace datapath serves.
    pub tunnels: Vec<TunnelStatus>,
    /// Who finishes the checksums of what the kernel's devices send.
    #[serde(default)]
    pub checksums: Vec<ChecksumStatus>,
}

/// Who finishes the checksums of what a device of the kernel's sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChecksumStatus {
    /// The device.
    pub device: String,
    /// Whether those inside are left to the underlay's device (`tx-checksum-ip-generic`).
    pub offload: bool,
    /// Why, or why not.
    pub because: String,
    /// Whether there is one outside (`udpcsum`).
    pub udp: bool,
    /// Why, or why not.
    pub udp_because: String,
    /// What shows that those left to the device are spoilt, if something does.
    pub spoilt: Option<String>,
    /// Whether a trial had anything to say.
    pub tested: bool,
}

/// A tunnel device that the userspace datapath serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TunnelStatus {
    /// The device.
    pub device: String,
    /// Whether the kernel's offloads are in use.
    pub offload: bool,
    /// How many threads serve it, each a queue of the device.
    pub queues: usize,
    /// Frames since it was opened: carried, and dropped by reason.
    pub frames: BTreeMap<String, u64>,
}

impl fmt::Display for DatapathStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{}: {}", "datapath", self.kind, self.because)?;
        for tunnel in &self.tunnels {
            let counts: Vec<_> =
                tunnel.frames.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let mode = if tunnel.offload { "offload" } else { "plain" };
            let queues =
                if tunnel.queues == 1 { String::new() } else { format!(", {} queues", tunnel.queues) };
            writeln!(f, "  {:<24}{mode}{queues}: {}", tunnel.device, counts.join(", "))?;
        }
        for checksums in &self.checksums {
            let word = |on| if on { "on" } else { "off" };
            let ChecksumStatus { device, offload, because, udp, udp_because, .. } = checksums;
            writeln!(f, "  {device:<24}checksum offload {}: {because}", word(*offload))?;
            writeln!(f, "  {:<24}outer checksum {}: {udp_because}", "", word(*udp))?;
        }
        Ok(())
    }
}
