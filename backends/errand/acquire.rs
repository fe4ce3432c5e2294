//! Claiming a lease.

use super::put::{Progress, Put};
use super::{Answer, Question, Setback, Turn, failed, silent};
use crate::allocate::{Choice, Claim, choose};
use crate::lease::{Lease, LeaseKey};
use crate::network::NetworkConfig;
use crate::record::{Guard, Held, Listing, Record, Term, Written};

/// How many races a claim may lose before it gives up.
const RACES: usize = 100;

/// A claim under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Acquire {
    claim: Claim,
    config: NetworkConfig,
    /// How many races were lost.
    lost: usize,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Listing,
    Beginning(Target),
    Writing {
        put: Put,
        /// What the key hung on before, if it was ours.
        before: Option<i64>,
    },
    /// What was ours gives way to an older lease; what it hangs on.
    Yielding(Option<i64>),
    /// A term nothing hangs on is ended; then comes the end, or the next attempt.
    Ending(Option<Box<Result<Held, Setback>>>),
}

/// What to write, and what must be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Target {
    lease: Lease,
    guard: Guard,
    before: Option<i64>,
}

impl Acquire {
    pub(super) fn new(claim: Claim, config: NetworkConfig) -> (Self, Question) {
        (Self { claim, config, lost: 0, stage: Stage::Listing }, Question::List)
    }

    pub(super) fn answered(&mut self, answer: Answer, pick: &mut dyn FnMut(u64) -> u64) -> Turn {
        match (&mut self.stage, answer) {
            (Stage::Listing, Answer::Listing(listing)) => self.listed(&listing, pick),
            (Stage::Beginning(target), Answer::Term(term)) => {
                let target = target.clone();
                self.write(target, term)
            }
            (Stage::Writing { put, before }, answer) => {
                let (progress, term, before) = (put.answered(answer), put.term(), *before);
                self.wrote(progress, term, before)
            }
            (Stage::Yielding(Some(grant)), Answer::Written(Written::Done(_))) => {
                let grant = *grant;
                self.stage = Stage::Ending(None);
                Turn::Ask(Question::End(grant))
            }
            (Stage::Yielding(_), Answer::Written(_)) => self.again(),
            (Stage::Ending(Some(result)), _) => Turn::Done((**result).clone().map(Some)),
            (Stage::Ending(None), _) => self.again(),
            _ => failed(),
        }
    }

    fn listed(&mut self, listing: &Listing, pick: &mut dyn FnMut(u64) -> u64) -> Turn {
        let taken: Vec<_> = listing.records.iter().filter_map(Record::taken).collect();
        let (key, record) = match choose(&self.claim, &self.config, &taken, pick) {
            Err(error) => return Turn::Done(Err(Setback::Claim(error))),
            Ok(Choice::Rewrite(key)) => {
                let record = listing.get(&key);
                (key, record)
            }
            Ok(Choice::Create(subnets)) => (LeaseKey::of(&subnets), None),
            Ok(Choice::Yield(key)) => return self.give_way(&key, listing),
        };
        let Ok(subnets) = key.subnets() else { return self.again() };
        let target = Target {
            lease: Lease { key, subnets, attrs: self.claim.attrs.clone(), vacant: false },
            guard: record.map_or(Guard::Absent, |record| Guard::Unchanged(record.revision)),
            // flanneld's etcd leases are left alone.
            before: record
                .filter(|record| record.is_of_node(&self.claim.attrs))
                .and_then(|record| record.grant),
        };
        if record.is_some_and(|record| record.grant.is_none()) {
            return self.write(target, Term::Permanent);
        }
        self.stage = Stage::Beginning(target);
        Turn::Ask(Question::Begin)
    }

    fn give_way(&mut self, key: &LeaseKey, listing: &Listing) -> Turn {
        let Some(record) = listing.get(key) else { return self.again() };
        self.stage = Stage::Yielding(record.grant);
        Turn::Ask(Question::Delete(record.key.clone(), record.revision))
    }

    fn write(&mut self, target: Target, term: Term) -> Turn {
        let (put, question) = Put::new(target.lease, target.guard, term);
        self.stage = Stage::Writing { put, before: target.before };
        Turn::Ask(question)
    }

    /// A term that nothing hangs on any more is ended. One whose write was not answered may yet be needed.
    fn wrote(&mut self, progress: Progress, term: Term, before: Option<i64>) -> Turn {
        let (obsolete, end) = match progress {
            Progress::Ask(question) => return Turn::Ask(question),
            Progress::Done(held) => (before, Some(Box::new(Ok(held)))),
            Progress::Found(_) => (term.grant(), None),
            Progress::Failed { refused: false } => return failed(),
            Progress::Failed { refused: true } => (term.grant(), Some(Box::new(Err(silent())))),
        };
        let Some(grant) = obsolete else {
            return match end {
                Some(result) => Turn::Done((*result).map(Some)),
                None => self.again(),
            };
        };
        self.stage = Stage::Ending(end);
        Turn::Ask(Question::End(grant))
    }

    fn again(&mut self) -> Turn {
        self.lost += 1;
        if self.lost >= RACES {
            let cause = format!("cannot claim a lease: lost {RACES} races in a row");
            return Turn::Done(Err(Setback::Failed(cause)));
        }
        self.stage = Stage::Listing;
        Turn::Ask(Question::List)
    }
}
