//! The store and the leases in it.

use std::collections::BTreeMap;

use twill_backends::family::Family;
use twill_backends::fault::{Code, Fault};

use super::agent::of_fault;
use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::doctor::sign::Sign;
use crate::store::Entry;

/// Whether the store answers, and what it has can be used.
pub(super) fn store(facts: &Facts) -> Vec<Finding> {
    let broken = |fault: &Fault| vec![of_fault(fault)];
    match (&facts.store.network, &facts.store.entries) {
        (Err(fault), _) | (_, Err(fault)) => broken(fault),
        (Ok(_), Ok(entries)) => {
            entries.iter().filter_map(|entry| entry.lease.as_ref().err()).map(of_fault).collect()
        }
    }
}

/// Whether this host has a lease. A store that is away says nothing of it.
pub(super) fn own(facts: &Facts) -> Vec<Finding> {
    if !facts.fabric.own.is_empty() || facts.store.network.is_err() || facts.store.entries.is_err() {
        return Vec::new();
    }
    let node = facts.fabric.node.as_deref().unwrap_or("there is no node id yet");
    vec![Finding::new(Sign::NoLease.entry(), "lease", format!("none is of this host's ({node})"))]
}

/// Whether two hosts are one: of one identity, or at one address.
pub(super) fn twice(facts: &Facts) -> Vec<Finding> {
    let entries = facts.store.entries.as_deref().unwrap_or_default();
    let nodes = groups(entries, |entry| entry.lease.as_ref().ok()?.attrs.node_id.clone());
    let addrs = groups(entries, |entry| {
        let attrs = &entry.lease.as_ref().ok()?.attrs;
        Family::ALL.iter().find_map(|family| attrs.public(*family)).map(|addr| addr.to_string())
    });
    let finding = |entry, (shared, keys): (String, Vec<String>)| {
        Finding::new(entry, shared, format!("leases {}", keys.join(", "))).wanted("one lease")
    };
    let nodes = nodes.into_iter().map(|group| finding(Sign::DuplicateNode.entry(), group));
    let addrs = addrs.into_iter().map(|group| finding(Code::DuplicateAddress.entry(), group));
    nodes.chain(addrs).collect()
}

/// Leases that share something, by what they share. A reservation is no second lease.
fn groups(entries: &[Entry], of: impl Fn(&Entry) -> Option<String>) -> Vec<(String, Vec<String>)> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.permanent) {
        if let Some(shared) = of(entry) {
            groups.entry(shared).or_default().push(entry.key.to_string());
        }
    }
    groups.into_iter().filter(|(_, keys)| keys.len() > 1).collect()
}
