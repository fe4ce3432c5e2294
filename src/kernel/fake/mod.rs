//! A kernel in memory, for tests: it does what the real one does, fails on demand, and can be altered from outside.
//!
//! Clones are handles on the same host.

mod host;
mod state;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use twill_backends::diff::Op;
use twill_backends::state::{Link, LinkName, NetState};

use self::state::Inner;
use super::facts::{HostFacts, LinkFact};
use super::{Change, ForeignRoute, Kernel, KernelError, Observed, Scope};

/// What is heard within this time is one change, as with the real kernel.
const BURST: Duration = Duration::from_millis(10);

/// What the real one says if it was built without VXLAN.
const NO_VXLAN: &str = "Operation not supported (os error 95)";

/// A host's network stack in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    heard: Notify,
}

/// Which operations fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The n-th operation from here on, counted from 0; once.
    Nth(usize),
    /// Every operation of this rank, see [`Op::rank`], until [`FakeKernel::heal`].
    Rank(u8),
    /// Every operation that prints with this in it, until [`FakeKernel::heal`].
    Matching(String),
}

impl FakeKernel {
    /// A host with one interface, `eth0` (index 2, MTU 1500), with the addresses 192.168.77.`n`/24 and fd77::`n`/64
    /// and a default route of each family.
    #[must_use]
    pub fn host(n: u8) -> Self {
        let fake = Self::default();
        fake.lock().facts = host::facts(n);
        fake
    }

    /// What the host looks like, without the links of ours.
    #[must_use]
    pub fn host_facts(&self) -> HostFacts {
        self.lock().facts.clone()
    }

    /// What is there.
    #[must_use]
    pub fn net(&self) -> NetState {
        self.lock().net.clone()
    }

    /// Every operation done so far, in order, without those that failed.
    #[must_use]
    pub fn applied(&self) -> Vec<Op> {
        self.lock().applied.clone()
    }

    /// How often the whole state was read.
    #[must_use]
    pub fn observed(&self) -> usize {
        self.lock().observed
    }

    /// Alters the host as if by hand, and announces it as the real kernel would: entries as what became of them,
    /// links as something unknown. With a link goes what is on it.
    pub fn alter(&self, op: &Op) {
        let mut inner = self.lock();
        inner.carry_out(op);
        let change = match op {
            Op::SetLink(..) => Change::Unknown("a link of ours changed"),
            Op::DelLink(..) => Change::Unknown("a link of ours is gone"),
            Op::SetSysctl(..)
            | Op::SetNeigh(..)
            | Op::SetFdb(..)
            | Op::SetRoute(..)
            | Op::DelRoute(..)
            | Op::DelFdb(..)
            | Op::DelNeigh(..) => Change::Did(vec![op.clone()]),
        };
        inner.news.push(change);
        drop(inner);
        self.0.heard.notify_one();
    }

    /// Alters the host without any announcement, as a link that goes down does to its IPv4 routes.
    pub fn alter_silently(&self, alter: impl FnOnce(&mut NetState)) {
        alter(&mut self.lock().net);
    }

    /// Sets a link down or up: down, the kernel drops its IPv4 routes silently, and its neighbours.
    pub fn set_up(&self, name: LinkName, up: bool) {
        let mut inner = self.lock();
        if let Some(link) = inner.net.links.get_mut(&name) {
            link.up = up;
        }
        if !up {
            inner.net.routes.retain(|_, route| route.dev != Some(name));
            inner.net.neighs.retain(|key, _| key.dev != name);
        }
        inner.news.push(Change::Unknown("a link of ours changed"));
        drop(inner);
        self.0.heard.notify_one();
    }

    /// Announces something.
    pub fn announce(&self, change: Change) {
        self.lock().news.push(change);
        self.0.heard.notify_one();
    }

    /// Replaces the routes of others inside our networks, which is announced.
    pub fn set_foreign(&self, foreign: Vec<ForeignRoute>) {
        self.lock().foreign = foreign;
        self.announce(Change::Unknown("somebody else's route appeared inside the network"));
    }

    /// Replaces what the host looks like, which is announced.
    pub fn set_facts(&self, facts: HostFacts) {
        self.lock().facts = facts;
        self.announce(Change::Underlay);
    }

