//! What the store holds, and how single steps change it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use twill_backends::lease::LeaseKey;

use crate::store::table::{Change, Listing, Record};
use crate::store::{Revision, StoreError};

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Option<Vec<u8>>,
    pub(super) records: BTreeMap<LeaseKey, Record>,
    /// When each grant ends.
    pub(super) grants: BTreeMap<i64, Instant>,
    pub(super) granted: i64,
    pub(super) revision: Revision,
    pub(super) ttl: Duration,
    /// What happened since the last upheaval.
    pub(super) history: Vec<Logged>,
    /// Counts what followers cannot follow change by change.
    pub(super) upheavals: u64,
    pub(super) writes: u64,
    pub(super) trouble: Trouble,
}

/// What goes wrong, on demand.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) down: bool,
    pub(super) failing_calls: usize,
    pub(super) lost_replies: usize,
    pub(super) delay: Duration,
}

#[derive(Debug, Clone)]
pub(super) enum Logged {
    Put(Record, Revision),
    Delete(LeaseKey, Revision),
    Config(Option<Vec<u8>>),
}

impl State {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            config: None,
            records: BTreeMap::new(),
            grants: BTreeMap::new(),
            granted: 0,
            revision: Revision { cluster: 1, number: 1 },
            ttl,
            history: Vec::new(),
            upheavals: 1,
            writes: 0,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn listing(&self) -> Listing {
        Listing { records: self.records.values().cloned().collect(), revision: self.revision }
    }

    pub(super) fn grant(&mut self) -> i64 {
        self.granted += 1;
        self.grants.insert(self.granted, Instant::now() + self.ttl);
        self.granted
    }

    pub(super) fn put(&mut self, key: LeaseKey, value: Vec<u8>, grant: Option<i64>) -> u64 {
        self.writes += 1;
        self.revision.number += 1;
        let record = Record { key: key.clone(), value, revision: self.revision.number, created: 0, grant };
        self.history.push(Logged::Put(record.clone(), self.revision));
        self.records.insert(key, record);
        self.revision.number
    }

    pub(super) fn remove(&mut self, key: &LeaseKey) {
        if self.records.remove(key).is_some() {
            self.writes += 1;
            self.revision.number += 1;
            self.history.push(Logged::Delete(key.clone(), self.revision));
        }
    }

    pub(super) fn set_config(&mut self, text: Option<Vec<u8>>) {
        self.revision.number += 1;
        self.config.clone_from(&text);
        self.history.push(Logged::Config(text));
    }

    pub(super) fn end(&mut self, grant: i64) {
        self.grants.remove(&grant);
        let bound = |record: &&Record| record.grant == Some(grant);
        let keys: Vec<_> = self.records.values().filter(bound).map(|record| record.key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let ended: Vec<_> =
            self.grants.iter().filter(|(_, end)| **end <= now).map(|(grant, _)| *grant).collect();
        for grant in ended {
            self.end(grant);
        }
    }

    /// The history goes on from another revision; as in any store, no record is newer than the store.
    pub(super) fn upheaval(&mut self, revision: Revision) {
        self.revision = revision;
        for record in self.records.values_mut() {
            record.revision = record.revision.min(revision.number);
        }
        self.history.clear();
        self.upheavals += 1;
    }
}

impl From<Logged> for Change {
    fn from(logged: Logged) -> Self {
        match logged {
            Logged::Put(record, revision) => Self::Put(record, revision),
            Logged::Delete(key, revision) => Self::Delete(key, revision),
            Logged::Config(text) => Self::Config(text),
        }
    }
}

/// A failure on demand.
pub(super) fn unavailable(cause: &str) -> StoreError {
    StoreError::Unavailable { store: "the store in memory".to_owned(), cause: cause.to_owned() }
}
