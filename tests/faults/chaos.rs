//! Anything that can be broken, on any host, again and again: in the end nothing is missing, and all hosts are to the
//! byte as they were, and as agents make them that start on clean hosts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::breaks::Fault;
use crate::deletions;
use crate::dump::network;
use crate::fabric::PATIENCE;
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, lasting, move_to};

/// From one fault to the next.
const PACE: Duration = Duration::from_secs(1);
/// How long what does not end by itself lasts: a frozen agent, a cable that is out, another address.
const SPELL: Duration = Duration::from_millis(400);

/// What is done in one second to one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Something that its agent mends at once.
    Break,
    /// The same while its agent is dead, or etcd is.
    BreakWithoutAgent,
    BreakWithoutEtcd,
    /// Its agent hangs for a moment.
    Freeze,
    /// Its cable is out for a moment.
    Unplug,
    /// It has another address for a moment.
    Readdress,
    /// Its lease is deleted from etcd, or the etcd lease that keeps it is revoked.
    DeleteLease,
    RevokeLease,
}

/// How many of a hundred are which.
const SHARES: [(Act, u32); 8] = [
    (Act::Break, 50),
    (Act::BreakWithoutAgent, 15),
    (Act::BreakWithoutEtcd, 5),
    (Act::Freeze, 8),
    (Act::Unplug, 7),
    (Act::Readdress, 5),
    (Act::DeleteLease, 5),
    (Act::RevokeLease, 5),
];

/// What `TWILL_SEED` says, or a new one: it is printed.
fn seed() -> u64 {
    let given = std::env::var("TWILL_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

fn choose(rng: &mut fastrand::Rng) -> Act {
    let mut dice = rng.u32(..SHARES.iter().map(|(_, share)| share).sum::<u32>());
    for (act, share) in SHARES {
        match dice.checked_sub(share) {
            Some(rest) => dice = rest,
            None => return act,
        }
    }
    Act::Break
}

/// Breaks something of somebody once a second.
fn rage(world: &mut World) {
    let seed = seed();
    println!("CHAOS on {}: TWILL_SEED={seed}", world.backend.name());
    let mut rng = fastrand::Rng::with_seed(seed);
    let hosts = world.fabric.agents.len();
    // Named while all is whole: what is broken has no names.
    let faults: Vec<_> = (0..hosts).map(|at| deletions::faults(world, at)).collect();
    let keys: Vec<String> = (0..hosts).map(|at| world.key(at)).collect();
    let end = Instant::now() + lasting(Duration::from_secs(600), Duration::from_secs(20));
    let mut done = Vec::new();
    while Instant::now() < end {
        let (begin, at, act) = (Instant::now(), rng.usize(..hosts), choose(&mut rng));
        let fault = &faults[at][rng.usize(..faults[at].len())];
        done.push(format!("n{} {}", at + 1, once(world, at, act, (fault, &keys[at]))));
        std::thread::sleep(PACE.saturating_sub(begin.elapsed()));
    }
    println!("CHAOS on {}: {} faults: {}", world.backend.name(), done.len(), done.join(", "));
}

/// Does it, and says what was done.
fn once(world: &mut World, at: usize, act: Act, (fault, key): (&Fault, &str)) -> String {
    match act {
        Act::BreakWithoutAgent if !operators(fault) => {
            world.fabric.agents[at].kill(Signal::SIGKILL).unwrap();
            let broken = inject(world, at, fault);
            world.fabric.agents[at].restart().unwrap();
            world.fabric.agents[at].wait_ready(PATIENCE).unwrap();
            return format!("{broken} without agent");
        }
        Act::BreakWithoutEtcd => {
            world.etcd[0].signal(Signal::SIGKILL).unwrap();
            let broken = inject(world, at, fault);
            world.etcd[0].restart().unwrap();
            return format!("{broken} without etcd");
        }
        Act::Break | Act::BreakWithoutAgent => return inject(world, at, fault),
        Act::Freeze => {
            world.fabric.agents[at].signal(Signal::SIGSTOP).unwrap();
            std::thread::sleep(SPELL);
            world.fabric.agents[at].signal(Signal::SIGCONT).unwrap();
        }
        Act::Unplug => {
            let lab = &world.fabric.lab;
            lab.underlay.net.link_down(&lab.hosts[at].name).unwrap();
            std::thread::sleep(SPELL);
            lab.underlay.net.link_up(&lab.hosts[at].name).unwrap();
        }
        Act::Readdress => {
            let lab = &world.fabric.lab;
            move_to(&lab.hosts[at].net, &format!("192.168.77.{}", 101 + at), lab.underlay.gateways(0)[0]);
            std::thread::sleep(SPELL);
            lab.readdress(at).unwrap();
        }
        Act::DeleteLease => drop(world.ctl(&["del", key])),
        Act::RevokeLease => world.revoke(key),
    }
    format!("{act:?}")
}

/// What another fault took away a moment ago cannot be broken again.
fn inject(world: &World, at: usize, fault: &Fault) -> String {
    let gone = if fault.try_inject(&world.fabric, at).is_ok() { "" } else { " (gone already)" };
    format!("{}{gone}", fault.name)
}

/// A route without our mark is somebody else's to an agent that starts: it refuses, and says so.
fn operators(fault: &Fault) -> bool {
    matches!(fault.name, "route-altered" | "route-retagged" | "route-blackhole")
}

/// What agents make on hosts that were cleaned is what was there: history leaves no trace.
fn start_afresh(world: &mut World) {
    for index in 0..world.fabric.agents.len() {
        world.fabric.agents[index].kill(Signal::SIGTERM).unwrap();
        let cleaned = world.fabric.twill(index, &["cleanup"]);
        assert!(cleaned.status.success(), "{cleaned:?}");
        let left = network(&world.fabric.lab.hosts[index].net);
        let ours =
            |line: &&String| line.contains("flannel.1") || line.contains("twill") || line.contains("\"70\"");
        assert_eq!(left.iter().find(ours), None, "{left:#?}");
    }
    for agent in &mut world.fabric.agents {
        agent.restart().unwrap();
    }
    world.fabric.wait_ready();
}

fn chaos(backend: Backend) {
    let scenarios = |_: &World| {
        let gap = Allowed::Gap(Duration::from_secs(3));
        vec![
            Scenario::new("chaos", &[10, 31], gap, rage).everybody(),
            Scenario::new(
                "cleaned after the chaos, and started",
                &[9, 10],
                Allowed::WhileItLasts,
                start_afresh,
            )
            .everybody(),
        ]
    };
    play(|| World::new(backend), scenarios);
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
