//! Requests that were not answered yet.

use std::time::{Duration, Instant};

/// How much later than a small request a large one may be answered that was sent right before it.
const LATER: Duration = Duration::from_millis(60);

/// Requests without an answer on one way, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Vec<Pending>);

/// A request without an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) seq: u32,
    pub(super) size: u32,
    pub(super) kind: Kind,
    pub(super) at: Instant,
    pub(super) until: Instant,
}

/// What a request is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether anything passes.
    Small,
    /// Whether all passes that is sent; what it means if not, others tell.
    Alone,
    /// Whether its size does, if a small one did that was sent right after it: what a way loses for a moment, it loses of
    /// every size.
    Sized { beside: Option<u32>, passed: bool },
}

impl Requests {
    pub(super) fn push(&mut self, pending: Pending) {
        self.0.push(pending);
    }

    /// When the first of them should have been answered.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.0.iter().map(|pending| pending.until).min()
    }

    /// Takes those that should have been answered.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Pending> {
        self.0.extract_if(.., |pending| pending.until <= now).collect()
    }

    /// Takes the one with this number.
    pub(super) fn take(&mut self, seq: u32) -> Option<Pending> {
        let at = self.0.iter().position(|pending| pending.seq == seq)?;
        Some(self.0.remove(at))
    }

    /// A small request with this number is sent right after large ones.
    pub(super) fn go_beside(&mut self, small: u32) {
        for pending in &mut self.0 {
            if let Kind::Sized { beside: beside @ None, .. } = &mut pending.kind {
                *beside = Some(small);
            }
        }
    }

    /// A small request passed: large ones beside it will soon be known to have passed as well, or were lost for their
    /// size. `soon`: when they may come, if they take as long as small ones do.
    pub(super) fn vouch(&mut self, small: u32, soon: Instant) {
        for pending in &mut self.0 {
            if let Kind::Sized { beside, passed } = &mut pending.kind
                && *beside == Some(small)
            {
                (*passed, pending.until) = (true, pending.until.min(soon + LATER));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_judged_by_the_small_one_beside_it() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut requests = Requests::default();
        let sized = Kind::Sized { beside: None, passed: false };
        for (seq, kind) in [(1, sized), (2, Kind::Small), (3, sized), (4, Kind::Small)] {
            if kind == Kind::Small {
                requests.go_beside(seq);
            }
            requests.push(Pending { seq, size: 1_400, kind, at: now, until: at(300) });
        }
        assert_eq!(requests.expiry(), Some(at(300)));
        // The second small one passed, and that large one has until shortly after; of the first, nothing is known.
        assert_eq!(requests.take(4).map(|pending| pending.kind), Some(Kind::Small));
        requests.vouch(4, at(1));
        let over = |requests: &mut Requests, at| -> Vec<(u32, Kind)> {
            requests.expire(at).into_iter().map(|pending| (pending.seq, pending.kind)).collect()
        };
        assert_eq!(over(&mut requests, at(60)), []);
        assert_eq!(over(&mut requests, at(61)), [(3, Kind::Sized { beside: Some(4), passed: true })]);
        let silent = Kind::Sized { beside: Some(2), passed: false };
        assert_eq!(over(&mut requests, at(300)), [(1, silent), (2, Kind::Small)]);
        assert!(requests.take(1).is_none() && requests.expiry().is_none());
    }
}
