use std::net::Ipv4Addr;

use super::*;
use crate::allocate::ClaimError;
use crate::errand::Setback;
use crate::family::PerFamily;
use crate::record::Term;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn attrs(node: &str, session: &str) -> Attrs {
    Attrs {
        public_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
        node_id: Some(node.to_owned()),
        session: Some(session.to_owned()),
        ..Attrs::default()
    }
}

/// Another host with our identity.
fn clone() -> Attrs {
    Attrs { public_ip: Some(Ipv4Addr::new(192, 0, 2, 2)), ..attrs("us", "clone") }
}

fn lease(attrs: Attrs) -> Lease {
    let subnets = Subnets { v4: Some("10.5.1.0/24".parse().unwrap()), v6: None };
    Lease { key: LeaseKey::of(&subnets), subnets, attrs, vacant: false }
}

fn own() -> Lease {
    lease(attrs("us", "now"))
}

fn held(revision: u64) -> Held {
    Held { lease: own(), revision, term: Term::Renewable { grant: 1, ttl: TTL } }
}

fn another() -> Lease {
    let subnets = Subnets { v4: Some("10.5.9.0/24".parse().unwrap()), v6: None };
    Lease { key: LeaseKey::of(&subnets), subnets, attrs: attrs("them", "theirs"), vacant: false }
}

fn lost(holder: Option<Attrs>) -> Setback {
    Setback::Lost { key: own().key, holder: holder.map(Box::new), cause: "it is gone".to_owned() }
}

fn taken() -> Setback {
    Setback::Claim(ClaimError::SubnetTaken { key: own().key, owner: "node them".to_owned() })
}

fn exhausted() -> Setback {
    Setback::Claim(ClaimError::Exhausted { taken: 255, size: 255 })
}

fn down() -> Setback {
    Setback::Failed("etcd: connection refused".to_owned())
}

/// A host that knows what to publish, and the time.
fn newcomer() -> (Tenure, Instant) {
    let mut tenure = Tenure::new(Subnets::NONE, HOUR);
    tenure.want(attrs("us", "now"));
    (tenure, Instant::now())
}

/// A host that holds its lease at revision 10.
fn holder() -> (Tenure, Instant) {
    let (mut tenure, now) = newcomer();
    claim(&mut tenure, now);
    assert!(answer(&mut tenure, Ok(held(10)), now));
    (tenure, now)
}

/// A host whose subnet another one has.
fn parked() -> (Tenure, Instant) {
    let (mut tenure, now) = holder();
    tenure.saw_delete(&own().key, 11, now);
    claim(&mut tenure, now);
    answer(&mut tenure, Err(taken()), now);
    assert_eq!(code(&tenure), Some(Code::LeaseLost));
    (tenure, now)
}

fn claim(tenure: &mut Tenure, now: Instant) -> Claim {
    assert!(tenure.will_claim(now));
    match tenure.next_call(now) {
        Some(Call::Acquire(claim)) => claim,
        other => panic!("{other:?}"),
    }
}

fn answer(tenure: &mut Tenure, answer: Result<Held, Setback>, now: Instant) -> bool {
    tenure.answered(answer, now, |failures| Duration::from_millis(100) * 2_u32.pow(failures.min(7)))
}

fn code(tenure: &Tenure) -> Option<Code> {
    tenure.fault().map(|fault| fault.code)
}

#[test]
fn nothing_is_claimed_before_it_is_known_what_to_publish() {
    let (mut tenure, now) = (Tenure::new(Subnets::NONE, HOUR), Instant::now());
    assert_eq!((tenure.next_call(now), tenure.due(now), tenure.will_claim(now)), (None, None, false));
    tenure.want(attrs("us", "now"));
    assert_eq!(tenure.due(now), Some(now));
    let claim = claim(&mut tenure, now);
    assert_eq!((claim.attrs, claim.pinned), (attrs("us", "now"), false));
}

#[test]
fn one_call_is_made_at_a_time() {
    let (mut tenure, now) = newcomer();
    claim(&mut tenure, now);
    assert_eq!((tenure.next_call(now), tenure.due(now), tenure.will_claim(now)), (None, None, false));
    assert!(answer(&mut tenure, Ok(held(10)), now));
    assert_eq!(tenure.standing(), &Standing::Held(held(10)));
}

