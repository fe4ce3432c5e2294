//! Keeps the firewall as wanted.

use std::time::Instant;

use twill_backends::fault::{Code, Fault};
use twill_backends::filter::Filter;

use crate::filter::{Applied, Firewall};
use crate::reconcile::Pace;

/// What is wanted of the firewall, and whether it has to be looked at.
#[derive(Debug, Default)]
pub(super) struct Filtering {
    want: Filter,
    /// Whether the firewall was as wanted once: from then on, what has to be loaded had been taken away.
    loaded: bool,
    pace: Pace,
    faults: Vec<Fault>,
    repairs: u64,
}

impl Filtering {
    /// This is what the firewall should do.
    pub(super) fn want(&mut self, want: &Filter) {
        if self.want != *want {
            self.want = want.clone();
            self.loaded = false;
        }
        self.pace.restart();
    }

    /// Something of the firewall may have changed.
    pub(super) fn look(&mut self, now: Instant) {
        self.pace.hurry(now);
    }

    /// When the next pass is due; `None` while there is nothing to do.
    #[must_use]
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.pace.due(now)
    }

    /// What fails, and what stands in the way.
    #[must_use]
    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How often rules that somebody had taken away were loaded again.
    #[must_use]
    pub(super) const fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Makes the firewall as wanted.
    pub(super) async fn pass<F: Firewall>(&mut self, firewall: &F) {
        let now = crate::now();
        match firewall.apply(&self.want).await {
            Ok(applied) => {
                self.pace.done();
                self.repairs += u64::from(self.loaded && !applied.loaded.is_empty());
                self.loaded = true;
                self.faults = warnings(&applied);
                let obstacles = firewall.obstacles(&self.want).await;
                let dropped = obstacles
                    .iter()
                    .map(|drop| Fault::new(Code::ForwardDropped, &drop.chain, drop.to_string()));
                self.faults.extend(dropped);
            }
            Err(error) => {
                let fault = Fault::new(Code::FirewallFailed, "firewall", crate::chain(&error));
                if self.pace.failed(now) {
                    tracing::warn!(cause = %fault.cause, "the firewall is not as wanted; trying again");
                }
                self.faults = vec![fault];
            }
        }
    }
}

fn warnings(applied: &Applied) -> Vec<Fault> {
    for line in &applied.loaded {
        tracing::info!(rules = %line, "firewall loaded");
    }
    for line in &applied.removed {
        tracing::info!(rules = %line, "firewall removed");
    }
    applied.warnings.iter().map(|line| Fault::new(Code::FirewallFailed, "firewall", line)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use twill_backends::filter::FilterNet;

    use super::*;
    use crate::filter::PolicyDrop;
    use crate::filter::fake::FakeFirewall;
    use crate::reconcile::HURRIED;

    fn want() -> Filter {
        let net =
            FilterNet { network: "10.5.0.0/16".parse().unwrap(), subnet: "10.5.1.0/24".parse().unwrap() };
        Filter { nets: vec![net], masquerade: None, forward: true }
    }

    fn codes(filtering: &Filtering) -> Vec<Code> {
        filtering.faults().iter().map(|fault| fault.code).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn rules_are_loaded_once_and_again_when_they_went() {
        let (mut filtering, firewall) = (Filtering::default(), FakeFirewall::default());
        assert_eq!(filtering.due(crate::now()), None);
        filtering.want(&want());
        assert_eq!(filtering.due(crate::now()), Some(crate::now()));
        filtering.pass(&firewall).await;
        assert_eq!((firewall.have(), firewall.writes(), filtering.due(crate::now())), (want(), 1, None));
        assert_eq!(filtering.repairs(), 0, "the first load repairs nothing");
        filtering.look(crate::now());
        filtering.pass(&firewall).await;
        assert_eq!((firewall.writes(), filtering.repairs()), (1, 0));
        firewall.flush();
        filtering.look(crate::now());
        filtering.pass(&firewall).await;
        assert_eq!((firewall.writes(), filtering.repairs()), (2, 1));
        filtering.want(&Filter { forward: false, ..want() });
        filtering.pass(&firewall).await;
        assert_eq!((firewall.writes(), filtering.repairs()), (3, 1), "a change of mind repairs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_reported_and_tried_ever_more_slowly_but_a_change_hurries() {
        let (mut filtering, firewall) = (Filtering::default(), FakeFirewall::default());
        filtering.want(&want());
        firewall.fail(12);
        for _ in 0..12 {
            filtering.pass(&firewall).await;
            assert_eq!(codes(&filtering), [Code::FirewallFailed]);
        }
        let now = crate::now();
        assert!(filtering.due(now).unwrap() >= now + Duration::from_secs(5));
        filtering.look(now);
        assert_eq!(filtering.due(now), Some(now + HURRIED));
        filtering.pass(&firewall).await;
        assert_eq!((codes(&filtering), filtering.due(now)), (vec![], None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_drops_our_packets_is_a_fault_as_long_as_it_does() {
        let (mut filtering, firewall) = (Filtering::default(), FakeFirewall::default());
        let drop = PolicyDrop { v6: false, chain: "ip filter FORWARD".into(), iptables: true };
        firewall.obstruct(vec![drop]);
        filtering.want(&want());
        filtering.pass(&firewall).await;
        assert_eq!(codes(&filtering), [Code::ForwardDropped]);
        firewall.obstruct(Vec::new());
        filtering.look(crate::now());
        filtering.pass(&firewall).await;
        assert_eq!(codes(&filtering), []);
    }
}
