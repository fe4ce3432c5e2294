//! What a datapath did: counted by its threads, read by everybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use twill_backends::frame::Dropped;

use super::batch::Refused;

/// What is counted besides the reasons of [`Dropped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Frames sent to peers, as they are on the wire.
    Sent,
    /// Frames from peers that were let in, as they were on the wire.
    Received,
    /// Frames written into the TAP, of which one may be many joined.
    Delivered,
    /// Questions for neighbours that were answered.
    Answered,
    /// Senders that were told that a packet is too large.
    Told,
    /// Frames that the underlay did not take: too large for it.
    UnderlayTooBig,
    /// Frames that the underlay did not take: its queues were full.
    UnderlayFull,
    /// Frames that the underlay did not take: no route, or a device that is down.
    UnderlayRefused,
    /// Frames that the TAP did not take.
    TapRefused,
}

const COUNTS: [(Count, &str); 9] = [
    (Count::Sent, "sent"),
    (Count::Received, "received"),
    (Count::Delivered, "delivered"),
    (Count::Answered, "answered"),
    (Count::Told, "told_too_big"),
    (Count::UnderlayTooBig, "underlay_too_big"),
    (Count::UnderlayFull, "underlay_full"),
    (Count::UnderlayRefused, "underlay_refused"),
    (Count::TapRefused, "tap_refused"),
];
const ALL: usize = COUNTS.len() + Dropped::ALL.len();

/// Anything that is counted, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct What(usize);

/// Counts since the datapath was opened, as of the end of each thread's last batch.
#[derive(Debug)]
pub struct Counters([AtomicU64; ALL]);

/// A thread's own counts, not yet published.
#[derive(Debug)]
pub(super) struct Tally([u64; ALL]);

impl From<Count> for What {
    fn from(count: Count) -> Self {
        Self(count as usize)
    }
}

impl From<Dropped> for What {
    fn from(reason: Dropped) -> Self {
        Self(COUNTS.len() + reason.index())
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    /// How often something happened.
    #[must_use]
    pub fn count(&self, what: Count) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }

    /// How many frames were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.0[COUNTS.len() + reason.index()].load(Ordering::Relaxed)
    }

    /// Everything by name; drops as `dropped_<reason>`, those that never happened left out.
    #[must_use]
    pub fn named(&self) -> BTreeMap<String, u64> {
        let counts = COUNTS.iter().map(|(what, name)| ((*name).to_owned(), self.count(*what)));
        let drops = Dropped::ALL.iter().map(|reason| (format!("dropped_{reason}"), self.dropped(*reason)));
        counts.chain(drops.filter(|(_, count)| *count > 0)).collect()
    }

    /// What was counted at all, by name, drops by their reason alone.
    pub(super) fn found(&self) -> BTreeMap<String, u64> {
        let names =
            COUNTS.iter().map(|(_, name)| *name).chain(Dropped::ALL.iter().map(|reason| reason.as_str()));
        let counts = names.zip(&self.0).map(|(name, count)| (name, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// Adds to one.
    pub(super) fn add(&self, What(at): What, count: u64) {
        if let Some(shared) = self.0.get(at) {
            shared.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds what a thread counted, which begins anew.
    pub(super) fn publish(&self, tally: &mut Tally) {
        for (shared, own) in self.0.iter().zip(&mut tally.0) {
            if *own > 0 {
                shared.fetch_add(std::mem::take(own), Ordering::Relaxed);
            }
        }
    }
}

impl Refused {
    /// What that is where it is the underlay that refused it.
    pub(super) const fn counts(self) -> [(Count, u64); 3] {
        [
            (Count::UnderlayTooBig, self.too_big),
            (Count::UnderlayFull, self.full),
            (Count::UnderlayRefused, self.other),
        ]
    }
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self([0; ALL])
    }

    #[inline]
    pub(super) const fn add(&mut self, what: Count, count: u64) {
        self.0[what as usize] += count;
    }

    #[inline]
    pub(super) const fn drop(&mut self, reason: Dropped) {
        self.0[COUNTS.len() + reason.index()] += 1;
    }

    pub(super) fn refused_by_underlay(&mut self, refused: Refused) {
        refused.counts().into_iter().for_each(|(what, count)| self.add(what, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_its_place_and_its_name() {
        for (at, (what, _)) in COUNTS.iter().enumerate() {
            assert_eq!(*what as usize, at);
        }
        let (counters, mut tally) = (Counters::default(), Tally::new());
        tally.add(Count::Sent, 3);
        tally.drop(Dropped::Oversize);
        counters.publish(&mut tally);
        counters.publish(&mut tally);
        assert_eq!((counters.count(Count::Sent), counters.dropped(Dropped::Oversize)), (3, 1));
        let named = counters.named();
        assert_eq!((named["sent"], named["received"], named["dropped_oversize"]), (3, 0, 1));
        assert!(!named.contains_key("dropped_no_lease"));
    }
}