    /// Has operations fail.
    pub fn fail(&self, failure: Failure) {
        self.lock().failing.push(failure);
    }

    /// Has the next `times` observations, and looks at the host, fail.
    pub fn blind(&self, times: usize) {
        self.lock().blind = times;
    }

    /// Gives links no larger MTU than this, whatever is asked, until [`FakeKernel::heal`].
    pub fn clamp_mtu(&self, mtu: u32) {
        self.lock().clamp = Some(mtu);
    }

    /// Takes links away as soon as they are set, as somebody else who manages them, until [`FakeKernel::heal`].
    pub fn lose_links(&self) {
        self.lock().losing = true;
    }

    /// Gives the tunnels' UDP port to somebody else until [`FakeKernel::heal`]: tunnels are created, but do not go up.
    pub fn take_port(&self) {
        self.lock().port_taken = true;
    }

    /// Leaves VXLAN out of the kernel until [`FakeKernel::heal`]: it makes no such devices.
    pub fn lack_vxlan(&self) {
        self.lock().no_vxlan = true;
    }

    /// Has nothing fail any longer.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.failing.clear();
        inner.blind = 0;
        inner.clamp = None;
        inner.losing = false;
        inner.port_taken = false;
        inner.no_vxlan = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Change> {
        let mut ops = Vec::new();
        let mut change = None;
        let mut inner = self.lock();
        inner.due = None;
        for news in std::mem::take(&mut inner.news) {
            match news {
                Change::Did(more) => ops.extend(more),
                Change::Underlay => change = Some(Change::Underlay),
                Change::Unknown(reason) => change = change.or(Some(Change::Unknown(reason))),
            }
        }
        change.or_else(|| (!ops.is_empty()).then_some(Change::Did(ops)))
    }
}

impl Kernel for FakeKernel {
    /// Links are told apart as with the real kernel; everything else that is there counts as ours.
    async fn observe(&self, scope: &Scope) -> Result<Observed, KernelError> {
        let mut inner = self.lock();
        inner.observed += 1;
        inner.look()?;
        let mut net = inner.net.clone();
        net.links.retain(|name, link| scope.owns_link(*name, &link.alias));
        let ours: BTreeMap<LinkName, Link> = net.links.clone();
        net.neighs.retain(|key, _| ours.contains_key(&key.dev));
        net.fdb.retain(|entry| ours.contains_key(&entry.dev));
        net.sysctls.retain(|path, _| scope.sysctls.contains(path));
        Ok(Observed { net, foreign: inner.foreign.clone(), ..Observed::default() })
    }

    async fn apply(&self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let answers = {
            let mut inner = self.lock();
            ops.iter().map(|op| inner.apply(op)).collect()
        };
        self.0.heard.notify_one();
        answers
    }

    async fn changed(&self, _scope: &Scope) -> Change {
        loop {
            if self.lock().news.is_empty() {
                self.0.heard.notified().await;
                continue;
            }
            // A caller that comes back often is not kept waiting.
            let due = *self.lock().due.get_or_insert_with(|| Instant::now() + BURST);
            sleep_until(due).await;
            if let Some(change) = self.take() {
                return change;
            }
        }
    }

    async fn vxlan(&self) -> Result<(), String> {
        if self.lock().no_vxlan { Err(NO_VXLAN.to_owned()) } else { Ok(()) }
    }

