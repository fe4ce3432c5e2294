//! One host: the program's decisions, and where its one call to the store has come to.

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;
use twill_backends::allocate::Evidence;
use twill_backends::errand::{Answer, Errand, Question, Turn};
use twill_backends::family::PerFamily;
use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;
use twill_backends::record::Held;
use twill_backends::tenure::{Call, Standing, Tenure};

use crate::flaws::Flaw;
use crate::history::{Belief, Change, Stamp};
use crate::store::Store;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    number: u8,
    /// Counts its processes.
    session: u8,
    /// Counts what its attributes were.
    moved: u8,
    /// Whether pods use the subnet of its last run.
    pods: bool,
    /// The lease of its last run, as the state directory has it.
    disk: Option<Lease>,
    pub(crate) process: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) tenure: Tenure,
    pub(crate) call: Option<Calling>,
    /// How much of the store's history it heard of.
    pub(crate) heard: usize,
}

/// A call under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Calling {
    errand: Errand,
    pub(crate) wire: Wire,
    /// Whether the host ends once its lease is given up.
    release: bool,
}

/// A question on its way, or its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Asked(Question),
    Answered(Answer),
}

/// The one moment at which everything happens. A call that waits for its time is made when the checker likes.
fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

fn pause(failures: u32) -> Duration {
    Duration::from_secs(u64::from(failures.min(1)))
}

impl Host {
    pub(crate) fn new(number: u8, pods: bool) -> Self {
        Self { number, session: 0, moved: 0, pods, disk: None, process: None }
    }

    /// It had these subnets before.
    pub(crate) fn with(mut self, subnets: Subnets) -> Self {
        self.disk = Some(Lease { key: LeaseKey::of(&subnets), subnets, attrs: self.attrs(), vacant: false });
        self
    }

    pub(crate) fn node(&self) -> String {
        format!("n{}", self.number)
    }

    pub(crate) fn attrs(&self) -> Attrs {
        Attrs {
            public_ip: Some(Ipv4Addr::new(192, 0, 2, self.number)),
            backend_data: (self.moved > 0).then(|| json!(self.moved)),
            node_id: Some(self.node()),
            session: Some(format!("s{}", self.session)),
            ..Attrs::default()
        }
    }

    /// What flanneld on this host would publish.
    pub(crate) fn unsigned(&self) -> Vec<u8> {
        Attrs { node_id: None, session: None, ..self.attrs() }.encode()
    }

    /// A process starts: the store answers, or it goes on from what the last one left.
    pub(crate) fn start(&mut self, store: &Store, remembers: bool) {
        self.session += 1;
        let previous = self.disk.as_ref().map_or(Subnets::NONE, |lease| lease.subnets);
        let mut tenure = Tenure::new(previous, Duration::ZERO);
        if let Some(lease) = self.disk.clone().filter(|_| remembers) {
            tenure.remember(lease, None);
        }
        let carried = if self.pods { previous } else { PerFamily::NONE };
        tenure.note(Evidence { carried, ..Evidence::default() });
        tenure.want(self.attrs());
        self.process = Some(Process { tenure, call: None, heard: store.history.len() });
    }

    pub(crate) fn remembers(&self) -> bool {
        self.disk.is_some()
    }

    /// What it publishes changes.
    pub(crate) fn change(&mut self) {
        self.moved += 1;
        let attrs = self.attrs();
        self.process.iter_mut().for_each(|process| process.tenure.want(attrs.clone()));
    }

    /// What it believes while the store is at revision `at`. In another history than it knew, it has to read first.
    pub(crate) fn belief(&self, at: u64) -> Option<Belief> {
        let held = self.process.as_ref()?.held().filter(|held| held.revision > 0)?;
        let who = Stamp::of(&held.lease.attrs)?;
        Some(Belief { who, key: held.lease.key.clone(), since: held.revision, at })
    }

