//! Protocols that are wrong on purpose: what the checker must find.

use twill_backends::errand::{Answer, Question};
use twill_backends::record::{Guard, Held, Record, Written};

use crate::store::Store;

/// What is wrong with a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    /// Nothing: this is the program's.
    None,
    /// A lease is rewritten whatever stands there.
    RewritesBlindly,
    /// A key is created whether or not it is there.
    CreatesBlindly,
    /// A lease is deleted whatever stands there.
    DeletesBlindly,
    /// Whatever stands where a guard did not hold counts as an own write whose reply was lost.
    TrustsWhatItFinds,
    /// A host renews whatever stands where its lease stood.
    RenewsWhatIsLost,
    /// A host goes on with what an attempt brought back that it had given up.
    RenewsWhatCameLate,
    /// A lease just created does not give way to one that was there before.
    YieldsToNobody,
    /// A node id proves a lease to be ours, though an older lease takes part of what it takes.
    IgnoresWhatIsOlder,
    /// A lease that is lost is not claimed again.
    GivesUp,
}

impl Flaw {
    /// What the store does with the question.
    pub(crate) fn serve(self, store: &mut Store, question: &Question) -> Answer {
        match (self, question) {
            (Self::RewritesBlindly, Question::Write(write)) if write.guard != Guard::Absent => {
                let guard = store.records.get(&write.key).map_or(Guard::Absent, unchanged);
                let mut write = write.clone();
                write.guard = guard;
                store.serve(&Question::Write(write))
            }
            (Self::CreatesBlindly, Question::Write(write)) if write.guard == Guard::Absent => {
                let mut write = write.clone();
                write.guard = store.records.get(&write.key).map_or(Guard::Absent, unchanged);
                store.serve(&Question::Write(write))
            }
            (Self::DeletesBlindly, Question::Delete(key, revision)) => {
                let revision = store.records.get(key).map_or(*revision, |record| record.revision);
                store.serve(&Question::Delete(key.clone(), revision))
            }
            (Self::TrustsWhatItFinds, Question::Write(_)) => match store.serve(question) {
                Answer::Written(Written::Found(Some(record))) => {
                    Answer::Written(Written::Done(record.revision))
                }
                other => other,
            },
            (Self::YieldsToNobody, Question::Older(..)) => Answer::Record(None),
            (Self::IgnoresWhatIsOlder, Question::List) => match store.serve(question) {
                Answer::Listing(mut listing) => {
                    listing.records.iter_mut().for_each(|record| record.created = 0);
                    Answer::Listing(listing)
                }
                other => other,
            },
            _ => store.serve(question),
        }
    }

    /// What the host makes of an answer.
    pub(crate) fn hears(self, held: Option<&Held>, answer: Answer) -> Answer {
        match (self, held, answer) {
            (Self::RenewsWhatIsLost, Some(held), Answer::Record(Some(mut record))) => {
                record.value = held.lease.attrs.encode();
                record.created = 0;
                Answer::Record(Some(record))
            }
            (Self::RenewsWhatCameLate, Some(_), Answer::Record(Some(mut record))) => {
                record.created = 0;
                Answer::Record(Some(record))
            }
            (_, _, answer) => answer,
        }
    }
}

fn unchanged(record: &Record) -> Guard {
    Guard::Unchanged(record.revision)
}
