//! What every store has in common: keyed values, each write guarded by the revision it replaces.

use std::future::Future;
use std::time::Duration;

use futures::Stream;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::LeaseKey;
use twill_backends::network::NetworkConfig;
pub use twill_backends::record::{Guard, Listing, Record, Write, Written, overlap, overlapping};

use super::{Revision, StoreError, StoreEvent, Term};

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

impl Change {
    /// The same, decoded. `place` is where the configuration should stand.
    #[must_use]
    pub fn decoded(self, place: &str) -> Vec<StoreEvent> {
        match self {
            Self::Listing(config, listing) => {
                vec![Self::config_event(config, place), snapshot(listing)]
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

fn snapshot(listing: Listing) -> StoreEvent {
    let (mut leases, mut faults) = (Vec::with_capacity(listing.records.len()), Vec::new());
    for record in &listing.records {
        match record.lease() {
            Ok(lease) => leases.push(lease),
            Err(fault) => faults.push((record.key.clone(), fault)),
        }
    }
    StoreEvent::Snapshot { leases, faults, revision: listing.revision }
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

    /// A record that overlaps the one just created under `key` by this revision, and was there before. A table whose
    /// [`Guard::Absent`] covers what overlaps has none.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn older(
        &self,
        _key: &LeaseKey,
        _revision: u64,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

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

    /// See [`super::LeaseStore::moved`].
    fn moved(&self) {}
}
