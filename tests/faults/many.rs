//! Very many peers, and a kernel that announces more than anybody can read.

use std::fmt::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dump::{run, sh};
use crate::fabric::wait_for;
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, Shape, World, key, long};

/// The most memory that an agent may have had, in KiB: what the issue allows with 10,000 leases.
const MEMORY: u64 = 96 << 10;
/// Announcements that do not fit into what the kernel keeps for one listener.
const STORM: u32 = 60_000;
/// The most that etcd takes in one transaction.
const TRANSACTION: usize = 128;

/// The length of a subnet, and how many hosts join: more than the part of the pool from which a warning is due.
fn crowd() -> (u8, u32) {
    if long() { (28, 3400) } else { (25, 415) }
}

fn many(backend: Backend) {
    let config = match (backend, long()) {
        (Backend::HostGw, true) => r#"{"Type":"host-gw"},"SubnetLen":28"#,
        (Backend::HostGw, false) => r#"{"Type":"host-gw"},"SubnetLen":25"#,
        (_, true) => r#"{"Type":"vxlan"},"SubnetLen":28"#,
        (_, false) => r#"{"Type":"vxlan"},"SubnetLen":25"#,
    };
    let shape = Shape { config, flags: &["--delete-hold=1"], ..Shape::usual(backend) };
    play(|| World::shaped(backend, shape), scenarios);
}

fn scenarios(world: &World) -> Vec<Scenario> {
    let (_, count) = crowd();
    let frozen = if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::WhileItLasts };
    vec![
        Scenario::new(format!("{count} hosts join and leave"), &[11, 39], Allowed::Nothing, come_and_go)
            .everybody(),
        Scenario::new(format!("announcements overrun, {count} hosts"), &[11], frozen, overrun),
    ]
}

/// All of them join under one lease of etcd, which is returned, and are known everywhere.
fn join(world: &World) -> String {
    let granted = world.ctl(&["lease", "grant", "3600"]);
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    let kind = if world.backend == Backend::HostGw { "host-gw" } else { "vxlan" };
    let puts: Vec<String> = subnets(world)
        .iter()
        .enumerate()
        .map(|(number, subnet)| {
            let (high, low) = (number / 250, number % 250 + 1);
            let data = format!(r#"{{"VNI":1,"VtepMAC":"0e:00:00:01:{high:02x}:{low:02x}"}}"#);
            let data = if kind == "vxlan" { data.as_str() } else { "null" };
            let value = format!(
                r#"{{"PublicIP":"198.18.{high}.{low}","BackendType":"{kind}","BackendData":{data}}}"#
            );
            format!("put --lease={lease} {} {value:?}\n", key(subnet))
        })
        .collect();
    let file = world.fabric.lab.dir().join("transaction");
    for puts in puts.chunks(TRANSACTION) {
        std::fs::write(&file, format!("\n{}\n\n", puts.concat())).unwrap();
        let etcdctl = format!("etcdctl --endpoints {}", world.etcd[0].endpoint());
        sh(&world.fabric.lab.underlay.net, &format!("ETCDCTL_API=3 {etcdctl} txn <{}", file.display()));
    }
    wait_peers(world, puts.len());
    lease
}

/// Where each of those who join is to be: none of them has a lease so far.
fn subnets(world: &World) -> Vec<String> {
    let (length, count) = crowd();
    let taken: Vec<String> = (0..3).map(|host| world.fabric.subnet(host, false).to_string()).collect();
    let all = (1_u32..).map(|number| {
        let base = (number << (32 - length)).to_be_bytes();
        format!("10.244.{}.{}/{length}", base[2], base[3])
    });
    all.filter(|subnet| !taken.contains(subnet)).take(count as usize).collect()
}

/// Waits until all kernels have as many routes more as hosts have joined.
fn wait_peers(world: &World, joined: usize) {
    for (index, host) in world.fabric.lab.hosts[..3].iter().enumerate() {
        wait_for("a route to everybody", || {
            let routes = run(&host.net, "ip route show proto 70").lines().count();
            let status = world.fabric.status(index);
            let settled = status["reconcile"]["converged"] == true;
            if routes == joined + 2 && settled { Ok(()) } else { Err((routes, status["faults"][0].clone())) }
        });
    }
}

/// host-gw needs them on a network of the host's.
fn on_link(world: &World, verb: &str) {
    if world.backend == Backend::HostGw {
        for host in &world.fabric.lab.hosts[..3] {
            run(&host.net, &format!("ip addr {verb} 198.18.255.254/16 dev eth0"));
        }
    }
}

/// Somebody leaves as all their leases end at once: held back for a moment, and gone.
fn leave(world: &World, lease: &str) {
    world.ctl(&["lease", "revoke", lease]);
    wait_peers(world, 0);
    on_link(world, "del");
}

/// The most memory an agent has had, in KiB.
fn memory(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.fabric.agents[0].pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn come_and_go(world: &mut World) {
    let since = Instant::now();
    on_link(world, "add");
    let lease = join(world);
    println!("CROWD on {}: {} ms, {} KiB", world.backend.name(), since.elapsed().as_millis(), memory(world));
    world.name(0, "pool-low", Instant::now());
    assert!(memory(world) < MEMORY, "{} KiB", memory(world));
    leave(world, &lease);
}

/// The agent wakes up to a full buffer: it looks once at everything, and mends what it was not told of.
fn overrun(world: &mut World) {
    on_link(world, "add");
    let lease = join(world);
    let net = world.fabric.lab.hosts[0].net.clone();
    let looks =
        |world: &World| world.fabric.status(0)["reconcile"]["tally"]["observations"].as_u64().unwrap();
    let (before, route) = (looks(world), subnets(world)[0].clone());
    world.fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    storm(world, &format!("route del {route}"));
    world.fabric.agents[0].signal(Signal::SIGCONT).unwrap();
    wait_for("the route that nothing was heard of", || {
        let routes = sh(&net, &format!("ip route show {route}"));
        if routes.is_empty() { Err(routes) } else { Ok(()) }
    });
    wait_peers(world, subnets(world).len());
    std::thread::sleep(Duration::from_secs(1));
    let looked = looks(world) - before;
    println!("OVERRUN on {}: {looked} looks, {} KiB", world.backend.name(), memory(world));
    assert!((1..=4).contains(&looked), "{looked} looks");
    assert!(memory(world) < MEMORY, "{} KiB", memory(world));
    leave(world, &lease);
}

/// Announces routes and links of no concern until there is no room, and then does `last`.
fn storm(world: &World, last: &str) {
    let mut lines = String::from("link add storm0 type bridge\nlink set storm0 up\n");
    for number in 0..STORM / 2 {
        writeln!(lines, "route add 198.19.{}.{} dev storm0", number >> 8 & 255, number & 255).unwrap();
        if number % 1000 == 0 {
            lines += "link set storm0 mtu 1400\nlink set storm0 mtu 1500\n";
        }
    }
    for number in 0..STORM / 2 {
        writeln!(lines, "route del 198.19.{}.{} dev storm0", number >> 8 & 255, number & 255).unwrap();
    }
    writeln!(lines, "{last}\nlink del storm0").unwrap();
    let file = world.fabric.lab.dir().join("storm");
    std::fs::write(&file, lines).unwrap();
    run(&world.fabric.lab.hosts[0].net, &format!("ip -batch {}", file.display()));
}

#[test]
fn vxlan() {
    many(Backend::Vxlan);
}

#[test]
fn host_gw() {
    many(Backend::HostGw);
}

#[test]
fn userspace() {
    many(Backend::Userspace);
}