    /// The answer arrives, and the errand goes on.
    pub(crate) fn take(&mut self, pick: u64, flaw: Flaw) {
        let Some(process) = &mut self.process else { return };
        let Some(mut call) = process.call.take() else { return };
        let Wire::Answered(answer) = call.wire else { return };
        let answer = flaw.hears(process.held(), answer);
        match call.errand.answered(answer, &mut |below| pick.min(below - 1)) {
            Turn::Ask(question) => {
                process.call = Some(Calling { wire: Wire::Asked(question), ..call });
            }
            Turn::Done(Ok(None)) => self.process = None,
            Turn::Done(Err(_)) if call.release => {}
            Turn::Done(result) => {
                process.tenure.answered(result.map(Option::unwrap), now(), pause);
                process.tenure.remarks();
                self.disk = process.held().map(|held| held.lease.clone()).or(self.disk.take());
            }
        }
    }
}

impl Process {
    pub(crate) fn held(&self) -> Option<&Held> {
        match self.tenure.standing() {
            Standing::Held(held) => Some(held),
            _ => None,
        }
    }

    /// Whether a call would be made at some time.
    pub(crate) fn is_due(&self) -> bool {
        self.call.is_none() && self.tenure.due(now()).is_some()
    }

    pub(crate) fn is_due_at_once(&self) -> bool {
        self.call.is_none() && self.tenure.due(now()).is_some_and(|at| at <= now())
    }

    /// The call that is due next is made.
    pub(crate) fn call(&mut self, config: &NetworkConfig) {
        let Some(at) = self.tenure.due(now()) else { return };
        let (errand, question) = match self.tenure.next_call(at) {
            Some(Call::Acquire(claim)) => Errand::acquire(claim, config.clone()),
            Some(Call::Renew(held)) => Errand::renew(held),
            Some(Call::Publish(held, attrs)) => Errand::publish(*held, *attrs),
            None => return,
        };
        self.call = Some(Calling { errand, wire: Wire::Asked(question), release: false });
    }

    /// An operator asks it to let go of its lease.
    pub(crate) fn release(&mut self) {
        let Some(held) = self.held() else { return };
        let (errand, question) = Errand::release(held.clone());
        self.call = Some(Calling { errand, wire: Wire::Asked(question), release: true });
    }

    /// The question on its way.
    pub(crate) fn asks(&self) -> Option<&Question> {
        match &self.call.as_ref()?.wire {
            Wire::Asked(question) => Some(question),
            Wire::Answered(_) => None,
        }
    }

    /// The answer on its way.
    pub(crate) fn hears(&self) -> Option<&Answer> {
        match &self.call.as_ref()?.wire {
            Wire::Answered(answer) => Some(answer),
            Wire::Asked(_) => None,
        }
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.call.iter_mut().for_each(|call| call.wire = Wire::Answered(answer.clone()));
    }

    /// The next change is heard of.
    pub(crate) fn hear(&mut self, store: &Store) {
        let Some(Change { revision, key, .. }) = store.history.get(self.heard) else { return };
        match &store.values[self.heard] {
            None => self.tenure.saw_delete(key, *revision, now()),
            Some(value) => {
                let lease = Lease::decode(key.as_str(), value).unwrap();
                self.tenure.saw_put(&lease, *revision, now());
            }
        }
        self.heard += 1;
        self.tenure.remarks();
    }

    /// Whether the next change is of a key that is not its own, while it waits for nothing.
    pub(crate) fn would_ignore(&self, store: &Store) -> bool {
        let own = self.tenure.lease().map(|lease| &lease.key);
        self.call.is_none() && store.history.get(self.heard).is_some_and(|change| own != Some(&change.key))
    }

    /// The store went back in time, or seems to have.
    pub(crate) fn hear_another(&mut self, store: &Store) {
        self.tenure.saw_another_history(now());
        self.hear_all(store);
    }

    /// The watch was interrupted: instead of single changes comes a listing.
    pub(crate) fn hear_all(&mut self, store: &Store) {
        self.heard = store.history.len();
        let own = self.tenure.lease().and_then(|lease| store.records.get(&lease.key));
        let own = own.and_then(|record| record.lease().ok());
        self.tenure.saw_store_back(now());
        self.tenure.saw_snapshot(own.as_ref(), store.revision, now());
        self.tenure.remarks();
    }
}
