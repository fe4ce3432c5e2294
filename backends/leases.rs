//! The set of leases, and how what a store reports changes it.
//!
//! # Why deletions are held back
//!
//! A peer that leaves is forgotten at once. But when many leave together, it is more likely that the store was wiped,
//! or restored from an old copy, than that their hosts are gone; to act on it would cut off pods that run. So once more
//! than `max(3, 20 %)` of the leases went within ten seconds, those ten seconds are taken back and all deletions wait:
//! each until its lease is written again, at most for the time given to [`Leases::new`]. That the first few of a wiped
//! store's deletions were acted on before the rest arrived costs nothing if they arrive together, as etcd sends them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::fault::{Code, Fault};
use crate::index::{Index, Mark};
use crate::lease::{Lease, LeaseKey};

mod hold;

use hold::{Holding, Loss, counted};

/// What a store reports about leases.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one event is in flight at a time; a box would only add an allocation"
)]
pub enum LeaseEvent {
    /// All there is.
    Snapshot {
        /// The leases that decode.
        leases: Vec<Lease>,
        /// The keys that do not, or whose values do not.
        faults: Vec<(LeaseKey, Fault)>,
    },
    /// A lease was written.
    Put(Lease),
    /// A lease is gone.
    Delete(LeaseKey),
    /// What was written under this key does not decode.
    Bad(LeaseKey, Fault),
}

/// All leases that count: those in the store, the last good value of those that do not decode any more, and those whose
/// deletion is held.
#[derive(Debug)]
pub struct Leases {
    leases: BTreeMap<LeaseKey, Lease>,
    /// What the leases claim.
    index: Index,
    /// Why a key does not decode.
    faults: BTreeMap<LeaseKey, Fault>,
    /// Which leases the store does not have any more, and until when each stays.
    held: BTreeMap<LeaseKey, Instant>,
    /// Deletions acted on within the window, oldest first.
    losses: VecDeque<Loss>,
    holding: Option<Holding>,
    hold: Duration,
}

impl Leases {
    /// No leases. A deletion is held for at most `hold`; zero acts on all at once.
    #[must_use]
    pub const fn new(hold: Duration) -> Self {
        Self {
            leases: BTreeMap::new(),
            index: Index::new(),
            faults: BTreeMap::new(),
            held: BTreeMap::new(),
            losses: VecDeque::new(),
            holding: None,
            hold,
        }
    }

    /// Takes in what a store reports at `now`, and returns the keys whose lease came, went or changed.
    pub fn apply(&mut self, event: LeaseEvent, now: Instant) -> BTreeSet<LeaseKey> {
        let mut changed = BTreeSet::new();
        let any_held = !self.held.is_empty();
        match event {
            LeaseEvent::Snapshot { leases, faults } => self.snapshot(leases, faults, now, &mut changed),
            LeaseEvent::Put(lease) => self.put(lease, &mut changed),
            LeaseEvent::Delete(key) => {
                self.faults.remove(&key);
                self.lose(vec![key], now, &mut changed);
            }
            LeaseEvent::Bad(key, fault) => self.bad(key, fault),
        }
        if any_held && self.held.is_empty() {
            self.holding = None;
        }
        changed
    }

    /// Holds all deletions from `now` on, those of the last ten seconds included: the store itself cannot be trusted
    /// for the reason `why`. Returns the keys whose lease came back.
    pub fn hold(&mut self, now: Instant, why: impl Into<String>) -> BTreeSet<LeaseKey> {
        let mut changed = BTreeSet::new();
        self.begin(now, why.into(), &mut changed);
        changed
    }

    /// When [`Leases::expire`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Acts on the deletions that were held long enough, and returns their keys.
    pub fn expire(&mut self, now: Instant) -> BTreeSet<LeaseKey> {
        let over: BTreeSet<LeaseKey> =
            self.held.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        for key in &over {
            self.remove(key);
        }
        if self.held.is_empty() && self.holding.as_ref().is_some_and(|holding| holding.until <= now) {
            self.holding = None;
        }
        over
    }

    /// The leases whose deletion is held, and until when.
    pub fn held(&self) -> impl Iterator<Item = (&LeaseKey, Instant)> {
        self.held.iter().map(|(key, until)| (key, *until))
    }

    /// Whether the deletion of this lease is held.
    #[must_use]
    pub fn is_held(&self, key: &LeaseKey) -> bool {
        self.held.contains_key(key)
    }

    /// Why deletions are held, if any are.
    #[must_use]
    pub fn held_because(&self) -> Option<&str> {
        self.holding.as_ref().filter(|_| !self.held.is_empty()).map(|holding| holding.why.as_str())
    }

