//! Who a server sees: the source of every direction, over every way of carrying packets.

use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;
use twill::lab::probe::http_get;
use twill::lab::{Netns, Process};

use crate::fabric::{Fabric, need_containerd, wait_for};
use crate::image;
use crate::machine::{Container, PORT, WHO, source};

/// Somebody beyond the hosts' network.
const OUTSIDE: &str = "203.0.113.9";
/// What happens to packets from outside that come for another host's container (README, "Firewall").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inbound {
    /// They keep their source.
    Kept,
    /// flannel's rules: they have this host's.
    Masqueraded,
    /// The other host does not let them in: their source is outside this host's subnet. Where it counts them in its
    /// status of the network.
    Refused(&'static str),
}

/// One way of carrying packets.
struct Way {
    backend: &'static str,
    flags: &'static [&'static str],
    /// Whether the route to another host's containers leads through the tunnel device and so has its address.
    tunnel: bool,
    inbound: Inbound,
}

/// A fabric of two hosts with two containers on the first and one on the second, and somebody outside.
struct Scene {
    near: [Container; 2],
    far: Container,
    _servers: Vec<Process>,
    fabric: Fabric,
}

impl Scene {
    fn new(way: &Way) -> Self {
        let config = format!(r#"{{"Network":"10.244.0.0/16","Backend":{}}}"#, way.backend);
        let fabric = Fabric::new(2, &config, way.flags);
        let near = ["c1", "c2"].map(|id| fabric.machines[0].start(id));
        let far = fabric.machines[1].start("c1");
        let nets = [&fabric.lab.underlay.net, &fabric.lab.hosts[0].net, &fabric.lab.hosts[1].net];
        nets[0].add_address("lo", format!("{OUTSIDE}/32").parse().unwrap()).unwrap();
        nets[0].set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        let servers = nets.into_iter().map(|net| serve(&fabric, net)).collect();
        Self { near, far, _servers: servers, fabric }
    }

    /// The router outside sends what is for a container through a host.
    fn route(&self, container: &Container, host: usize) {
        let via = self.fabric.lab.hosts[host].addresses[0].to_string();
        let net = &self.fabric.lab.underlay.net;
        net.exec(&["ip", "route", "replace", &container.address.to_string(), "via", &via]).unwrap();
    }

    /// Who a container's server sees when it is asked from a namespace.
    fn seen(&self, from: &Netns, to: &Container) -> IpAddr {
        let (code, body) = http_get(from, to.server(), WHO)
            .unwrap_or_else(|error| panic!("{} to {}: {error}", from.name(), to.address));
        assert_eq!(code, 200, "{body}");
        source(&body)
    }

    /// The same from outside through the other host.
    fn check_through(&self, way: &Way, towards: IpAddr) {
        let (world, near) = (&self.fabric.lab.underlay.net, &self.near[0]);
        let router = self.fabric.lab.underlay.gateways(0)[0];
        self.route(near, 1);
        match way.inbound {
            Inbound::Kept => assert_eq!(self.seen(world, near), router),
            Inbound::Masqueraded => assert_eq!(self.seen(world, near), towards),
            Inbound::Refused(count) => {
                let answer = http_get(world, near.server(), WHO);
                assert!(answer.is_err(), "{answer:?}");
                let status = self.fabric.agents[0].twill(&["status"], &["--json"]).unwrap();
                let status: Value = serde_json::from_str(&status).unwrap();
                let dropped = status["network"].pointer(count).and_then(Value::as_u64);
                assert!(dropped > Some(0), "{count}: {status:#}");
            }
        }
    }
}

/// A server in a namespace, which answers as those in containers do.
fn serve(fabric: &Fabric, net: &Netns) -> Process {
    let root = image::root(fabric.lab.dir());
    let mut command = Command::new(image::BUSYBOX);
    command.args(["httpd", "-f", "-p", &PORT.to_string(), "-h"]).arg(root.join("www"));
    let log = fabric.lab.dir().join(format!("{}.httpd", net.name()));
    let server = Process::spawn(net, "a server", command, &log).unwrap();
    let local = ([127, 0, 0, 1], PORT).into();
    wait_for("a server", || http_get(net, local, WHO).map_err(|error| (error.to_string(), server.log())));
    server
}

fn check(way: &Way) {
    let scene = Scene::new(way);
    let (lab, machines) = (&scene.fabric.lab, &scene.fabric.machines);
    let (near, other, far) = (&scene.near[0], &scene.near[1], &scene.far);
    let [own_host, far_host] = [0, 1].map(|index| lab.hosts[index].addresses[0]);
    let [own_net, far_net] = [0, 1].map(|index| &lab.hosts[index].net);
    let outside: IpAddr = OUTSIDE.parse().unwrap();
    let world = &lab.underlay.net;
    let gateway = |index: usize| scene.fabric.agents[index].subnet().unwrap().gateways()[0];
    let bridge = gateway(0).addr();
    // The tunnel device has the subnet's own address.
    let towards = if way.tunnel { gateway(1).network() } else { far_host };
    // The first connection across may come before the other host has heard of this one.
    wait_for("the way across", || machines[0].asks(near, far.address).map_err(|error| error.to_string()));
    let asks = |server| machines[0].asks(near, server).unwrap();
    scene.route(near, 0);
    let table = [
        ("container to container, same host", near.address, asks(other.address)),
        ("container to container, other host", near.address, asks(far.address)),
        ("container to its host", near.address, asks(own_host)),
        ("container to another host", own_host, asks(far_host)),
        ("container to outside", own_host, asks(outside)),
        ("host to its container", bridge, scene.seen(own_net, near)),
        ("host to another host's container", towards, scene.seen(far_net, near)),
        ("outside to container", lab.underlay.gateways(0)[0], scene.seen(world, near)),
    ];
    let wrong: Vec<_> = table.iter().filter(|(_, wanted, seen)| wanted != seen).collect();
    assert!(wrong.is_empty(), "(direction, wanted, seen): {wrong:#?}");
    scene.check_through(way, towards);
}

#[test]
fn over_vxlan() {
    need_containerd!();
    let inbound = Inbound::Refused("/guard/dropped/forged");
    check(&Way { backend: r#"{"Type":"vxlan"}"#, flags: &[], tunnel: true, inbound });
}

#[test]
fn over_vxlan_with_foreign_sources_on_purpose() {
    need_containerd!();
    let flags = &["--inner-source-check", "off"];
    check(&Way { backend: r#"{"Type":"vxlan"}"#, flags, tunnel: true, inbound: Inbound::Kept });
}

#[test]
fn over_vxlan_with_flannels_rules() {
    need_containerd!();
    let flags = &["--firewall", "iptables"];
    check(&Way { backend: r#"{"Type":"vxlan"}"#, flags, tunnel: true, inbound: Inbound::Masqueraded });
}

#[test]
fn over_host_gw() {
    need_containerd!();
    check(&Way { backend: r#"{"Type":"host-gw"}"#, flags: &[], tunnel: false, inbound: Inbound::Kept });
}

#[test]
fn over_the_userspace_datapath() {
    need_containerd!();
    let flags = &["--datapath", "userspace"];
    let inbound = Inbound::Refused("/datapath/tunnels/0/frames/dropped_foreign_source");
    check(&Way { backend: r#"{"Type":"vxlan"}"#, flags, tunnel: true, inbound });
}
