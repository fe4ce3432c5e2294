//! How soon to try again.

use std::time::Duration;

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