#[test]
fn a_lease_is_renewed_at_a_third_and_earlier_if_the_margin_says_so() {
    for (margin, after) in [(HOUR, 8 * HOUR), (20 * HOUR, 4 * HOUR), (30 * HOUR, Duration::from_secs(1))] {
        let mut tenure = Tenure::new(Subnets::NONE, margin);
        let now = Instant::now();
        tenure.want(attrs("us", "now"));
        claim(&mut tenure, now);
        answer(&mut tenure, Ok(held(10)), now);
        assert_eq!((tenure.due(now), tenure.expires_at()), (Some(now + after), Some(now + TTL)));
        assert_eq!(tenure.next_call(now + after - Duration::from_millis(1)), None);
        assert_eq!(tenure.next_call(now + after), Some(Call::Renew(held(10))));
        assert!(!answer(&mut tenure, Ok(held(10)), now + after));
        assert_eq!(tenure.expires_at(), Some(now + after + TTL));
    }
}

#[test]
fn a_reservation_is_never_renewed() {
    let (mut tenure, now) = newcomer();
    claim(&mut tenure, now);
    answer(&mut tenure, Ok(Held { term: Term::Permanent, ..held(10) }), now);
    assert_eq!((tenure.due(now), tenure.expires_at()), (None, None));
    assert_eq!(tenure.next_call(now + 100 * TTL), None);
}

#[test]
fn what_changed_is_published_and_does_not_put_off_the_renewal() {
    let (mut tenure, now) = holder();
    let moved = Attrs { public_ip: Some(Ipv4Addr::new(192, 0, 2, 99)), ..attrs("us", "now") };
    tenure.want(moved.clone());
    assert_eq!(tenure.due(now), Some(now));
    let call = tenure.next_call(now + HOUR);
    assert_eq!(call, Some(Call::Publish(Box::new(held(10)), Box::new(moved.clone()))));
    let written = Held { lease: lease(moved), revision: 12, ..held(10) };
    assert!(!answer(&mut tenure, Ok(written), now + HOUR));
    assert_eq!((tenure.due(now), tenure.expires_at()), (Some(now + 8 * HOUR), Some(now + TTL)));
    tenure.want(Attrs { session: Some("another".into()), ..tenure.lease().unwrap().attrs.clone() });
    assert_eq!(tenure.next_call(now + HOUR), None, "the session alone is not worth a write");
}

#[test]
fn a_lease_whose_value_cannot_be_written_is_renewed_all_the_same() {
    let (mut tenure, now) = holder();
    tenure.want(Attrs { public_ip: Some(Ipv4Addr::new(192, 0, 2, 99)), ..attrs("us", "now") });
    let mut at = now;
    while at < now + 8 * HOUR {
        assert!(matches!(tenure.next_call(at), Some(Call::Publish(..))), "{:?}", at - now);
        answer(&mut tenure, Err(down()), at);
        at = tenure.due(at).unwrap().max(at + HOUR);
    }
    assert_eq!(tenure.next_call(at), Some(Call::Renew(held(10))));
    answer(&mut tenure, Ok(held(10)), at);
    assert_eq!(tenure.expires_at(), Some(at + TTL));
    assert!(matches!(tenure.next_call(at), Some(Call::Publish(..))));
}

