//! What an agent tells its service manager, and what it follows while it runs.

use std::os::unix::net::UnixDatagram;

use ipnet::IpNet;

use crate::dump;
use crate::fabric::{
    Fabric, Families, PATIENCE, files, lab, need_namespaces, options, wait_for, write_config,
};

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

#[test]
fn the_service_manager_hears_of_readiness_once_containers_can_be_started() {
    need_namespaces!();
    let lab = lab(1, Families::V4);
    let store = files(&lab);
    let path = lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut options = options(store.clone(), &[]);
    options.env.push(("NOTIFY_SOCKET".into(), path.into()));
    let agent = lab.hosts[0].agent(&options).unwrap();
    wait_for("an agent that waits", || agent.get("/readyz").and_then(|(code, _)| expect(code, 503)));
    manager.set_nonblocking(true).unwrap();
    let mut datagram = [0; 64];
    assert!(manager.recv(&mut datagram).is_err(), "told too early");
    manager.set_nonblocking(false).unwrap();

    write_config(&lab, &store, CONFIG);
    let length = manager.recv(&mut datagram).unwrap();
    assert_eq!(String::from_utf8_lossy(&datagram[..length]).trim_end(), "READY=1");
    assert!(agent.files.subnet.exists(), "the subnet file comes first");
    expect(agent.get("/readyz").unwrap().0, 200).unwrap();
    assert_eq!(agent.get("/healthz").unwrap(), (200, "flanneld is running".to_owned()));
}

fn expect(code: u16, wanted: u16) -> Result<(), twill::lab::LabError> {
    assert_eq!(code, wanted);
    Ok(())
}

#[test]
fn a_host_that_moves_to_another_address_keeps_its_subnet_and_its_peers_follow() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, r#"{"Type":"vxlan"}"#, &[]);
    let (host, subnet) = (&fabric.lab.hosts[1], fabric.agents[1].subnet().unwrap());
    let streams = fabric.streams(100);
    let moved: IpNet = "192.168.77.102/24".parse().unwrap();
    host.net.flush_addresses("eth0").unwrap();
    host.net.add_address("eth0", moved).unwrap();
    host.net.add_route("0.0.0.0/0".parse().unwrap(), "192.168.77.254".parse().unwrap()).unwrap();
    for index in [0, 2] {
        wait_for("peers that follow", || {
            let fdb =
                fabric.lab.hosts[index].net.exec(&["bridge", "fdb", "show", "dev", "flannel.1"]).unwrap();
            let follows = fdb.contains("dst 192.168.77.102 ") && !fdb.contains("dst 192.168.77.2 ");
            follows.then_some(()).ok_or(fdb)
        });
    }
    streams.wait_running();
    let report = streams.stop();
    println!("MOVE address vxlan {} ms", report.longest_gap.as_millis());
    fabric.wait_reachable();
    assert_eq!(fabric.agents[1].subnet().unwrap(), subnet);
}

/// As when a failover brings its address to a host whose own is leased, and when that lease is over.
#[test]
fn an_address_beside_the_one_in_use_moves_nothing_until_that_one_is_gone() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, r#"{"Type":"vxlan"}"#, &[]);
    let host = &fabric.lab.hosts[1].net;
    let ip = |words: &str| dump::run(host, &format!("ip {words}"));
    let ends = |v4: &str, v6: &str| {
        let local = |dev, ip: &str| {
            let link = dump::run(host, &format!("ip -d link show {dev}"));
            link.contains(&format!(" local {ip} ")).then_some(()).ok_or(link)
        };
        local("flannel.1", v4).and(local("flannel-v6.1", v6)).and_then(|()| {
            let public = fabric.status(1)["underlay"]["public"].to_string();
            (public == format!(r#"["{v4}","{v6}"]"#)).then_some(()).ok_or(public)
        })
    };
    let streams = fabric.streams(100);
    // Of permanent addresses, IPv6 names the youngest first.
    ip("addr change 192.168.77.2/24 dev eth0 valid_lft 3600 preferred_lft 3600");
    ip("addr add 192.168.77.250/32 dev eth0");
    ip("addr add fd77::fa/128 dev eth0 nodad");
    // What is broken after that is whole again once the addresses were looked at.
    let peer = fabric.subnet(2, false).to_string();
    ip(&format!("route del {peer}"));
    wait_for("the route", || {
        let routes = dump::routes(host);
        routes.iter().any(|route| route.contains(&peer)).then_some(()).ok_or(routes)
    });
    ends("192.168.77.2", "fd77::2").unwrap();
    streams.assert_lossless("a failover's address on the underlay");

    for (own, net) in [("192.168.77.2/24", "192.168.77.0/24"), ("fd77::2/64", "fd77::/64")] {
        ip(&format!("addr del {own} dev eth0"));
        ip(&format!("route replace {net} dev eth0"));
    }
    wait_for("a tunnel that moved", || ends("192.168.77.250", "fd77::fa"));
    fabric.wait_reachable();
}

#[test]
fn the_mtu_of_a_running_fabric_follows_its_configuration() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, r#"{"Type":"vxlan"}"#, &[]);
    let smaller = CONFIG.replace(r#""vxlan""#, r#""vxlan","MTU":1400"#);
    write_config(&fabric.lab, &files(&fabric.lab), &smaller);
    for (host, agent) in fabric.lab.hosts.iter().zip(&fabric.agents) {
        wait_for("the MTU to follow", || {
            let link = host.net.exec(&["ip", "link", "show", "flannel.1"]).unwrap();
            let env = std::fs::read_to_string(&agent.files.subnet).unwrap();
            let follows = link.contains(" mtu 1350 ") && env.contains("FLANNEL_MTU=1350\n");
            follows.then_some(()).ok_or((link, env))
        });
    }
    fabric.wait_reachable();
}
