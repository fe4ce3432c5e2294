//! One guarded write, until it is known what became of it.

use super::{Answer, Question, Setback, lost};
use crate::lease::Lease;
use crate::record::{Guard, Held, Record, Term, Write, Written};

/// A lease being written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Put {
    held: Held,
    write: Write,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Writing,
    /// It was created; was another lease there before?
    Looking,
    /// This one was: ours is taken back.
    Yielding(Record),
}

/// How far a write has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(
    clippy::large_enum_variant,
    reason = "one is in flight at a time; a box would only add an allocation"
)]
pub(super) enum Progress {
    /// The next question.
    Ask(Question),
    /// Written.
    Done(Held),
    /// Not written: this stands in its way.
    Found(Option<Record>),
    /// Not known.
    Failed {
        /// Whether the store refused, so that it did not take effect.
        refused: bool,
    },
}

impl Put {
    pub(super) fn new(lease: Lease, guard: Guard, term: Term) -> (Self, Question) {
        let write = Write { key: lease.key.clone(), guard, value: lease.attrs.encode(), term };
        let question = Question::Write(write.clone());
        (Self { held: Held { lease, revision: 0, term }, write, stage: Stage::Writing }, question)
    }

    /// What it hangs on.
    pub(super) const fn term(&self) -> Term {
        self.write.term
    }

    /// That what was found there is in the way.
    pub(super) fn lost(&self, found: Option<&Record>) -> Setback {
        lost(&self.held, found)
    }

    /// # Why a creation is looked at again
    /// Its guard may cover one key only, but keys that differ may overlap: in a dual-stack network, two hosts can race
    /// for one IPv4 subnet with different IPv6 ones. Of two such leases the younger one's host sees the older, whatever
    /// the order of replies, and takes its own back.
    pub(super) fn answered(&mut self, answer: Answer) -> Progress {
        match (&self.stage, answer) {
            (Stage::Writing, Answer::Written(Written::Done(revision))) => self.written(revision),
            (Stage::Writing, Answer::Written(Written::Found(Some(record)))) if self.write.left(&record) => {
                self.written(record.revision)
            }
            (Stage::Writing, Answer::Written(Written::Found(found))) => Progress::Found(found),
            (Stage::Looking, Answer::Record(None)) => Progress::Done(self.held.clone()),
            (Stage::Looking, Answer::Record(Some(older))) => {
                self.stage = Stage::Yielding(older);
                Progress::Ask(Question::Delete(self.write.key.clone(), self.held.revision))
            }
            (Stage::Yielding(older), Answer::Written(_)) => Progress::Found(Some(older.clone())),
            (_, answer) => Progress::Failed { refused: answer == Answer::Refusal },
        }
    }

    fn written(&mut self, revision: u64) -> Progress {
        self.held.revision = revision;
        match self.write.guard {
            Guard::Unchanged(_) => Progress::Done(self.held.clone()),
            Guard::Absent => {
                self.stage = Stage::Looking;
                Progress::Ask(Question::Older(self.write.key.clone(), revision))
            }
        }
    }
}
