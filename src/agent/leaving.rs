//! Leases that were deleted a moment ago.
//!
//! # Why
//! An operator may delete the key of a host that runs, or revoke its etcd lease: the host claims the same subnet again
//! within milliseconds. If all others forgot it in between, packets would be lost on the way to it. A host that is
//! really gone is not missed less for half a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_backends::lease::{Lease, LeaseKey};

/// How long a lease may take to come back.
const GRACE: Duration = Duration::from_millis(500);

/// Deleted leases, and when each counts as gone.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<LeaseKey, Instant>);

impl Leaving {
    /// A lease was deleted.
    pub(super) fn add(&mut self, key: LeaseKey, now: Instant) {
        self.0.entry(key).or_insert(now + GRACE);
    }

    /// A lease was written: it does not leave any more. Returns those that do and that are in its way, which are gone.
    pub(super) fn returned(&mut self, lease: &Lease) -> Vec<LeaseKey> {
        self.0.remove(&lease.key);
        let in_its_way = |key: &LeaseKey| {
            let theirs = key.subnets().unwrap_or_default();
            lease
                .subnets
                .iter()
                .any(|(family, net)| theirs.get(family).is_some_and(|other| overlap(net, other)))
        };
        self.take(|key, _| in_its_way(key))
    }

    /// Whether this lease was leaving; it is gone.
    pub(super) fn remove(&mut self, key: &LeaseKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// All leases were listed: that says it all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When [`Leaving::gone`] has something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Those that did not come back in time.
    pub(super) fn gone(&mut self, now: Instant) -> Vec<LeaseKey> {
        self.take(|_, at| at <= now)
    }

    fn take(&mut self, which: impl Fn(&LeaseKey, Instant) -> bool) -> Vec<LeaseKey> {
        let taken: Vec<LeaseKey> =
            self.0.iter().filter(|(key, at)| which(key, **at)).map(|(key, _)| key.clone()).collect();
        self.0.retain(|key, _| !taken.contains(key));
        taken
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use twill_backends::lease::Attrs;

    use super::*;

    fn key(text: &str) -> LeaseKey {
        LeaseKey::new(text)
    }

    fn lease(text: &str) -> Lease {
        Lease {
            key: key(text),
            subnets: key(text).subnets().unwrap(),
            attrs: Attrs::default(),
            vacant: false,
        }
    }

    #[test]
    fn a_lease_that_returns_in_time_never_left() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        leaving.add(key("10.5.1.0-24"), now);
        leaving.add(key("10.5.2.0-24"), now);
        assert_eq!(leaving.gone(now), []);
        assert_eq!(leaving.returned(&lease("10.5.1.0-24")), []);
        assert_eq!(leaving.due(), Some(now + GRACE));
        assert_eq!(leaving.gone(now + GRACE), [key("10.5.2.0-24")]);
        assert_eq!(leaving.due(), None);
    }

    #[test]
    fn a_second_deletion_does_not_put_the_first_off() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        leaving.add(key("10.5.1.0-24"), now);
        leaving.add(key("10.5.1.0-24"), now + GRACE / 2);
        assert_eq!(leaving.gone(now + GRACE), [key("10.5.1.0-24")]);
    }

    #[test]
    fn a_lease_that_takes_the_place_ends_the_wait() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        leaving.add(key("10.5.0.0-24"), now);
        leaving.add(key("10.5.9.0-24"), now);
        assert_eq!(leaving.returned(&lease("10.5.0.0-23")), [key("10.5.0.0-24")]);
        assert!(leaving.remove(&key("10.5.9.0-24")) && leaving.due().is_none());
    }
}
