//! Hosts whose addresses change, that flap, that come to a fabric they do not fit in, or find others on their port.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::{AgentProcess, BRIDGE, Netns, tail};

use crate::dump::{self, difference};
use crate::examine::Doctor;
use crate::fabric::{PATIENCE, options, wait_for};
use crate::scenario::{Allowed, SECOND, Scenario, play};
use crate::world::{Backend, World, fault, key, long, move_to};

/// What a host may take over a change of its own address: others have to hear of it.
const MOVE: Allowed = Allowed::Gap(Duration::from_secs(3));

fn scenarios(world: &World) -> Vec<Scenario> {
    let flaps = if long() { 50 } else { 5 };
    let mut all = vec![
        Scenario::new(format!("uplink flaps {flaps} times"), &[7, 8], SECOND, move |world| {
            for _ in 0..flaps {
                world.fabric.lab.readdress(0).unwrap();
            }
        }),
        Scenario::new("address changed", &[16], MOVE, address_changed),
        Scenario::new("a second host with its address", &[17], Allowed::Nothing, second_with_the_address),
        Scenario::new("Network overlaps a host's", &[28], Allowed::Nothing, overlapping_network),
        Scenario::new("sources seen", &[24], Allowed::Nothing, sources_seen),
        Scenario::new("subnet reserved", &[15], Allowed::Nothing, reserved),
    ];
    if world.backend != Backend::HostGw {
        all.push(Scenario::new("port taken on a host", &[32], Allowed::Nothing, port_taken));
    }
    all
}

/// Another address, as a DHCP server would have it, and the old one again.
fn address_changed(world: &mut World) {
    let fabric = &world.fabric;
    let (net, subnet) = (&fabric.lab.hosts[0].net, fabric.subnet(0, false));
    move_to(net, "192.168.77.101", fabric.lab.underlay.gateways(0)[0]);
    for peer in [1, 2] {
        wait_for("a peer that knows the new address", || {
            let state = fabric.state(peer);
            state.iter().any(|line| line.contains("192.168.77.101")).then_some(()).ok_or(state)
        });
    }
    assert_eq!(fabric.subnet(0, false), subnet, "pods keep their addresses");
    fabric.wait_settled();
    fabric.lab.readdress(0).unwrap();
}

/// An agent on the last host, which has none so far.
pub(crate) fn newcomer(world: &World, flags: &[&str]) -> AgentProcess {
    let all = [world.backend.flags(), flags].concat();
    let host = world.fabric.lab.hosts.last().unwrap();
    host.agent(&options(world.fabric.store.clone(), &all)).unwrap()
}

/// [`World::name`] on the newcomer's host.
fn name(world: &mut World, agent: &AgentProcess, code: &str, since: Instant) {
    let host = world.fabric.lab.hosts.last().unwrap();
    let named = Doctor::of(&world.fabric, host, agent).named(&[], code, since);
    world.named.push(named);
}

/// Waits until an agent has a fault with this code, and returns its cause.
fn wait_fault(agent: &AgentProcess, code: &str) -> String {
    wait_for(code, || {
        let status = agent.status().map_err(|error| format!("{error}{}", tail(&agent.log())))?;
        fault(&status, code).map(|fault| fault["cause"].to_string()).ok_or_else(|| format!("{status:#}"))
    })
}

fn second_with_the_address(world: &mut World) {
    let since = Instant::now();
    let mut second = newcomer(world, &["--public-ip=192.168.77.1", "--iface=eth0"]);
    if world.backend == Backend::HostGw {
        let status = second.wait(PATIENCE).unwrap();
        let log = second.log();
        let named = log.contains("needs the published address 192.168.77.1 on the interface itself");
        assert!(status.code() == Some(1) && named, "{status}: {log}");
        return;
    }
    let cause = wait_fault(&second, "duplicate-address");
    assert!(cause.contains("192.168.77.1"), "{cause}");
    assert!(!second.files.subnet.exists(), "it took a subnet");
    name(world, &second, "duplicate-address", since);
    second.kill(Signal::SIGTERM).unwrap();
}

fn overlapping_network(world: &mut World) {
    let net = world.fabric.lab.hosts[3].net.clone();
    dump::run(&net, "ip addr add 10.244.9.9/16 dev eth0");
    let before = dump::of(&net);
    let since = Instant::now();
    let mut refused = newcomer(world, &[]);
    let status = refused.wait(PATIENCE).unwrap();
    let log = refused.log();
    assert!(status.code() == Some(1) && log.contains("10.244.9.9/16"), "{status}: {log}");
    assert_eq!(difference(&before, &dump::of(&net)), Vec::<String>::new());
    name(world, &refused, "network-overlap", since);
    dump::run(&net, "ip addr del 10.244.9.9/16 dev eth0");
}

