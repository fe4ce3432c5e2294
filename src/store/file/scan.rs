//! Reading the directory again and again, cheaply, and telling what changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use twill_backends::lease::LeaseKey;
use uuid::Uuid;

use super::dir::{Dir, LeaseFile};
use super::error::DirError;
use crate::store::Revision;
use crate::store::table::{Change, Listing};

/// A file written this recently is read again even if it looks the same: its time stamp is only so fine.
const FRESH: Duration = Duration::from_secs(2);

/// What was read of the directory, and what was reported of it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    files: BTreeMap<String, (Stamp, LeaseFile)>,
    reported: Option<Reported>,
    /// Which directories these are; other ones in their place have to be watched anew.
    pub(super) inodes: (u64, u64),
}

/// Tells one state of a file from another without reading it: a file put in its place is another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

#[derive(Debug)]
struct Reported {
    config: Option<Vec<u8>>,
    leases: BTreeMap<LeaseKey, Seen>,
    revision: Revision,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    digest: Uuid,
    revision: u64,
    /// The revision that was reported, which is another one for a file written by hand.
    number: u64,
}

impl Scan {
    /// Reads what changed in the directory and tells what of it has not been reported: everything, at first and when
    /// the directory is another one or an older state of the same.
    pub(super) fn changes(&mut self, dir: &Dir) -> Result<Vec<Change>, DirError> {
        let inode = |path: &std::path::Path| fs::metadata(path).map(|metadata| metadata.ino());
        let root = inode(dir.root()).map_err(DirError::at(dir.root()))?;
        let config = dir.read_config()?;
        self.read(dir)?;
        if self.files.values().any(|(_, file)| file.has_expired()) {
            self.sweep(dir);
        }
        let revision = dir.revision()?;
        self.inodes = (root, inode(&dir.subnets()).unwrap_or(0));
        // A directory that went away meanwhile looks empty.
        match inode(dir.root()) {
            Ok(now) if now == root => {}
            Ok(_) => return Err(DirError::Aborted("it was replaced while it was read".to_owned())),
            Err(error) => return Err(DirError::at(dir.root())(error)),
        }
        Ok(self.report(config, revision))
    }

    /// Everything is reported again at the next opportunity.
    pub(super) fn forget(&mut self) {
        self.reported = None;
    }

    fn read(&mut self, dir: &Dir) -> Result<(), DirError> {
        let mut before = std::mem::take(&mut self.files);
        for name in dir.names()? {
            let Ok(metadata) = fs::metadata(dir.subnets().join(&name)) else { continue };
            let stamp = Stamp {
                inode: metadata.ino(),
                size: metadata.size(),
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec(),
            };
            let settled = metadata.modified().is_ok_and(|at| at < SystemTime::now() - FRESH);
            let file = match before.remove(&name) {
                Some((old, file)) if old == stamp && settled => Some(file),
                _ => dir.lease(&name)?,
            };
            if let Some(file) = file {
                self.files.insert(name, (stamp, file));
            }
        }
        Ok(())
    }

    /// Deletes what has expired. What cannot be deleted is still there.
    fn sweep(&mut self, dir: &Dir) {
        let swept = dir.lock().and_then(|locked| {
            for (_, file) in self.files.values().filter(|(_, file)| file.has_expired()) {
                locked.read(&file.record.key)?;
            }
            Ok(())
        });
        if let Err(error) = swept.and_then(|()| self.read(dir)) {
            tracing::debug!(%error, "expired leases are left where they are");
        }
    }

    fn report(&mut self, config: Option<Vec<u8>>, revision: Revision) -> Vec<Change> {
        let files = || self.files.values().map(|(_, file)| file);
        let mut changes = Vec::new();
        let before = self.reported.take().filter(|before| before.leads_to(revision));
        let leases: BTreeMap<_, _> = files()
            .map(|file| (file.record.key.clone(), Seen::of(file, before.as_ref(), revision)))
            .collect();
        match before {
            None => {
                let records = files().map(|file| file.record.clone()).collect();
                changes.push(Change::Listing(config.clone(), Listing { records, revision }));
            }
            Some(before) => {
                if before.config != config {
                    changes.push(Change::Config(config.clone()));
                }
                let gone = before.leases.keys().filter(|key| !leases.contains_key(key));
                changes.extend(gone.map(|key| Change::Delete(key.clone(), before.after(key, revision))));
                for (key, seen) in &leases {
                    if before.leases.get(key).is_none_or(|old| old.number != seen.number) {
                        let file = self.files.get(key.as_str()).map(|(_, file)| file.record.clone());
                        let at = Revision { number: seen.number, ..revision };
                        changes.extend(file.map(|record| Change::Put(record, at)));
                    }
                }
            }
        }
        self.reported = Some(Reported { config, leases, revision });
        changes
    }
}

impl Reported {
    /// Whether `revision` is a later state of the same directory. One that nothing was ever written to by a program
    /// becomes the one that the first write names.
    const fn leads_to(&self, revision: Revision) -> bool {
        (self.revision.cluster == revision.cluster && self.revision.number <= revision.number)
            || self.revision.cluster == 0
    }

    /// A revision past what was told of `key`: files that are written or deleted by hand count nothing.
    fn after(&self, key: &LeaseKey, revision: Revision) -> Revision {
        let told = self.leases.get(key).map_or(0, |seen| seen.number);
        Revision { number: revision.number.max(told + 1), ..revision }
    }
}

impl Seen {
    fn of(file: &LeaseFile, before: Option<&Reported>, revision: Revision) -> Self {
        let (digest, key) = (file.digest, &file.record.key);
        let number = match before.and_then(|before| Some((before, before.leases.get(key)?))) {
            Some((_, old)) if (old.digest, old.revision) == (digest, file.record.revision) => old.number,
            Some((before, old)) if file.record.revision <= old.number => before.after(key, revision).number,
            _ => file.record.revision,
        };
        Self { digest, revision: file.record.revision, number }
    }
}
