//! An etcd of three members, one or two of which are gone.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::scenario::{Allowed, Scenario, play};
use crate::store::{JOINS, wait_down};
use crate::world::{Backend, Shape, World, lasting};

/// With three members, of which each agent asks any first.
fn members(_: &World) -> Vec<Scenario> {
    let lossless =
        |name: &str, run: fn(&mut World)| Scenario::new(name, &[13], Allowed::Nothing, run).everybody();
    vec![
        lossless("one etcd member of three gone", one_member_gone),
        lossless("etcd has another leader", another_leader),
        lossless("two etcd members of three gone", two_members_gone),
    ]
}

/// Whatever happens is known as before.
fn one_member_gone(world: &mut World) {
    world.etcd[0].signal(Signal::SIGKILL).unwrap();
    let key = world.join(JOINS);
    thread::sleep(lasting(Duration::from_secs(60), Duration::from_secs(1)));
    world.ctl(&["del", &key]);
    world.etcd[0].restart().unwrap();
}

/// Each time another one leads.
fn another_leader(world: &mut World) {
    let list = world.ctl(&["member", "list"]);
    let ids: Vec<&str> = list.lines().filter_map(|line| line.split(',').next()).collect();
    for _ in 0..3 {
        // Only the one that leads can hand over, and not to itself.
        let hand = |id: &&&str| world.etcd.iter().any(|member| member.etcdctl(&["move-leader", id]).is_ok());
        ids.iter().find(hand).unwrap_or_else(|| panic!("nobody leads among {list}"));
        let key = world.join(JOINS);
        world.ctl(&["del", &key]);
    }
}

/// What is left may read, and not write.
fn two_members_gone(world: &mut World) {
    let since = Instant::now();
    let [first, second, ..] = &mut world.etcd[..] else { panic!("three members") };
    first.signal(Signal::SIGKILL).unwrap();
    second.signal(Signal::SIGKILL).unwrap();
    wait_down(world, since);
    thread::sleep(lasting(Duration::from_secs(60), Duration::from_secs(2)));
    for member in &mut world.etcd[..2] {
        member.restart().unwrap();
    }
}

fn clusters(backend: Backend) {
    play(|| World::shaped(backend, Shape { members: 3, ..Shape::usual(backend) }), members);
}

#[test]
fn vxlan() {
    clusters(Backend::Vxlan);
}

#[test]
fn host_gw() {
    clusters(Backend::HostGw);
}

#[test]
fn userspace() {
    clusters(Backend::Userspace);
}
