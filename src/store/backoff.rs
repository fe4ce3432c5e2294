//! Waiting between attempts.

use std::time::Duration;

use super::StoreError;

/// Doubling, jittered waits: 100 ms at first, at most one second, so that a store that is back is noticed within two. One
/// that refuses is not helped by asking: what it wants takes people, and signing in costs it more than it costs us.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(1);
    const MOST_REFUSED: Duration = Duration::from_secs(30);

    /// The next wait after this error: between half of the full one and all of it.
    pub(super) fn after(&mut self, error: &StoreError) -> Duration {
        let refused = matches!(error, StoreError::Refused { .. });
        let most = if refused { Self::MOST_REFUSED } else { Self::MOST };
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(9)).min(most);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// The next wait is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_start_over() {
        let mut backoff = Backoff::default();
        let (store, cause) = ("etcd".to_owned(), "it is away".to_owned());
        let away = StoreError::Unavailable { store: store.clone(), cause: cause.clone() };
        let waits: Vec<_> = (0..20).map(|_| backoff.after(&away)).collect();
        assert!(waits[0] >= Duration::from_millis(50) && waits[0] <= Duration::from_millis(100), "{waits:?}");
        assert!(waits[6..].iter().all(|w| *w >= Duration::from_millis(500) && *w <= Duration::from_secs(1)));
        let refused = StoreError::Refused { store, cause };
        assert!(backoff.after(&refused) >= Duration::from_secs(15));
        backoff.reset();
        assert!(backoff.after(&away) <= Duration::from_millis(100));
        let waits: Vec<_> = (0..20).map(|_| backoff.after(&refused)).collect();
        assert!(waits[..3].iter().sum::<Duration>() < Duration::from_secs(2), "{waits:?}");
        assert!(waits[10..].iter().all(|w| *w >= Duration::from_secs(15) && *w <= Duration::from_secs(30)));
    }
}
