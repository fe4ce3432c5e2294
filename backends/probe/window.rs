//! What the last answers were like: round trips and loss.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an answer may take: at least, and at most or while nothing is known.
const PATIENCE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];
/// How many round trips are remembered: as many as a 99th percentile needs.
const KEPT: usize = 128;
/// How many outcomes loss is counted over.
const COUNTED: u32 = 64;

/// The last round trips and outcomes.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// In microseconds, the oldest first.
    trips: VecDeque<u32>,
    /// Bit `n`: whether the last but `n` was lost.
    lost: u64,
    count: u32,
}

impl Window {
    /// An answer came after `trip`. What was lost before the first one is no loss: nobody was there yet.
    pub(super) fn trip(&mut self, trip: Duration) {
        if self.trips.is_empty() {
            (self.lost, self.count) = (0, 0);
        }
        if self.trips.len() == KEPT {
            self.trips.pop_front();
        }
        self.trips.push_back(u32::try_from(trip.as_micros()).unwrap_or(u32::MAX));
    }

    /// A request was answered, or was not.
    pub(super) fn outcome(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u64::from(lost);
        self.count = (self.count + 1).min(COUNTED);
    }

    /// The share of requests that were not answered, 0 to 1.
    pub(super) fn loss(&self) -> Option<f64> {
        let mask = u64::MAX.checked_shr(u64::BITS - self.count)?;
        Some(f64::from((self.lost & mask).count_ones()) / f64::from(self.count))
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        let [least, most] = PATIENCE;
        self.percentile(99).map_or(most, |trip| (trip * 4).clamp(least, most))
    }

    /// The round trip that `percent` of the last ones do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Option<Duration> {
        self.percentiles([percent]).map(|[trip]| trip)
    }

    /// The same for several shares.
    pub(super) fn percentiles<const N: usize>(&self, percents: [usize; N]) -> Option<[Duration; N]> {
        // Asked for each peer, again and again: nothing is allocated for it.
        let mut trips = [0; KEPT];
        let (older, newer) = self.trips.as_slices();
        let count = older.len() + newer.len();
        trips[..older.len()].copy_from_slice(older);
        trips[older.len()..count].copy_from_slice(newer);
        let at = |percent: usize| {
            let rank = (count * percent).div_ceil(100).saturating_sub(1);
            let (_, trip, _) = trips[..count].select_nth_unstable(rank);
            Duration::from_micros(u64::from(*trip))
        };
        (count > 0).then(|| percents.map(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_known_of_nothing() {
        let window = Window::default();
        assert_eq!((window.loss(), window.percentile(50)), (None, None));
    }

    #[test]
    fn the_old_is_forgotten() {
        let mut window = Window::default();
        for n in 0..1_000 {
            window.trip(Duration::from_micros(n));
            window.outcome(n < 968);
        }
        assert_eq!(window.percentile(100), Some(Duration::from_micros(999)));
        assert_eq!(window.percentile(50), Some(Duration::from_micros(935)));
        assert_eq!(window.loss(), Some(0.5));
    }

    #[test]
    fn nothing_is_lost_before_somebody_is_there() {
        let mut window = Window::default();
        (0..5).for_each(|_| window.outcome(true));
        assert_eq!(window.loss(), Some(1.0));
        window.trip(Duration::from_micros(9));
        window.outcome(false);
        assert_eq!(window.loss(), Some(0.0));
        window.outcome(true);
        window.trip(Duration::from_micros(9));
        window.outcome(false);
        assert_eq!(window.loss(), Some(1.0 / 3.0));
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted(trips in prop::collection::vec(0_u32..1_000_000, 1..128), percent in 1_usize..=100) {
            let mut window = Window::default();
            trips.iter().for_each(|trip| window.trip(Duration::from_micros(u64::from(*trip))));
            let found = window.percentile(percent).unwrap();
            let within = |limit: u128| trips.iter().filter(|trip| u128::from(**trip) <= limit).count();
            prop_assert!(within(found.as_micros()) * 100 >= trips.len() * percent);
            prop_assert!(found.is_zero() || within(found.as_micros() - 1) * 100 < trips.len() * percent);
        }

        #[test]
        fn loss_is_the_share_of_the_last(outcomes in prop::collection::vec(any::<bool>(), 1..64)) {
            let mut window = Window::default();
            outcomes.iter().for_each(|lost| window.outcome(*lost));
            let lost = outcomes.iter().filter(|lost| **lost).count();
            prop_assert!((window.loss().unwrap() - lost as f64 / outcomes.len() as f64).abs() < 1e-9);
        }
    }
}
