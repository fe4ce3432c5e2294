//! What every store has in common: keyed values, each write guarded by the revision it replaces.

use std::future::Future;
use std::time::Duration;

use futures::Stream;
use twill_backends::allocate::Taken;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;

use super::{Revision, StoreError, StoreEvent, Term};

/// One key below `subnets/`, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name, without the store's prefix.
    pub key: LeaseKey,
    /// Its value: flannel's JSON, unless somebody wrote something else.
    pub value: Vec<u8>,
    /// Guards the next write of this key. It changes with the value, not with a renewal.
    pub revision: u64,
    /// What it expires with (0 where terms have no name); `None` if it never expires.
    pub grant: Option<i64>,
}

/// All keys below `subnets/` at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The records, in the order of their keys.
    pub records: Vec<Record>,
    /// What this is a listing of.
    pub revision: Revision,
}

/// What a write requires of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist, and no other key takes any part of what it takes.
    Absent,
    /// The key was written last by this revision.
    Unchanged(u64),
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: LeaseKey,
    /// What it must be before.
    pub guard: Guard,
    /// Its value.
    pub value: Vec<u8>,
    /// How long it lives.
    pub term: Term,
}

/// What became of a guarded write or deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Done; the revision guards the next write.
    Done(u64),
    /// The guard did not hold, or an earlier attempt of the same write took effect and its reply was lost. This is
    /// what stands there.
    Found(Option<Record>),
}

/// What happened in a table.
#[derive(Debug)]
pub enum Change {
    /// Everything there is: the bytes of the configuration, and all records.
    Listing(Option<Vec<u8>>, Listing),
    /// A record was written.
    Put(Record, Revision),
    /// A record is gone.
    Delete(LeaseKey, Revision),
    /// The configuration was written, or is gone.
    Config(Option<Vec<u8>>),
    /// The connection is lost.
    Down(StoreError),
    /// The connection is back; a listing follows.
    Up,
}

impl Record {
    /// What it says.
    ///
    /// # Errors
    /// The key names no subnet, or the value does not decode.
    pub fn lease(&self) -> Result<Lease, Fault> {
        Lease::decode(self.key.as_str(), &self.value)
    }

    /// What it takes, whether or not its value decodes; `None` if its key names no subnet.
    #[must_use]
    pub fn taken(&self) -> Option<Taken> {
        let subnets = self.key.subnets().ok()?;
        let lease = self.lease().ok();
        Some(Taken { key: self.key.clone(), subnets, lease, permanent: self.grant.is_none() })
    }
}

impl Listing {
    /// The record of a key.
    #[must_use]
    pub fn get(&self, key: &LeaseKey) -> Option<&Record> {
        self.records.iter().find(|record| record.key == *key)
    }
}

impl Write {
    /// Whether this record is what an earlier attempt of the same write left. The session in the value tells it from
    /// the write of anybody else.
    #[must_use]
    pub fn left(&self, record: &Record) -> bool {
        let grant = match self.term {
            Term::Permanent => None,
            Term::Renewable { grant, .. } => Some(grant),
        };
        record.key == self.key
            && record.grant == grant
            && matches!((Attrs::decode(&self.value), Attrs::decode(&record.value)), (Ok(a), Ok(b)) if a == b)
    }
}

impl Change {
    /// The same, decoded. `place` is where the configuration should stand.
    #[must_use]
    pub fn decoded(self, place: &str) -> Vec<StoreEvent> {
        match self {
            Self::Listing(config, listing) => {
                vec![Self::config_event(config, place), listing.snapshot()]
            }
            Self::Put(record, revision) => vec![match record.lease() {
                Ok(lease) => StoreEvent::Put(lease, revision),
                Err(fault) => StoreEvent::Bad(record.key, fault),
            }],
            Self::Delete(key, revision) => vec![StoreEvent::Delete(key, revision)],
            Self::Config(config) => vec![Self::config_event(config, place)],
            Self::Down(error) => vec![StoreEvent::Down(error)],
            Self::Up => vec![StoreEvent::Up],
        }
    }

    fn config_event(config: Option<Vec<u8>>, place: &str) -> StoreEvent {
        StoreEvent::Config(parse_config(config.as_deref(), place))
    }
}

/// The first record that takes any part of what `key` takes, or bears its name.
#[must_use]
pub fn overlapping<'a>(key: &LeaseKey, mut records: impl Iterator<Item = &'a Record>) -> Option<&'a Record> {
    let subnets = key.subnets().unwrap_or_default();
    records.find(|record| {
        record.key == *key || record.key.subnets().is_ok_and(|theirs| overlap(&subnets, &theirs))
    })
}

/// Whether two sets of subnets have an address in common.
#[must_use]
pub fn overlap(ours: &Subnets, theirs: &Subnets) -> bool {
    ours.iter().any(|(family, a)| theirs.get(family).is_some_and(|b| a.contains(b) || b.contains(a)))
}

/// Reads the configuration; `place` says where it should stand.
///
/// # Errors
/// [`Code::NoConfig`], or what [`NetworkConfig::parse`] objects to.
pub fn parse_config(text: Option<&[u8]>, place: &str) -> Result<NetworkConfig, Fault> {
    let text = text.ok_or_else(|| Fault::new(Code::NoConfig, place, "there is no network configuration"))?;
    let text =
        std::str::from_utf8(text).map_err(|error| Fault::new(Code::BadConfig, place, error.to_string()))?;
    NetworkConfig::parse(text)
}

impl Listing {
    fn snapshot(self) -> StoreEvent {
        let (mut leases, mut faults) = (Vec::with_capacity(self.records.len()), Vec::new());
        for record in &self.records {
            match record.lease() {
                Ok(lease) => leases.push(lease),
                Err(fault) => faults.push((record.key.clone(), fault)),
            }
        }
        StoreEvent::Snapshot { leases, faults, revision: self.revision }
    }
}

/// Keyed values with guarded writes. A guarded write may be attempted twice: the second attempt of one that took
/// effect does not pass its guard, and answers with what it finds.
pub trait Table: Send + Sync {
    /// The store, in words.
    fn name(&self) -> String;

    /// The key or file of the configuration.
    fn config_place(&self) -> String;

    /// The configuration, undecoded.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn read_config(&self) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Replaces the configuration.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn write_config(&self, text: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All records.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn list(&self) -> impl Future<Output = Result<Listing, StoreError>> + Send;

    /// One record.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn read(&self, key: &LeaseKey) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// A term for a lease to be written.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn begin(&self) -> impl Future<Output = Result<Term, StoreError>> + Send;

    /// Starts the term of a record over; `false` if the term has ended.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn extend(
        &self,
        key: &LeaseKey,
        revision: u64,
        term: Term,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends a term, and with it every record that lives by it. What cannot be ended expires by itself.
    fn end(&self, grant: i64) -> impl Future<Output = ()> + Send;

    /// Writes a record if its guard holds.
    ///
    /// # Errors
    /// The store does not answer, or refuses. It may have written.
    fn write(&self, write: &Write) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Deletes a record if it is at this revision.
    ///
    /// # Errors
    /// The store does not answer, or refuses. It may have deleted.
    fn delete(
        &self,
        key: &LeaseKey,
        revision: u64,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// How long each of these records still lives; `None` for those that never expire, or that are gone.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn remaining(
        &self,
        records: &[Record],
    ) -> impl Future<Output = Result<Vec<Option<Duration>>, StoreError>> + Send;

    /// Follows the table. Begins with a listing; never ends.
    fn follow(&self) -> impl Stream<Item = Change> + Send;
}
