//! When a frame went to a peer, in a number that a thread writes and others read.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Moments count from here.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// In this unit.
const UNIT: Duration = Duration::from_millis(100);

/// The number of the moment that is now; never 0.
pub(super) fn now() -> u32 {
    let units = BEGIN.elapsed().as_millis() / UNIT.as_millis();
    u32::try_from(units).unwrap_or(u32::MAX).saturating_add(1)
}

/// When that was, or up to 100 ms earlier.
pub(super) fn instant(moment: u32) -> Instant {
    *BEGIN + UNIT * moment.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_when_it_was() {
        let before = Instant::now();
        let at = instant(now());
        assert!(at + UNIT >= before && at <= Instant::now());
    }
}
