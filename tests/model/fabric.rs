//! All hosts, their store, and whatever may happen next.

use std::sync::Arc;

use stateright::{Model, Property};
use twill_backends::errand::{Answer, Question};
use twill_backends::family::Family;
use twill_backends::lease::{LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;

use crate::fair;
use crate::flaws::Flaw;
use crate::history::{Belief, overwritten, shared, unfounded};
use crate::host::{Host, Process};
use crate::store::Store;

/// How often each thing may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Calls made because it is time to: to renew, or to try again. Others are made at once, and cost nothing.
    pub(crate) timers: u8,
    /// Questions whose answer never comes: they take effect late, or never.
    pub(crate) silences: u8,
    /// Questions that take effect, and are asked again because no answer came.
    pub(crate) repeats: u8,
    /// Processes that end.
    pub(crate) crashes: u8,
    /// Grants that end.
    pub(crate) expiries: u8,
    /// Keys that an operator deletes.
    pub(crate) deletions: u8,
    /// Leases that an operator makes reservations.
    pub(crate) pins: u8,
    /// Watches that are interrupted.
    pub(crate) resyncs: u8,
    /// Hosts to whom the store's history seems to have broken off: what they know of revisions counts no more.
    pub(crate) rewinds: u8,
    /// Hosts whose address or device changes.
    pub(crate) changes: u8,
    /// Leases that are given up.
    pub(crate) releases: u8,
    /// Leases that flanneld writes: it creates a free one, or renews the one of its address without comparing.
    pub(crate) flannels: u8,
}

/// What is checked.
#[derive(Debug, Clone)]
pub(crate) struct Fabric {
    pub(crate) network: NetworkConfig,
    pub(crate) hosts: Vec<Host>,
    pub(crate) store: Store,
    pub(crate) budget: Budget,
    pub(crate) flaw: Flaw,
    /// Whether each state is also tried for whether all ends well from there.
    pub(crate) fair: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Arc<Store>,
    pub(crate) hosts: Vec<Arc<Host>>,
    /// Questions whose askers wait no longer.
    pub(crate) late: Vec<(usize, Question)>,
    pub(crate) left: Budget,
    /// What a host did to another's lease by deleting it.
    pub(crate) harm: Option<String>,
}

/// What happens next. Hosts and late questions are named by their place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A host goes on until the store has answered its next question; it picks this free subnet if it picks one.
    Step(usize, u64),
    /// The host hears of the next change.
    Hear(usize),
    /// The host's watch was interrupted: it hears of all there is.
    Resync(usize),
    /// The same, and the store's revisions do not continue those that the host knew.
    Rewind(usize),
    /// The host's next question is not answered. It takes effect late, or never.
    Silence(usize),
    /// The host's next question takes effect, is not answered, and is asked again.
    Repeat(usize),
    /// A question that was not answered takes effect.
    Late(usize),
    /// The process ends, and another one starts: the store answers, or it goes on from what the last one left.
    Crash {
        host: usize,
        remembers: bool,
    },
    /// The same with a question on its way.
    CrashAsking(usize),
    Change(usize),
    Release(usize),
    Expire(i64),
    Delete(LeaseKey),
    Pin(LeaseKey),
    Flannel(LeaseKey),
}

impl State {
    pub(crate) fn beliefs(&self) -> Vec<Belief> {
        self.hosts.iter().filter_map(|host| host.belief(self.store.revision)).collect()
    }

    /// Somebody's question takes effect.
    pub(crate) fn serve(&mut self, host: usize, question: &Question, flaw: Flaw) -> Answer {
        let victims = self.store.records.clone();
        let answer = flaw.serve(Arc::make_mut(&mut self.store), question);
        if matches!(question, Question::Delete(..) | Question::End(_)) {
            let node = self.hosts[host].node();
            let gone = victims.values().filter(|record| !self.store.records.contains_key(&record.key));
            let mut others = gone.filter(|record| {
                record.lease().is_ok_and(|lease| lease.attrs.node_id.as_ref() != Some(&node))
            });
            if let Some(record) = others.next() {
                self.harm = Some(format!("{node} deleted {}", record.key));
            }
        }
        answer
    }

    fn put(&mut self, key: &LeaseKey, value: Vec<u8>, permanent: bool) {
        let grant = if permanent { None } else { self.store_mut().grant().grant() };
        self.store_mut().put(key, value, grant);
    }

    /// A host, to be changed.
    pub(crate) fn host(&mut self, at: usize) -> &mut Host {
        Arc::make_mut(&mut self.hosts[at])
    }

    pub(crate) fn process(&mut self, at: usize) -> Option<&mut Process> {
        self.host(at).process.as_mut()
    }

