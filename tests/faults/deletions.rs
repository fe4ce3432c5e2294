//! Anything of ours that is deleted or altered is back.

use std::time::Duration;

use crate::breaks::{self, Fault};
use crate::scenario::{Allowed, FIREWALL, SECOND, Scenario, play};
use crate::world::{Backend, World};

/// What the name of a fault begins with, and the rows that it stands for.
const ROWS: [(&str, &[u8]); 13] = [
    ("device-mac", &[6]),
    ("device-mtu", &[18]),
    ("device", &[7]),
    ("uplink", &[7, 8]),
    ("route", &[8, 10]),
    ("all-routes", &[8]),
    ("address-foreign", &[35]),
    ("address", &[10]),
    ("subnet-file", &[12]),
    ("forwarding", &[35]),
    ("neighbour", &[10]),
    ("fdb", &[10]),
    ("all-neighbours", &[10]),
];

/// Tables, rules and sets are what is not in the list. Whoever loses its uplink has to ask for the way again.
fn scenario(fault: Fault) -> Scenario {
    let row = ROWS.iter().find(|(name, _)| fault.name.starts_with(name));
    let (rows, mut allowed) = row.map_or((&[20_u8][..], FIREWALL), |(_, rows)| (rows, SECOND));
    if fault.name == "uplink-replaced" {
        allowed = Allowed::Gap(Duration::from_secs(2));
    }
    Scenario::new(fault.name, rows, allowed, move |world| fault.inject(&world.fabric, 0))
}

/// All that can be broken of a host with this backend.
pub(crate) fn faults(world: &World, at: usize) -> Vec<Fault> {
    let fabric = &world.fabric;
    let mut faults = breaks::host(fabric, at);
    faults.extend(breaks::nftables(fabric, at));
    faults.extend(match world.backend {
        Backend::HostGw => breaks::direct(fabric, at, false),
        Backend::Vxlan | Backend::Userspace => breaks::tunnel(fabric, at, false),
    });
    // The agent's own datapath asks by itself who may send what, and has its own table of who is where.
    let kernels = |name: &str| name == "guard-emptied" || name.starts_with("fdb");
    faults.retain(|fault| world.backend.in_kernel() || !kernels(fault.name));
    faults
}

fn deletions(backend: Backend) {
    play(|| World::new(backend), |world| faults(world, 0).into_iter().map(scenario).collect());
}

#[test]
fn vxlan() {
    deletions(Backend::Vxlan);
}

#[test]
fn host_gw() {
    deletions(Backend::HostGw);
}

#[test]
fn userspace() {
    deletions(Backend::Userspace);
}
