//! Rewriting the value of a lease.

use super::put::{Progress, Put};
use super::{Answer, Question, Turn, failed, lost};
use crate::lease::{Attrs, Lease};
use crate::record::{Guard, Held, Record, Term};

/// A publication under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Publish {
    held: Held,
    lease: Lease,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Writing(Put),
    /// What was found is ours all the same, so it is rewritten from there.
    Again(Put),
    /// Somebody was in the way: who holds it?
    Asking,
}

impl Publish {
    pub(super) fn new(held: Held, attrs: Attrs) -> (Self, Question) {
        let lease = Lease { attrs, ..held.lease.clone() };
        let (put, question) = Put::new(lease.clone(), Guard::Unchanged(held.revision), held.term);
        (Self { held, lease, stage: Stage::Writing(put) }, question)
    }

    pub(super) fn answered(&mut self, answer: Answer) -> Turn {
        let (progress, again) = match (&mut self.stage, answer) {
            (Stage::Writing(put), answer) => (put.answered(answer), false),
            (Stage::Again(put), answer) => (put.answered(answer), true),
            (Stage::Asking, Answer::Record(found)) => {
                return Turn::Done(Err(lost(&self.held, found.as_ref())));
            }
            (Stage::Asking, _) => return failed(),
        };
        match progress {
            Progress::Ask(question) => Turn::Ask(question),
            Progress::Done(held) => Turn::Done(Ok(Some(held))),
            Progress::Found(found) if again => Turn::Done(Err(lost(&self.held, found.as_ref()))),
            Progress::Found(found) => self.found(found),
            Progress::Failed { .. } => failed(),
        }
    }

    fn found(&mut self, found: Option<Record>) -> Turn {
        let good = |record: &Record| self.held.wrote(record) && !self.held.came_late(record);
        let Some(record) = found.filter(good) else {
            self.stage = Stage::Asking;
            return Turn::Ask(Question::Read(self.held.lease.key.clone()));
        };
        let term = if record.grant.is_none() { Term::Permanent } else { self.held.term };
        let (put, question) = Put::new(self.lease.clone(), Guard::Unchanged(record.revision), term);
        self.stage = Stage::Again(put);
        Turn::Ask(question)
    }
}