    pub(crate) fn store_mut(&mut self) -> &mut Store {
        Arc::make_mut(&mut self.store)
    }

    fn host_actions(&self, at: usize, actions: &mut Vec<Action>) {
        let (host, left) = (&self.hosts[at], &self.left);
        let mut may = |allowed: bool, action| actions.extend(allowed.then_some(action));
        let Some(process) = &host.process else { return };
        let behind = process.heard < self.store.history.len();
        let goes_on =
            process.hears().is_some() || process.is_due_at_once() || (left.timers > 0 && process.is_due());
        may(goes_on, Action::Step(at, 0));
        may(matches!(process.hears(), Some(Answer::Listing(_))), Action::Step(at, 1));
        may(behind, Action::Hear(at));
        may(behind && left.resyncs > 0, Action::Resync(at));
        may(left.rewinds > 0, Action::Rewind(at));
        may(goes_on && left.silences > 0, Action::Silence(at));
        may(goes_on && left.repeats > 0, Action::Repeat(at));
        for remembers in [false, true] {
            may(left.crashes > 0 && (host.remembers() || !remembers), Action::Crash { host: at, remembers });
        }
        may(goes_on && left.crashes > 0, Action::CrashAsking(at));
        may(left.changes > 0, Action::Change(at));
        may(left.releases > 0 && process.held().is_some() && process.call.is_none(), Action::Release(at));
    }

    fn others_actions(&self, keys: &[LeaseKey], actions: &mut Vec<Action>) {
        let left = &self.left;
        actions.extend((0..self.late.len()).map(Action::Late));
        if left.expiries > 0 {
            actions.extend(self.store.grants.iter().copied().map(Action::Expire));
        }
        let present = || self.store.records.keys().cloned();
        if left.deletions > 0 {
            actions.extend(present().map(Action::Delete));
        }
        if left.pins > 0 {
            let renewed = self.store.records.values().filter(|record| record.grant.is_some());
            actions.extend(renewed.map(|record| Action::Pin(record.key.clone())));
        }
        if left.flannels > 0 {
            actions.extend(keys.iter().cloned().map(Action::Flannel));
        }
    }

    fn apply(&mut self, action: Action, fabric: &Fabric) -> Option<()> {
        let left = &mut self.left;
        match action {
            Action::Step(host, pick) => self.step(host, pick, fabric),
            Action::Hear(host) => {
                let store = Arc::clone(&self.store);
                self.process(host)?.hear(&store);
            }
            Action::Resync(host) => {
                left.resyncs -= 1;
                let store = Arc::clone(&self.store);
                self.process(host)?.hear_all(&store);
            }
            Action::Silence(host) => {
                left.silences -= 1;
                let question = self.next_question(host, 0, fabric)?;
                self.be_late(host, question);
                self.process(host)?.answer(Answer::Silence);
            }
            Action::Repeat(host) => {
                left.repeats -= 1;
                let question = self.next_question(host, 0, fabric).filter(is_felt)?;
                self.serve(host, &question, fabric.flaw);
                let answer = self.serve(host, &question, fabric.flaw);
                self.process(host)?.answer(answer);
            }
            Action::Late(at) => {
                let (host, question) = self.late.remove(at);
                self.serve(host, &question, fabric.flaw);
            }
            Action::Crash { host, remembers } => {
                left.crashes -= 1;
                let store = Arc::clone(&self.store);
                self.host(host).start(&store, remembers);
            }
            Action::CrashAsking(host) => {
                left.crashes -= 1;
                let question = self.next_question(host, 0, fabric).filter(is_felt)?;
                self.be_late(host, question);
                let store = Arc::clone(&self.store);
                self.host(host).start(&store, false);
            }
            Action::Change(host) => {
                left.changes -= 1;
                self.host(host).change();
            }
            Action::Release(host) => {
                left.releases -= 1;
                self.process(host)?.release();
                let question = self.process(host)?.asks()?.clone();
                let answer = self.serve(host, &question, fabric.flaw);
                self.process(host)?.answer(answer);
            }
            action => self.happen(action)?,
        }
        self.overhear();
        Some(())
    }

    /// A host goes on until the store has answered its next question, or there is none.
    pub(crate) fn step(&mut self, host: usize, pick: u64, fabric: &Fabric) {
        let Some(question) = self.next_question(host, pick, fabric) else { return };
        let answer = self.serve(host, &question, fabric.flaw);
        self.process(host).into_iter().for_each(|process| process.answer(answer.clone()));
    }

