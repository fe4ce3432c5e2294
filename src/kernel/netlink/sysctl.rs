//! Settings below `/proc/sys`.
//!
//! What is below `/proc/sys/net` belongs to the network namespace of the thread that opens it, so this happens on the
//! calling thread. The files are a few bytes long, and never block.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Reads a setting. Where a link does not take part in IPv6, it accepts no router advertisements either: its absent
/// `accept_ra` reads as `0`.
pub(super) fn read(path: &str) -> Option<String> {
    match std::fs::read_to_string(file(path)) {
        Ok(value) => Some(value.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound && is_moot(path) => Some("0".to_owned()),
        Err(_) => None,
    }
}

/// Writes a setting, unless there is nothing it could be about.
pub(super) fn write(path: &str, value: &str) -> io::Result<()> {
    match std::fs::write(file(path), value) {
        Err(error) if error.kind() == ErrorKind::NotFound && value == "0" && is_moot(path) => Ok(()),
        done => done,
    }
}

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

/// Whether this is the `accept_ra` of a link that is there but has no IPv6, or of any link on a host without IPv6.
fn is_moot(path: &str) -> bool {
    let link = path.strip_prefix("net/ipv6/conf/").and_then(|rest| rest.strip_suffix("/accept_ra"));
    let has_link = |name| file("net/ipv4/conf").join(name).exists();
    link.is_some_and(|name| !file("net/ipv6").exists() || has_link(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        assert!(matches!(read("net/ipv4/ip_forward").as_deref(), Some("0" | "1")));
        assert_eq!(read("net/ipv4/no such setting"), None);
        assert_eq!(read("net/ipv4/conf/no-such-link/accept_ra"), None);
    }

    #[test]
    fn an_absent_link_has_no_settings() {
        if file("net/ipv6").exists() {
            assert_eq!(read("net/ipv6/conf/no-such-link/accept_ra"), None);
            assert!(write("net/ipv6/conf/no-such-link/accept_ra", "0").is_err());
        }
    }
}
