//! The largest packet that arrives, found without a word from the routers on the way.
//!
//! # Why sizes are tried, and not errors heard
//! Routers that are too narrow say so by ICMP, which networks drop. A packet that may not be fragmented either comes or
//! does not. One that did not come may have been lost for any reason, so that a size counts as too large only after
//! several were lost in a row while small ones passed.

use std::time::{Duration, Instant};

/// How many of one size are lost in a row before it counts as too large.
const TRIES: u8 = 4;
/// How many of the size in use are lost in a row before that is looked into. More: packets pass by it.
const DOUBTS: u8 = 6;
/// The time between two of one size.
const GAP: Duration = Duration::from_millis(40);
/// The time until a search goes on that small packets did not get through.
const PAUSE: Duration = Duration::from_millis(500);
/// How many looks at the size in use there are for one at a larger one.
const LOOKS: u32 = 3;

/// Finds the largest packet that arrives, and follows it.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// What is taken to arrive without a look.
    floor: u32,
    /// What is never exceeded.
    ceiling: u32,
    /// How often the size in use is looked at.
    every: Duration,
    /// The size in use.
    found: Option<u32>,
    /// What is tried, and when the next one of it may be sent.
    trial: Trial,
    next: Instant,
    sent: u8,
    lost: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// The size in use, `looks` times until a larger one is tried.
    Found { looks: u32 },
    /// `size`, with `good` known to arrive and `bad` taken not to.
    Size { size: u32, good: u32, bad: u32 },
}

impl Search {
    /// Sizes from `floor` to `ceiling`, beginning with what was `known` to arrive before.
    pub(super) fn new(floor: u32, ceiling: u32, known: Option<u32>, now: Instant) -> Self {
        let ceiling = ceiling.max(floor);
        let found = known.map(|size| size.clamp(floor, ceiling));
        let trial = match found {
            Some(_) => Trial::Found { looks: LOOKS },
            None => Trial::Size { size: ceiling, good: floor, bad: ceiling + 1 },
        };
        let every = Duration::from_secs(1);
        Self { floor, ceiling, every, found, trial, next: now, sent: 0, lost: 0 }
    }

    /// Packets of up to `ceiling` bytes are of interest. What is known stays as far as it goes.
    pub(super) fn limit(&mut self, ceiling: u32, now: Instant) {
        let ceiling = ceiling.max(self.floor);
        if ceiling != self.ceiling {
            let every = self.every;
            *self = Self { every, ..Self::new(self.floor, ceiling, self.found, now) };
        }
    }

    /// How often the size in use is looked at.
    pub(super) fn pace(&mut self, every: Duration) {
        self.every = every;
    }

    /// The largest size that arrives, once one was found.
    pub(super) fn mtu(&self) -> Option<u32> {
        self.found
    }

    /// When there is something to send.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// The size to send.
    pub(super) fn probe(&mut self, now: Instant) -> Option<u32> {
        if self.next > now {
            return None;
        }
        match self.trial {
            Trial::Found { .. } => {
                self.next = now + self.every;
                self.found
            }
            Trial::Size { size, .. } => {
                self.sent = self.sent.saturating_add(1);
                // After the last one the outcome is waited for; should nothing be heard of them, it starts over.
                self.next = now + if self.sent < TRIES { GAP } else { self.every.max(PAUSE) * 4 };
                Some(size)
            }
        }
    }