    /// What a host asks next. That it begins a term concerns nobody else, so it is answered at once.
    fn next_question(&mut self, host: usize, pick: u64, fabric: &Fabric) -> Option<Question> {
        if self.process(host)?.call.is_none() {
            let waited = !self.process(host)?.is_due_at_once();
            self.left.timers = self.left.timers.saturating_sub(u8::from(waited));
            self.process(host)?.call(&fabric.network);
        } else {
            self.host(host).take(pick, fabric.flaw);
        }
        while self.process(host)?.asks() == Some(&Question::Begin) {
            let term = self.store_mut().grant();
            self.process(host)?.answer(Answer::Term(term));
            self.host(host).take(pick, fabric.flaw);
        }
        self.process(host)?.asks().cloned()
    }

    fn be_late(&mut self, host: usize, question: Question) {
        if is_felt(&question) {
            self.late.push((host, question));
        }
    }

    /// Hosts that do nothing hear at once of what does not concern them.
    fn overhear(&mut self) {
        let store = Arc::clone(&self.store);
        for host in 0..self.hosts.len() {
            while self.hosts[host].process.as_ref().is_some_and(|process| process.would_ignore(&store)) {
                self.process(host).into_iter().for_each(|process| process.hear(&store));
            }
        }
    }

    /// What the store or an operator does.
    fn happen(&mut self, action: Action) -> Option<()> {
        let left = &mut self.left;
        match action {
            Action::Expire(grant) => {
                left.expiries -= 1;
                self.store_mut().end(grant);
            }
            Action::Delete(key) => {
                left.deletions -= 1;
                self.store_mut().delete(&key);
            }
            Action::Rewind(host) => {
                left.rewinds -= 1;
                let store = Arc::clone(&self.store);
                self.process(host)?.hear_another(&store);
            }
            Action::Pin(key) => {
                left.pins -= 1;
                let value = self.store.records.get(&key)?.value.clone();
                self.put(&key, value, true);
            }
            Action::Flannel(key) => {
                left.flannels -= 1;
                let theirs = Host::new(99, false).unsigned();
                let own = self.store.records.values().find(|record| record.value == theirs);
                match own.map(|record| record.key.clone()) {
                    Some(own) if own == key => self.put(&key, theirs, false),
                    None if !self.store.records.contains_key(&key) => self.put(&key, theirs, false),
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }
}

impl Fabric {
    /// All that a host could be given.
    pub(crate) fn choices(&self) -> Vec<Subnets> {
        let nets = |family| {
            let pool = self.network.pools.get(family);
            let nets = pool
                .into_iter()
                .flat_map(|pool| (0..pool.size()).filter_map(|index| pool.nth(index)).map(Some));
            if pool.is_some() { nets.collect() } else { vec![None] }
        };
        let v6: Vec<_> = nets(Family::V6);
        nets(Family::V4).into_iter().flat_map(|v4| v6.iter().map(move |v6| Subnets { v4, v6: *v6 })).collect()
    }
}

impl Model for Fabric {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let started = |host: &Host| {
            let mut host = host.clone();
            host.start(&self.store, false);
            Arc::new(host)
        };
        vec![State {
            store: Arc::new(self.store.clone()),
            hosts: self.hosts.iter().map(started).collect(),
            late: Vec::new(),
            left: self.budget,
            harm: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        (0..state.hosts.len()).for_each(|host| state.host_actions(host, actions));
        let keys: Vec<_> = self.choices().iter().map(LeaseKey::of).collect();
        state.others_actions(&keys, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        next.apply(action, self)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FOUNDED, |_, state: &State| {
                unfounded(&state.store.history, &state.beliefs()).is_none()
            }),
            Property::always(SOLE, |_, state: &State| {
                shared(&state.store.history, &state.beliefs()).is_none()
            }),
            Property::always(UNTOUCHED, |_, state: &State| {
                overwritten(&state.store.history).is_none() && state.harm.is_none()
            }),
            Property::always(ENDS_WELL, |fabric: &Self, state: &State| {
                !fabric.fair || fair::ends_well(fabric, state)
            }),
        ]
    }
}

/// Whoever believes to own a lease wrote it.
pub(crate) const FOUNDED: &str = "whoever believes to own a lease wrote it";
/// No two hosts believe to own one subnet at one revision.
pub(crate) const SOLE: &str = "no two hosts own one subnet at one revision";
/// Nobody writes or deletes what is another's.
pub(crate) const UNTOUCHED: &str = "a lease that is another's is never written";
/// Once nothing goes wrong any more, whoever can have a subnet gets one.
pub(crate) const ENDS_WELL: &str = "a free subnet is taken";

/// Whether it matters that the question takes effect late, or twice.
fn is_felt(question: &Question) -> bool {
    matches!(question, Question::Write(_) | Question::Delete(..) | Question::End(_))
}
