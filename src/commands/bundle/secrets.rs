//! The secrets of this host, as far as it knows them.

use std::fs;

use twill_backends::lease::Lease;

use super::Found;
use crate::agent::identity::machine_id;
use crate::agent::memory::Memory;
use crate::bundle::redact::Secrets;
use crate::config::StoreConfig;

const PROBES: &str = "keys of probes";

/// All of them. Those of the command line are found where that is read.
pub(super) fn known(found: &Found) -> Secrets {
    let mut secrets = Secrets::default();
    let site = &found.look.agent.site;
    let told = found.running.as_ref().map(|running| &running.config.site.store);
    [Some(&site.store), told].into_iter().flatten().for_each(|store| of_store(store, &mut secrets));
    let state = site.state_dir();
    let own = fs::read_to_string(state.join("probe.key")).unwrap_or_default();
    secrets.add(PROBES, own.trim());
    let memory = Memory::load(&state.join("snapshot.json")).ok().flatten();
    let remembered = memory.iter().flat_map(|memory| memory.leases.iter().chain(&memory.own));
    let surveyed = found.survey.iter().flat_map(|survey| &survey.leases);
    let entries = found.facts.iter().filter_map(|facts| facts.store.entries.as_ref().ok()).flatten();
    let stored = entries.filter_map(|entry| entry.lease.as_ref().ok());
    remembered.chain(surveyed).chain(stored).for_each(|lease| of_lease(lease, &mut secrets));
    // systemd asks for it to be told to nobody.
    secrets.add("ids of machines", machine_id());
    secrets
}

fn of_store(store: &StoreConfig, secrets: &mut Secrets) {
    let StoreConfig::Etcd(etcd) = store else { return };
    if let Some((_, password)) = &etcd.user {
        secrets.add("passwords of etcd", password.expose());
    }
    let key = etcd.tls.as_ref().and_then(|tls| tls.key.as_ref());
    if let Some(pem) = key.and_then(|key| fs::read_to_string(key).ok()) {
        secrets.add_pem("lines of private keys", &pem);
    }
}

fn of_lease(lease: &Lease, secrets: &mut Secrets) {
    if let Some(probe) = &lease.attrs.probe {
        secrets.add(PROBES, &probe.secret);
    }
}
