//! The files of the directory, and what is done to them under its lock. Everything here blocks.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use twill_backends::lease::LeaseKey;
use uuid::Uuid;

use super::error::DirError;
use crate::store::Revision;
use crate::store::table::{Guard, Listing, Record, Write, Written, overlapping};

/// How long the lock is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The fields that the file of a lease has besides flannel's.
const EXPIRES: &str = "Expires";
const REVISION: &str = "Revision";
/// The most that is read of one file: etcd takes no larger values either.
const LARGEST: u64 = 3 << 19;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    root: PathBuf,
}

/// The directory, with its lock held.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    dir: &'a Dir,
    /// Closing it gives the lock back.
    _lock: File,
}

/// The file of a lease.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LeaseFile {
    /// What it says. Its revision is that of the write; 0 if it was written by hand.
    pub(super) record: Record,
    /// Differs when the value does. A renewal changes only the expiry.
    pub(super) digest: Uuid,
    /// When it may be deleted.
    pub(super) expires: Option<SystemTime>,
}

impl Dir {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    pub(super) fn subnets(&self) -> PathBuf {
        self.root.join("subnets")
    }

    fn path(&self, key: &LeaseKey) -> Result<PathBuf, DirError> {
        let name = key.as_str();
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(DirError::Key(name.to_owned()));
        }
        Ok(self.subnets().join(name))
    }

    pub(super) fn read_config(&self) -> Result<Option<Vec<u8>>, DirError> {
        read(&self.config())
    }

    /// Which directory this is, and how often it was written. Zeros if nothing ever was.
    pub(super) fn revision(&self) -> Result<Revision, DirError> {
        let Some(text) = read(&self.root.join(".store"))? else { return Ok(Revision::default()) };
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        let number = |name| value.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok(Revision { cluster: number("Cluster"), number: number("Revision") })
    }

    /// The names in `subnets`, sorted, without hidden files and directories.
    pub(super) fn names(&self) -> Result<Vec<String>, DirError> {
        let path = self.subnets();
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(DirError::at(&path))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(DirError::at(&path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// One lease; `None` if there is no such file.
    pub(super) fn lease(&self, name: &str) -> Result<Option<LeaseFile>, DirError> {
        Ok(read(&self.subnets().join(name))?.map(|value| LeaseFile::parse(LeaseKey::new(name), value)))
    }

    /// Makes the directory.
    pub(super) fn make(&self) -> Result<&Self, DirError> {
        fs::create_dir_all(&self.root).map_err(DirError::at(&self.root))?;
        Ok(self)
    }

    /// Waits for the lock. The directory must exist: one that is missing is a disk that is not mounted.
    pub(super) fn lock(&self) -> Result<Locked<'_>, DirError> {
        let path = self.root.join(".lock");
        let mut options = File::options();
        options.create(true).append(true).mode(0o644);
        let file = options.open(&path).map_err(DirError::at(&path))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked { dir: self, _lock: file }),
                Err(TryLockError::Error(error)) => return Err(DirError::Io { path, error }),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= PATIENCE => {
                    return Err(DirError::Locked { path, seconds: PATIENCE.as_secs() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Locked<'_> {
    /// All leases that have not expired; the files of the others are deleted.
    pub(super) fn list(&self) -> Result<Listing, DirError> {
        let mut records = Vec::new();
        for name in self.dir.names()? {
            if let Some(file) = self.read(&LeaseKey::new(name))? {
                records.push(file.record);
            }
        }
        Ok(Listing { records, revision: self.dir.revision()? })
    }

    /// One lease; its file is deleted if it has expired.
    pub(super) fn read(&self, key: &LeaseKey) -> Result<Option<LeaseFile>, DirError> {
        let path = self.dir.path(key)?;
        let Some(file) = self.dir.lease(key.as_str())? else { return Ok(None) };
        if file.has_expired() {
            self.bump()?;
            fs::remove_file(&path).map_err(DirError::at(&path))?;
            return Ok(None);
        }
        Ok(Some(file))
    }

    pub(super) fn write(&self, write: &Write, expires: Option<SystemTime>) -> Result<Written, DirError> {
        let found = match write.guard {
            Guard::Unchanged(_) => self.read(&write.key)?.map(|file| file.record),
            Guard::Absent => overlapping(&write.key, self.list()?.records.iter()).cloned(),
        };
        let holds = match (write.guard, &found) {
            (Guard::Absent, None) => true,
            (Guard::Unchanged(revision), Some(record)) => record.revision == revision,
            (Guard::Absent, Some(_)) | (Guard::Unchanged(_), None) => false,
        };
        if !holds {
            return Ok(Written::Found(found));
        }
        let revision = self.bump()?;
        self.replace(&self.dir.path(&write.key)?, &stamped(&write.value, revision, expires))?;
        Ok(Written::Done(revision))
    }

    /// Moves the expiry of a lease that is at this revision; `false` if it is not.
    pub(super) fn extend(
        &self,
        key: &LeaseKey,
        revision: u64,
        expires: SystemTime,
    ) -> Result<bool, DirError> {
        match self.read(key)? {
            Some(file) if file.record.revision == revision && file.expires.is_some() => {
                self.replace(&self.dir.path(key)?, &stamped(&file.record.value, revision, Some(expires)))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    pub(super) fn delete(&self, key: &LeaseKey, revision: u64) -> Result<Written, DirError> {
        match self.read(key)? {
            Some(file) if file.record.revision == revision => {
                let path = self.dir.path(key)?;
                self.bump()?;
                fs::remove_file(&path).map_err(DirError::at(&path))?;
                Ok(Written::Done(0))
            }
            other => Ok(Written::Found(other.map(|file| file.record))),
        }
    }

    pub(super) fn write_config(&self, text: &str) -> Result<(), DirError> {
        self.bump()?;
        self.replace(&self.dir.config(), text.as_bytes())
    }

    /// Counts a write, before it is done.
    fn bump(&self) -> Result<u64, DirError> {
        let mut revision = self.dir.revision()?;
        if revision.cluster == 0 {
            revision.cluster = Uuid::new_v4().as_u64_pair().0;
        }
        revision.number += 1;
        let text = json!({ "Cluster": revision.cluster, "Revision": revision.number }).to_string();
        self.replace(&self.dir.root.join(".store"), text.as_bytes())?;
        Ok(revision.number)
    }

    /// Puts a whole file in the place of another, so that readers see the one or the other, even after a crash.
    fn replace(&self, path: &Path, text: &[u8]) -> Result<(), DirError> {
        let parent = path.parent().unwrap_or(&self.dir.root);
        fs::create_dir_all(parent).map_err(DirError::at(parent))?;
        let temporary = self.dir.root.join(".tmp");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(parent)?.sync_all()
        };
        write().map_err(DirError::at(path))
    }
}

impl LeaseFile {
    fn parse(key: LeaseKey, value: Vec<u8>) -> Self {
        let mut fields: Option<Map<String, Value>> = serde_json::from_slice(&value).ok();
        let mut take = |name| fields.as_mut().and_then(|fields| fields.shift_remove(name)?.as_u64());
        // A number that is no moment is none that ever comes.
        let expires = take(EXPIRES).and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
        let revision = take(REVISION).unwrap_or(0);
        let digested = fields.and_then(|fields| serde_json::to_vec(&fields).ok());
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, digested.as_ref().unwrap_or(&value));
        Self {
            record: Record { key, value, revision, created: 0, grant: expires.map(|_| 0) },
            digest,
            expires,
        }
    }

    pub(super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= SystemTime::now())
    }
}

/// The value of a lease with another revision and expiry. One that is no JSON object is left as it is.
fn stamped(value: &[u8], revision: u64, expires: Option<SystemTime>) -> Vec<u8> {
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(value) else { return value.to_vec() };
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    fields.insert(EXPIRES.to_owned(), expires.map_or(Value::Null, |at| seconds(at).into()));
    fields.insert(REVISION.to_owned(), revision.into());
    let mut text = serde_json::to_vec(&fields).unwrap_or_else(|_| value.to_vec());
    text.push(b'\n');
    text
}

/// A whole file; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, DirError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DirError::Io { path: path.to_owned(), error }),
    }
}
