//! How often each peer has its turn, so that all together cost what was promised.

use std::time::Duration;

use super::PER_SECOND;

/// Up to how many peers all have their turn as often as those that carry packets.
pub const ALIKE: usize = 64;
/// A way that works is looked at this much more seldom where it is not the one that pods' packets take.
const SELDOM: u32 = 4;
/// The time between two requests on the overlay while all is well, in a small fabric.
const LEAST: Duration = Duration::from_secs(1);
/// The time between two requests on a way that is sure to fail, at least and at most.
const REST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How long the turn of a way that works may wait, so that several go at once: what part of the time between two, and how
/// long at most.
const WAITS: u32 = 100;
const LONGEST: Duration = Duration::from_millis(250);
/// The time between two to a peer that carries packets in a large fabric, in seconds, and the share of all turns that such
/// peers have at most.
const BUSY: f64 = 2.0;
const SHARE: f64 = 0.5;
/// What part of all requests turns take, of up to so many peers and of many: the rest is for what has to be looked into at
/// once. What one costs the processor grows with the number of peers.
const TURNS: [f64; 2] = [0.8, 0.32];
const FEW: f64 = 160.0;

/// The time between two requests to a peer on the overlay, while all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// One that carries packets.
    pub(super) busy: Duration,
    /// Any other.
    pub(super) all: Duration,
}

impl Pace {
    /// Of so many peers, of which some carry packets.
    pub(super) fn of(peers: usize, busy: usize) -> Self {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let (peers, busy) = (number(peers), number(busy.min(peers)));
        let limit = f64::from(PER_SECOND) * turns(peers);
        let beside = peers / f64::from(SELDOM);
        let even = (peers + beside) / limit;
        if even <= BUSY {
            let pace = LEAST.max(Duration::from_secs_f64(even));
            return Self { busy: pace, all: pace };
        }
        let often = BUSY.max(busy / (limit * SHARE)).min(even);
        // What those that carry packets take, the others go without.
        let all = (peers - busy + beside) / (limit - busy / often);
        Self { busy: Duration::from_secs_f64(often), all: Duration::from_secs_f64(all) }
    }

    /// How long the turn of a way on which all is well may wait.
    pub(super) fn wait(self) -> Duration {
        if is_limited(self.all) { (self.all / WAITS).min(LONGEST) } else { Duration::ZERO }
    }
}

/// What part of all requests turns take.
fn turns(peers: f64) -> f64 {
    let [few, many] = TURNS;
    if peers <= FEW { few } else { (few * (FEW / peers).sqrt()).max(many) }
}

/// The time between two requests on a way that is not the one of pods' packets, in a fabric where these are limited.
pub(super) fn seldom(every: Duration) -> Duration {
    if is_limited(every) { every * SELDOM } else { every }
}

/// The time between two requests on a way that is sure to fail.
pub(super) fn rest(every: Duration) -> Duration {
    every.clamp(REST[0], REST[1])
}

/// Whether each has its turn as often as all together may.
pub(super) fn is_limited(every: Duration) -> bool {
    every > LEAST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many there are, and however many of them carry packets.
        #[test]
        fn it_stays_within_the_limit_and_who_carries_packets_waits_no_longer(peers in 0_usize..20_000, share in 0_usize..=100) {
            let busy = peers * share / 100;
            let pace = Pace::of(peers, busy);
            prop_assert!(pace.busy >= LEAST && pace.busy <= pace.all);
            let (often, all) = (pace.busy.as_secs_f64(), pace.all.as_secs_f64());
            let sent = busy as f64 / often + (peers - busy) as f64 / all + peers as f64 / 4.0 / all;
            prop_assert!(sent <= f64::from(PER_SECOND) * TURNS[0] * 1.001, "{sent}");
        }
    }

    #[test]
    fn some_that_carry_packets_are_asked_every_two_seconds() {
        let seconds = |peers, busy| {
            let pace = Pace::of(peers, busy);
            (pace.busy.as_secs_f64(), pace.all.as_secs_f64())
        };
        assert_eq!(seconds(3, 2), (1.0, 1.0));
        assert_eq!(seconds(64, 10), (2.0, 2.0));
        let alike = |peers| Pace::of(peers, 1).busy == Pace::of(peers, 1).all;
        assert!(alike(ALIKE) && !alike(ALIKE + 1));
        assert_eq!(seconds(160, 0), (2.0, 5.0));
        assert_eq!(seconds(640, 0), (2.0, 40.0));
        assert_eq!(seconds(1_000, 0), (2.0, 78.125));
        assert_eq!(seconds(1_000, 16), (2.0, 154.25));
        assert_eq!(seconds(1_000, 1_000), (78.125, 78.125));
    }
}
