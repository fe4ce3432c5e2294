//! What can happen to an agent, and what that changes of what it knows.

use std::pin::Pin;
use std::time::Instant;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twill_backends::backend::from_config;
use twill_backends::errand::Setback;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::LeaseKey;
use twill_backends::leases::LeaseEvent;
use twill_backends::network::NetworkConfig;

use super::adoption::adopt;
use super::handover::Heir;
use super::socket::{Request, Visit};
use super::{Agent, Calling, StoreState, TICK, World};
use crate::filter::{Firewall, Heard};
use crate::kernel::{Change, Kernel};
use crate::reconcile::backoff;
use crate::store::{Held, Revision, StoreError, StoreEvent};

/// What can happen to an agent.
#[derive(Debug)]
pub(super) enum Input {
    /// The store reports.
    Store(StoreEvent),
    /// The store answered a call.
    Answer(Result<Held, StoreError>),
    /// The kernel reports.
    Kernel(Change),
    /// The firewall may have changed.
    Firewall(Heard),
    /// Probes of peers found something out.
    Probes,
    /// A trial of checksums ended.
    Trial,
    /// Somebody asks.
    Ask(Request),
    /// A process asks to take over.
    Heir(Heir),
    /// Something is due.
    Time,
    /// The end.
    Stop,
}