    /// What is wrong: the keys that do not decode, in their order, and that deletions are held.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let held = self.held_because().map(|why| {
            let cause = format!("{why}: the deletion of {} is held", counted(self.held.len()));
            Fault::new(Code::DeletionsHeld, "leases", cause)
        });
        self.faults.values().cloned().chain(held)
    }

    /// One lease.
    #[must_use]
    pub fn get(&self, key: &LeaseKey) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// The leases in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The leases that hosts have, in the order of their keys.
    pub fn of_hosts(&self) -> impl Iterator<Item = &Lease> {
        self.iter().filter(|lease| !lease.vacant)
    }

    /// How many leases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn snapshot(
        &mut self,
        leases: Vec<Lease>,
        faults: Vec<(LeaseKey, Fault)>,
        now: Instant,
        changed: &mut BTreeSet<LeaseKey>,
    ) {
        let present: BTreeSet<&LeaseKey> =
            leases.iter().map(|lease| &lease.key).chain(faults.iter().map(|(key, _)| key)).collect();
        let missing = self.leases.keys().filter(|key| !present.contains(key)).cloned().collect();
        self.faults.clear();
        // What is gone goes first, so that it is weighed against what there was; a held lease gives way to what follows.
        self.lose(missing, now, changed);
        leases.into_iter().for_each(|lease| self.put(lease, changed));
        faults.into_iter().for_each(|(key, fault)| self.bad(key, fault));
    }

    fn put(&mut self, lease: Lease, changed: &mut BTreeSet<LeaseKey>) {
        self.faults.remove(&lease.key);
        self.held.remove(&lease.key);
        self.losses.retain(|loss| loss.lease.key != lease.key);
        for key in self.rivals(&lease) {
            if self.held.contains_key(&key) {
                self.remove(&key);
                changed.insert(key);
            }
        }
        if self.leases.get(&lease.key) != Some(&lease) {
            self.remove(&lease.key);
            changed.insert(lease.key.clone());
            self.insert(lease);
        }
    }

    /// The key is there, so whatever lease it had counts as before.
    fn bad(&mut self, key: LeaseKey, fault: Fault) {
        self.held.remove(&key);
        self.losses.retain(|loss| loss.lease.key != key);
        self.faults.insert(key, fault);
    }

    /// The other leases that claim what this one claims.
    fn rivals(&self, lease: &Lease) -> BTreeSet<LeaseKey> {
        let sharing = marks(lease).flat_map(|mark| self.index.sharing(&mark).cloned().collect::<Vec<_>>());
        sharing.filter(|key| *key != lease.key).collect()
    }

    fn insert(&mut self, lease: Lease) {
        marks(&lease).for_each(|mark| self.index.insert(mark, lease.key.clone()));
        self.leases.insert(lease.key.clone(), lease);
    }

    fn remove(&mut self, key: &LeaseKey) -> Option<Lease> {
        self.held.remove(key);
        let lease = self.leases.remove(key)?;
        marks(&lease).for_each(|mark| self.index.remove(mark, key.clone()));
        Some(lease)
    }
}

