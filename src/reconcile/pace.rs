//! How soon to try again.

use std::time::{Duration, Instant};

/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The longest pause once something else changed in the kernel: healing is not put off by another object's failure.
pub(crate) const HURRIED: Duration = Duration::from_millis(250);

/// The pause after the given number of failures in a row: doubling, with up to half of it taken off at random.
#[must_use]
pub(crate) fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(1.0 - 0.5 * fastrand::f64())
}

/// When to try again what failed, and how often that was done in a row.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    at: Option<Instant>,
    failures: u32,
}

impl Retry {
    /// Something else is to be done: at once.
    pub(crate) const fn restart(&mut self) {
        self.at = None;
    }

    /// It may go better by now: soon, if not at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.at = self.at.map(|at| at.min(now + HURRIED));
    }

    /// When to try; `None`: at once.
    pub(crate) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether the last try failed.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// It is done. Returns how often it had failed in a row.
    pub(crate) fn done(&mut self) -> u32 {
        std::mem::take(self).failures
    }

    /// It is not. Returns whether that is the first time in a row.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.at = Some(now + backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }
}

/// When to look at something: once it may have changed, and after a failure once the pause is over.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    look: bool,
    retry: Retry,
}

impl Pace {
    /// Something else is wanted: at once.
    pub(crate) const fn restart(&mut self) {
        self.look = true;
        self.retry.restart();
    }

    /// It may have changed, or more may be done about it: after a failure soon, if not at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.look = true;
        self.retry.hurry(now);
    }

    /// When to look; `None` while there is nothing to do.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.look.then(|| self.retry.at().unwrap_or(now))
    }

    /// It is as wanted.
    pub(crate) fn done(&mut self) {
        *self = Self::default();
    }

    /// It is not. Returns whether that is the first time in a row.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.retry.failed(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_and_are_never_alike() {
        for failures in 0..40 {
            let full = Duration::from_millis(100).saturating_mul(1 << failures.min(10)).min(BACKOFF.1);
            for _ in 0..20 {
                let pause = backoff(failures);
                assert!(pause <= full && pause >= full / 2, "{failures}: {pause:?} of {full:?}");
            }
        }
        assert_ne!(backoff(5), backoff(5));
        assert!(backoff(u32::MAX) >= Duration::from_secs(5));
    }
}
