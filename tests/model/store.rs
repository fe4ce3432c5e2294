//! etcd as far as leases know it: revisions, grants that end, writes that compare.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use twill_backends::errand::{Answer, Question};
use twill_backends::lease::LeaseKey;
use twill_backends::record::{Guard, Listing, Record, Revision, Term, Write, Written, overlapping};

use crate::history::{Change, Left};

/// How long a grant lives. No time passes here: it ends whenever the checker likes.
pub(crate) const TTL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    pub(crate) records: BTreeMap<LeaseKey, Record>,
    pub(crate) grants: BTreeSet<i64>,
    granted: i64,
    pub(crate) revision: u64,
    /// All changes ever: what followers are told, and what the properties judge.
    pub(crate) history: Vec<Change>,
    /// The value that each of them left.
    pub(crate) values: Vec<Option<Vec<u8>>>,
}

impl Store {
    /// Does what is asked, as one transaction.
    pub(crate) fn serve(&mut self, question: &Question) -> Answer {
        match question {
            Question::List => Answer::Listing(Listing {
                records: self.records.values().cloned().collect(),
                revision: Revision { cluster: 1, number: self.revision },
            }),
            Question::Read(key) => Answer::Record(self.records.get(key).cloned()),
            Question::Begin => Answer::Term(self.grant()),
            Question::Extend(_, _, term) => {
                Answer::Extended(term.grant().is_none_or(|grant| self.grants.contains(&grant)))
            }
            Question::Write(write) => self.write(write),
            Question::Older(key, revision) => Answer::Record(self.older(key, *revision)),
            Question::Delete(key, revision) => Answer::Written(match self.records.get(key) {
                Some(record) if record.revision == *revision => {
                    self.revision += 1;
                    self.remove(&key.clone());
                    Written::Done(self.revision)
                }
                found => Written::Found(found.cloned()),
            }),
            Question::End(grant) => {
                self.end(*grant);
                Answer::Ended
            }
        }
    }

    pub(crate) fn grant(&mut self) -> Term {
        self.granted += 1;
        self.grants.insert(self.granted);
        Term::Renewable { grant: self.granted, ttl: TTL }
    }

    /// A grant ends, with all keys that hang on it, in one revision.
    pub(crate) fn end(&mut self, grant: i64) {
        self.grants.remove(&grant);
        let over = |record: &&Record| record.grant == Some(grant);
        let keys: Vec<_> = self.records.values().filter(over).map(|record| record.key.clone()).collect();
        self.revision += u64::from(!keys.is_empty());
        keys.iter().for_each(|key| self.remove(key));
    }

    /// Somebody deletes a key.
    pub(crate) fn delete(&mut self, key: &LeaseKey) {
        self.revision += 1;
        self.remove(key);
    }

    /// Somebody writes a key, whatever stands there.
    pub(crate) fn put(&mut self, key: &LeaseKey, value: Vec<u8>, grant: Option<i64>) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let created = self.records.get(key).map_or(revision, |record| record.created);
        self.history.push(Change { revision, key: key.clone(), left: Left::by(&value) });
        self.values.push(Some(value.clone()));
        self.records.insert(key.clone(), Record { key: key.clone(), value, revision, created, grant });
        revision
    }

    fn write(&mut self, write: &Write) -> Answer {
        if write.term.grant().is_some_and(|grant| !self.grants.contains(&grant)) {
            return Answer::Refusal;
        }
        let found = self.records.get(&write.key);
        let holds = match write.guard {
            Guard::Absent => found.is_none(),
            Guard::Unchanged(revision) => found.is_some_and(|record| record.revision == revision),
        };
        Answer::Written(if holds {
            Written::Done(self.put(&write.key, write.value.clone(), write.term.grant()))
        } else {
            Written::Found(found.cloned())
        })
    }

    fn older(&self, key: &LeaseKey, revision: u64) -> Option<Record> {
        let older = |record: &&Record| record.key != *key && record.created < revision;
        overlapping(key, self.records.values().filter(older)).cloned()
    }

    fn remove(&mut self, key: &LeaseKey) {
        if self.records.remove(key).is_some() {
            let change = Change { revision: self.revision, key: key.clone(), left: Left::Nothing };
            self.history.push(change);
            self.values.push(None);
        }
    }
}
