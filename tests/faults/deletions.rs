//! Anything of ours that is deleted or altered is back.

use std::time::{Duration, Instant};

use crate::breaks::{self, Fault};
use crate::scenario::{Allowed, FIREWALL, SECOND, Scenario, play};
use crate::world::{Backend, World};

/// What the name of a fault begins with, the rows that it stands for, and what the agent then says that it mended. An
/// uplink is not the agent's to mend.
const ROWS: [(&str, &[u8], Option<&str>); 14] = [
    ("device-mac", &[6], Some("link")),
    ("device-mtu", &[18], Some("link")),
    ("device", &[7], Some("link")),
    ("uplink", &[7, 8], None),
    ("route", &[8, 10], Some("route")),
    ("all-routes", &[8], Some("route")),
    ("address-foreign", &[35], Some("link")),
    ("address", &[10], Some("link")),
    ("subnet-file", &[12], Some("file")),
    ("forwarding", &[35], Some("sysctl")),
    ("neighbour", &[10], Some("neighbour")),
    ("fdb", &[10], Some("fdb")),
    ("all-neighbours", &[10], Some("neighbour")),
    ("guard", &[20], Some("guard")),
];

/// Tables and rules are what is not in the list. Whoever loses its uplink has to ask for the way again.
fn scenario(fault: Fault) -> Scenario {
    let row = ROWS.iter().find(|(name, ..)| fault.name.starts_with(name));
    let (rows, kind) = row.map_or((&[20_u8][..], Some("firewall")), |(_, rows, kind)| (rows, *kind));
    let allowed = match fault.name {
        "uplink-replaced" => Allowed::Gap(Duration::from_secs(2)),
        _ if rows == [20] => FIREWALL,
        _ => SECOND,
    };
    Scenario::new(fault.name, rows, allowed, move |world| {
        let Some(kind) = kind else { return fault.inject(&world.fabric, 0) };
        let (since, before) = (Instant::now(), world.repairs(kind));
        fault.inject(&world.fabric, 0);
        world.name_repair(kind, before, since);
    })
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
