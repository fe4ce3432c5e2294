//! Anything that can be broken, on any host, again and again: in the end nothing is missing, and all hosts are to the
//! byte as they were.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::breaks::Fault;
use crate::deletions;
use crate::fabric::PATIENCE;
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, lasting};

/// From one fault to the next.
const PACE: Duration = Duration::from_secs(1);
/// How many faults of a hundred come while the host's agent is dead, and how many while etcd is.
const AGENTS: u8 = 15;
const STORES: u8 = 5;

/// What `TWILL_SEED` says, or a new one: it is printed.
fn seed() -> u64 {
    let given = std::env::var("TWILL_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// Breaks something of somebody once a second.
fn rage(world: &mut World) {
    let seed = seed();
    println!("CHAOS on {}: TWILL_SEED={seed}", world.backend.name());
    let mut rng = fastrand::Rng::with_seed(seed);
    let hosts = world.fabric.agents.len();
    // Named while all is whole: what is broken has no names.
    let faults: Vec<_> = (0..hosts).map(|at| deletions::faults(world, at)).collect();
    let end = Instant::now() + lasting(Duration::from_secs(600), Duration::from_secs(20));
    let mut done = Vec::new();
    while Instant::now() < end {
        let (begin, at, dice) = (Instant::now(), rng.usize(..hosts), rng.u8(..100));
        let fault = &faults[at][rng.usize(..faults[at].len())];
        let (agent, etcd) = (dice < AGENTS && !operators(fault), dice >= 100 - STORES);
        if agent {
            world.fabric.agents[at].kill(Signal::SIGKILL).unwrap();
        }
        if etcd {
            world.etcd[0].signal(Signal::SIGKILL).unwrap();
        }
        // What another fault took away a moment ago cannot be broken again.
        let hurt = fault.try_inject(&world.fabric, at).is_ok();
        let without = if agent {
            " without agent"
        } else if etcd {
            " without etcd"
        } else {
            ""
        };
        done.push(format!(
            "n{} {}{without}{}",
            at + 1,
            fault.name,
            if hurt { "" } else { " (gone already)" }
        ));
        if etcd {
            world.etcd[0].restart().unwrap();
        }
        if agent {
            world.fabric.agents[at].restart().unwrap();
            world.fabric.agents[at].wait_ready(PATIENCE).unwrap();
        }
        std::thread::sleep(PACE.saturating_sub(begin.elapsed()));
    }
    println!("CHAOS on {}: {} faults: {}", world.backend.name(), done.len(), done.join(", "));
}

/// A route without our mark is somebody else's to an agent that starts: it refuses, and says so.
fn operators(fault: &Fault) -> bool {
    matches!(fault.name, "route-altered" | "route-retagged" | "route-blackhole")
}

fn chaos(backend: Backend) {
    let scenario = |_: &World| {
        vec![Scenario::new("chaos", &[10, 31], Allowed::Gap(Duration::from_secs(3)), rage).everybody()]
    };
    play(|| World::new(backend), scenario);
}

#[test]
fn vxlan() {
    chaos(Backend::Vxlan);
}

#[test]
fn host_gw() {
    chaos(Backend::HostGw);
}

#[test]
fn userspace() {
    chaos(Backend::Userspace);
}
