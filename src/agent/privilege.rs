//! Whether this process may change the host's network at all.
//!
//! # Why
//! Privilege never comes to a running process. An agent that starts without would take a lease, and then fail for
//! ever to carry the packets that the other hosts send to it.

use std::fs;

/// The bit of `CAP_NET_ADMIN` in a capability set (`linux/capability.h`).
const NET_ADMIN: u32 = 12;

/// This process may not change the network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no privilege to change this host's network: CAP_NET_ADMIN is missing; next: run as root, or give the unit AmbientCapabilities=CAP_NET_ADMIN"
)]
pub struct Unprivileged;

/// Makes sure that this process may change the network, as far as can be told: where `/proc` does not say, the kernel
/// will.
///
/// # Errors
/// [`Unprivileged`].
pub fn may_change_network() -> Result<(), Unprivileged> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective(&status).is_none_or(|set| set >> NET_ADMIN & 1 == 1) { Ok(()) } else { Err(Unprivileged) }
}

/// The effective capabilities in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n"), Some(1 << NET_ADMIN));
        assert_eq!(effective("CapEff:\tnothing\n"), None);
        assert_eq!(effective(""), None);
    }

    #[test]
    fn the_error_names_the_next_step() {
        let text = Unprivileged.to_string();
        assert!(text.contains("CAP_NET_ADMIN") && text.contains("next:"), "{text}");
    }
}
