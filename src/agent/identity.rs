//! Who this host is: a node id that survives restarts and address changes, and a session that does not.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twill_backends::family::PerFamily;
use twill_backends::mac::Mac;
use uuid::Uuid;

use crate::files;

/// Who this host and this process are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node, as published in the lease.
    pub node: Uuid,
    /// The process.
    pub session: Uuid,
}

/// Where a node id came from, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The state directory held it.
    Kept,
    /// There was none.
    Made,
    /// The one found belongs to another machine, or could not be read; says why.
    Replaced(String),
}

/// The identity could not be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot keep the node id in {path}: {cause}; next: make the directory writable, or choose another with --state-dir"
)]
pub struct IdentityError {
    path: PathBuf,
    cause: io::Error,
}

/// The file: the id, and the machine it was made on.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    node: Uuid,
    machine: String,
}

impl Identity {
    /// Reads the node id from `dir`, or makes one. An id that was made on another machine (its `/etc/machine-id`
    /// differs) came with a cloned disk: it belongs to the original, so this host takes another.
    ///
    /// # Errors
    /// The id could not be written.
    pub fn load(dir: &Path, machine: &str) -> Result<(Self, Origin), IdentityError> {
        let path = dir.join("node.json");
        let (node, origin) = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Stored>(&bytes) {
                Ok(stored) if stored.machine == machine => (Some(stored.node), Origin::Kept),
                Ok(stored) => {
                    (None, Origin::Replaced(format!("the disk was cloned from machine {}", stored.machine)))
                }
                Err(error) => (None, Origin::Replaced(format!("{} is corrupt: {error}", path.display()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Origin::Made),
            Err(cause) => return Err(IdentityError { path, cause }),
        };
        let node = match node {
            Some(node) => node,
            None => store(&path, machine).map_err(|cause| IdentityError { path, cause })?,
        };
        Ok((Self { node, session: Uuid::new_v4() }, origin))
    }

    /// The identity an agent would have, without making one: a stand-in where there is none yet.
    #[must_use]
    pub fn peek(dir: &Path) -> Self {
        let stored = std::fs::read(dir.join("node.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
        Self { node: stored.map_or_else(Uuid::new_v4, |stored| stored.node), session: Uuid::new_v4() }
    }

    /// Ethernet addresses for tunnel devices, the same on every start of this node.
    #[must_use]
    pub fn macs(&self) -> PerFamily<Mac> {
        let octets = |family: &[u8]| {
            let hash = Uuid::new_v5(&self.node, family).into_bytes();
            Mac::local([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
        };
        PerFamily { v4: Some(octets(b"tunnel-v4")), v6: Some(octets(b"tunnel-v6")) }
    }
}

/// This machine's id; empty where there is none, which makes all such machines look alike.
#[must_use]
pub fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn store(path: &Path, machine: &str) -> io::Result<Uuid> {
    let stored = Stored { node: Uuid::new_v4(), machine: machine.to_owned() };
    files::replace(path, &serde_json::to_vec(&stored)?, 0o600)?;
    Ok(stored.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_survives_a_restart_and_the_session_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (first, made) = Identity::load(dir.path(), "m1").unwrap();
        let (second, kept) = Identity::load(dir.path(), "m1").unwrap();
        assert_eq!((made, kept), (Origin::Made, Origin::Kept));
        assert_eq!(first.node, second.node);
        assert_eq!(first.macs(), second.macs());
        assert_ne!(first.session, second.session);
    }

    #[test]
    fn a_cloned_disk_gets_an_id_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (original, _) = Identity::load(dir.path(), "m1").unwrap();
        let (clone, origin) = Identity::load(dir.path(), "m2").unwrap();
        assert_ne!(original.node, clone.node);
        assert_eq!(origin, Origin::Replaced("the disk was cloned from machine m1".into()));
        assert_eq!(Identity::load(dir.path(), "m2").unwrap().0.node, clone.node);
    }

    #[test]
    fn a_corrupt_file_is_replaced_and_said_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.json"), b"{\"node\":").unwrap();
        let (_, origin) = Identity::load(dir.path(), "m1").unwrap();
        assert!(matches!(origin, Origin::Replaced(why) if why.contains("corrupt")));
    }

    #[test]
    fn tunnel_addresses_differ_between_families_and_nodes() {
        let macs = |node| Identity { node, session: Uuid::nil() }.macs();
        let (a, b) = (macs(Uuid::from_u128(1)), macs(Uuid::from_u128(2)));
        assert_ne!(a.v4, a.v6);
        assert_ne!(a.v4, b.v4);
        assert!(a.iter().all(|(_, mac)| mac.is_unicast()));
    }
}