fn marks(lease: &Lease) -> impl Iterator<Item = Mark> {
    let nets = lease.subnets.iter().map(|(_, net)| Mark::Net(net.trunc()));
    let addresses = lease.endpoints().map(|end| Mark::Address(end.public));
    nets.chain(addresses).chain(lease.attrs.node_id.clone().map(Mark::Node))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    const HOLD: Duration = Duration::from_secs(300);

    fn lease(n: u8) -> Lease {
        samples::lease(samples::V4, n)
    }

    fn key(n: u8) -> LeaseKey {
        lease(n).key
    }

    fn snapshot(hosts: impl IntoIterator<Item = u8>) -> LeaseEvent {
        LeaseEvent::Snapshot { leases: hosts.into_iter().map(lease).collect(), faults: Vec::new() }
    }

    fn bad(n: u8) -> (LeaseKey, Fault) {
        (key(n), Fault::new(Code::BadLeaseValue, key(n).as_str(), "junk"))
    }

    fn keys(hosts: impl IntoIterator<Item = u8>) -> BTreeSet<LeaseKey> {
        hosts.into_iter().map(key).collect()
    }

    /// Hosts 1 to `n`, and the time.
    fn fabric(n: u8) -> (Leases, Instant) {
        let now = Instant::now();
        let mut leases = Leases::new(HOLD);
        assert_eq!(leases.apply(snapshot(1..=n), now), keys(1..=n));
        (leases, now)
    }

    fn held(leases: &Leases) -> BTreeSet<LeaseKey> {
        leases.held().map(|(key, _)| key.clone()).collect()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn only_what_changed_is_named() {
        let (mut leases, now) = fabric(3);
        assert_eq!(leases.apply(LeaseEvent::Put(lease(2)), now), keys([]));
        let mut moved = lease(2);
        moved.attrs.public_ip = Some([192, 0, 2, 99].into());
        assert_eq!(leases.apply(LeaseEvent::Put(moved.clone()), now), keys([2]));
        assert_eq!(leases.get(&key(2)), Some(&moved));
        assert_eq!(leases.apply(snapshot([1, 2, 4]), now), keys([2, 3, 4]));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(9)), now), keys([]));
        assert_eq!(leases.len(), 3);
    }

    #[test]
    fn three_may_go_at_once_and_the_fourth_brings_them_back() {
        let (mut leases, now) = fabric(6);
        for n in 1..=3 {
            assert_eq!(leases.apply(LeaseEvent::Delete(key(n)), now), keys([n]));
        }
        assert_eq!(leases.apply(LeaseEvent::Delete(key(4)), now), keys(1..=3));
        assert_eq!((held(&leases), leases.len()), (keys(1..=4), 6));
        assert!(leases.is_held(&key(4)) && !leases.is_held(&key(5)));
        assert_eq!(leases.held_because(), Some("4 leases of 6 went within 10 s"));
        assert_eq!(leases.faults().map(|fault| fault.code).collect::<Vec<_>>(), [Code::DeletionsHeld]);
        assert_eq!(leases.apply(LeaseEvent::Delete(key(5)), now + secs(20)), keys([]));
        assert_eq!(leases.due(), Some(now + HOLD));
        assert_eq!(leases.expire(now + HOLD), keys(1..=4));
        assert_eq!(leases.due(), Some(now + HOLD + secs(20)));
        assert_eq!(leases.expire(now + HOLD + secs(20)), keys([5]));
        assert_eq!((leases.len(), leases.due(), leases.held_because()), (1, None, None));
    }

    #[test]
    fn a_fifth_of_a_large_fabric_may_go() {
        let (mut leases, now) = fabric(100);
        assert_eq!(leases.apply(snapshot(21..=100), now), keys(1..=20));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(21)), now), keys(1..=20));
        assert_eq!(held(&leases), keys(1..=21));
    }

    #[test]
    fn a_snapshot_that_lacks_many_is_held_as_a_whole() {
        let (mut leases, now) = fabric(10);
        assert_eq!(leases.apply(snapshot([1, 2]), now), keys([]));
        assert_eq!(held(&leases), keys(3..=10));
        assert_eq!(leases.apply(snapshot([1, 2, 11]), now), keys([11]));
        assert_eq!(leases.len(), 11);
    }

    #[test]
    fn losses_far_apart_are_acted_on() {
        let (mut leases, now) = fabric(6);
        for n in 1..=6 {
            let at = now + secs(4) * u32::from(n);
            assert_eq!(leases.apply(LeaseEvent::Delete(key(n)), at), keys([n]));
        }
        assert!(leases.is_empty());
    }

    #[test]
    fn a_peer_that_comes_back_is_no_loss() {
        let (mut leases, now) = fabric(8);
        for n in 1..=8 {
            assert_eq!(leases.apply(LeaseEvent::Delete(key(n)), now), keys([n]));
            assert_eq!(leases.apply(LeaseEvent::Put(lease(n)), now), keys([n]));
        }
        assert_eq!(held(&leases), keys([]));
    }

    #[test]
    fn the_hold_ends_when_all_are_back() {
        let (mut leases, now) = fabric(6);
        leases.apply(snapshot([]), now);
        for n in 1..=6 {
            assert_eq!(leases.apply(LeaseEvent::Put(lease(n)), now), keys([]));
        }
        assert_eq!((leases.due(), leases.faults().count()), (None, 0));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(1)), now), keys([1]));
    }

    #[test]
    fn a_store_that_is_not_trusted_loses_nobody() {
        let (mut leases, now) = fabric(3);
        leases.apply(LeaseEvent::Delete(key(1)), now);
        assert_eq!(leases.hold(now + secs(5), "the configuration vanished"), keys([1]));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(2)), now + secs(6)), keys([]));
        assert_eq!((leases.len(), held(&leases)), (3, keys([1, 2])));
        assert_eq!(leases.held_because(), Some("the configuration vanished"));
        assert_eq!(leases.expire(now + secs(6) + HOLD), keys([1, 2]));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(3)), now + secs(7) + HOLD), keys([3]));
    }

    #[test]
    fn without_a_hold_all_deletions_are_acted_on() {
        let now = Instant::now();
        let mut leases = Leases::new(Duration::ZERO);
        leases.apply(snapshot(1..=9), now);
        leases.hold(now, "no reason");
        assert_eq!(leases.apply(snapshot([]), now), keys(1..=9));
    }

    #[test]
    fn a_held_lease_gives_way_to_a_live_one() {
        // Another host gets a subnet around the held one, or the host itself gets another subnet.
        let mut wider = lease(50);
        wider.subnets.v4 = Some(samples::net("10.5.2.0/23"));
        wider.key = LeaseKey::of(&wider.subnets);
        let mut elsewhere = lease(60);
        elsewhere.attrs.public_ip = lease(4).attrs.public_ip;
        let (mut leases, now) = fabric(6);
        leases.apply(snapshot([]), now);
        let gone = |more: &Lease, hosts: &[u8]| {
            let mut keys = keys(hosts.iter().copied());
            keys.insert(more.key.clone());
            keys
        };
        assert_eq!(leases.apply(LeaseEvent::Put(wider.clone()), now), gone(&wider, &[2, 3]));
        assert_eq!(leases.apply(LeaseEvent::Put(elsewhere.clone()), now), gone(&elsewhere, &[4]));
        assert_eq!(held(&leases), keys([1, 5, 6]));
    }

    #[test]
    fn a_lease_whose_place_is_taken_is_not_held() {
        let (mut leases, now) = fabric(6);
        let mut successor = lease(60);
        successor.attrs.public_ip = lease(1).attrs.public_ip;
        leases.apply(LeaseEvent::Put(successor), now);
        leases.hold(now, "the revision went backwards");
        assert_eq!(leases.apply(LeaseEvent::Delete(key(1)), now), keys([1]));
        assert_eq!(leases.apply(LeaseEvent::Delete(key(2)), now), keys([]));
    }

    #[test]
    fn a_value_that_does_not_decode_costs_nobody_a_peer() {
        let (mut leases, now) = fabric(3);
        let (k, fault) = bad(2);
        assert_eq!(leases.apply(LeaseEvent::Bad(k, fault.clone()), now), keys([]));
        assert_eq!(leases.get(&key(2)), Some(&lease(2)));
        assert_eq!(leases.faults().collect::<Vec<_>>(), std::slice::from_ref(&fault));
        leases.apply(LeaseEvent::Put(lease(2)), now);
        assert_eq!(leases.faults().count(), 0);
        let event = LeaseEvent::Snapshot { leases: vec![lease(1)], faults: vec![bad(2), bad(9)] };
        assert_eq!(leases.apply(event, now), keys([3]));
        assert_eq!(leases.faults().count(), 2);
        assert_eq!(leases.apply(LeaseEvent::Delete(key(2)), now), keys([2]));
        assert_eq!(leases.apply(snapshot([1]), now), keys([]));
        assert_eq!(leases.faults().count(), 0);
    }

    #[test]
    fn a_held_lease_whose_key_is_there_again_with_junk_is_there() {
        let (mut leases, now) = fabric(6);
        leases.apply(snapshot([]), now);
        let (k, fault) = bad(2);
        leases.apply(LeaseEvent::Bad(k, fault), now);
        assert_eq!(held(&leases), keys([1, 3, 4, 5, 6]));
        assert!(leases.expire(now + HOLD).len() == 5 && leases.get(&key(2)).is_some());
    }

    proptest! {
        /// Whatever happens: the changed keys tell the whole difference, every held lease is there, and when the holds
        /// are over what is left is what the store has.
        #[test]
        fn changes_are_told_and_holds_end(steps in proptest::collection::vec((0_u8..7, 1_u8..12, 0_u64..8), 1..60)) {
            let mut now = Instant::now();
            let mut leases = Leases::new(HOLD);
            let mut store: BTreeMap<LeaseKey, Lease> = BTreeMap::new();
            let mut seen: BTreeMap<LeaseKey, Lease> = BTreeMap::new();
            for (what, n, wait) in steps {
                now += secs(wait);
                let mut changed = leases.expire(now);
                changed.extend(match what {
                    0..=2 => {
                        store.insert(key(n), lease(n));
                        leases.apply(LeaseEvent::Put(lease(n)), now)
                    }
                    3 | 4 => {
                        store.remove(&key(n));
                        leases.apply(LeaseEvent::Delete(key(n)), now)
                    }
                    5 => {
                        store.retain(|_, l| l.attrs.public_ip.is_some_and(|ip| ip.octets()[3] <= n));
                        let event = LeaseEvent::Snapshot { leases: store.values().cloned().collect(), faults: vec![] };
                        leases.apply(event, now)
                    }
                    _ => leases.hold(now, "test"),
                });
                for k in changed {
                    match leases.get(&k) {
                        Some(lease) => drop(seen.insert(k, lease.clone())),
                        None => drop(seen.remove(&k)),
                    }
                }
                prop_assert!(leases.iter().eq(seen.values()));
                prop_assert!(leases.held().all(|(k, until)| leases.get(k).is_some() && until > now && !store.contains_key(k)));
                prop_assert!(store.keys().all(|k| leases.get(k).is_some()));
            }
            while let Some(due) = leases.due() {
                leases.expire(due);
            }
            prop_assert!(leases.iter().eq(store.values()));
        }
    }
}