impl<W: World> Agent<W> {
    /// Waits for whatever happens first.
    pub(super) async fn wait(
        &self,
        events: &mut Pin<&mut (impl Stream<Item = StoreEvent> + Send)>,
        calling: &mut Option<Calling>,
        visits: &mut mpsc::Receiver<Visit>,
        stop: &CancellationToken,
    ) -> Input {
        let answer = async {
            match calling {
                Some(call) => call.await,
                None => std::future::pending().await,
            }
        };
        let firewall = async {
            match &self.firewall {
                Some(firewall) => firewall.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => Input::Stop,
            Some(event) = events.next() => Input::Store(event),
            answer = answer => Input::Answer(answer),
            change = self.world.kernel().changed(&self.scope) => Input::Kernel(change),
            heard = firewall => Input::Firewall(heard),
            () = self.probing.changed() => Input::Probes,
            () = self.trying.ended() => Input::Trial,
            Some(visit) = visits.recv() => match visit {
                Visit::Asks(request) => Input::Ask(request),
                Visit::Succeeds(heir) => Input::Heir(heir),
            },
            () = tokio::time::sleep_until(self.due(crate::now()).into()) => Input::Time,
        }
    }

    /// When the next thing is due.
    fn due(&self, now: Instant) -> Instant {
        let times = [
            self.patience(),
            self.plan.as_ref().and_then(|_| self.reconciler.due(now)),
            self.firewall.as_ref().and_then(|_| self.filtering.due(now)),
            self.firewall.as_ref().and_then(|_| self.guarding.due(now)),
            self.plan.as_ref().filter(|_| self.reconciler.established()).and_then(|_| self.carrying.due()),
            self.leases.due(),
            self.leaving.due(),
            self.tenure.due(now),
            self.found.due(),
            self.papers.due().filter(|_| self.is_worth_keeping()),
            self.plan.as_ref().map(|_| self.resync_at),
            self.board.due(),
            self.traffic_due(),
        ];
        times.into_iter().flatten().fold(now + TICK, Instant::min)
    }

    pub(super) fn hear_kernel(&mut self, change: &Change) {
        if *change == Change::Underlay {
            self.found.forget();
        }
        if self.reconciler.heard(change, crate::now()) {
            tracing::debug!(?change, "the kernel differs from what is believed");
            self.disturbed = true;
        }
    }

    pub(super) fn hear_firewall(&mut self, heard: Heard) {
        let now = crate::now();
        if heard.rules {
            self.filtering.look(now);
        }
        if heard.guard {
            self.guarding.look(now);
        }
    }

    /// Peers of which something was measured anew are planned again.
    pub(super) fn hear_probes(&mut self) {
        self.probing.hear();
        if let Some(plan) = &mut self.plan {
            let changed = plan.measured(self.probing.facts());
            if !changed.is_empty() {
                self.changed.extend(changed);
                self.papers.touch();
            }
        }
    }

    pub(super) fn answered(&mut self, answer: Result<Held, StoreError>) {
        if self.tenure.answered(answer.map_err(Setback::from), crate::now(), backoff) {
            if let Some(lease) = self.tenure.lease() {
                tracing::info!(key = %lease.key, "lease held");
            }
            self.replan = true;
        }
        self.papers.touch();
    }

    pub(super) fn hear_store(&mut self, event: StoreEvent) {
        let now = crate::now();
        let event = match event {
            StoreEvent::Down(error) => {
                if self.store.error.is_none() && self.snapshot {
                    tracing::warn!(%error, "the store is gone; packets flow, nothing is removed");
                } else if self.store.error.is_none() {
                    tracing::warn!(%error, "waiting for the store");
                }
                self.store.connected = false;
                self.store.error = Some(error.to_string());
                return;
            }
            StoreEvent::Up => {
                tracing::info!("the store is back");
                self.store.connected = true;
                self.store.error = None;
                self.tenure.saw_store_back(now);
                return;
            }
            StoreEvent::Config(Ok(read)) => return self.hear_config(&read),
            StoreEvent::Config(Err(fault)) => return self.hear_bad_config(fault, now),
            StoreEvent::Snapshot { leases, faults, revision } => {
                self.hear_snapshot(revision, now);
                let own = self.tenure.lease().map(|lease| lease.key.clone());
                let own = own.and_then(|key| leases.iter().find(|lease| lease.key == key));
                self.tenure.saw_snapshot(own, revision.number, now);
                self.leaving.clear();
                LeaseEvent::Snapshot { leases, faults }
            }
            StoreEvent::Put(lease, revision) => {
                self.store.revision = revision;
                self.tenure.saw_put(&lease, revision.number, now);
                let in_its_way = self.leaving.returned(&lease);
                self.forget(in_its_way, now);
                LeaseEvent::Put(lease)
            }
            StoreEvent::Delete(key, revision) => {
                self.store.revision = revision;
                self.tenure.saw_delete(&key, revision.number, now);
                self.leaving.add(key, now);
                return;
            }
            StoreEvent::Bad(key, fault) => {
                // It comes without a revision: whatever came before, it is newer.
                self.tenure.saw_delete(&key, u64::MAX, now);
                if self.leaving.remove(&key) {
                    self.forget([key.clone()], now);
                }
                LeaseEvent::Bad(key, fault)
            }
        };
        self.take_in(event, now);
    }

    /// These leases are gone from the store, and their hosts did not claim them again.
    pub(super) fn forget(&mut self, keys: impl IntoIterator<Item = LeaseKey>, now: Instant) {
        for key in keys {
            self.take_in(LeaseEvent::Delete(key), now);
        }
    }

    /// Which deletions are held may be news even if no lease came, went or changed.
    fn take_in(&mut self, event: LeaseEvent, now: Instant) {
        let changed = self.leases.apply(event, now);
        self.changed.extend(changed);
        self.census.take();
        self.papers.touch();
    }

    fn hear_config(&mut self, read: &NetworkConfig) {
        let Some(in_force) = &self.network else {
            self.config_fault = None;
            self.network = Some(read.clone());
            self.replan = true;
            return;
        };
        let (run, fault) = adopt(in_force, read);
        if let Err(fault) = from_config(&run) {
            return self.hear_bad_config(fault, crate::now());
        }
        if let Some(fault) = fault.as_ref().filter(|fault| self.config_fault.as_ref() != Some(fault)) {
            tracing::warn!(%fault, "the network configuration changed");
        }
        self.config_fault = fault;
        if run != *in_force {
            tracing::info!("the network configuration changed; applying it");
            self.network = Some(run);
            self.replan = true;
        }
    }

    fn hear_bad_config(&mut self, fault: Fault, now: Instant) {
        if self.config_fault.as_ref() != Some(&fault) {
            tracing::warn!(%fault, in_force = self.network.is_some(), "the store holds no usable network configuration");
        }
        if fault.code == Code::NoConfig && self.network.is_some() {
            let held = self.leases.hold(now, "the network configuration is gone from the store");
            self.changed.extend(held);
        }
        self.config_fault = Some(fault);
    }

    /// A store that went back in time, or was made anew, says nothing about which hosts are gone.
    fn hear_snapshot(&mut self, revision: Revision, now: Instant) {
        if !self.snapshot {
            self.compare_with_memory(revision, now);
            self.replan |= self.plan.is_none();
            // What nobody wants was left alone so far.
            self.reconciler.touch_all();
            self.guarding.look(now);
        }
        let last = self.store.revision;
        let made_anew = last.cluster != revision.cluster;
        if last != Revision::default() && (made_anew || revision.number < last.number) {
            let what = if made_anew { "was made anew" } else { "went back in time" };
            tracing::warn!(
                before = last.number,
                after = revision.number,
                "the store {what}; holding deletions"
            );
            let held = self.leases.hold(now, format!("the store {what}"));
            self.changed.extend(held);
            self.tenure.saw_another_history(now);
        }
        self.store = StoreState { connected: true, revision, error: None };
        self.snapshot = true;
    }

    /// A store that was made anew while no agent looked has to be noticed too: the last run's leases then count as
    /// lost, not as never known.
    fn compare_with_memory(&mut self, revision: Revision, now: Instant) {
        let Some(memory) = self.memory.as_mut().filter(|_| self.leases.is_empty()) else { return };
        let leases = std::mem::take(&mut memory.leases);
        let continues = memory.revision.cluster == revision.cluster && memory.revision <= revision;
        if self.store.revision == Revision::default() && !continues {
            self.store.revision = memory.revision;
            let known = self.leases.apply(LeaseEvent::Snapshot { leases, faults: Vec::new() }, now);
            self.changed.extend(known);
        }
    }
}
