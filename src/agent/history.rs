//! What was: faults that came up, repairs by kind, and how far this host is behind the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

use twill_backends::diff::Op;
use twill_backends::fault::{Code, Fault};
use twill_backends::tenure::Standing;

use super::status::HistoryStatus;

/// What was.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What was wrong when it was looked at last.
    present: BTreeSet<(Code, String)>,
    told: HistoryStatus,
    repairs: BTreeMap<&'static str, u64>,
    /// Whether the lease is another's, or nobody's, though this host had it.
    bereft: bool,
    /// Since when the store is away, or else a change of it waits for the kernel.
    behind: Option<Instant>,
}

impl History {
    /// Takes note of what is wrong.
    pub(super) fn sees(&mut self, faults: &[Fault]) {
        let present: BTreeSet<_> = faults.iter().map(|fault| (fault.code, fault.subject.clone())).collect();
        let summed = |code: Code| self.present.contains(&(code, Fault::MANY_PEERS.to_owned()));
        for (code, _) in present.difference(&self.present).filter(|(code, _)| !summed(*code)) {
            *self.told.faults.entry(code.to_string()).or_default() += 1;
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.told.last_fault_unix_s = since.ok().map(|since| since.as_secs());
        }
        self.present = present;
    }

    /// Takes note of whether something the store has, or may have, is not in the kernel.
    pub(super) fn follows(&mut self, behind: bool, now: Instant) {
        self.behind = if behind { self.behind.or(Some(now)) } else { None };
    }

    /// How long that is so, in seconds.
    pub(super) fn lag_s(&self, now: Instant) -> f64 {
        self.behind.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64())
    }

    /// Takes note of repairs of the kernel.
    pub(super) fn repaired(&mut self, done: &[Op]) {
        for op in done {
            *self.repairs.entry(kind(op)).or_default() += 1;
        }
    }

    /// Takes note of whose the lease is.
    pub(super) fn holds(&mut self, standing: &Standing) {
        match standing {
            Standing::Lost(_) | Standing::Parked(..) => self.bereft = true,
            Standing::Held(_) if std::mem::take(&mut self.bereft) => {
                *self.repairs.entry("lease").or_default() += 1;
            }
            Standing::Held(_) | Standing::Remembered(_) | Standing::Without => {}
        }
    }

    /// How often what was mended, `others` beside the kernel.
    pub(super) fn repairs(&self, others: [(&'static str, u64); 3]) -> BTreeMap<String, u64> {
        let none = KINDS.map(|kind| (kind, 0));
        let all = none.into_iter().chain(self.repairs.iter().map(|(kind, count)| (*kind, *count)));
        all.chain(others).map(|(kind, count)| (kind.to_owned(), count)).collect()
    }

    /// What has gone wrong.
    pub(super) const fn told(&self) -> &HistoryStatus {
        &self.told
    }
}

const KINDS: [&str; 6] = ["fdb", "lease", "link", "neighbour", "route", "sysctl"];

const fn kind(op: &Op) -> &'static str {
    match op {
        Op::SetFdb(_) | Op::DelFdb(_) => "fdb",
        Op::SetLink(..) | Op::DelLink(_) => "link",
        Op::SetNeigh(..) | Op::DelNeigh(_) => "neighbour",
        Op::SetRoute(..) | Op::DelRoute(..) => "route",
        Op::SetSysctl(..) => "sysctl",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};
    use twill_backends::record::{Held, Term};

    use super::*;

    #[test]
    fn a_fault_counts_when_it_comes_up_and_again_when_it_comes_back() {
        let mut history = History::default();
        let fault = |subject: &str| Fault::new(Code::KernelRefused, subject, "busy");
        for faults in
            [vec![fault("a")], vec![fault("a"), fault("b")], vec![fault("b")], vec![], vec![fault("a")]]
        {
            history.sees(&faults);
        }
        assert_eq!(history.told().faults, BTreeMap::from([("kernel-refused".to_owned(), 3)]));
        // Fewer of many are no new ones.
        history.sees(&[fault(Fault::MANY_PEERS)]);
        history.sees(&[fault("a"), fault("b")]);
        assert_eq!(history.told().faults["kernel-refused"], 4);
        assert!(history.told().last_fault_unix_s.is_some());
    }

    #[test]
    fn the_lag_is_that_of_the_oldest() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        history.follows(true, at(0));
        history.follows(true, at(3));
        assert!((history.lag_s(at(5)) - 5.0).abs() < 1e-9);
        history.follows(false, at(6));
        assert!(history.lag_s(at(9)).abs() < 1e-9);
    }

    #[test]
    fn a_lease_that_was_lost_is_mended_once_it_is_held_again() {
        let mut history = History::default();
        let lease = || Lease {
            key: LeaseKey::new("10.5.1.0-24"),
            subnets: Subnets::NONE,
            attrs: Attrs::default(),
            vacant: false,
        };
        let held = Standing::Held(Held { lease: lease(), revision: 7, term: Term::Permanent });
        let mended =
            |history: &History| history.repairs([("file", 0), ("firewall", 0), ("guard", 0)])["lease"];
        for standing in [&Standing::Without, &held, &held, &Standing::Lost(lease()), &Standing::Lost(lease())]
        {
            history.holds(standing);
            assert_eq!(mended(&history), 0);
        }
        history.holds(&held);
        history.holds(&held);
        assert_eq!(mended(&history), 1);
    }

    #[test]
    fn every_kind_is_there_from_the_start() {
        let mut history = History::default();
        history.repaired(&[Op::SetSysctl("a".to_owned(), "1".to_owned())]);
        let repairs = history.repairs([("file", 1), ("firewall", 2), ("guard", 0)]);
        assert_eq!((repairs.len(), repairs["sysctl"], repairs["route"], repairs["firewall"]), (9, 1, 0, 2));
    }
}
