//! The last good snapshot on disk, from which an agent starts while its store does not answer.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use twill_backends::checksums::Choice;
use twill_backends::family::PerFamily;
use twill_backends::lease::Lease;
use twill_backends::network::NetworkConfig;
use twill_backends::probe::LineId;

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
    /// The largest packet to hosts that take a narrow path, in bytes.
    pub limits: BTreeMap<LineId, u32>,
    /// Who finishes checksums, as far as that was found out.
    pub choices: PerFamily<Choice>,
    /// What they are a snapshot of.
    pub revision: Revision,
}

/// The file. Values are kept as the store has them.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    config: NetworkConfig,
    own: Option<(String, Box<RawValue>)>,
    expires: Option<u64>,
    leases: BTreeMap<String, Box<RawValue>>,
    /// Absent in snapshots of versions that measured nothing.
    #[serde(default)]
    limits: Vec<(LineId, u32)>,
    #[serde(default)]
    choices: PerFamily<Choice>,
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
        Self::decode(&bytes).map(Some)
    }

    /// Reads what [`Memory::encode`] wrote.
    ///
    /// # Errors
    /// It is corrupt, or of another version.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        if stored.version != VERSION {
            return Err(io::Error::other(format!("version {} is not {VERSION}", stored.version)));
        }
        let lease = |key: &String, value: &RawValue| {
            Lease::decode(key, value.get().as_bytes()).map_err(|fault| io::Error::other(fault.to_string()))
        };
        Ok(Self {
            own: stored.own.as_ref().map(|(key, value)| lease(key, value)).transpose()?,
            expires: stored.expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
            leases: stored.leases.iter().map(|(key, value)| lease(key, value)).collect::<io::Result<_>>()?,
            limits: stored.limits.into_iter().collect(),
            choices: stored.choices,
            config: stored.config,
            revision: stored.revision,
        })
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// As the file system answers.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &self.encode()?, 0o600)
    }

    /// The content of the file.
    ///
    /// # Errors
    /// A lease has no JSON.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let entry = |lease: &Lease| {
            let value = String::from_utf8(lease.attrs.encode()).map_err(io::Error::other)?;
            io::Result::Ok((lease.key.to_string(), RawValue::from_string(value)?))
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
            limits: self.limits.clone().into_iter().collect(),
            choices: self.choices.clone(),
            revision: self.revision,
        };
        Ok(serde_json::to_vec(&stored)?)
    }

    /// When the own lease ends, on this process's clock.
    #[must_use]
    pub fn expires_at(&self, now: Instant) -> Option<Instant> {
        self.expires.and_then(|at| now.checked_add(at.duration_since(SystemTime::now()).unwrap_or_default()))
    }

    /// Whether the own lease has ended by now.
    #[must_use]
    pub fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use twill_backends::checksums::Wish;
    use twill_backends::family::Family;

    use super::*;

    fn memory() -> Memory {
        let lease = |n: u8| {
            let value = format!(
                r#"{{"PublicIP":"192.0.2.{n}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{n}"}},"NodeID":"n{n}"}}"#
            );
            Lease::decode(&format!("10.5.{n}.0-24"), value.as_bytes()).unwrap()
        };
        let config = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#;
        Memory {
            config: NetworkConfig::parse(config).unwrap(),
            own: Some(lease(1)),
            expires: Some(UNIX_EPOCH + Duration::from_secs(1_900_000_000)),
            leases: vec![lease(1), lease(2), lease(3)],
            limits: BTreeMap::from([((lease(2).key, Family::V4), 1350)]),
            choices: PerFamily { v4: Some(Choice::untested(Wish::Off, None)), v6: None },
            revision: Revision { cluster: 7, number: 42 },
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/snapshot.json");
        assert_eq!(Memory::load(&path).unwrap(), None);
        for memory in [memory(), Memory { own: None, expires: None, leases: Vec::new(), ..memory() }] {
            memory.save(&path).unwrap();
            assert_eq!(Memory::load(&path).unwrap(), Some(memory));
        }
    }

    #[test]
    fn an_end_that_is_no_moment_never_comes() {
        let text = String::from_utf8(memory().encode().unwrap()).unwrap();
        let loaded = |end: &str| Memory::decode(text.replace("1900000000", end).as_bytes()).unwrap();
        assert_eq!(loaded(&u64::MAX.to_string()).expires, None);
        let far = loaded(&(i64::MAX as u64).to_string());
        assert!(far.expires.is_some() && !far.expired(SystemTime::now()));
        assert!(far.expires_at(Instant::now()).is_none_or(|at| at > Instant::now()));
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot.json");
        memory().save(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (text, why) in [
            (String::new(), "EOF"),
            ("{}".to_owned(), "missing field"),
            (good.replace("\"version\":1", "\"version\":9"), "version 9 is not 1"),
            (good.replace("192.0.2.2", "nowhere"), "10.5.2.0-24"),
            (good[..good.len() / 2].to_owned(), "EOF"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = Memory::load(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn no_cut_of_the_file_panics_or_is_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot.json");
        memory().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(Memory::load(&path).is_err(), "{cut}");
        }
    }
}
