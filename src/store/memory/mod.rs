//! A lease store inside the process, for tests: shared by several agents, and failing on demand.
//!
//! Time is tokio's, so that a test with a paused clock sees leases expire.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_stream::stream;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use twill_backends::lease::LeaseKey;

use self::state::{State, unavailable};
use super::guarded::Guarded;
use super::table::{Change, Guard, Listing, Record, Table, Write, Written, overlapping};
use super::{LEASE_TTL, Revision, StoreError, Term};

/// A lease store inside the process. Clones share their content.
pub type MemoryStore = Guarded<MemoryTable>;

/// The content of a [`MemoryStore`], and the means to make it fail. Clones share their content.
#[derive(Debug, Clone)]
pub struct MemoryTable {
    state: Arc<Mutex<State>>,
    /// Tells followers that something happened.
    bell: watch::Sender<()>,
}

/// What a follower has seen.
#[derive(Debug, Default)]
struct Seen {
    upheavals: u64,
    changes: usize,
}

impl Default for MemoryTable {
    fn default() -> Self {
        Self::new(LEASE_TTL)
    }
}

impl MemoryTable {
    /// An empty table whose leases live for `ttl` unless renewed.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(ttl))), bell: watch::Sender::new(()) }
    }

    /// Makes every call fail, and followers report [`Change::Down`], until it is called with `true`.
    pub fn set_available(&self, available: bool) {
        self.change(|state| state.trouble.down = !available);
    }

    /// Makes the next calls fail without effect.
    pub fn fail_calls(&self, count: usize) {
        self.change(|state| state.trouble.failing_calls = count);
    }

    /// Makes the next writes and deletions take effect and then fail.
    pub fn lose_replies(&self, count: usize) {
        self.change(|state| state.trouble.lost_replies = count);
    }

    /// Makes every call take this long.
    pub fn set_delay(&self, delay: Duration) {
        self.change(|state| state.trouble.delay = delay);
    }

    /// Replaces the store by an empty one of another cluster id.
    pub fn wipe(&self) {
        self.change(|state| {
            state.records.clear();
            state.grants.clear();
            state.config = None;
            let cluster = state.revision.cluster + 1;
            state.upheaval(Revision { cluster, number: 1 });
        });
    }

    /// Sets the revision, as restoring a backup does; followers lose their connection over it.
    pub fn set_revision(&self, number: u64) {
        self.change(|state| state.upheaval(Revision { number, ..state.revision }));
    }

    /// Writes the configuration, whatever it is; `None` deletes it.
    pub fn set_config(&self, text: Option<&str>) {
        self.change(|state| state.set_config(text.map(|text| text.as_bytes().to_vec())));
    }

    /// Writes a record, whatever its key and value are, as a reservation or with the usual time to live.
    pub fn put_raw(&self, key: &str, value: &[u8], permanent: bool) {
        self.change(|state| {
            let grant = if permanent { None } else { Some(state.grant()) };
            state.put(LeaseKey::new(key), value.to_vec(), grant);
        });
    }

    /// Deletes a record, as its expiry or an operator does.
    pub fn delete_raw(&self, key: &str) {
        self.change(|state| state.remove(&LeaseKey::new(key)));
    }

    /// All records there are.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.change(|state| state.records.values().cloned().collect())
    }

    /// How many records were written or deleted so far, by anybody.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.change(|state| state.writes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        state.expire();
        let done = work(&mut state);
        drop(state);
        self.bell.send_replace(());
        done
    }

    /// A call, with the trouble that is due.
    async fn call<R>(&self, work: impl FnOnce(&mut State) -> R + Send) -> Result<R, StoreError> {
        let delay = self.lock().trouble.delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        self.change(|state| {
            if state.trouble.down {
                return Err(unavailable("it is switched off"));
            }
            if state.trouble.failing_calls > 0 {
                state.trouble.failing_calls -= 1;
                return Err(unavailable("the call is made to fail"));
            }
            Ok(work(state))
        })
    }

    /// A call that writes.
    async fn call_to_write<R>(&self, work: impl FnOnce(&mut State) -> R + Send) -> Result<R, StoreError> {
        self.call(|state| {
            let done = work(state);
            if state.trouble.lost_replies > 0 {
                state.trouble.lost_replies -= 1;
                return Err(unavailable("the reply is lost"));
            }
            Ok(done)
        })
        .await?
    }

    /// What a follower has not seen yet. `Err` while the store is down.
    fn news(&self, seen: &mut Seen) -> Result<Vec<Change>, StoreError> {
        let mut state = self.lock();
        state.expire();
        if state.trouble.down {
            return Err(unavailable("it is switched off"));
        }
        if seen.upheavals == state.upheavals {
            let news = state.history.iter().skip(seen.changes).cloned().map(Change::from).collect();
            seen.changes = state.history.len();
            return Ok(news);
        }
        let upheaval = seen.upheavals != 0;
        *seen = Seen { upheavals: state.upheavals, changes: state.history.len() };
        let listing = Change::Listing(state.config.clone(), state.listing());
        Ok(if upheaval {
            vec![Change::Down(unavailable("it was replaced")), Change::Up, listing]
        } else {
            vec![listing]
        })
    }
}

