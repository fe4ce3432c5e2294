//! When deletions are acted on, and when they are held.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Leases;
use crate::lease::{Lease, LeaseKey};

/// How long one loss counts towards the next.
const WINDOW: Duration = Duration::from_secs(10);

/// So many losses within the window are acted on, however few leases there are.
const FEW: usize = 3;

/// A deletion that was acted on.
#[derive(Debug)]
pub(super) struct Loss {
    at: Instant,
    pub(super) lease: Lease,
    /// How many leases there were before.
    of: usize,
}

/// That deletions are held.
#[derive(Debug)]
pub(super) struct Holding {
    /// Until when deletions are held even if none is yet.
    pub(super) until: Instant,
    pub(super) why: String,
}

impl Leases {
    /// Drops these leases, or holds them.
    pub(super) fn lose(&mut self, keys: Vec<LeaseKey>, now: Instant, changed: &mut BTreeSet<LeaseKey>) {
        self.forget_old_losses(now);
        let lost = |key: &LeaseKey| self.leases.contains_key(key) && !self.held.contains_key(key);
        let gone: Vec<LeaseKey> = keys.into_iter().filter(lost).collect();
        let there = self.leases.len();
        let of = self.losses.front().map_or(there, |first| first.of);
        let lost = self.losses.len() + gone.len();
        if lost > FEW.max(of / 5) && !gone.is_empty() && !self.is_holding(now) {
            let why = format!("{} of {of} went within {} s", counted(lost), WINDOW.as_secs());
            self.begin(now, why, changed);
        }
        if self.is_holding(now) {
            self.held.extend(gone.iter().map(|key| (key.clone(), now + self.hold)));
            self.give_way(&gone, changed);
            return;
        }
        for key in gone {
            if let Some(lease) = self.remove(&key) {
                self.losses.push_back(Loss { at: now, lease, of: there });
            }
            changed.insert(key);
        }
    }

    /// Starts to hold, and takes back the losses of the window.
    pub(super) fn begin(&mut self, now: Instant, why: String, changed: &mut BTreeSet<LeaseKey>) {
        if self.hold.is_zero() {
            return;
        }
        let until = now + self.hold;
        self.holding = Some(Holding { until, why });
        self.forget_old_losses(now);
        let back: Vec<Lease> = std::mem::take(&mut self.losses).into_iter().map(|loss| loss.lease).collect();
        let keys: Vec<LeaseKey> = back.iter().map(|lease| lease.key.clone()).collect();
        self.held.extend(keys.iter().map(|key| (key.clone(), until)));
        back.into_iter().for_each(|lease| self.insert(lease));
        changed.extend(keys.iter().cloned());
        self.give_way(&keys, changed);
    }

    /// Drops those of these held leases whose place a live lease took: the subnet went to another host, or the host
    /// has another lease.
    fn give_way(&mut self, keys: &[LeaseKey], changed: &mut BTreeSet<LeaseKey>) {
        for key in keys {
            let Some(lease) = self.leases.get(key) else { continue };
            if self.rivals(lease).iter().any(|rival| !self.held.contains_key(rival)) {
                self.remove(key);
                changed.insert(key.clone());
            }
        }
    }

    fn is_holding(&self, now: Instant) -> bool {
        self.holding.as_ref().is_some_and(|holding| now < holding.until || !self.held.is_empty())
    }

    fn forget_old_losses(&mut self, now: Instant) {
        self.losses.retain(|loss| now.saturating_duration_since(loss.at) < WINDOW);
    }
}

/// `1 lease`, `2 leases`.
pub(super) fn counted(leases: usize) -> String {
    if leases == 1 { "1 lease".to_owned() } else { format!("{leases} leases") }
}
