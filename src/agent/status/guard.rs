//! What an agent says of who may send.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Who may send to the tunnel's port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuardStatus {
    /// The UDP port.
    pub port: u16,
    /// What is checked: `outer` and `inner` source addresses.
    pub checks: Vec<String>,
    /// How many peers may send, each family by itself.
    pub senders: usize,
    /// Whether the firewall does what is wanted; if not, a fault says why.
    pub in_force: bool,
    /// Packets dropped by the firewall: `strangers` (no live lease has their address), `forged` (their inner source is
    /// not their sender's), `pods` (sent to a tunnel port by a pod of this host).
    pub dropped: BTreeMap<String, u64>,
}

impl fmt::Display for GuardStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.dropped.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let (port, senders, checks) = (self.port, self.senders, self.checks.join(" and "));
        write!(f, "{:<10}UDP {port}: {senders} may send, {checks} source checked", "guard")?;
        match (self.in_force, counts.is_empty()) {
            (false, _) => writeln!(f, ", not in force"),
            (true, true) => writeln!(f),
            (true, false) => writeln!(f, "; dropped {}", counts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_force_counts_nothing() {
        let guard = GuardStatus {
            port: 8285,
            checks: vec!["outer".to_owned()],
            senders: 3,
            in_force: false,
            dropped: BTreeMap::new(),
        };
        assert_eq!(guard.to_string(), "guard     UDP 8285: 3 may send, outer source checked, not in force\n");
        let kept = GuardStatus { in_force: true, ..guard };
        assert_eq!(kept.to_string(), "guard     UDP 8285: 3 may send, outer source checked\n");
    }
}
