//! Agents that end, are killed, replaced or frozen: packets do not notice, or hardly.

use std::time::Duration;

use nix::sys::signal::Signal;
use twill::lab::copy_program;

use crate::fabric::{TWILL, options};
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, long};

/// What a restart may cost: nothing where the kernel carries, and a tenth of a second where the agent does.
fn restart(world: &World) -> Allowed {
    if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::Gap(Duration::from_millis(100)) }
}

fn again(world: &mut World) {
    world.fabric.agents[0].restart().unwrap();
    world.fabric.wait_ready();
    world.fabric.wait_settled();
}

/// The same program by another name takes over.
fn upgrade(world: &mut World) {
    let next = world.fabric.lab.dir().join("twill-next");
    copy_program(TWILL.as_ref(), &next).unwrap();
    let mut with = options(world.fabric.store.clone(), world.backend.flags());
    with.program = next;
    assert!(world.fabric.agents[0].take_over(with).unwrap().success());
    world.fabric.wait_ready();
    world.fabric.wait_settled();
}

fn scenarios(world: &World) -> Vec<Scenario> {
    let allowed = restart(world);
    // A frozen agent carries nothing.
    let frozen = if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::WhileItLasts };
    let restarts = if long() { 100 } else { 3 };
    vec![
        Scenario::new("agent killed", &[22, 23], allowed, |world| {
            world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
            again(world);
        }),
        Scenario::new("agent ended and started", &[22, 23], allowed, |world| {
            assert!(world.fabric.agents[0].kill(Signal::SIGTERM).unwrap().success());
            again(world);
        }),
        Scenario::new("agent upgraded", &[23], Allowed::Nothing, upgrade),
        Scenario::new(format!("{restarts} restarts"), &[22, 23], allowed, move |world| {
            for _ in 0..restarts {
                world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
                again(world);
            }
        }),
        Scenario::new("agent frozen", &[14, 30], frozen, |world| {
            world.fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_secs(2));
            world.fabric.agents[0].signal(Signal::SIGCONT).unwrap();
        }),
    ]
}

fn agents(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    agents(Backend::Vxlan);
}

#[test]
fn host_gw() {
    agents(Backend::HostGw);
}

#[test]
fn userspace() {
    agents(Backend::Userspace);
}
