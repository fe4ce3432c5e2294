//! Keeping a lease alive.

use super::put::{Progress, Put};
use super::{Answer, Question, Setback, Turn, failed, lost};
use crate::lease::Lease;
use crate::record::{Guard, Held, Record, Term};

/// A renewal under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Renew {
    held: Held,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Reading,
    /// Our record, in another history than the one it was written in: was another lease there before?
    Looking(Record),
    /// Our record, on our term.
    Extending(Held),
    /// Our record, on a term that is not ours or has ended: it is put on one that is.
    Beginning(Lease, u64),
    Rehanging(Put),
    /// The term that was begun for nothing.
    Ending(Setback),
}

impl Renew {
    pub(super) fn new(held: Held) -> (Self, Question) {
        let question = Question::Read(held.lease.key.clone());
        (Self { held, stage: Stage::Reading }, question)
    }

    pub(super) fn answered(&mut self, answer: Answer) -> Turn {
        match (&mut self.stage, answer) {
            (Stage::Reading, Answer::Record(found)) => self.found(found),
            (Stage::Looking(record), Answer::Record(None)) => {
                let record = record.clone();
                self.keep(record)
            }
            (Stage::Looking(_), Answer::Record(Some(older))) => {
                let cause = format!("{} was there before, and takes a part of it", older.key);
                Turn::Done(Err(Setback::Lost { key: self.held.lease.key.clone(), holder: None, cause }))
            }
            (Stage::Extending(held), Answer::Extended(true)) => Turn::Done(Ok(Some(held.clone()))),
            (Stage::Extending(held), Answer::Extended(false)) => {
                self.stage = Stage::Beginning(held.lease.clone(), held.revision);
                Turn::Ask(Question::Begin)
            }
            (Stage::Beginning(lease, revision), Answer::Term(term)) => {
                let (put, question) = Put::new(lease.clone(), Guard::Unchanged(*revision), term);
                self.stage = Stage::Rehanging(put);
                Turn::Ask(question)
            }
            (Stage::Rehanging(put), answer) => {
                let progress = put.answered(answer);
                let term = put.term();
                self.rehung(progress, term)
            }
            (Stage::Ending(setback), _) => Turn::Done(Err(setback.clone())),
            _ => failed(),
        }
    }

    fn found(&mut self, found: Option<Record>) -> Turn {
        match found {
            // Whether it came late cannot be told from revisions of two histories. The model checker finds two hosts that
            // own one subnet if nobody looks, in 18 steps.
            Some(record) if self.held.wrote(&record) && self.held.revision == 0 => {
                let question = Question::Older(record.key.clone(), record.created);
                self.stage = Stage::Looking(record);
                Turn::Ask(question)
            }
            // The revision alone proves nothing: a store restored from a backup gives it out again.
            Some(record) if self.held.wrote(&record) && !self.held.came_late(&record) => self.keep(record),
            found => Turn::Done(Err(lost(&self.held, found.as_ref()))),
        }
    }

    fn keep(&mut self, record: Record) -> Turn {
        let lease = record.lease().unwrap_or_else(|_| self.held.lease.clone());
        let held = |term| Held { lease: lease.clone(), revision: record.revision, term };
        match (record.grant, self.held.term) {
            (None, _) => Turn::Done(Ok(Some(held(Term::Permanent)))),
            (Some(theirs), term) if term.grant() == Some(theirs) => {
                self.stage = Stage::Extending(held(term));
                Turn::Ask(Question::Extend(record.key, record.revision, term))
            }
            (Some(_), _) => {
                self.stage = Stage::Beginning(lease, record.revision);
                Turn::Ask(Question::Begin)
            }
        }
    }

    fn rehung(&mut self, progress: Progress, term: Term) -> Turn {
        match (progress, term.grant()) {
            (Progress::Ask(question), _) => Turn::Ask(question),
            (Progress::Done(held), _) => Turn::Done(Ok(Some(held))),
            (Progress::Found(found), Some(grant)) => {
                self.stage = Stage::Ending(lost(&self.held, found.as_ref()));
                Turn::Ask(Question::End(grant))
            }
            (Progress::Found(found), None) => Turn::Done(Err(lost(&self.held, found.as_ref()))),
            (Progress::Failed { .. }, _) => failed(),
        }
    }
}
