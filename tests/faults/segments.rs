//! Hosts on two segments with a router between them: those on one segment need no tunnel, the others do.

use std::time::{Duration, Instant};

use crate::breaks::{drop_at, mend, silence};
use crate::dump::sh;
use crate::fabric::wait_for;
use crate::paths::path_found;
use crate::scenario::{Allowed, SECOND, Scenario, play};
use crate::world::{Backend, Shape, World, move_to};

/// The first and the third host are on one segment, the second is on the other.
fn segments(backend: Backend) {
    let config = r#"{"Type":"vxlan","DirectRouting":true}"#;
    play(|| World::shaped(backend, Shape { segments: 2, config, ..Shape::usual(backend) }), scenarios);
}

fn scenarios(_: &World) -> Vec<Scenario> {
    let moving = Allowed::Gap(Duration::from_secs(3));
    vec![
        // The other hosts' packets pass the same router.
        Scenario::new("the path narrower, and nobody says so", &[18, 19], SECOND, narrower).everybody(),
        Scenario::new("moved to another segment", &[16, 33], moving, moved).everybody(),
    ]
}

/// A router takes less than the devices; that it does is not told, and what it cuts is lost.
fn narrower(world: &mut World) {
    let lab = &world.fabric.lab;
    let router = lab.underlay.net.clone();
    for host in &lab.hosts[..3] {
        drop_at(host, "ip frag-off & 0x3fff != 0");
    }
    silence(&router);
    let since = Instant::now();
    router.set_mtu("ub1", 1400).unwrap();
    path_found(world, since, 1350);
    router.set_mtu("ub1", 1500).unwrap();
    sh(&router, "nft delete table inet silent");
    world.fabric.lab.hosts[..3].iter().for_each(mend);
}

/// The first host's cable is put into the second's switch, and back: packets to the second go directly then, and to
/// the third through the tunnel.
fn moved(world: &mut World) {
    let fabric = &world.fabric;
    let (net, underlay) = (&fabric.lab.hosts[0].net, &fabric.lab.underlay);
    let subnet = fabric.subnet(0, false);
    let leads = |at: usize, to: usize, words: &str| {
        let peer = fabric.subnet(to, false);
        wait_for(words, || {
            let route = sh(&fabric.lab.hosts[at].net, &format!("ip route show {peer}"));
            if route.contains(words) { Ok(()) } else { Err(route) }
        });
    };
    leads(0, 1, "dev flannel.1");
    leads(0, 2, "via 192.168.77.3 dev eth0");
    sh(&underlay.net, "ip link set n1 master ub1");
    move_to(net, "192.168.78.101", underlay.gateways(1)[0]);
    leads(0, 1, "via 192.168.78.2 dev eth0");
    leads(1, 0, "via 192.168.78.101 dev eth0");
    leads(0, 2, "dev flannel.1");
    leads(2, 0, "dev flannel.1");
    assert_eq!(fabric.subnet(0, false), subnet, "pods keep their addresses");
    fabric.wait_settled();
    fabric.wait_reachable();
    sh(&underlay.net, "ip link set n1 master ub0");
    fabric.lab.readdress(0).unwrap();
}

#[test]
fn vxlan() {
    segments(Backend::Vxlan);
}

#[test]
fn userspace() {
    segments(Backend::Userspace);
}
