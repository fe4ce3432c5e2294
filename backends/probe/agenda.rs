//! When there is something to do about which way.
//!
//! # What can wait
//! To wake up costs several times what it costs to send a request. So the turn of a way on which all is well may wait a
//! little, until there are more: it is one of many, and comes seldom. What tells of a fault is never late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Number, Way};

/// When something is to be done, and whether it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) due: Instant,
    pub(super) waits: bool,
}

type Entry = (Instant, Number, Way);

/// What is to be done, of what may wait and of what may not.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    exact: BTreeSet<Entry>,
    waits: BTreeSet<Entry>,
}

impl Agenda {
    fn of(&mut self, slot: Slot) -> &mut BTreeSet<Entry> {
        if slot.waits { &mut self.waits } else { &mut self.exact }
    }

    pub(super) fn enter(&mut self, slot: Slot, number: Number, way: Way) {
        self.of(slot).insert((slot.due, number, way));
    }

    pub(super) fn leave(&mut self, slot: Slot, number: Number, way: Way) {
        self.of(slot).remove(&(slot.due, number, way));
    }

    /// When something has to be done, if what may wait does so for that long.
    pub(super) fn due(&self, wait: Duration) -> Option<Instant> {
        let (exact, waits) = (self.exact.first(), self.waits.first());
        exact.map(|(at, ..)| *at).into_iter().chain(waits.map(|(at, ..)| *at + wait)).min()
    }

    /// Takes what is due the longest, whether it may wait or not.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Number, Way)> {
        let first =
            if self.waits.first().is_some_and(|waits| self.exact.first().is_none_or(|exact| waits < exact)) {
                &mut self.waits
            } else {
                &mut self.exact
            };
        first.first().filter(|(at, ..)| *at <= now)?;
        first.pop_first().map(|(_, number, way)| (number, way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Course, Prober};

    #[test]
    fn what_waits_goes_with_what_does_not() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let course = Course {
            overlay: None,
            underlay: [192, 0, 2, 1].into(),
            port: 1,
            mtu: 1450,
            overhead: 0,
            known: None,
        };
        let id = (crate::lease::LeaseKey::new("a"), crate::family::Family::V4);
        let number = Prober::new(0, now).follow(&id, Some(course), now).unwrap();
        let mut agenda = Agenda::default();
        let wait = Duration::from_millis(100);
        assert_eq!((agenda.due(wait), agenda.take(at(1_000))), (None, None));
        let [over, under] = [(20, true), (70, false)].map(|(ms, waits)| Slot { due: at(ms), waits });
        agenda.enter(over, number, Way::Overlay);
        assert_eq!((agenda.due(wait), agenda.due(Duration::ZERO)), (Some(at(120)), Some(at(20))));
        agenda.enter(under, number, Way::Underlay);
        assert_eq!(agenda.due(wait), Some(at(70)));
        assert_eq!(agenda.take(at(19)), None);
        assert_eq!(agenda.take(at(70)), Some((number, Way::Overlay)));
        assert_eq!(agenda.take(at(69)), None);
        agenda.leave(under, number, Way::Underlay);
        assert_eq!((agenda.due(wait), agenda.take(at(70))), (None, None));
    }
}
