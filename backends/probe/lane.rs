//! One way to one peer: what was sent, what was answered, and what that says.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::agenda::Slot;
use super::echo::{Echo, Seen};
use super::pace::{is_limited, rest, seldom};
use super::pending::{Kind, Pending, Requests};
use super::search::Search;
use super::verdict::{Sign, Up};
use super::window::Window;
use super::{Measured, Way, smallest};

/// How many small requests in a row are not answered before the way counts as down.
const MISSES: u32 = 4;
/// The time between requests after one was not answered; the answers to them are not waited for.
const AGAIN: Duration = Duration::from_millis(200);
/// How many have to be missed until they are no longer sent so quickly.
const HASTY: u32 = 6;
/// How many requests a peer says of whether they came.
const REMEMBERED: usize = 32;
/// How long what was heard is news.
const FRESH: Duration = Duration::from_secs(4);

/// One way to one peer.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    way: Way,
    pub(super) to: IpAddr,
    /// Whether there is another way, which is the one that pods' packets take.
    seldom: bool,
    pub(super) search: Search,
    window: Window,
    /// Whether a large request that went alone was not answered.
    wary: bool,
    /// Which requests did not come there.
    there: Window,
    /// The number of the next request.
    seq: u32,
    /// Requests without an answer, the oldest first.
    pending: Requests,
    /// How many small requests in a row were not answered, the number of the first of them, and since when that is known.
    misses: u32,
    missed: u32,
    failing: Option<Instant>,
    /// Those of which it is not known whether they came there.
    unclear: VecDeque<u32>,
    answered_at: Option<Instant>,
    /// When anything came, and when the peer's kernel said that nobody listens.
    heard_at: Option<Instant>,
    pub(super) refused_at: Option<Instant>,
    /// When the peer's kernel answered an ICMP echo.
    pub(super) echoed_at: Option<Instant>,
    /// Which of the peer's requests came.
    pub(super) seen: Seen,
    /// Which of our requests came there, as the peer says, and when it said so.
    told: Option<(Seen, Instant)>,
    /// The largest packet that the peer knows to arrive.
    told_mtu: Option<u16>,
    /// When something was last sent.
    pub(super) spoke_at: Option<Instant>,
    /// When the next small request is due.
    beat: Instant,
    /// Whether that is sooner than its turn, because the other way to the peer fails.
    hurried: bool,
    /// For when this way is on the agenda, if it is.
    pub(super) slot: Option<Slot>,
    sent: u64,
    answered: u64,
}

impl Lane {
    pub(super) fn new(way: Way, to: IpAddr, search: Search, seq: u32, now: Instant) -> Self {
        Self {
            way,
            to,
            seldom: false,
            search,
            window: Window::default(),
            wary: false,
            there: Window::default(),
            seq,
            pending: Requests::default(),
            misses: 0,
            missed: seq,
            failing: None,
            unclear: VecDeque::new(),
            answered_at: None,
            heard_at: None,
            refused_at: None,
            echoed_at: None,
            seen: Seen::default(),
            told: None,
            told_mtu: None,
            spoke_at: None,
            beat: now,
            hurried: false,
            slot: None,
            sent: 0,
            answered: 0,
        }
    }

    /// The same beside another way, which is the one that pods' packets take.
    pub(super) fn beside(self, another: bool) -> Self {
        Self { seldom: another, ..self }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Instant {
        let sized = if self.passing() { self.search.due() } else { self.beat };
        self.beat.min(sized).min(self.pending.expiry().unwrap_or(self.beat))
    }

    /// Whether small packets come back, so that a large one that does not says something.
    pub(super) fn passing(&self) -> bool {
        self.misses == 0 && self.answered_at.is_some()
    }

    /// Whether all is well, and its turn is all that is waited for.
    pub(super) fn is_calm(&self) -> bool {
        let open = self.hurried || self.wary || self.pending.expiry().is_some();
        !open && self.passing() && self.search.is_settled()
    }

    /// Takes note of requests that were not answered in time.
    pub(super) fn expire(&mut self, now: Instant) {
        for pending in self.pending.expire(now) {
            match pending.kind {
                Kind::Small => self.miss(&pending, now),
                Kind::Alone => {
                    self.wary = true;
                    self.search.again(now);
                }
                Kind::Sized { passed, .. } => self.search.lost(pending.size, passed, now),
            }
        }
    }

    fn miss(&mut self, pending: &Pending, now: Instant) {
        if self.misses == 0 {
            (self.missed, self.failing) = (pending.seq, Some(now));
        }
        self.misses += 1;
        self.window.outcome(true);
        self.unclear.push_back(pending.seq);
        self.unclear.truncate(REMEMBERED);
        if self.misses < HASTY {
            self.beat = self.beat.min(now + AGAIN);
        }
    }

    /// The next request that is due, and its size. `every`: the time between two while all is well.
    pub(super) fn request(&mut self, every: Duration, now: Instant) -> Option<(u32, u32)> {
        let every = self.every(every);
        self.search.pace(every * 2);
        let small = smallest(self.to.is_ipv6());
        let (seq, until) = (self.seq, now + self.window.patience());
        // A large one goes first, and a small one right after it.
        let sized = if self.passing() { self.search.probe(now).filter(|size| *size != small) } else { None };
        let (size, kind) = match sized {
            // In a fabric where requests are limited it goes alone, in the place of a small one, until it is not answered.
            Some(size) if is_limited(every) && !self.wary && self.search.is_settled() => {
                self.beat = self.beat.max(until);
                (size, Kind::Alone)
            }
            Some(size) => {
                self.beat = now;
                (size, Kind::Sized { beside: None, passed: false })
            }
            None if self.beat <= now => {
                self.beat = now + self.pause(every);
                self.pending.go_beside(seq);
                (small, Kind::Small)
            }
            None => return None,
        };
        self.seq = self.seq.wrapping_add(1);
        self.hurried = false;
        self.pending.push(Pending { seq, size, kind, at: now, until });
        (self.sent, self.spoke_at) = (self.sent + 1, Some(now));
        Some((seq, size))
    }

    /// The time until the next small request.
    fn pause(&self, every: Duration) -> Duration {
        match self.misses {
            0 => every,
            1..HASTY => AGAIN.min(every),
            _ => rest(every),
        }
    }

    /// Has the next small request sent at once, because the other way to the peer fails.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.beat = self.beat.min(now);
        self.hurried = true;
    }

