//! Whether all ends well once nothing goes wrong any more: the bounded form of "a free subnet is always eventually taken".

use std::sync::Arc;

use twill_backends::fault::Code;
use twill_backends::record::overlap;

use crate::fabric::{Fabric, State};
use crate::flaws::Flaw;

/// In how many rounds each host must have what it can have.
const ROUNDS: usize = 6;
/// More questions than any errand has, races included.
const QUESTIONS: usize = 100;

/// Late questions arrive, then each host in turn does what it wants to and hears of everything; grants that nobody
/// renews end.
pub(crate) fn ends_well(fabric: &Fabric, state: &State) -> bool {
    if !is_at_rest(state) {
        return true;
    }
    let mut state = state.clone();
    for (host, question) in std::mem::take(&mut state.late) {
        state.serve(host, &question, fabric.flaw);
    }
    (0..ROUNDS).any(|_| {
        (0..state.hosts.len()).for_each(|host| turn(fabric, &mut state, host));
        expire(&mut state);
        (0..state.hosts.len()).all(|host| has_what_it_can(fabric, &state, host))
    })
}

/// Whether nothing is under way. Whatever else there is comes to such a state by steps that are tried as well.
fn is_at_rest(state: &State) -> bool {
    state.hosts.iter().all(|host| host.process.as_ref().is_none_or(|process| process.call.is_none()))
}

fn turn(fabric: &Fabric, state: &mut State, at: usize) {
    if state.hosts[at].process.is_none() {
        let store = Arc::clone(&state.store);
        state.host(at).start(&store, false);
    }
    let store = Arc::clone(&state.store);
    let Some(process) = state.process(at) else { return };
    while process.heard < store.history.len() {
        process.hear(&store);
    }
    if !process.is_due() || fabric.flaw.is_idle(process) {
        return;
    }
    for _ in 0..QUESTIONS {
        state.step(at, 0, fabric);
        if state.hosts[at].process.as_ref().is_none_or(|process| process.call.is_none()) {
            return;
        }
    }
    panic!("an errand without end: {:?}", state.hosts[at]);
}

fn expire(state: &mut State) {
    let renewed: Vec<_> =
        state.hosts.iter().filter_map(|host| host.process.as_ref()?.held()?.term.grant()).collect();
    let over: Vec<_> = state.store.grants.iter().filter(|grant| !renewed.contains(grant)).copied().collect();
    over.into_iter().for_each(|grant| state.store_mut().end(grant));
}

/// It holds a lease that the store has; or there is none it could have.
fn has_what_it_can(fabric: &Fabric, state: &State, at: usize) -> bool {
    let host = &state.hosts[at];
    let Some(process) = &host.process else { return false };
    if let Some(held) = process.held() {
        return state.store.records.get(&held.lease.key).is_some_and(|record| held.wrote(record));
    }
    let taken = |subnets| {
        let others = state.store.records.keys().filter_map(|key| key.subnets().ok());
        others.into_iter().any(|theirs| overlap(&theirs, &subnets))
    };
    match process.tenure.fault().map(|fault| fault.code) {
        Some(Code::PoolExhausted) => fabric.choices().into_iter().all(taken),
        Some(Code::LeaseLost) => taken(process.tenure.had()),
        _ => false,
    }
}

impl Flaw {
    fn is_idle(self, process: &crate::host::Process) -> bool {
        self == Self::GivesUp && process.held().is_none() && process.tenure.lease().is_some()
    }
}