/// It says who has the port, and takes it once it is free; then it leaves.
fn port_taken(world: &mut World) {
    let net = world.fabric.lab.hosts[3].net.clone();
    let taken = net.run(|| UdpSocket::bind("0.0.0.0:8472")).unwrap().unwrap();
    let since = Instant::now();
    let mut agent = newcomer(world, &[]);
    wait_for("a fault that names the port", || {
        let status = agent.status().map_err(|error| error.to_string())?;
        if status["faults"].to_string().contains("8472") { Ok(()) } else { Err(format!("{status:#}")) }
    });
    name(world, &agent, "port-taken", since);
    drop(taken);
    agent.wait_ready(PATIENCE).unwrap();
    leave(world, &mut agent);
}

/// The newcomer gives its lease back, and ends; the host is as it was before it came.
pub(crate) fn leave(world: &World, agent: &mut AgentProcess) {
    // It may end before it has answered.
    drop(agent.twill(&["lease", "release"], &["--own"]));
    agent.wait(PATIENCE).unwrap();
    let net = &world.fabric.lab.hosts.last().unwrap().net;
    for link in net.links().unwrap().iter().filter(|link| ["flannel.1", BRIDGE].contains(&link.as_str())) {
        net.delete_link(link).unwrap();
    }
}

/// A subnet kept for a host is that host's, also once its agent has forgotten everything, and nobody else's.
fn reserved(world: &mut World) {
    let taken: Vec<String> =
        (0..world.fabric.agents.len()).map(|host| world.fabric.subnet(host, false).to_string()).collect();
    let subnet = (100..).map(|n| format!("10.244.{n}.0/24")).find(|subnet| !taken.contains(subnet)).unwrap();
    let key = key(&subnet);
    let reserve = |address: &str| {
        world.fabric.agents[0].twill(&["lease", "reserve"], &[&*subnet, "--public-ip", address])
    };
    reserve("192.168.77.4").unwrap();
    let refused = reserve("192.168.77.9").unwrap_err().to_string();
    assert!(refused.contains("overlaps the reservation"), "{refused}");
    let mut agent = newcomer(world, &[]);
    agent.wait_ready(PATIENCE).unwrap();
    let got = agent.subnet().unwrap();
    assert_eq!(got.gateways()[0].trunc().to_string(), subnet);
    let pod = world.fabric.lab.hosts[3].pod(&got).unwrap();
    agent.kill(Signal::SIGKILL).unwrap();
    std::fs::remove_dir_all(&agent.files.state).unwrap();
    agent.restart().unwrap();
    agent.wait_ready(PATIENCE).unwrap();
    assert_eq!(agent.subnet().unwrap().gateways(), got.gateways());
    leave(world, &mut agent);
    drop(pod);
    world.ctl(&["del", &key]);
}

/// Whom the far end takes a packet to be from.
fn source(from: &Netns, to: &Netns, target: IpAddr) -> IpAddr {
    let far = to.run(|| UdpSocket::bind(SocketAddr::new(target, 0))).unwrap().unwrap();
    far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let server = far.local_addr().unwrap();
    let near = from.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    wait_for("a packet", || {
        near.send_to(b"who", server).map_err(|error| error.to_string())?;
        far.recv_from(&mut [0; 8]).map(|(_, from)| from.ip()).map_err(|error| error.to_string())
    })
}

/// Nobody inside the fabric sees another source than the sender's; outside, the host's.
fn sources_seen(world: &mut World) {
    let (fabric, lab) = (&world.fabric, &world.fabric.lab);
    let [pod, peer, ..] = &fabric.pods[..] else { panic!("three pods") };
    let (host, far) = (&lab.hosts[0], &lab.hosts[1]);
    let own =
        if world.backend == Backend::HostGw { host.addresses[0] } else { fabric.subnet(0, false).addr() };
    for (what, from, to, target, want) in [
        ("pod to pod", &pod.net, &peer.net, peer.addresses[0], pod.addresses[0]),
        ("pod to its host", &pod.net, &host.net, host.addresses[0], pod.addresses[0]),
        (
            "host to its pod",
            &host.net,
            &pod.net,
            pod.addresses[0],
            fabric.agents[0].subnet().unwrap().gateways()[0].addr(),
        ),
        ("host to another host's pod", &host.net, &peer.net, peer.addresses[0], own),
        ("pod to another host", &pod.net, &far.net, far.addresses[0], host.addresses[0]),
        ("pod to outside", &pod.net, &lab.underlay.net, lab.underlay.gateways(0)[0], host.addresses[0]),
    ] {
        assert_eq!(source(from, to, target), want, "{what}");
    }
}

fn hosts(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    hosts(Backend::Vxlan);
}

#[test]
fn host_gw() {
    hosts(Backend::HostGw);
}

#[test]
fn userspace() {
    hosts(Backend::Userspace);
}