    /// A request was not sent, so that nothing is learnt of the peer: this host does not send packets of its size, or
    /// none at all.
    pub(super) fn unsent(&mut self, seq: u32, oversized: bool, now: Instant) {
        if let Some(pending) = self.pending.take(seq).filter(|_| oversized) {
            self.search.refused(pending.size, now);
        }
    }

    /// An answer came.
    pub(super) fn answer(&mut self, seq: u32, every: Duration, now: Instant) {
        let Some(pending) = self.pending.take(seq) else { return };
        self.window.trip(now.saturating_duration_since(pending.at));
        self.answered += 1;
        self.answered_at = Some(now);
        (self.misses, self.failing) = (0, None);
        self.refused_at = None;
        if pending.kind == Kind::Small {
            self.window.outcome(false);
            self.there.outcome(false);
            self.pending.vouch(seq, now + self.window.percentile(50).unwrap_or_default());
        } else {
            self.search.arrived(pending.size, now);
            self.wary = false;
        }
        self.beat = self.beat.max(now + self.every(every));
    }

    fn every(&self, every: Duration) -> Duration {
        if self.seldom { seldom(every) } else { every }
    }

    /// Something came from the peer on this way.
    pub(super) fn heard(&mut self, echo: &Echo, now: Instant) {
        self.heard_at = Some(now);
        self.told_mtu = echo.mtu;
    }

    /// The peer said, on whatever way, which of the requests on this one came.
    pub(super) fn told(&mut self, seen: Seen, now: Instant) {
        self.told = Some((seen, now));
        for seq in std::mem::take(&mut self.unclear) {
            self.there.outcome(!seen.has(seq));
        }
    }

    /// Whether the last small request was not answered.
    pub(super) const fn failing(&self) -> bool {
        self.failing.is_some()
    }

    /// The largest packet that arrives, by what both sides found.
    pub(super) fn agreed(&self) -> Option<u32> {
        let own = self.search.mtu()?;
        Some(self.told_mtu.map_or(own, |told| own.min(u32::from(told))))
    }

    pub(super) fn up(&self) -> Up {
        match (self.misses >= MISSES, self.answered_at) {
            (true, _) => Up::No,
            (false, Some(_)) => Up::Yes,
            (false, None) => Up::Unknown,
        }
    }

    pub(super) fn sign(&self, every: Duration, now: Instant) -> Sign {
        let fresh = FRESH.max(if self.failing.is_some() { rest(every) * 2 } else { every * 3 });
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) <= fresh);
        // What came before it failed says nothing of the failure.
        let since = |at: Option<Instant>| at.filter(|at| self.failing.is_none_or(|failing| *at > failing));
        let told = self.told.filter(|(_, at)| lately(Some(*at)));
        Sign {
            up: self.up(),
            answered_at: self.answered_at,
            failing: self.failing,
            heard: lately(since(self.heard_at)),
            reaches: told.map(|(seen, _)| seen.reaches(self.missed)),
            refused: lately(self.refused_at),
            echoes: lately(since(self.echoed_at)),
        }
    }

    pub(super) fn measured(&self, now: Instant) -> Measured {
        let trips = self.window.percentiles([50, 99]);
        Measured {
            way: self.way,
            to: self.to,
            up: self.up(),
            p50: trips.map(|[p50, _]| p50),
            p99: trips.map(|[_, p99]| p99),
            loss: self.window.loss(),
            loss_there: self.there.loss(),
            mtu: self.search.mtu(),
            sent: self.sent,
            answered: self.answered,
            age: self.answered_at.map(|at| now.saturating_duration_since(at)),
        }
    }
}
