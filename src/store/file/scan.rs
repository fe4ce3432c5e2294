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
    /// Digest and revision of each lease.
    leases: BTreeMap<LeaseKey, (Uuid, u64)>,
    revision: Revision,
}

impl Scan {
    /// Reads what changed in the directory and tells what of it has not been reported: everything, at first and when
    /// the directory is another one or an older state of the same.
    pub(super) fn changes(&mut self, dir: &Dir) -> Result<Vec<Change>, DirError> {
        let inode = |path: &std::path::Path| fs::metadata(path).map(|metadata| metadata.ino());
        let root = inode(dir.root()).map_err(DirError::at(dir.root()))?;
        self.inodes = (root, inode(&dir.subnets()).unwrap_or(0));
        let config = dir.read_config()?;
        self.read(dir)?;
        if self.files.values().any(|(_, file)| file.has_expired()) {
            self.sweep(dir);
        }
        let revision = dir.revision()?;
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
            let settled = metadata.modified().is_ok_and(|at| at + FRESH < SystemTime::now());
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
        let seen = |file: &LeaseFile| (file.record.key.clone(), (file.digest, file.record.revision));
        let leases: BTreeMap<_, _> = files().map(seen).collect();
        let mut changes = Vec::new();
        match self.reported.take().filter(|before| before.leads_to(revision)) {
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
                changes.extend(files().filter_map(|file| before.change(file, revision)));
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

    fn change(&self, file: &LeaseFile, revision: Revision) -> Option<Change> {
        let record = &file.record;
        let at = match self.leases.get(&record.key) {
            Some((digest, number)) if (*digest, *number) == (file.digest, record.revision) => return None,
            // What changed without a revision of its own was written by hand.
            Some((_, number)) if record.revision <= *number => self.after(&record.key, revision),
            _ => Revision { number: record.revision, ..revision },
        };
        Some(Change::Put(record.clone(), at))
    }

    /// A revision past what is known of `key`: files that are written or deleted by hand count nothing.
    fn after(&self, key: &LeaseKey, revision: Revision) -> Revision {
        let known = self.leases.get(key).map_or(0, |(_, number)| *number);
        Revision { number: revision.number.max(known + 1), ..revision }
    }
}
