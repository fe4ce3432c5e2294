//! When what was found out is told, and what of it is logged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use twill_backends::probe::{Finding, LineId, Verdict};

/// The time between two accounts, and until there is one of what turned: for as long as the other way to the same peer
/// takes to turn, too. For each so many peers it is as long once more: an account of a thousand takes some milliseconds,
/// and whoever looks at it some more.
const EVERY: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(100);
const PEERS: usize = 100;
/// How many changes of verdict are logged one by one.
const LOGGED: usize = 5;

/// What was told last, and when more is to be told.
pub(super) struct Account {
    verdicts: BTreeMap<LineId, Verdict>,
    at: Instant,
    /// Whether something turned since.
    turned: bool,
}

impl Account {
    pub(super) fn new(now: Instant) -> Self {
        Self { verdicts: BTreeMap::new(), at: now, turned: false }
    }

    pub(super) const fn due(&self) -> Instant {
        self.at
    }

    /// Something turned, of one of so many peers.
    pub(super) fn turn(&mut self, peers: usize, now: Instant) {
        if !self.turned {
            (self.turned, self.at) = (true, self.at.min(now + SOON * times(peers)));
        }
    }

    /// This is told. Returns whether a verdict is another one.
    pub(super) fn tell(&mut self, findings: &BTreeMap<LineId, Finding>, now: Instant) -> bool {
        (self.turned, self.at) = (false, now + EVERY * times(findings.len()));
        let before = self.verdicts.len();
        self.verdicts.retain(|line, _| findings.contains_key(line));
        let (mut news, mut turned) = (self.verdicts.len() < before, Vec::new());
        for (line, finding) in findings {
            let (known, verdict) = (self.verdicts.get(line).copied(), finding.verdict);
            // While it is looked into what a peer's silence means, what was known of it is.
            if verdict == Verdict::Unknown || known == Some(verdict) {
                continue;
            }
            self.verdicts.insert(line.clone(), verdict);
            news = true;
            if (known, verdict) != (None, Verdict::Ok) {
                turned.push((line, finding));
            }
        }
        log(&turned);
        news
    }
}

/// Logs what became of peers.
fn log(turned: &[(&LineId, &Finding)]) {
    for ((lease, family), Finding { verdict, cause, .. }) in turned.iter().take(LOGGED) {
        if *verdict > Verdict::Unknown {
            tracing::warn!(%lease, %family, %verdict, cause, "probes of a peer fail");
        } else {
            tracing::info!(%lease, %family, %verdict, "probes of a peer");
        }
    }
    if turned.len() > LOGGED {
        tracing::warn!(peers = turned.len(), "probes of many peers changed; see `twill status`");
    }
}

/// How much more seldom there is an account than of a few peers.
fn times(peers: usize) -> u32 {
    u32::try_from(peers / PEERS).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use twill_backends::family::Family;
    use twill_backends::lease::LeaseKey;

    use super::*;

    fn findings(verdict: Verdict) -> BTreeMap<LineId, Finding> {
        let line = (LeaseKey::new("10.5.1.0-24".to_owned()), Family::V4);
        [(line, Finding { verdict, ..Finding::default() })].into()
    }

    #[test]
    fn what_is_looked_into_is_what_it_was() {
        let now = Instant::now();
        let mut account = Account::new(now);
        for (verdict, turns) in [
            (Verdict::Unknown, false),
            (Verdict::Ok, true),
            (Verdict::Unknown, false),
            (Verdict::Ok, false),
            (Verdict::Unknown, false),
            (Verdict::PeerDown, true),
        ] {
            assert_eq!(account.tell(&findings(verdict), now), turns, "{verdict}");
        }
        assert!(account.tell(&BTreeMap::new(), now), "one that is gone");
        assert!(!account.tell(&BTreeMap::new(), now));
    }

    #[test]
    fn what_turned_is_told_soon_and_not_put_off_again() {
        let now = Instant::now();
        let mut account = Account::new(now);
        account.tell(&findings(Verdict::Ok), now);
        assert_eq!(account.due(), now + EVERY);
        account.turn(1, now);
        account.turn(1, now + SOON / 2);
        assert_eq!(account.due(), now + SOON);
        account.tell(&findings(Verdict::Ok), now + SOON);
        account.turn(500, now + SOON);
        assert_eq!(account.due(), now + SOON + SOON * 6);
    }
}