    /// Whether nothing speaks against the size in use.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.trial, Trial::Found { .. }) && self.lost == 0
    }

    /// The last packet is to be sent again at once.
    pub(super) fn again(&mut self, now: Instant) {
        self.next = now;
    }

    /// A packet of this size was answered.
    pub(super) fn arrived(&mut self, size: u32, now: Instant) {
        match self.trial {
            Trial::Found { looks } if self.found == Some(size) => {
                self.lost = 0;
                let below = size < self.ceiling;
                if below && looks == 0 {
                    self.try_size(size + 1, size, self.ceiling + 1, now);
                } else if below {
                    self.trial = Trial::Found { looks: looks - 1 };
                }
            }
            Trial::Size { good, bad, .. } if size > good && size < bad => self.narrow(size, bad, now),
            Trial::Found { .. } | Trial::Size { .. } => {}
        }
    }

    /// A packet of this size was not answered. `passing`: whether small ones are.
    pub(super) fn lost(&mut self, size: u32, passing: bool, now: Instant) {
        let current = match self.trial {
            Trial::Found { .. } => self.found == Some(size),
            Trial::Size { size: tried, .. } => tried == size,
        };
        if !current {
            return;
        }
        if !passing {
            (self.sent, self.lost, self.next) = (0, 0, now + PAUSE);
            return;
        }
        self.lost += 1;
        match self.trial {
            Trial::Found { .. } if self.lost >= DOUBTS => {
                self.try_size((self.floor + size) / 2, self.floor, size + 1, now);
            }
            Trial::Found { .. } => self.next = self.next.min(now + GAP),
            Trial::Size { good, .. } if self.lost >= TRIES => self.narrow(good, size, now),
            Trial::Size { .. } => {
                if self.sent >= TRIES && self.lost >= self.sent {
                    self.next = now;
                }
            }
        }
    }

    /// A packet of this size was refused by this host itself: nothing larger leaves it.
    pub(super) fn refused(&mut self, size: u32, now: Instant) {
        for _ in 0..DOUBTS {
            self.lost(size, true, now);
        }
    }

    fn narrow(&mut self, good: u32, bad: u32, now: Instant) {
        if good + 1 >= bad {
            self.found = Some(good);
            self.trial = Trial::Found { looks: LOOKS };
            (self.sent, self.lost, self.next) = (0, 0, now + self.every);
            return;
        }
        // Paths are most often as wide as this host's interface, so that is tried first.
        let size = if bad > self.ceiling { self.ceiling } else { good + (bad - good) / 2 };
        self.try_size(size, good, bad, now);
    }

    fn try_size(&mut self, size: u32, good: u32, bad: u32, now: Instant) {
        self.trial = Trial::Size { size: size.max(good + 1), good, bad };
        (self.sent, self.lost, self.next) = (0, 0, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);
    const TIMEOUT: Duration = Duration::from_millis(300);

    /// A path that loses what is too large, and some of the rest.
    struct Path {
        mtu: u32,
        /// In percent.
        loss: u64,
        seed: u64,
        pending: Vec<(Instant, u32, bool)>,
        sent: u32,
    }

    impl Path {
        fn new(mtu: u32, loss: u64, seed: u64) -> Self {
            Self { mtu, loss, seed, pending: Vec::new(), sent: 0 }
        }

        fn loses(&mut self) -> bool {
            // xorshift64*
            self.seed ^= self.seed >> 12;
            self.seed ^= self.seed << 25;
            self.seed ^= self.seed >> 27;
            (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % 100 < self.loss
        }

        /// Lets time pass. Returns the share of it in which the size in use was the path's own, in percent.
        fn run(&mut self, search: &mut Search, now: &mut Instant, time: Duration) -> u32 {
            let (mut right, mut all) = (0, 0);
            let end = *now + time;
            while *now < end {
                if let Some(size) = search.probe(*now) {
                    self.sent += 1;
                    let arrives = size <= self.mtu && !self.loses();
                    let after = if arrives { STEP } else { TIMEOUT };
                    self.pending.push((*now + after, size, arrives));
                }
                *now += STEP;
                let due = |(at, ..): &(Instant, u32, bool)| *at <= *now;
                for (_, size, arrives) in self.pending.extract_if(.., |p| due(p)).collect::<Vec<_>>() {
                    if arrives {
                        search.arrived(size, *now);
                    } else {
                        search.lost(size, true, *now);
                    }
                }
                all += 1;
                right += u32::from(search.mtu() == Some(self.mtu));
            }
            right * 100 / all
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    proptest! {
        /// Whatever the path carries, up to a fifth of all packets lost: it is found, and so is each change of it.
        #[test]
        fn it_finds_what_the_path_carries_and_follows(
            mtus in prop::collection::vec(576_u32..=1450, 1..4), loss in 0_u64..=20, seed in 1_u64..,
        ) {
            let mut now = Instant::now();
            let mut search = Search::new(576, 1450, None, now);
            let mut path = Path::new(0, loss, seed);
            for mtu in mtus {
                path.mtu = mtu;
                path.run(&mut search, &mut now, seconds(60));
                let right = path.run(&mut search, &mut now, seconds(60));
                prop_assert!(right >= 75, "{mtu} with {loss} % lost: right {right} % of the time, {search:?}");
            }
        }

        /// What is in use is always between the bounds, whatever is heard in whatever order.
        #[test]
        fn no_history_leads_out_of_bounds(
            events in prop::collection::vec((0_u8..5, 0_u32..2_000, any::<bool>()), 0..200),
        ) {
            let mut now = Instant::now();
            let mut search = Search::new(576, 1450, None, now);
            let mut ceiling = 1450;
            for (kind, size, flag) in events {
                now += Duration::from_millis(50);
                let size = if flag { search.probe(now).unwrap_or(size) } else { size };
                match kind {
                    0 => search.arrived(size, now),
                    1 => search.lost(size, true, now),
                    2 => search.lost(size, false, now),
                    3 => search.refused(size, now),
                    _ => {
                        ceiling = size.max(576);
                        search.limit(size, now);
                    }
                }
                prop_assert!(search.mtu().is_none_or(|mtu| (576..=ceiling).contains(&mtu)), "{search:?}");
            }
        }
    }

    #[test]
    fn a_wide_path_takes_one_packet_and_a_narrow_one_seconds() {
        let mut now = Instant::now();
        let mut wide = Search::new(576, 1450, None, now);
        let mut path = Path::new(1450, 0, 1);
        path.run(&mut wide, &mut now, STEP * 2);
        assert_eq!((wide.mtu(), path.sent), (Some(1450), 1));
        let mut narrow = Search::new(576, 1450, None, now);
        let mut path = Path::new(1337, 0, 1);
        path.run(&mut narrow, &mut now, seconds(4));
        assert_eq!(narrow.mtu(), Some(1337));
    }

    #[test]
    fn a_path_that_shrinks_and_grows_is_followed_within_seconds() {
        let mut now = Instant::now();
        let mut search = Search::new(576, 1450, None, now);
        let mut path = Path::new(1450, 0, 1);
        path.run(&mut search, &mut now, seconds(5));
        path.mtu = 1350;
        path.run(&mut search, &mut now, seconds(7));
        assert_eq!(search.mtu(), Some(1350));
        path.mtu = 1450;
        path.run(&mut search, &mut now, seconds(10));
        assert_eq!(search.mtu(), Some(1450));
    }

    #[test]
    fn what_was_known_holds_until_it_is_found_wrong() {
        let mut now = Instant::now();
        let mut search = Search::new(576, 1450, Some(1400), now);
        assert_eq!(search.mtu(), Some(1400));
        let mut path = Path::new(1300, 0, 1);
        path.run(&mut search, &mut now, seconds(7));
        assert_eq!(search.mtu(), Some(1300));
    }

    #[test]
    fn a_path_on_which_nothing_passes_teaches_nothing() {
        let mut now = Instant::now();
        let mut search = Search::new(576, 1450, Some(1450), now);
        for _ in 0..100 {
            if let Some(size) = search.probe(now) {
                search.lost(size, false, now + TIMEOUT);
            }
            now += TIMEOUT;
        }
        assert_eq!(search.mtu(), Some(1450));
    }
}
