//! Power and processes are lost; addresses are not.

use std::collections::BTreeSet;
use std::ops::Range;

use twill::lab::Process;
use twill::lab::probe::http_get;

use crate::fabric::{Fabric, PATIENCE, need_containerd, wait_for};
use crate::machine::{Container, Machine, WHO};

/// Thirteen containers have room on a host.
const SMALL: &str = r#"{"Network":"10.244.0.0/16","SubnetLen":28,"Backend":{"Type":"vxlan"}}"#;
const ROOM: usize = 13;

fn start(machine: &Machine, numbers: Range<usize>) -> Vec<Container> {
    numbers.map(|n| machine.start(&format!("c{n}"))).collect()
}

/// The addresses that are taken must be these containers', each another.
fn assert_taken(machine: &Machine, by: &[Container]) {
    let addresses: BTreeSet<String> = by.iter().map(|one| one.address.to_string()).collect();
    let left = machine.left();
    assert_eq!(addresses.len(), by.len(), "{by:?}");
    assert_eq!((left.addresses.into_iter().collect(), left.states.len()), (addresses, by.len()));
}

#[test]
fn containers_outlive_containerd_and_keep_their_addresses() {
    need_containerd!();
    let mut fabric = Fabric::new(1, SMALL, &[]);
    let machine = &mut fabric.machines[0];
    let living = start(machine, 0..4);
    // Of these, `ctr` waits for the end: without containerd it takes them for ended, and detaches them.
    let mut waited: Vec<Process> = (20..22).map(|n| machine.spawn("--rm", &format!("c{n}"))).collect();
    wait_for("the containers that are waited for", || {
        let running = machine.running();
        (running.len() == living.len() + waited.len()).then_some(()).ok_or(running)
    });
    // Four more are on their way when it is killed.
    let mut coming: Vec<Process> = (4..8).map(|n| machine.spawn("--detach", &format!("c{n}"))).collect();
    wait_for("a container that is being attached", || {
        let taken = machine.left().addresses.len();
        (taken > living.len() + waited.len()).then_some(()).ok_or(taken)
    });
    machine.kill_containerd();
    for ctr in waited.iter_mut().chain(&mut coming) {
        ctr.wait(PATIENCE).unwrap();
    }
    machine.start_containerd();
    for one in &living {
        let (code, _) = http_get(&fabric.lab.hosts[0].net, one.server(), WHO).unwrap();
        assert_eq!((code, machine.address(&one.id).unwrap()), (200, one.address), "{one:?}");
    }
    // What was on its way and does not run is nobody's; all the others keep what they have.
    let seen = |id: String| Some(Container { address: machine.address(&id).ok()?, id });
    let mut there: Vec<Container> = machine.running().into_iter().filter_map(seen).collect();
    assert!(
        !there.iter().any(|one| ["c20", "c21"].contains(&&*one.id)),
        "a wire without an address: {there:?}"
    );
    let valid: Vec<&str> = there.iter().map(|one| one.id.as_str()).collect();
    machine.collect(&valid, &fabric.agents[0]).unwrap();
    assert_taken(machine, &there);
    // The whole subnet can be used.
    there.extend(start(machine, 100..100 + ROOM - there.len()));
    assert_taken(machine, &there);
    let error = machine.run_to_end("late", &["sh", "-c", "true"]).unwrap_err().to_string();
    assert!(error.contains("no IP addresses available"), "{error}");
    // Their ends are noticed by nobody who would detach them.
    there.iter().for_each(|one| machine.kill(&one.id));
    machine.collect(&[], &fabric.agents[0]).unwrap();
    assert_taken(machine, &[]);
}

#[test]
fn a_host_that_lost_its_power_has_all_its_addresses_again() {
    need_containerd!();
    let mut fabric = Fabric::new(1, SMALL, &[]);
    let subnet = fabric.agents[0].subnet().unwrap();
    let before = start(&fabric.machines[0], 0..ROOM);
    assert_taken(&fabric.machines[0], &before);
    fabric.reboot(0);
    assert_eq!(fabric.agents[0].subnet().unwrap(), subnet, "the host's subnet");
    // Nobody has detached the containers of before, and nobody will: this runtime does not collect.
    let after = start(&fabric.machines[0], 100..100 + ROOM);
    assert_taken(&fabric.machines[0], &after);
}
