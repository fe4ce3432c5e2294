//! A peer that is replaced while nobody looks, and a host full of other people's rules.

use std::fmt::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dump::{run, sh};
use crate::fabric::{PATIENCE, wait_for};
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, long};

fn scenarios(world: &World) -> Vec<Scenario> {
    let down = if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::WhileItLasts };
    vec![
        Scenario::new("peer replaced while no agent ran", &[9], down, peer_replaced),
        Scenario::new("20,000 rules of others", &[21], Allowed::Nothing, many_rules),
    ]
}

/// The subnet is another host's when the agent is back: exactly that host has it.
fn peer_replaced(world: &mut World) {
    let (key, subnet) = world.put_lease("192.168.77.200");
    world.wait_route(&subnet);
    world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    world.ctl(&["del", &key]);
    let since = Instant::now();
    world.put_lease("192.168.77.201");
    world.name(0, "kernel-differs", since);
    world.fabric.agents[0].restart().unwrap();
    world.fabric.agents[0].wait_ready(PATIENCE).unwrap();
    let net = &world.fabric.lab.hosts[0].net;
    let device = if world.backend == Backend::HostGw { "eth0" } else { "flannel.1" };
    let look = || {
        sh(
            net,
            &format!("ip route; bridge fdb show dev {device}; ip neigh show nud permanent; nft list ruleset"),
        )
    };
    wait_for("the new peer in place of the old one", || {
        let all = look();
        let routes = all.lines().filter(|line| line.starts_with(&format!("{subnet} "))).count();
        // A userspace datapath keeps who is where to itself.
        let named = all.contains("192.168.77.201") || !world.backend.in_kernel();
        if routes == 1 && named && !all.contains("192.168.77.200") { Ok(()) } else { Err(all) }
    });
    world.ctl(&["del", &key]);
}

/// An agent that asks nobody and starts nothing while nothing changes holds up nobody's lock.
fn many_rules(world: &mut World) {
    let net = &world.fabric.lab.hosts[0].net;
    let mut rules = String::from("table inet others {\n chain many {\n");
    for number in 0..20_000_u32 {
        writeln!(rules, "  ip saddr 198.{}.{}.{} drop", 18 + number % 2, number / 250 % 250, number % 250)
            .unwrap();
    }
    let file = world.fabric.lab.dir().join("others.nft");
    std::fs::write(&file, rules + " }\n}\n").unwrap();
    run(net, &format!("nft -f {}", file.display()));
    let agent = &world.fabric.agents[0];
    // What was announced is looked at once, and every minute or so the agent looks unasked; in between it does nothing.
    let window = Duration::from_secs(if long() { 20 } else { 3 });
    wait_for("a time in which the agent runs no program", || {
        let (begin, before, ran) = (Instant::now(), agent.cpu().unwrap(), children(agent.pid()));
        std::thread::sleep(window);
        let share = (agent.cpu().unwrap() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
        println!("LOAD 20,000 rules on {}: {:.2} % of a processor", world.backend.name(), share * 100.0);
        let idle = children(agent.pid()) == ran && (share < 0.05 || !world.backend.in_kernel());
        if idle { Ok(()) } else { Err(share) }
    });
    run(net, "nft delete table inet others");
}

/// The page faults of the programs that a process has run: each has some.
fn children(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(8).unwrap().parse().unwrap()
}

fn peers(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    peers(Backend::Vxlan);
}

#[test]
fn host_gw() {
    peers(Backend::HostGw);
}

#[test]
fn userspace() {
    peers(Backend::Userspace);
}
