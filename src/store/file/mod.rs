//! Leases in a directory, for one machine or a disk that several share.
//!
//! ```text
//! DIR/config.json        the network configuration
//! DIR/subnets/<key>      one lease: flannel's JSON plus "Revision", which guards the next write, and "Expires", in
//!                        seconds since 1970; without it, or with null, the lease is a reservation
//! DIR/.store             which directory this is, and how often it was written
//! DIR/.lock              held (flock) around each read-check-write
//! ```
//!
//! A lease is there as long as its file is. Whoever lists under the lock, or follows the directory, deletes what its
//! wall clock says has expired; so clocks of hosts that share a disk may differ by hours (a lease is renewed at a third
//! of its 24), and a host that only reads never drops a peer by its own clock.

mod dir;
mod error;
mod scan;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::Stream;
use twill_backends::lease::LeaseKey;

use self::dir::Dir;
use self::error::DirError;
use super::guarded::Guarded;
use super::table::{Change, Listing, Record, Table, Write, Written};
use super::{LEASE_TTL, StoreError, Term};

/// A lease store in a directory.
pub type FileStore = Guarded<FileTable>;

/// The files of one directory.
#[derive(Debug, Clone)]
pub struct FileTable {
    dir: Dir,
    ttl: Duration,
}

impl FileTable {
    /// Nothing is read or made yet: the directory is made when something is first written.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_ttl(dir, LEASE_TTL)
    }

    /// With leases that live for `ttl`, counted in whole seconds, unless renewed.
    #[must_use]
    pub fn with_ttl(dir: impl Into<PathBuf>, ttl: Duration) -> Self {
        Self { dir: Dir::new(dir.into()), ttl }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.root()
    }

    /// Runs something that may block off the event loop.
    async fn blocking<R: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Dir) -> Result<R, DirError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let dir = self.dir.clone();
        let done = tokio::task::spawn_blocking(move || work(&dir)).await;
        done.unwrap_or_else(|error| Err(DirError::Aborted(error.to_string())))
            .map_err(|error| error.into_store(&self.name(), what))
    }

    /// When a term that starts at this moment ends.
    fn expiry(&self, term: Term) -> Option<SystemTime> {
        match term {
            Term::Permanent => None,
            Term::Renewable { ttl, .. } => Some(SystemTime::now() + ttl),
        }
    }
}

impl Table for FileTable {
    fn name(&self) -> String {
        format!("the store file:{}", self.dir.root().display())
    }

    fn config_place(&self) -> String {
        self.dir.config().display().to_string()
    }

    async fn read_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.blocking("read the network configuration", |dir| dir.read_config()).await
    }

    async fn write_config(&self, text: &str) -> Result<(), StoreError> {
        let text = text.to_owned();
        self.blocking("write the network configuration", move |dir| dir.make()?.lock()?.write_config(&text))
            .await
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        self.blocking("list the leases", |dir| dir.lock()?.list()).await
    }

    async fn read(&self, key: &LeaseKey) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.blocking("read a lease", move |dir| Ok(dir.lock()?.read(&key)?.map(|file| file.record))).await
    }

    async fn begin(&self) -> Result<Term, StoreError> {
        Ok(Term::Renewable { grant: 0, ttl: self.ttl })
    }

    async fn extend(&self, key: &LeaseKey, revision: u64, term: Term) -> Result<bool, StoreError> {
        let Some(expires) = self.expiry(term) else { return Ok(true) };
        let key = key.clone();
        self.blocking("renew a lease", move |dir| dir.lock()?.extend(&key, revision, expires)).await
    }

    async fn end(&self, _: i64) {}

    async fn write(&self, write: &Write) -> Result<Written, StoreError> {
        let (write, expires) = (write.clone(), self.expiry(write.term));
        self.blocking("write a lease", move |dir| dir.lock()?.write(&write, expires)).await
    }

    async fn delete(&self, key: &LeaseKey, revision: u64) -> Result<Written, StoreError> {
        let key = key.clone();
        self.blocking("delete a lease", move |dir| dir.lock()?.delete(&key, revision)).await
    }

    async fn remaining(&self, records: &[Record]) -> Result<Vec<Option<Duration>>, StoreError> {
        let keys: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
        let left = |expires: SystemTime| expires.duration_since(SystemTime::now()).unwrap_or_default();
        self.blocking("read when leases expire", move |dir| {
            let locked = dir.lock()?;
            keys.iter().map(|key| Ok(locked.read(key)?.and_then(|file| file.expires).map(left))).collect()
        })
        .await
    }

    fn follow(&self) -> impl Stream<Item = Change> + Send {
        watch::follow(self)
    }
}
