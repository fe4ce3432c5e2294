//! The last good snapshot on disk, from which an agent starts while its store does not answer.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twill_backends::lease::Lease;
use twill_backends::network::NetworkConfig;

use crate::files;
use crate::store::Revision;

/// What the last run knew.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// The network configuration in force.
    pub config: NetworkConfig,
    /// The own lease.
    pub own: Option<Lease>,
    /// When it ends; `None` for a reservation.
    pub expires: Option<SystemTime>,
    /// The leases of all hosts, the own one among them.
    pub leases: Vec<Lease>,
    /// What they are a snapshot of.
    pub revision: Revision,
}

/// The file. Values are kept as the store has them.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    config: NetworkConfig,
    own: Option<(String, Value)>,
    expires: Option<u64>,
    leases: BTreeMap<String, Value>,
    revision: Revision,
}

const VERSION: u32 = 1;

impl Memory {
    /// Reads the file. `Ok(None)` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is corrupt: says which. The agent then starts as if there were none.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stored: Stored = serde_json::from_slice(&bytes)?;
        if stored.version != VERSION {
            return Err(io::Error::other(format!("version {} is not {VERSION}", stored.version)));
        }
        let lease = |(key, value): (&String, &Value)| {
            Lease::decode(key, value.to_string().as_bytes())
                .map_err(|fault| io::Error::other(fault.to_string()))
        };
        Ok(Some(Self {
            own: stored.own.as_ref().map(|(key, value)| lease((key, value))).transpose()?,
            expires: stored.expires.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
            leases: stored.leases.iter().map(lease).collect::<io::Result<_>>()?,
            config: stored.config,
            revision: stored.revision,
        }))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// As the file system answers.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let entry = |lease: &Lease| {
            io::Result::Ok((lease.key.to_string(), serde_json::from_slice(&lease.attrs.encode())?))
        };
        let stored = Stored {
            version: VERSION,
            config: self.config.clone(),
            own: self.own.as_ref().map(entry).transpose()?,
            expires: self
                .expires
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|since| since.as_secs()),
            leases: self.leases.iter().map(entry).collect::<io::Result<_>>()?,
            revision: self.revision,
        };
        files::replace(path, &serde_json::to_vec(&stored)?, 0o600)
    }

    /// Whether the own lease has ended by now.
    #[must_use]
    pub fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}
