//! What a store keeps, and how it is written: keyed values, each write guarded by the revision it replaces.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::allocate::Taken;
use crate::fault::Fault;
use crate::lease::{Attrs, Lease, LeaseKey, Subnets};

/// A position in a store's history. It only grows, unless the store was restored or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision {
    /// Which store: changes when the store was made anew.
    pub cluster: u64,
    /// Which change.
    pub number: u64,
}

/// A lease that is ours, with what guards the next write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The lease as written last.
    pub lease: Lease,
    /// The revision of that write: the guard of the next one. 0 if the store's history broke off since.
    pub revision: u64,
    /// What keeps it alive.
    pub term: Term,
}

/// What keeps a lease alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Term {
    /// Nothing needs to: it is a reservation.
    Permanent,
    /// It ends unless renewed.
    Renewable {
        /// The store's name for what is renewed (an etcd lease); 0 where leases have none.
        grant: i64,
        /// How long it lives from the answer that said so.
        ttl: Duration,
    },
}

/// One key below `subnets/`, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its name, without the store's prefix.
    pub key: LeaseKey,
    /// Its value: flannel's JSON, unless somebody wrote something else.
    pub value: Vec<u8>,
    /// Guards the next write of this key. It changes with the value, not with a renewal.
    pub revision: u64,
    /// The revision that created the key: of two that overlap, the older one counts. 0 where no two can.
    pub created: u64,
    /// What it expires with (0 where terms have no name); `None` if it never expires.
    pub grant: Option<i64>,
}

/// All keys below `subnets/` at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Listing {
    /// The records, in the order of their keys.
    pub records: Vec<Record>,
    /// What this is a listing of.
    pub revision: Revision,
}

/// What a write requires of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The key does not exist. A store that can also requires that no other key takes any part of what it takes.
    Absent,
    /// The key was written last by this revision.
    Unchanged(u64),
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Written {
    /// Done; the revision guards the next write.
    Done(u64),
    /// The guard did not hold, or an earlier attempt of the same write took effect and its reply was lost. This is
    /// what stands there.
    Found(Option<Record>),
}

impl Held {
    /// Whether this process wrote the record.
    #[must_use]
    pub fn wrote(&self, record: &Record) -> bool {
        let ours = &self.lease.attrs;
        match Attrs::decode(&record.value) {
            Ok(theirs) if ours.node_id.is_some() => {
                theirs.node_id == ours.node_id && theirs.session == ours.session
            }
            Ok(theirs) => theirs == *ours,
            Err(_) => false,
        }
    }

    /// Whether the record was made after this process wrote its lease last: that one had gone, and what an attempt of
    /// this process that nobody waited for any more had asked for came late. Since nobody waited, nobody looked whether
    /// the subnets were still free.
    #[must_use]
    pub const fn came_late(&self, record: &Record) -> bool {
        record.created > self.revision
    }
}

impl Term {
    /// What the store calls it, if it ends.
    #[must_use]
    pub const fn grant(self) -> Option<i64> {
        match self {
            Self::Permanent => None,
            Self::Renewable { grant, .. } => Some(grant),
        }
    }
}

impl Record {
    /// What it says.
    ///
    /// # Errors
    /// The key names no subnet, or the value does not decode.
    pub fn lease(&self) -> Result<Lease, Fault> {
        let lease = Lease::decode(self.key.as_str(), &self.value)?;
        let vacant = self.grant.is_none() && lease.attrs.is_vacant();
        Ok(Lease { vacant, ..lease })
    }

    /// What it takes, whether or not its value decodes; `None` if its key names no subnet.
    #[must_use]
    pub fn taken(&self) -> Option<Taken> {
        let subnets = self.key.subnets().ok()?;
        let lease = self.lease().ok();
        let permanent = self.grant.is_none();
        Some(Taken { key: self.key.clone(), subnets, lease, permanent, created: self.created })
    }

    /// Whether a process of the node of `attrs` wrote it.
    #[must_use]
    pub fn is_of_node(&self, attrs: &Attrs) -> bool {
        attrs.node_id.is_some()
            && Attrs::decode(&self.value).is_ok_and(|theirs| theirs.node_id == attrs.node_id)
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
        record.key == self.key
            && record.grant == self.term.grant()
            && matches!((Attrs::decode(&self.value), Attrs::decode(&record.value)), (Ok(a), Ok(b)) if a == b)
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
