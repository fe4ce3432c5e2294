//! What has to be asked of a store, question by question, to claim a lease, keep it, rewrite it and give it up.
//!
//! # Why
//! A lease is held, not remembered: each write names the revision it replaces, so a host that was away while its
//! lease expired and went to another cannot take it back by writing. When a guard does not hold, what stands there
//! decides: our own node id and session mean that an earlier attempt took effect and its reply was lost, or that an
//! operator moved the key; anything else means that the lease is lost.
//!
//! An errand is a value: it holds what it has learnt, and each answer yields the next question or the end. So the
//! agent, which asks a real store, and the model checker, which tries every order of everybody's questions, lost
//! replies and late writes, run the very same steps.

mod acquire;
mod publish;
mod put;
mod release;
mod renew;

use std::fmt;

use crate::allocate::{Claim, ClaimError};
use crate::lease::{Attrs, Lease, LeaseKey};
use crate::network::NetworkConfig;
use crate::record::{Guard, Held, Listing, Record, Term, Write, Written};

use self::acquire::Acquire;
use self::publish::Publish;
use self::put::{Progress, Put};
use self::release::Release;
use self::renew::Renew;

/// What is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// All records: answered by [`Answer::Listing`].
    List,
    /// One record: answered by [`Answer::Record`].
    Read(LeaseKey),
    /// A term for a lease to be written: answered by [`Answer::Term`].
    Begin,
    /// Start the term of a record over: answered by [`Answer::Extended`].
    Extend(LeaseKey, u64, Term),
    /// Write a record: answered by [`Answer::Written`].
    Write(Write),
    /// A record that overlaps the one just created with this revision, and was there before: answered by
    /// [`Answer::Record`].
    Older(LeaseKey, u64),
    /// Delete a record if it is at this revision: answered by [`Answer::Written`].
    Delete(LeaseKey, u64),
    /// End a term, and with it every record that lives by it. Answered by [`Answer::Ended`], come what may.
    End(i64),
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// All records.
    Listing(Listing),
    /// One record, if there is one.
    Record(Option<Record>),
    /// A term has begun.
    Term(Term),
    /// Whether the term lives on.
    Extended(bool),
    /// What became of a write or a deletion.
    Written(Written),
    /// The term has ended, or will by itself.
    Ended,
    /// No answer: the question may have taken effect, or may yet.
    Silence,
    /// The store refuses, and did nothing.
    Refusal,
}

/// Why an errand came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Setback {
    /// The lease is not ours any more: it is gone, or another host wrote it.
    Lost {
        /// Which.
        key: LeaseKey,
        /// What stands there: another host's lease, or that of another process with this host's node id. `None` if
        /// nobody holds it, or what stands there does not decode.
        holder: Option<Box<Attrs>>,
        /// Who has it, or that nobody has, in words.
        cause: String,
    },
    /// No lease can be claimed.
    Claim(ClaimError),
    /// The store did not do as asked: why, in words.
    Failed(String),
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(
    clippy::large_enum_variant,
    reason = "one is in flight at a time; a box would only add an allocation"
)]
pub enum Turn {
    /// The next question.
    Ask(Question),
    /// The end. The lease held; `None` if it was given up.
    Done(Result<Option<Held>, Setback>),
}

/// One errand, under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Errand(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Acquire(Box<Acquire>),
    Renew(Box<Renew>),
    Publish(Box<Publish>),
    Release(Box<Release>),
    Write(Box<Put>),
}

impl Errand {
    /// Claims a lease by the claim order of [`allocate`](crate::allocate); a race lost to another host is tried again.
    #[must_use]
    pub fn acquire(claim: Claim, config: NetworkConfig) -> (Self, Question) {
        let (errand, question) = Acquire::new(claim, config);
        (Self(Kind::Acquire(Box::new(errand))), question)
    }

    /// Keeps a lease alive. Nothing is rewritten, so watchers see nothing.
    #[must_use]
    pub fn renew(held: Held) -> (Self, Question) {
        let (errand, question) = Renew::new(held);
        (Self(Kind::Renew(Box::new(errand))), question)
    }

    /// Rewrites the value of a lease, guarded by its revision.
    #[must_use]
    pub fn publish(held: Held, attrs: Attrs) -> (Self, Question) {
        let (errand, question) = Publish::new(held, attrs);
        (Self(Kind::Publish(Box::new(errand))), question)
    }

    /// Gives a lease up.
    #[must_use]
    pub fn release(held: Held) -> (Self, Question) {
        let (errand, question) = Release::new(held);
        (Self(Kind::Release(Box::new(errand))), question)
    }

    /// Writes a lease that an operator names. Whoever stands in its way makes it [`Setback::Lost`].
    #[must_use]
    pub fn write(lease: Lease, guard: Guard, term: Term) -> (Self, Question) {
        let (put, question) = Put::new(lease, guard, term);
        (Self(Kind::Write(Box::new(put))), question)
    }

    /// Goes on with the answer to the last question. `pick(n)` returns a random number below `n`.
    pub fn answered(&mut self, answer: Answer, pick: &mut dyn FnMut(u64) -> u64) -> Turn {
        match &mut self.0 {
            Kind::Acquire(errand) => errand.answered(answer, pick),
            Kind::Renew(errand) => errand.answered(answer),
            Kind::Publish(errand) => errand.answered(answer),
            Kind::Release(errand) => errand.answered(answer),
            Kind::Write(put) => match put.answered(answer) {
                Progress::Ask(question) => Turn::Ask(question),
                Progress::Done(held) => Turn::Done(Ok(Some(held))),
                Progress::Found(found) => Turn::Done(Err(put.lost(found.as_ref()))),
                Progress::Failed { .. } => failed(),
            },
        }
    }
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { key, cause, .. } => write!(f, "the lease {key} is lost: {cause}"),
            Self::Claim(error) => error.fmt(f),
            Self::Failed(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for Setback {}

/// The end of an errand whose question was not answered, or not by an answer to it.
fn failed() -> Turn {
    Turn::Done(Err(silent()))
}

fn silent() -> Setback {
    Setback::Failed("the store did not answer what it was asked".to_owned())
}

fn lost(held: &Held, found: Option<&Record>) -> Setback {
    // What came late is ours, and yet to be claimed.
    let late = found.is_some_and(|record| held.wrote(record));
    let holder = found.filter(|_| !late).and_then(|record| Attrs::decode(&record.value).ok());
    let cause = match (&holder, found) {
        _ if late => {
            "it expired or was deleted, and an attempt of ours to claim it took effect late".to_owned()
        }
        (None, None) => "it expired or was deleted, and nobody holds it".to_owned(),
        (None, Some(_)) => "something that is no lease was written over it".to_owned(),
        (Some(attrs), _) if attrs.node_id.is_some() && attrs.node_id == held.lease.attrs.node_id => {
            format!("another process with this host's node id, at {}, wrote it", address(attrs))
        }
        (Some(attrs), _) => {
            let node = attrs.node_id.as_deref().unwrap_or("without id (flanneld)");
            format!("node {node} at {} holds it", address(attrs))
        }
    };
    Setback::Lost { key: held.lease.key.clone(), holder: holder.map(Box::new), cause }
}

fn address(attrs: &Attrs) -> String {
    match (attrs.public_ip, attrs.public_ipv6) {
        (Some(addr), _) => addr.to_string(),
        (None, Some(addr)) => addr.to_string(),
        (None, None) => "an unknown address".to_owned(),
    }
}

#[cfg(test)]
mod tests;
