//! A firewall in memory, for tests of the agent: it can be broken behind the agent's back, and fail on demand.
//!
//! Clones are handles on the same firewall.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use twill_backends::filter::Filter;

use super::{Applied, Engine, FilterError, Firewall, PolicyDrop};

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
    writes: usize,
    failures: usize,
    drops: Vec<PolicyDrop>,
}

impl FakeFirewall {
    /// What is in force.
    pub fn have(&self) -> Filter {
        self.state().have.clone()
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

    /// What [`Firewall::obstacles`] reports from here on, which is announced.
    pub fn obstruct(&self, drops: Vec<PolicyDrop>) {
        self.state().drops = drops;
        self.0.changes.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Firewall for FakeFirewall {
    fn engine(&self) -> Engine {
        Engine::Nftables
    }

    async fn apply(&self, want: &Filter) -> Result<Applied, FilterError> {
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            let denied = FilterError::Denied { command: "fake".into(), detail: "asked to fail".into() };
            return Err(denied);
        }
        let mut applied = Applied::default();
        if state.have != *want {
            state.have = want.clone();
            state.writes += 1;
            if want.wants_rules() { &mut applied.loaded } else { &mut applied.removed }.push("fake".into());
        }
        Ok(applied)
    }

    async fn describe(&self, want: &Filter) -> Result<Vec<String>, FilterError> {
        Ok(if self.state().have == *want { vec![] } else { vec!["load fake: it differs".into()] })
    }

    async fn changed(&self) {
        self.0.changes.notified().await;
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
        assert!(fake.describe(&want).await.unwrap().is_empty());
        fake.flush();
        fake.changed().await;
        assert_eq!(fake.apply(&want).await.unwrap().loaded.len(), 1);
        assert_eq!(fake.remove().await.unwrap().removed.len(), 1);
        assert_eq!((fake.writes(), fake.have()), (3, Filter::default()));
        assert!(fake.obstacles(&want).await.is_empty());
    }
}
