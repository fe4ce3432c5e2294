//! What an agent tells its service manager, and what it follows while it runs.

use std::os::unix::net::UnixDatagram;

use ipnet::IpNet;

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
