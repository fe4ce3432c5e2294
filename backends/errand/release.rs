//! Giving a lease up.

use super::publish::Publish;
use super::{Answer, Question, Turn, failed, lost};
use crate::lease::Attrs;
use crate::record::{Held, Term, Written};

/// A release under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Release {
    held: Held,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    /// A reservation outlives its use: the key stays, and says only for whom.
    GivingBack(Box<Publish>),
    Deleting(i64),
    /// The same once more, from what was found.
    Again(i64),
    Ending,
    /// Somebody was in the way: who holds it?
    Asking,
}

impl Release {
    pub(super) fn new(held: Held) -> (Self, Question) {
        let (stage, question) = match held.term {
            Term::Renewable { grant, .. } => {
                (Stage::Deleting(grant), Question::Delete(held.lease.key.clone(), held.revision))
            }
            Term::Permanent => {
                let Attrs { public_ip, public_ipv6, ref node_id, .. } = held.lease.attrs;
                let attrs = Attrs { public_ip, public_ipv6, node_id: node_id.clone(), ..Attrs::default() };
                let (publish, question) = Publish::new(held.clone(), attrs);
                (Stage::GivingBack(Box::new(publish)), question)
            }
        };
        (Self { held, stage }, question)
    }

    pub(super) fn answered(&mut self, answer: Answer) -> Turn {
        match (&mut self.stage, answer) {
            (Stage::GivingBack(publish), answer) => match publish.answered(answer) {
                Turn::Done(Ok(_)) => Turn::Done(Ok(None)),
                turn @ (Turn::Ask(_) | Turn::Done(Err(_))) => turn,
            },
            (Stage::Deleting(grant), Answer::Written(written)) => {
                let grant = *grant;
                self.deleted(written, grant, Some(Stage::Again(grant)))
            }
            (Stage::Again(grant), Answer::Written(written)) => {
                let grant = *grant;
                self.deleted(written, grant, None)
            }
            (Stage::Ending, _) => Turn::Done(Ok(None)),
            (Stage::Asking, Answer::Record(found)) => Turn::Done(Err(lost(&self.held, found.as_ref()))),
            _ => failed(),
        }
    }

    fn deleted(&mut self, written: Written, grant: i64, again: Option<Stage>) -> Turn {
        match (written, again) {
            (Written::Done(_) | Written::Found(None), _) => {
                self.stage = Stage::Ending;
                Turn::Ask(Question::End(grant))
            }
            (Written::Found(Some(record)), again) if self.held.wrote(&record) => {
                let key = self.held.lease.key.clone();
                let asking = again.is_none();
                self.stage = again.unwrap_or(Stage::Asking);
                Turn::Ask(if asking { Question::Read(key) } else { Question::Delete(key, record.revision) })
            }
            (Written::Found(found), _) => Turn::Done(Err(lost(&self.held, found.as_ref()))),
        }
    }
}
