use super::*;

const ALL: Count = Count { sent: 12, answered: 12 };
const NONE: Count = Count { sent: 12, answered: 0 };

fn with(offload: bool, udp: bool) -> Checksums {
    Checksums { offload, udp }
}

fn trial(to: &str, with: Checksums, small: Count, large: Count) -> Trial {
    Trial { to: to.to_owned(), with, small, large, rate: if with.offload { 9000 } else { 3000 } }
}

fn before() -> Choice {
    Choice::untested(Wish::Auto, None)
}

/// Every setting, each with what arrives of it.
fn trials(to: &str, arrives: impl Fn(Checksums) -> (Count, Count)) -> Vec<Trial> {
    let settings = [(true, true), (false, true), (true, false), (false, false)];
    settings
        .map(|(offload, udp)| {
            let (small, large) = arrives(with(offload, udp));
            trial(to, with(offload, udp), small, large)
        })
        .into()
}

#[test]
fn nothing_tried_is_as_the_device_has_it_unless_somebody_said_how() {
    assert_eq!(before().checksums, Checksums::default());
    let found = Choice::untested(Wish::Auto, Some(with(false, false)));
    assert_eq!(found.checksums, with(false, false));
    assert!(found.because.starts_with("as the device was found") && !found.tested, "{found:?}");
    let told = Choice::untested(Wish::On, Some(with(false, false)));
    assert_eq!((told.checksums, told.because.as_str()), (with(true, false), "--checksum-offload on"));
    assert_eq!(Choice::untested(Wish::Off, None).checksums, with(false, true));
}

#[test]
fn what_arrives_whole_is_left_to_the_device() {
    let choice = choose(Wish::Auto, &before(), &trials("b", |_| (ALL, ALL)));
    assert_eq!((choice.checksums, choice.spoilt), (Checksums::default(), None));
    assert_eq!(
        choice.because,
        "what is left to the device arrives whole at 1 host; packets leave at 9.0 Gbit/s with it, 3.0 Gbit/s without"
    );
    assert_eq!(
        choice.udp_because,
        "receivers can join packets by it; packets leave at 9.0 Gbit/s so, 9.0 Gbit/s otherwise"
    );
}

#[test]
fn what_is_spoilt_is_finished_before() {
    for (small, large, what) in [
        (NONE, NONE, "packets whose checksum is left to the device do not arrive at b (0 of 24)"),
        (ALL, NONE, "large packets whose checksum is left to the device do not arrive at b (0 of 12)"),
        (
            ALL,
            Count { sent: 12, answered: 3 },
            "large packets whose checksum is left to the device do not arrive at b (3 of 12)",
        ),
    ] {
        let mut all = trials("b", |c| if c.offload { (small, large) } else { (ALL, ALL) });
        // A fault on the way to one host is enough.
        all.extend(trials("c", |_| (ALL, ALL)));
        let choice = choose(Wish::Auto, &before(), &all);
        assert_eq!(choice.checksums, with(false, true), "{choice:?}");
        assert!(choice.because.starts_with(what) && choice.because.ends_with("do (24 of 24)"), "{choice:?}");
        assert_eq!(choice.spoilt.as_deref(), Some(choice.because.as_str()));
        let forced = choose(Wish::On, &before(), &all);
        assert!(forced.checksums.offload && forced.spoilt.is_some(), "{forced:?}");
    }
}

#[test]
fn a_fault_that_is_mended_is_forgotten() {
    let off =
        choose(Wish::Auto, &before(), &trials("b", |c| if c.offload { (NONE, NONE) } else { (ALL, ALL) }));
    let on = choose(Wish::Auto, &off, &trials("b", |_| (ALL, ALL)));
    assert!(!off.checksums.offload && on.checksums.offload && on.spoilt.is_none());
}

#[test]
fn silence_says_nothing() {
    let off =
        choose(Wish::Auto, &before(), &trials("b", |c| if c.offload { (NONE, NONE) } else { (ALL, ALL) }));
    for silent in [Vec::new(), trials("b", |_| (NONE, NONE))] {
        assert_eq!(choose(Wish::Auto, &off, &silent), off);
        assert_eq!(choose(Wish::Auto, &before(), &silent), before());
    }
    // One that answers beside one that does not is enough.
    let mut some = trials("b", |_| (NONE, NONE));
    some.extend(trials("c", |_| (ALL, ALL)));
    assert!(choose(Wish::Auto, &off, &some).checksums.offload);
}

#[test]
fn loss_as_networks_have_it_is_no_fault() {
    let lossy = Count { sent: 12, answered: 8 };
    let choice = choose(Wish::Auto, &before(), &trials("b", |_| (lossy, lossy)));
    assert!(choice.checksums.offload && choice.spoilt.is_none(), "{choice:?}");
}

#[test]
fn of_two_that_are_right_the_faster_is_taken_if_it_is_clearly_so() {
    for (off, taken) in [(9000, true), (17_000, true), (18_000, false), (30_000, false), (0, true)] {
        let mut all = trials("b", |_| (ALL, ALL));
        all.iter_mut().filter(|trial| !trial.with.offload).for_each(|trial| trial.rate = off);
        let choice = choose(Wish::Auto, &before(), &all);
        assert_eq!(choice.checksums.offload, taken, "{off}: {choice:?}");
        assert_eq!(choice.because.contains("leaves slower"), !taken);
    }
}

#[test]
fn the_outer_checksum_changes_only_where_nothing_arrives_as_it_is() {
    let picky = trials("b", |c| if c.udp { (NONE, NONE) } else { (ALL, ALL) });
    let choice = choose(Wish::Auto, &before(), &picky);
    assert_eq!(choice.checksums, with(true, false));
    assert_eq!(
        choice.udp_because,
        "packets with an outer checksum do not arrive, and the device was made anew"
    );
    let without = Choice::untested(Wish::Auto, Some(with(true, false)));
    let kept = choose(Wish::Auto, &without, &trials("b", |_| (ALL, ALL)));
    assert_eq!(kept.checksums, with(true, false));
    assert!(kept.udp_because.starts_with("as the device was made"), "{kept:?}");
}

#[test]
fn hosts_that_contradict_each_other_change_nothing() {
    let mut all = trials("b", |c| if c.offload { (ALL, ALL) } else { (NONE, NONE) });
    all.extend(trials("c", |c| if c.offload { (NONE, NONE) } else { (ALL, ALL) }));
    let choice = choose(Wish::Auto, &before(), &all);
    assert_eq!((choice.checksums, choice.spoilt), (Checksums::default(), None));
}
