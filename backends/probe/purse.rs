//! How many requests may be sent: so many a second, however many are due.

use std::time::{Duration, Instant};

use super::PER_SECOND;

/// How many may be sent at once after a pause.
pub(super) const BURST: u32 = 20;
/// How many are sent at once where more are due than may be sent: to wake up for each would cost more than to send it.
const BATCH: u32 = 5;

/// What is saved up.
#[derive(Debug)]
pub(super) struct Purse {
    requests: f64,
    /// Since when more are saved up.
    since: Instant,
    /// Whether there were too few for all that was due.
    spent: bool,
}

impl Purse {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: f64::from(BURST), since: now, spent: false }
    }

    /// When there is enough to send any.
    pub(super) fn due(&self) -> Instant {
        let missing = (self.enough() - self.requests).max(0.0);
        self.since + Duration::from_secs_f64(missing / f64::from(PER_SECOND))
    }

    fn enough(&self) -> f64 {
        f64::from(if self.spent { BATCH } else { 1 })
    }

    /// Whether there is enough to send any now.
    pub(super) fn open(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * f64::from(PER_SECOND);
        (self.requests, self.since) = ((self.requests + earned).min(f64::from(BURST)), now);
        self.requests >= self.enough()
    }

    /// Whether there is one left.
    pub(super) fn has_one(&self) -> bool {
        self.requests >= 1.0
    }

    /// So many were sent.
    pub(super) fn pay(&mut self, requests: u32) {
        self.requests -= f64::from(requests);
    }

    /// All was sent that is due, or that there was enough for.
    pub(super) fn close(&mut self) {
        self.spent = !self.has_one();
    }
}
