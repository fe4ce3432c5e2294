//! A firewall in memory, for tests of the agent: it can be broken behind the agent's back, and fail on demand.
//!
//! Clones are handles on the same firewall.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use twill_backends::filter::Filter;
use twill_backends::guard::{Element, Guard};

use super::{Applied, Counted, Counters, Engine, FilterError, Firewall, Heard, PolicyDrop};

/// A firewall in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeFirewall(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changes: Notify,
}

#[derive(Debug, Default)]
struct State {
    have: Filter,
    guard: Option<Guard>,
    writes: usize,
    failures: usize,
    guard_failures: usize,
    drops: Vec<PolicyDrop>,
    stalled: bool,
}

impl FakeFirewall {
    /// What is in force.
    pub fn have(&self) -> Filter {
        self.state().have.clone()
    }

    /// Who may send.
    pub fn guarded(&self) -> Option<Guard> {
        self.state().guard.clone()
    }

    /// Lets everybody send, as another program would, and announces it.
    pub fn unguard(&self) {
        self.state().guard = None;
        self.0.changes.notify_one();
    }

    /// How many passes wrote something.
    pub fn writes(&self) -> usize {
        self.state().writes
    }

    /// Flushes everything, as another program would, and announces it.
    pub fn flush(&self) {
        self.state().have = Filter::default();
        self.0.changes.notify_one();
    }

    /// Makes the next `count` passes fail.
    pub fn fail(&self, count: usize) {
        self.state().failures = count;
    }

    /// Makes the next `count` passes over the guard fail.
    pub fn fail_guard(&self, count: usize) {
        self.state().guard_failures = count;
    }

    /// Makes the next passes wait for ever, and whoever asks what is counted, and announces something to be looked at.
    pub fn stall(&self) {
        self.state().stalled = true;
        self.0.changes.notify_one();
    }

    /// What [`Firewall::obstacles`] reports from here on, which is announced.
    pub fn obstruct(&self, drops: Vec<PolicyDrop>) {
        self.state().drops = drops;
        self.0.changes.notify_one();
    }

    /// Never comes back, if it is to be so.
    async fn stalled(&self) {
        if self.state().stalled {
            std::future::pending::<()>().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempt(failures: &mut usize) -> Result<(), FilterError> {
    if *failures == 0 {
        return Ok(());
    }
    *failures -= 1;
    Err(FilterError::Denied { command: "fake".into(), detail: "asked to fail".into() })
}

impl Firewall for FakeFirewall {
    fn engine(&self) -> Engine {
        Engine::Nftables
    }

    async fn apply(&self, want: &Filter) -> Result<Applied, FilterError> {
        self.stalled().await;
        let mut state = self.state();
        attempt(&mut state.failures)?;
        let mut applied = Applied::default();
        if state.have != *want {
            state.have = want.clone();
            state.writes += 1;
            if want.wants_rules() { &mut applied.loaded } else { &mut applied.removed }.push("fake".into());
        }
        Ok(applied)
    }

    async fn guard(
        &self,
        want: Option<&Guard>,
        _touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> Result<Applied, FilterError> {
        let mut state = self.state();
        attempt(&mut state.guard_failures)?;
        let mut applied = Applied::default();
        let mut target = want.cloned();
        if let (Some(target), Some(have), false) = (&mut target, &state.guard, removals) {
            target.senders.extend(&have.senders);
        }
        if state.guard.is_none() && target.is_some() {
            applied.loaded.push("fake guard".into());
        }
        state.guard = target;
        Ok(applied)
    }

    fn counters(&self) -> Counters {
        let this = self.clone();
        Counters::new(move || {
            let this = this.clone();
            async move {
                this.stalled().await;
                let dropped = this.state().guard.iter().map(|_| ("strangers".to_owned(), 0)).collect();
                Some(Counted { dropped, ..Counted::default() })
            }
        })
    }

    async fn describe(&self, want: &Filter, _: Option<&Guard>) -> Result<Vec<String>, FilterError> {
        Ok(if self.state().have == *want { vec![] } else { vec!["load fake: it differs".into()] })
    }

    async fn shut_out(&self, want: &Guard) -> Result<BTreeSet<Element>, FilterError> {
        Ok(self.state().guard.iter().flat_map(|have| &want.elements() - &have.elements()).collect())
    }

    async fn changed(&self) -> Heard {
        self.0.changes.notified().await;
        Heard::ALL
    }

    async fn obstacles(&self, _want: &Filter) -> Vec<PolicyDrop> {
        self.state().drops.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn behaves_like_a_firewall() {
        let fake = FakeFirewall::default();
        let want = Filter {
            nets: vec![twill_backends::filter::FilterNet {
                network: "10.5.0.0/16".parse().unwrap(),
                subnet: "10.5.1.0/24".parse().unwrap(),
            }],
            masquerade: None,
            forward: true,
        };
        fake.fail(1);
        assert!(fake.apply(&want).await.is_err());
        assert_eq!(fake.apply(&want).await.unwrap().loaded.len(), 1);
        assert!(fake.apply(&want).await.unwrap().is_unchanged());
        assert!(fake.describe(&want, None).await.unwrap().is_empty());
        fake.flush();
        fake.changed().await;
        assert_eq!(fake.apply(&want).await.unwrap().loaded.len(), 1);
        assert_eq!(fake.remove().await.unwrap().removed.len(), 1);
        assert_eq!((fake.writes(), fake.have()), (3, Filter::default()));
        assert!(fake.obstacles(&want).await.is_empty());
    }
}
