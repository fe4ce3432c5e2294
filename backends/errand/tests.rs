use std::time::Duration;

use super::*;
use crate::record::Listing;
use crate::samples;

const TERM: Term = Term::Renewable { grant: 1, ttl: Duration::from_secs(60) };

fn attrs(node: &str) -> Attrs {
    Attrs {
        node_id: Some(node.to_owned()),
        session: Some("now".to_owned()),
        ..samples::lease(samples::V4, 1).attrs
    }
}

fn held(revision: u64) -> Held {
    Held { lease: Lease { attrs: attrs("us"), ..samples::lease(samples::V4, 1) }, revision, term: TERM }
}

/// What a node wrote under our key.
fn record(node: &str, revision: u64) -> Record {
    let (key, value) = (held(1).lease.key, attrs(node).encode());
    Record { key, value, revision, created: 1, grant: Some(1) }
}

fn goes_on(errand: &mut Errand, answer: Answer) -> Turn {
    errand.answered(answer, &mut |_| 0)
}

/// A store restored from a backup gives revisions out again: at ours stands what another host wrote.
#[test]
fn a_renewal_does_not_take_a_revision_for_a_proof() {
    let (mut errand, question) = Errand::renew(held(10));
    assert_eq!(question, Question::Read(held(10).lease.key));
    let turn = goes_on(&mut errand, Answer::Record(Some(record("them", 10))));
    assert!(matches!(turn, Turn::Done(Err(Setback::Lost { holder: Some(_), .. }))), "{turn:?}");
    let (mut errand, _) = Errand::renew(held(10));
    let turn = goes_on(&mut errand, Answer::Record(Some(record("us", 12))));
    assert!(matches!(turn, Turn::Ask(Question::Extend(_, 12, _))), "{turn:?}");
}

/// Our lease was deleted, another host took a part of its subnets, and then an attempt to create it took effect that was
/// given up long ago: whether the subnets are free has to be looked at again, by a claim.
#[test]
fn what_an_attempt_brought_back_late_is_not_held() {
    let late = || Answer::Record(Some(Record { created: 12, ..record("us", 12) }));
    let (mut errand, _) = Errand::renew(held(10));
    let turn = goes_on(&mut errand, late());
    assert!(matches!(turn, Turn::Done(Err(Setback::Lost { holder: None, .. }))), "{turn:?}");
    let other = Attrs { backend_type: Some("other".to_owned()), ..attrs("us") };
    let (mut errand, _) = Errand::publish(held(10), other);
    let found = Written::Found(Some(Record { created: 12, ..record("us", 12) }));
    assert!(matches!(goes_on(&mut errand, Answer::Written(found)), Turn::Ask(Question::Read(_))));
    let turn = goes_on(&mut errand, late());
    assert!(matches!(turn, Turn::Done(Err(Setback::Lost { holder: None, .. }))), "{turn:?}");
}

/// A store restored from a backup: what this process wrote stands there, and no revision says since when.
#[test]
fn in_another_history_our_record_is_kept_unless_an_older_one_is_in_its_way() {
    for older in [None, Some(record("them", 3))] {
        let (mut errand, _) = Errand::renew(held(0));
        let ours = Record { created: 5, ..record("us", 7) };
        let turn = goes_on(&mut errand, Answer::Record(Some(ours.clone())));
        assert_eq!(turn, Turn::Ask(Question::Older(ours.key.clone(), 5)));
        let turn = goes_on(&mut errand, Answer::Record(older.clone()));
        if older.is_none() {
            assert_eq!(turn, Turn::Ask(Question::Extend(ours.key, 7, TERM)));
            assert_eq!(goes_on(&mut errand, Answer::Extended(true)), Turn::Done(Ok(Some(held(7)))));
        } else {
            assert!(matches!(turn, Turn::Done(Err(Setback::Lost { holder: None, .. }))), "{turn:?}");
        }
    }
}

/// A term whose write was refused holds nothing and is ended; one whose write was not answered may yet be needed.
#[test]
fn a_term_is_ended_only_where_nothing_can_hang_on_it() {
    let config = samples::config(samples::V4, serde_json::json!({}));
    for (answer, ended) in [(Answer::Refusal, true), (Answer::Silence, false)] {
        let claim = Claim { attrs: attrs("us"), ..Claim::default() };
        let (mut errand, _) = Errand::acquire(claim, config.clone());
        assert_eq!(goes_on(&mut errand, Answer::Listing(Listing::default())), Turn::Ask(Question::Begin));
        assert!(matches!(goes_on(&mut errand, Answer::Term(TERM)), Turn::Ask(Question::Write(_))));
        let turn = goes_on(&mut errand, answer);
        assert_eq!(turn == Turn::Ask(Question::End(1)), ended, "{turn:?}");
    }
}

#[test]
fn an_answer_to_another_question_ends_the_errand() {
    let (mut errand, _) = Errand::release(held(10));
    let turn = goes_on(&mut errand, Answer::Extended(true));
    assert!(matches!(turn, Turn::Done(Err(Setback::Failed(_)))), "{turn:?}");
}

#[test]
fn a_claim_gives_up_after_a_hundred_races() {
    let config = samples::config(samples::V4, serde_json::json!({}));
    let (mut errand, _) = Errand::acquire(Claim { attrs: attrs("us"), ..Claim::default() }, config);
    let mut races = 0;
    let end = loop {
        goes_on(&mut errand, Answer::Listing(Listing::default()));
        goes_on(&mut errand, Answer::Term(TERM));
        let end = goes_on(&mut errand, Answer::Written(Written::Found(Some(record("them", 5)))));
        assert_eq!(end, Turn::Ask(Question::End(1)));
        races += 1;
        match goes_on(&mut errand, Answer::Ended) {
            Turn::Ask(Question::List) => {}
            end @ (Turn::Ask(_) | Turn::Done(_)) => break end,
        }
    };
    assert_eq!(races, 100);
    assert!(matches!(end, Turn::Done(Err(Setback::Failed(_)))), "{end:?}");
}