    /// As set, with the links of ours that are there.
    async fn facts(&self, _reach: Option<IpAddr>) -> Result<HostFacts, KernelError> {
        let mut inner = self.lock();
        inner.look()?;
        let mut facts = inner.facts.clone();
        for (index, (name, link)) in (100..).zip(&inner.net.links) {
            facts.links.push(LinkFact {
                index,
                name: *name,
                mac: Some(link.mac),
                mtu: link.mtu,
                alias: link.alias.clone(),
                running: link.up,
                up: link.up,
                vxlan: link.vxlan().cloned(),
            });
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use twill_backends::diff::diff;
    use twill_backends::family::PerFamily;
    use twill_backends::mac::Mac;
    use twill_backends::state::{Checksums, Fdb, LinkKind, NeighKey, Vxlan};

    use super::*;
    use crate::kernel::UnderlayChoice;

    fn name() -> LinkName {
        "flannel.1".try_into().unwrap()
    }

    fn scope() -> Scope {
        Scope { alias: "twill:x".to_owned(), links: [name()].into(), ..Scope::default() }
    }

    fn want() -> NetState {
        let local = "192.168.77.1".parse().unwrap();
        let vxlan =
            Vxlan { vni: 1, port: 8472, local, learning: false, gbp: false, checksums: Checksums::default() };
        let link = Link {
            kind: LinkKind::Vxlan(vxlan),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
            up: true,
            alias: "twill:x".to_owned(),
            addrs: BTreeSet::new(),
        };
        let mac = Mac([2, 0, 0, 0, 0, 2]);
        let mut net = NetState::default();
        net.links.insert(name(), link);
        net.neighs.insert(NeighKey { dev: name(), ip: "10.5.2.0".parse().unwrap() }, mac);
        net.fdb.insert(Fdb { dev: name(), mac, dst: "192.168.77.2".parse().unwrap() });
        net
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_applied_is_observed_and_echoed() {
        let kernel = FakeKernel::default();
        let ops = diff(&want(), &NetState::default());
        assert!(kernel.apply(&ops).await.iter().all(Result::is_ok));
        assert_eq!(kernel.observe(&scope()).await.unwrap().net, want());
        assert_eq!((kernel.applied(), kernel.observed()), (ops.clone(), 1));
        assert!(matches!(kernel.changed(&scope()).await, Change::Unknown(_)));
        kernel.alter(&Op::DelFdb(*want().fdb.first().unwrap()));
        assert_eq!(
            kernel.changed(&scope()).await,
            Change::Did(vec![Op::DelFdb(*want().fdb.first().unwrap())])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_link_takes_everything_with_it() {
        let kernel = FakeKernel::default();
        kernel.apply(&diff(&want(), &NetState::default())).await;
        let mut link = want().links[&name()].clone();
        link.mac = Mac([2, 0, 0, 0, 0, 9]);
        kernel.apply(&[Op::SetLink(name(), link.clone())]).await;
        assert!(kernel.net().neighs.is_empty() && !kernel.net().fdb.is_empty());
        link.vxlan_mut().unwrap().port = 4789;
        kernel.apply(&[Op::SetLink(name(), link)]).await;
        assert!(kernel.net().fdb.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_as_ordered() {
        let kernel = FakeKernel::default();
        kernel.fail(Failure::Nth(1));
        kernel.fail(Failure::Rank(3));
        let ops = diff(&want(), &NetState::default());
        let failed: Vec<bool> = kernel.apply(&ops).await.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, true]);
        kernel.heal();
        assert!(kernel.apply(&ops).await.iter().all(Result::is_ok));
        kernel.blind(1);
        assert!(kernel.observe(&scope()).await.is_err());
        assert!(kernel.observe(&scope()).await.is_ok());
        kernel.fail(Failure::Matching("ip neigh".to_owned()));
        assert_eq!(kernel.apply(&ops).await.iter().filter(|answer| answer.is_err()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_host_has_an_underlay() {
        let kernel = FakeKernel::host(3);
        let families = PerFamily { v4: Some(()), v6: Some(()) };
        let underlay =
            kernel.underlay(&UnderlayChoice { families, ..UnderlayChoice::default() }).await.unwrap();
        assert_eq!(underlay.addrs.v4, "192.168.77.3".parse().ok());
        assert_eq!(underlay.addrs.v6, "fd77::3".parse().ok());
        assert_eq!(kernel.mac_of(underlay.name).await, Some(Mac([2, 0, 0, 0, 0, 3])));
        let facts = kernel.facts(None).await.unwrap();
        kernel.set_facts(HostFacts { addrs: Vec::new(), ..facts });
        assert_eq!(kernel.changed(&scope()).await, Change::Underlay);
        let lost = kernel.underlay(&UnderlayChoice { families, ..UnderlayChoice::default() }).await;
        assert!(lost.unwrap_err().to_string().contains("no usable IPv4 address"));
    }
}
