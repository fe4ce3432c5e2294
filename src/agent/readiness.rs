//! Whether packets of containers pass, and if not, why: without flapping.

use std::time::{Duration, Instant};

use twill_backends::tenure::Standing;

use super::status::Readiness;
use super::{Agent, World};

/// How long links may be missing, or in the way of being mended, before that counts, and stand before it is over.
const LINKS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(2)];

/// The same for peers that are not reachable. Probes take some seconds to say so.
const PEERS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(5)];

/// What is said, and what could change it.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    links: Latch,
    peers: Latch,
    said: Readiness,
}

impl Judgement {
    /// What is said.
    pub(super) const fn said(&self) -> &Readiness {
        &self.said
    }
}

impl<W: World> Agent<W> {
    /// Judges by what is known in this turn. Returns whether that changed whether this host is ready.
    pub(super) fn judge(&mut self, now: Instant) -> bool {
        let broken = self.judgement.links.sees(!self.established(), now, LINKS);
        let ready = *self.ready.borrow();
        let mut because = match self.lacks() {
            Some(lack) if !ready || broken => vec![self.explained(lack)],
            Some(_) | None => Vec::new(),
        };
        let (reachable, probed) = self.probing.reach();
        let share = usize::from(self.config.ready_peers);
        if self.judgement.peers.sees(reachable * 100 < share * probed, now, PEERS) {
            because.push(format!(
                "{reachable} of {probed} probed peers are reachable, and --ready-peers asks for {share} %"
            ));
        }
        let said = Readiness { ready: because.is_empty(), because, probed, reachable };
        let turned = said.ready != self.judgement.said.ready;
        self.judgement.said = said;
        turned
    }

    /// What keeps containers from being started, in the order in which it has to come.
    fn lacks(&self) -> Option<&'static str> {
        if self.network.is_none() {
            return Some("the network configuration is not known");
        }
        match self.tenure.standing() {
            Standing::Held(_) | Standing::Remembered(_) => {}
            Standing::Without => return Some("this host has no lease yet"),
            Standing::Lost(_) => return Some("this host lost its lease"),
            Standing::Parked(..) => return Some("another host has this host's subnet"),
        }
        if self.plan.is_none() {
            return Some("there is no plan for this host");
        }
        if !self.established() {
            return Some("the kernel is not as wanted");
        }
        (!self.papers.written()).then_some("the subnet file is not written")
    }

    fn explained(&self, lack: &str) -> String {
        match self.faults().first() {
            Some(fault) => format!("{lack}: {fault}"),
            None => lack.to_owned(),
        }
    }
}

/// A complaint that counts once it has lasted, and is over once it has been away for a while.
#[derive(Debug, Default)]
pub(super) struct Latch {
    raised: bool,
    /// Since when what is seen differs from what counts.
    since: Option<Instant>,
}

impl Latch {
    /// Takes in what is seen. Returns whether the complaint counts: it is raised after `patience`, lowered after `calm`.
    pub(super) fn sees(&mut self, amiss: bool, now: Instant, [patience, calm]: [Duration; 2]) -> bool {
        if amiss == self.raised {
            self.since = None;
            return self.raised;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= if amiss { patience } else { calm } {
            self.raised = amiss;
            self.since = None;
        }
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_does_not_count_and_what_lasts_does() {
        let start = Instant::now();
        let times = [Duration::from_secs(5), Duration::from_secs(2)];
        let mut latch = Latch::default();
        let mut at = |second: u64, amiss| latch.sees(amiss, start + Duration::from_secs(second), times);
        for second in 0..20 {
            assert!(!at(second, second % 4 != 0), "{second}: never five seconds on end");
        }
        assert!(!at(20, false) && !at(21, true) && !at(25, true) && at(26, true));
        for second in 27..40 {
            assert!(at(second, second % 2 == 0), "{second}: never two seconds of calm");
        }
        assert!(at(40, true) && at(41, false) && at(42, false) && !at(43, false));
        let at_once = [Duration::ZERO; 2];
        assert!(latch.sees(true, start, at_once) && !latch.sees(false, start, at_once));
    }
}
