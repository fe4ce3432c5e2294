//! An etcd that is away, slow, compacted, or has lost what it knew: packets flow on.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fabric::wait_for;
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, lasting};

/// How long etcd is away.
fn outage() -> Duration {
    lasting(Duration::from_secs(600), Duration::from_secs(4))
}

/// Whether an agent says that the store is down, and is ready all the same.
fn enduring(status: &Value) -> bool {
    let faults = status["faults"].as_array().map_or(&[][..], Vec::as_slice);
    status["state"] == "degraded" && faults.iter().any(|fault| fault["code"] == "store-down")
}

/// Waits until all agents say so.
fn wait_down(world: &World) {
    for host in 0..world.fabric.agents.len() {
        wait_for("an agent that misses its store", || {
            let status = world.fabric.status(host);
            if enduring(&status) { Ok(()) } else { Err(status) }
        });
        let (code, why) = world.fabric.agents[host].get("/readyz").unwrap();
        assert_eq!(code, 200, "pods can be started during an outage: {why}");
    }
}

fn scenarios(_: &World) -> Vec<Scenario> {
    let scenario = |name: &str, rows: &'static [u8], run: fn(&mut World)| {
        Scenario::new(name, rows, Allowed::Nothing, run).everybody()
    };
    vec![
        scenario("etcd frozen", &[13, 14], |world| {
            world.etcd.signal(Signal::SIGSTOP).unwrap();
            wait_down(world);
            world.etcd.signal(Signal::SIGCONT).unwrap();
        }),
        scenario("etcd gone", &[13, 31], |world| {
            world.etcd.signal(Signal::SIGKILL).unwrap();
            wait_down(world);
            thread::sleep(outage());
            world.etcd.restart().unwrap();
        }),
    ]
}

fn stores(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    stores(Backend::Vxlan);
}

#[test]
fn host_gw() {
    stores(Backend::HostGw);
}

#[test]
fn userspace() {
    stores(Backend::Userspace);
}
