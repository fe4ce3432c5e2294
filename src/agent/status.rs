//! What an agent says of itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reconcile::Tally;

/// The version of [`Status`] and of the requests; grows when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The answer in one word.
    pub state: State,
    /// The version of the program.
    pub build: String,
    /// The process.
    pub pid: u32,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// The node id.
    pub node: String,
    /// The instance: what links and tables of ours are marked with.
    pub instance: String,
    /// Where leases live.
    pub store: StoreStatus,
    /// The underlay, once there is one.
    pub underlay: Option<UnderlayStatus>,
    /// The network, once its configuration is known.
    pub network: Option<NetworkStatus>,
    /// The own lease, once there is one.
    pub lease: Option<LeaseStatus>,
    /// The other hosts.
    pub peers: Vec<PeerStatus>,
    /// What is wrong.
    pub faults: Vec<FaultStatus>,
    /// What was done to the kernel.
    pub reconcile: ReconcileStatus,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is as wanted.
    Ok,
    /// Packets flow, and something needs somebody's attention.
    Degraded,
    /// Not ready: no lease, or the kernel is not as wanted yet.
    Failed,
}

/// Where leases live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// The store and its place.
    pub place: String,
    /// Whether it answers.
    pub connected: bool,
    /// The last revision seen.
    pub revision: u64,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// The underlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnderlayStatus {
    /// The interface.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The addresses that are published.
    pub public: Vec<String>,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network of each family.
    pub networks: Vec<String>,
    /// The backend.
    pub backend: String,
    /// The MTU of pods in bytes.
    pub mtu: u32,
    /// Which firewall carries the rules.
    pub firewall: String,
}

/// The own lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Its key.
    pub key: String,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// `held`, `remembered`, `lost` or `parked`.
    pub standing: String,
    /// How long it lives without renewal, in seconds; `None` for a reservation.
    pub expires_in_s: Option<u64>,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The key of its lease.
    pub key: String,
    /// Its node id; `None` if flanneld wrote the lease.
    pub node: Option<String>,
    /// Its public addresses.
    pub public: Vec<String>,
    /// Its backend.
    pub backend: String,
    /// Whether its lease is gone from the store, and its removal held back.
    pub held: bool,
}

/// A complaint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its kind: stable, for scripts.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// The cause.
    pub cause: String,
    /// What to do about it.
    pub next: String,
}

/// What was done to the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReconcileStatus {
    /// Whether the kernel is believed to be as wanted.
    pub converged: bool,
    /// Counts since the start.
    pub tally: Tally,
    /// How often something was repaired that nobody had asked to change.
    pub repairs: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{}, up {}, pid {}", "state", self.state, duration(self.uptime_s), self.pid)?;
        writeln!(f, "{:<10}{} (instance {}, twill {})", "node", self.node, self.instance, self.build)?;
        let store = &self.store;
        match &store.error {
            _ if store.connected => {
                writeln!(f, "{:<10}{}, revision {}", "store", store.place, store.revision)?
            }
            Some(error) => writeln!(f, "{:<10}{}: {error}", "store", store.place)?,
            None => writeln!(f, "{:<10}{}: not connected yet", "store", store.place)?,
        }
        if let Some(network) = &self.network {
            let nets = network.networks.join(", ");
            writeln!(
                f,
                "{:<10}{nets}, {}, MTU {}, {}",
                "network", network.backend, network.mtu, network.firewall
            )?;
        }
        if let Some(underlay) = &self.underlay {
            let public = underlay.public.join(", ");
            writeln!(
                f,
                "{:<10}{} MTU {}, published as {public}",
                "underlay", underlay.interface, underlay.mtu
            )?;
        }
        if let Some(lease) = &self.lease {
            let term = lease.expires_in_s.map_or("for ever".to_owned(), |s| format!("for {}", duration(s)));
            writeln!(f, "{:<10}{}, {} {term}", "lease", lease.subnets.join(", "), lease.standing)?;
        }
        let r = &self.reconcile;
        let settled = if r.converged { "as wanted" } else { "not as wanted yet" };
        let (passes, operations) = (r.tally.passes, r.tally.operations);
        writeln!(
            f,
            "{:<10}{settled}; {passes} passes, {operations} operations, {} repairs",
            "kernel", r.repairs
        )?;
        writeln!(f, "{:<10}{}", "peers", self.peers.len())?;
        for peer in &self.peers {
            let held = if peer.held { "  gone from the store, held" } else { "" };
            let node = peer.node.as_deref().unwrap_or("flanneld");
            writeln!(f, "  {:<24}{:<20}{:<9}{node}{held}", peer.key, peer.public.join(","), peer.backend)?;
        }
        for fault in &self.faults {
            writeln!(
                f,
                "fault     {} {}: {}\n          next: {}",
                fault.code, fault.subject, fault.cause, fault.next
            )?;
        }
        Ok(())
    }
}

/// Seconds for people: the two largest units that count.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m{}s", seconds % 60),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_660, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