impl Table for MemoryTable {
    fn name(&self) -> String {
        "the store in memory".to_owned()
    }

    fn config_place(&self) -> String {
        "config in memory".to_owned()
    }

    async fn read_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|state| state.config.clone()).await
    }

    async fn write_config(&self, text: &str) -> Result<(), StoreError> {
        self.call_to_write(|state| state.set_config(Some(text.as_bytes().to_vec()))).await
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        self.call(|state| state.listing()).await
    }

    async fn read(&self, key: &LeaseKey) -> Result<Option<Record>, StoreError> {
        self.call(|state| state.records.get(key).cloned()).await
    }

    async fn begin(&self) -> Result<Term, StoreError> {
        self.call(|state| Term::Renewable { grant: state.grant(), ttl: state.ttl }).await
    }

    async fn extend(&self, _: &LeaseKey, _: u64, term: Term) -> Result<bool, StoreError> {
        let Term::Renewable { grant, .. } = term else { return Ok(true) };
        self.call(|state| {
            let until = Instant::now() + state.ttl;
            state.grants.get_mut(&grant).map(|end| *end = until).is_some()
        })
        .await
    }

    async fn end(&self, grant: i64) {
        let ended = self.call(|state| state.end(grant)).await;
        drop(ended);
    }

    async fn write(&self, write: &Write) -> Result<Written, StoreError> {
        self.call_to_write(|state| {
            let found = match write.guard {
                Guard::Absent => overlapping(&write.key, state.records.values()).cloned(),
                Guard::Unchanged(_) => state.records.get(&write.key).cloned(),
            };
            match (write.guard, &found) {
                (Guard::Absent, None) => {}
                (Guard::Unchanged(revision), Some(record)) if record.revision == revision => {}
                _ => return Written::Found(found),
            }
            let grant = match write.term {
                Term::Permanent => None,
                Term::Renewable { grant, .. } => Some(grant),
            };
            Written::Done(state.put(write.key.clone(), write.value.clone(), grant))
        })
        .await
    }

    async fn delete(&self, key: &LeaseKey, revision: u64) -> Result<Written, StoreError> {
        self.call_to_write(|state| match state.records.get(key) {
            Some(record) if record.revision == revision => {
                state.remove(key);
                Written::Done(state.revision.number)
            }
            other => Written::Found(other.cloned()),
        })
        .await
    }

    async fn remaining(&self, records: &[Record]) -> Result<Vec<Option<Duration>>, StoreError> {
        self.call(|state| {
            let end = |record: &Record| record.grant.and_then(|grant| state.grants.get(&grant).copied());
            records.iter().map(|record| end(record).map(|end| end - Instant::now())).collect()
        })
        .await
    }

    fn follow(&self) -> impl Stream<Item = Change> + Send {
        stream! {
            let mut bell = self.bell.subscribe();
            let mut seen = Seen::default();
            let mut down = false;
            loop {
                bell.mark_unchanged();
                match self.news(&mut seen) {
                    Ok(news) => {
                        if std::mem::take(&mut down) {
                            yield Change::Up;
                        }
                        for change in news {
                            yield change;
                        }
                    }
                    Err(error) => {
                        seen = Seen::default();
                        if !std::mem::replace(&mut down, true) {
                            yield Change::Down(error);
                        }
                    }
                }
                let next = self.lock().grants.values().min().copied();
                tokio::select! {
                    // This table holds a sender, so it cannot fail.
                    _ = bell.changed() => {}
                    () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
                }
            }
        }
    }
}