#[test]
fn a_lease_that_is_deleted_is_claimed_again_pinned() {
    let (mut tenure, now) = holder();
    tenure.saw_delete(&own().key, 9, now);
    tenure.saw_delete(&another().key, 11, now);
    assert!(matches!(tenure.standing(), Standing::Held(_)), "an older deletion, and another key");
    tenure.saw_delete(&own().key, 11, now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
    let claim = claim(&mut tenure, now);
    assert_eq!((claim.previous, claim.pinned), (own().subnets, true));
    assert!(!answer(&mut tenure, Ok(held(12)), now), "the subnet is the same");
    assert_eq!((tenure.standing(), tenure.fault()), (&Standing::Held(held(12)), None));
}

#[test]
fn a_lease_lost_by_another_nodes_write_is_claimed_again() {
    for operators in [attrs("them", "theirs"), Attrs { session: None, ..attrs("us", "") }] {
        let (mut tenure, now) = holder();
        tenure.saw_put(&lease(operators), 11, now);
        assert_eq!(tenure.standing(), &Standing::Lost(own()));
        assert!(claim(&mut tenure, now).pinned);
    }
}

#[test]
fn our_own_write_seen_in_the_store_changes_nothing() {
    let (mut tenure, now) = holder();
    tenure.saw_put(&own(), 10, now);
    tenure.saw_put(&another(), 15, now);
    tenure.saw_snapshot(Some(&own()), 16, now);
    assert_eq!(tenure.next_call(now), None);
    assert_eq!(tenure.standing(), &Standing::Held(held(10)));
}

#[test]
fn what_stands_there_since_a_write_that_is_not_known_is_read_at_once() {
    for see in [
        |tenure: &mut Tenure, now| tenure.saw_put(&own(), 14, now),
        |tenure: &mut Tenure, now| tenure.saw_store_back(now),
    ] {
        let (mut tenure, now) = holder();
        see(&mut tenure, now);
        assert_eq!(tenure.next_call(now), Some(Call::Renew(held(10))));
    }
}

#[test]
fn a_value_edited_by_hand_is_published_again() {
    let (mut tenure, now) = holder();
    let mut edited = own();
    edited.attrs.public_ip = Some(Ipv4Addr::new(203, 0, 113, 9));
    tenure.saw_put(&edited, 11, now);
    assert!(matches!(tenure.next_call(now), Some(Call::Publish(..))));
}

#[test]
fn a_renewal_that_says_lost_leads_to_a_claim() {
    for holder_now in [None, Some(attrs("them", "theirs"))] {
        let (mut tenure, now) = holder();
        let later = now + 8 * HOUR;
        assert!(matches!(tenure.next_call(later), Some(Call::Renew(_))));
        assert!(!answer(&mut tenure, Err(lost(holder_now)), later));
        assert_eq!(tenure.standing(), &Standing::Lost(own()));
        assert!(claim(&mut tenure, later).pinned);
    }
}

#[test]
fn a_wiped_store_costs_the_lease_whatever_its_revision() {
    let (mut tenure, now) = holder();
    tenure.saw_another_history(now);
    tenure.saw_snapshot(None, 1, now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
}

#[test]
fn a_store_that_went_back_and_caught_up_is_found_out_by_what_it_lacks() {
    let (mut tenure, now) = holder();
    tenure.saw_snapshot(None, 9, now);
    assert!(matches!(tenure.standing(), Standing::Held(_)), "a listing from before our write");
    tenure.saw_snapshot(None, 10, now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
}

#[test]
fn in_a_restored_store_an_earlier_session_of_ours_is_no_second_host() {
    let (mut tenure, now) = holder();
    tenure.saw_another_history(now);
    tenure.saw_snapshot(Some(&lease(attrs("us", "before"))), 3, now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
    claim(&mut tenure, now);
    answer(&mut tenure, Ok(held(4)), now);
    tenure.saw_put(&lease(clone()), 5, now);
    assert_eq!(code(&tenure), Some(Code::DuplicateIdentity));
}

#[test]
fn in_a_restored_store_our_lease_is_read_before_anything_is_written() {
    let (mut tenure, now) = holder();
    tenure.saw_another_history(now);
    let old = Attrs { public_ip: Some(Ipv4Addr::new(192, 0, 2, 98)), ..attrs("us", "now") };
    tenure.saw_snapshot(Some(&lease(old)), 7, now);
    let Some(Call::Renew(before)) = tenure.next_call(now) else { panic!("{tenure:?}") };
    assert_eq!(before.revision, 0);
    assert!(!answer(&mut tenure, Ok(Held { revision: 7, ..before }), now));
    assert!(matches!(tenure.next_call(now), Some(Call::Publish(held, _)) if held.revision == 7));
    assert_eq!(tenure.remarks(), []);
}

/// A renewal that was under way while the store was restored has read of either history.
#[test]
fn a_renewal_under_way_while_the_store_is_restored_costs_nothing() {
    let (mut tenure, now) = holder();
    let later = now + 8 * HOUR;
    assert!(matches!(tenure.next_call(later), Some(Call::Renew(_))));
    tenure.saw_another_history(later);
    tenure.saw_snapshot(Some(&own()), 7, later);
    assert!(!answer(&mut tenure, Ok(held(10)), later));
    let Some(Call::Renew(read)) = tenure.next_call(later) else { panic!("{tenure:?}") };
    assert_eq!(read.revision, 0);
    answer(&mut tenure, Ok(held(7)), later);
    assert_eq!((tenure.next_call(later), tenure.remarks()), (None, vec![]));
    // Or it found what an earlier process of this host wrote at another address.
    let (mut tenure, now) = holder();
    assert!(tenure.next_call(now + 8 * HOUR).is_some());
    tenure.saw_another_history(now);
    answer(&mut tenure, Err(lost(Some(clone()))), now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
}

#[test]
fn a_wipe_during_a_call_is_noticed_after_its_answer() {
    let (mut tenure, now) = holder();
    assert!(tenure.next_call(now + 8 * HOUR).is_some());
    tenure.saw_another_history(now);
    tenure.saw_snapshot(None, 1, now);
    assert!(matches!(tenure.standing(), Standing::Held(_)));
    answer(&mut tenure, Ok(held(10)), now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
}

#[test]
fn what_is_seen_during_a_call_is_judged_after_its_answer() {
    // Writes before the call's own.
    for revision in [8, 9] {
        let (mut tenure, now) = newcomer();
        claim(&mut tenure, now);
        tenure.saw_put(&lease(attrs("us", "before")), revision, now);
        answer(&mut tenure, Ok(held(10)), now);
        assert_eq!(tenure.standing(), &Standing::Held(held(10)));
    }
    // A deletion and another node's write after it; of each key the last one counts.
    let (mut tenure, now) = newcomer();
    claim(&mut tenure, now);
    tenure.saw_put(&own(), 10, now);
    tenure.saw_delete(&own().key, 11, now);
    answer(&mut tenure, Ok(held(10)), now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()));
    claim(&mut tenure, now);
    tenure.saw_put(&lease(clone()), 13, now);
    answer(&mut tenure, Ok(held(12)), now);
    assert_eq!(code(&tenure), Some(Code::DuplicateIdentity));
}

#[test]
fn a_parked_host_looks_again_by_and_by_and_at_once_when_a_lease_goes() {
    let (mut tenure, now) = parked();
    assert_eq!(tenure.next_call(now), None);
    assert_eq!(tenure.lease(), Some(&own()));
    let again = tenure.due(now).unwrap();
    assert_eq!(again, now + Duration::from_secs(30));
    assert!(claim(&mut tenure, again).pinned);
    assert!(!answer(&mut tenure, Err(taken()), again));
    tenure.saw_delete(&own().key, 20, again);
    assert!(claim(&mut tenure, again).pinned);
    assert!(!answer(&mut tenure, Ok(held(21)), again));
    assert_eq!((tenure.standing(), tenure.fault()), (&Standing::Held(held(21)), None));
}

#[test]
fn a_key_that_goes_during_a_refused_claim_is_not_missed() {
    let (mut tenure, now) = parked();
    claim(&mut tenure, now + Duration::from_secs(30));
    tenure.saw_delete(&own().key, 20, now);
    answer(&mut tenure, Err(taken()), now);
    assert!(tenure.will_claim(now));
}

#[test]
fn a_second_process_with_our_identity_ends_all_writing_for_good() {
    let clone = clone();
    let (mut by_watch, now) = holder();
    by_watch.saw_put(&lease(clone.clone()), 11, now);
    let (mut by_snapshot, _) = holder();
    by_snapshot.saw_snapshot(Some(&lease(clone.clone())), 11, now);
    let (mut by_answer, since) = holder();
    assert!(by_answer.next_call(since + 8 * HOUR).is_some());
    answer(&mut by_answer, Err(lost(Some(clone))), since + 8 * HOUR);
    for mut tenure in [by_watch, by_snapshot, by_answer] {
        let fault = tenure.fault().unwrap().clone();
        assert_eq!(fault.code, Code::DuplicateIdentity);
        assert!(fault.cause.contains("this one at 192.0.2.1, another at 192.0.2.2"), "{fault}");
        tenure.saw_delete(&own().key, 12, now);
        tenure.saw_delete(&another().key, 13, now);
        tenure.saw_another_history(now);
        tenure.saw_snapshot(None, 1, now);
        tenure.want(Attrs { public_ip: None, ..attrs("us", "now") });
        let late = now + 10 * TTL;
        assert_eq!((tenure.next_call(late), tenure.due(late), tenure.will_claim(late)), (None, None, false));
        assert_eq!(tenure.lease(), Some(&own()), "packets flow on");
    }
}

/// Found by the model checker: a process asks for its lease and ends; the next one of this host creates it, it expires,
/// and only then does what the first one asked for take effect.
#[test]
fn what_an_earlier_process_asked_for_may_take_effect_late_but_once() {
    let (mut tenure, now) = holder();
    tenure.saw_put(&lease(attrs("us", "before")), 11, now);
    assert_eq!(tenure.standing(), &Standing::Lost(own()), "it is claimed again");
    claim(&mut tenure, now);
    answer(&mut tenure, Ok(held(12)), now);
    tenure.saw_put(&lease(attrs("us", "before")), 13, now);
    assert_eq!(code(&tenure), Some(Code::DuplicateIdentity), "who writes twice is alive");
}

#[test]
fn an_exhausted_pool_is_waited_for() {
    let (mut tenure, now) = newcomer();
    claim(&mut tenure, now);
    assert!(!answer(&mut tenure, Err(exhausted()), now));
    assert_eq!((tenure.standing(), code(&tenure)), (&Standing::Without, Some(Code::PoolExhausted)));
    assert_eq!(tenure.due(now), Some(now + Duration::from_secs(30)));
    tenure.saw_put(&another(), 11, now);
    assert_eq!(tenure.next_call(now), None);
    tenure.saw_delete(&another().key, 12, now);
    claim(&mut tenure, now);
    assert!(answer(&mut tenure, Ok(held(13)), now));
    assert_eq!(tenure.fault(), None);
}

#[test]
fn a_remembered_lease_is_claimed_and_pinned_only_while_pods_use_it() {
    for pods in [false, true] {
        let (mut tenure, now) = newcomer();
        tenure.remember(own(), Some(now + HOUR));
        assert_eq!((tenure.lease(), tenure.expires_at()), (Some(&own()), Some(now + HOUR)));
        let carried = if pods { own().subnets } else { PerFamily::NONE };
        tenure.note(Evidence { carried, ..Evidence::default() });
        assert_eq!(tenure.occupied(), pods);
        let claim = claim(&mut tenure, now);
        assert_eq!((claim.previous, claim.pinned), (own().subnets, pods));
        assert!(!answer(&mut tenure, Ok(held(10)), now), "the store confirms what the data plane stands on");
    }
}

#[test]
fn a_remembered_subnet_nobody_uses_gives_way_to_any_other() {
    let (mut tenure, now) = newcomer();
    tenure.remember(own(), None);
    claim(&mut tenure, now);
    answer(&mut tenure, Err(exhausted()), now);
    assert_eq!(code(&tenure), Some(Code::PoolExhausted));
    tenure.saw_delete(&another().key, 12, now);
    assert!(!claim(&mut tenure, now).pinned);
    let elsewhere = Held { lease: Lease { attrs: attrs("us", "now"), ..another() }, ..held(13) };
    assert!(answer(&mut tenure, Ok(elsewhere), now), "the data plane follows");
}

#[test]
fn a_store_that_fails_is_asked_again_ever_more_slowly() {
    let (mut tenure, mut now) = newcomer();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        claim(&mut tenure, now);
        assert!(!answer(&mut tenure, Err(down()), now));
        assert_eq!(code(&tenure), Some(Code::StoreDown));
        let next = tenure.due(now).unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[0] <= Duration::from_millis(100) && pauses[0] > Duration::ZERO, "{pauses:?}");
    assert!(*pauses.last().unwrap() >= Duration::from_secs(5), "{pauses:?}");
    claim(&mut tenure, now);
    answer(&mut tenure, Ok(held(10)), now);
    assert_eq!(tenure.fault(), None);
}

#[test]
fn a_write_whose_answer_was_lost_is_seen_to_have_worked() {
    let (mut tenure, now) = holder();
    let moved = Attrs { public_ip: Some(Ipv4Addr::new(192, 0, 2, 99)), ..attrs("us", "now") };
    tenure.want(moved.clone());
    assert!(tenure.next_call(now).is_some());
    tenure.saw_put(&lease(moved), 11, now);
    answer(&mut tenure, Err(down()), now);
    assert_eq!((tenure.fault(), tenure.due(now)), (None, Some(now)));
    assert!(
        matches!(tenure.next_call(now), Some(Call::Renew(_))),
        "what it says now is known, but not since when"
    );
}

#[test]
fn a_failed_renewal_keeps_the_lease() {
    let (mut tenure, now) = holder();
    let later = now + 8 * HOUR;
    assert!(tenure.next_call(later).is_some());
    assert!(!answer(&mut tenure, Err(down()), later));
    assert!(matches!(tenure.standing(), Standing::Held(_)));
    let retry = tenure.due(later).unwrap();
    assert!(retry > later && matches!(tenure.next_call(retry), Some(Call::Renew(_))));
}
