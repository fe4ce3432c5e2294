//! What the network between hosts does to packets: each has its name while it lasts, and is over when it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::UPLINK;
use twill::lab::probe::tcp_gbps;

use crate::breaks::{drop_at, mend};
use crate::dump::{mac_of, sh};
use crate::fabric::{PATIENCE, wait_for};
use crate::scenario::{Allowed, SECOND, Scenario, play};
use crate::world::{Backend, World};

/// How much is sent through a path that became narrower.
const BULK: usize = 4 << 20;

fn scenarios(world: &World) -> Vec<Scenario> {
    let mac = mac_of(&world.fabric.lab.hosts[0].net, UPLINK);
    let mut all = vec![
        dropped(
            "nothing passes to a peer",
            (&[30], Allowed::WhileItLasts),
            "one-way",
            format!("ether saddr {mac}"),
        ),
        cut_off(),
        agent_down(world.backend),
        Scenario::new("TCP in bulk", &[34], SECOND, bulk),
    ];
    if world.backend == Backend::HostGw {
        all.push(Scenario::new("a switch takes less", &[18, 19], SECOND, narrower));
    } else {
        let port = |number: u16| format!("udp dport {number}");
        let lost = (&[30, 32][..], Allowed::WhileItLasts);
        all.push(dropped("the tunnel's port eaten", lost, "port-eaten", port(8472)));
        // Without a tunnel there is no second way that would tell this from a peer that hears nothing.
        all.push(dropped("the probes' port eaten", (&[30], Allowed::Nothing), "underlay-down", port(8475)));
    }
    all
}

/// Something from the first host is dropped before it reaches the second.
fn dropped(
    name: &str,
    (rows, allowed): (&'static [u8], Allowed),
    code: &'static str,
    rule: String,
) -> Scenario {
    Scenario::lasting(
        (name, rows, allowed),
        code,
        move |world| {
            let from = world.fabric.lab.hosts[0].addresses[0];
            let only = if rule.starts_with("ether") { String::new() } else { format!("ip saddr {from} ") };
            drop_at(&world.fabric.lab.hosts[1], &format!("{only}{rule}"));
        },
        |world| mend(&world.fabric.lab.hosts[1]),
    )
}

/// The second host's cable is pulled at the switch.
fn cut_off() -> Scenario {
    let port = |world: &mut World, how: &str| {
        let (net, name) = (&world.fabric.lab.underlay.net, &world.fabric.lab.hosts[1].name);
        sh(net, &format!("ip link set {name} {how}"));
    };
    Scenario::lasting(
        ("a peer cut off", &[30], Allowed::WhileItLasts),
        "peer-unreachable",
        move |world| port(world, "nomaster"),
        move |world| port(world, "master ub0"),
    )
    .everybody()
}

fn agent_down(backend: Backend) -> Scenario {
    // Where the agent carries the packets, none passes without it.
    let (allowed, code) = if backend.in_kernel() {
        (Allowed::Nothing, "agent-down")
    } else {
        (Allowed::WhileItLasts, "overlay-down")
    };
    Scenario::lasting(
        ("a peer's agent killed", &[30], allowed),
        code,
        |world| assert!(!world.fabric.agents[1].kill(Signal::SIGKILL).unwrap().success()),
        |world| {
            world.fabric.agents[1].restart().unwrap();
            world.fabric.agents[1].wait_ready(PATIENCE).unwrap();
        },
    )
    .everybody()
}

/// It says nothing when it drops what is too large.
fn narrower(world: &mut World) {
    let (since, net) = (Instant::now(), world.fabric.lab.underlay.net.clone());
    let port = world.fabric.lab.hosts[1].name.clone();
    net.set_mtu(&port, 1400).unwrap();
    path_found(world, since, 1400);
    net.set_mtu(&port, 1500).unwrap();
}

/// What passes between the first two hosts is found and named, and TCP gets through.
pub(crate) fn path_found(world: &mut World, since: Instant, mtu: u32) {
    world.name(0, "path-mtu", since);
    for (host, peer) in [(0, 1), (1, 0)] {
        let subnet = world.fabric.subnet(peer, false);
        wait_for("a route of what passes", || {
            let route = sh(&world.fabric.lab.hosts[host].net, &format!("ip route show {subnet}"));
            if route.contains(&format!("mtu {mtu}")) { Ok(()) } else { Err(route) }
        });
    }
    send(world, BULK);
}

/// Sends bytes over TCP from the first pod to the second: all have to come.
fn send(world: &World, bytes: usize) {
    let [from, to, ..] = &world.fabric.pods[..] else { panic!("pods") };
    let target = SocketAddr::new(to.addresses[0], 0);
    let listener = to.net.run(|| TcpListener::bind(target)).unwrap().unwrap();
    let server = listener.local_addr().unwrap();
    let mut near = from.net.run(|| TcpStream::connect_timeout(&server, PATIENCE)).unwrap().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let sending = std::thread::spawn(move || near.write_all(&vec![7; bytes]));
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    sending.join().unwrap().unwrap();
    assert_eq!(got.len(), bytes);
}

/// As much as goes, beside everything else that flows.
fn bulk(world: &mut World) {
    let [from, to, ..] = &world.fabric.pods[..] else { panic!("pods") };
    let (target, cancel) = (to.addresses[0], world.fabric.lab.cancel());
    let rate = tcp_gbps(&from.net, &to.net, target, Duration::from_secs(2), cancel).unwrap();
    println!("BULK on {}: {rate:.2} Gbit/s", world.backend.name());
    // flannel's userspace datapath, one packet at a time, came to a twentieth of what it was given.
    assert!(rate > 0.05, "{rate} Gbit/s");
}

fn paths(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    paths(Backend::Vxlan);
}

#[test]
fn host_gw() {
    paths(Backend::HostGw);
}

#[test]
fn userspace() {
    paths(Backend::Userspace);
}
