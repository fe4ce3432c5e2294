//! Hosts that are not as they should be: ports and interfaces taken or missing, tools missing, disks full, no
//! privilege, garbage on the agent's socket.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use twill::lab::AgentOptions;

use crate::ask::{faults, state, status, throughout, wait, wait_fault, wait_ok, wait_status};
use crate::fabric::{Fabric, SOON, TWILL, VXLAN, fabric, flannels, key, nothing_lost, subnet};

/// The same VNI and port under another name: the kernel refuses to make ours.
#[test]
fn another_device_has_the_vni_and_the_port() {
    let mut fabric = fabric!(1, Some(VXLAN));
    let net = fabric.lab.hosts[0].net.clone();
    net.exec(&["ip", "link", "add", "mine", "type", "vxlan", "id", "1", "dstport", "8472", "nolearning"])
        .unwrap();
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "kernel-refused");
    println!("INPUT {fault}");
    assert!(fault.contains("flannel.1") && fault.contains("mine") && fault.contains("8472"), "{fault}");
    assert_ne!(status(&fabric.agents[0])["state"], "ok");
    assert!(net.links().unwrap().contains(&"mine".to_owned()), "it is somebody else's");
    net.delete_link("mine").unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_ok(&fabric.agents[0]);
}

/// Any program on the port: the device can be made, and not be set up.
#[test]
fn a_socket_has_the_port() {
    let mut fabric = fabric!(1, Some(VXLAN));
    let net = fabric.lab.hosts[0].net.clone();
    let taken = net.run(|| UdpSocket::bind("0.0.0.0:8472")).unwrap().unwrap();
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "kernel-refused");
    println!("INPUT {fault}");
    assert!(fault.contains("flannel.1") && fault.contains("8472"), "{fault}");
    drop(taken);
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_ok(&fabric.agents[0]);
}

#[test]
fn an_interface_that_is_missing_may_come() {
    let mut fabric = fabric!(2, Some(VXLAN));
    let options = fabric.options();
    fabric.start(&options);
    let options = fabric.options().arg("--iface").arg("late0").arg("--iface-regex").arg("^wlan");
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[1], "no-underlay");
    println!("INPUT {fault}");
    assert!(fault.contains("late0") && fault.contains("eth0"), "why each was rejected: {fault}");
    assert_eq!(status(&fabric.agents[1])["state"], "failed");
    let net = fabric.lab.hosts[1].net.clone();
    net.exec(&["ip", "link", "set", "eth0", "down"]).unwrap();
    net.exec(&["ip", "link", "set", "eth0", "name", "late0"]).unwrap();
    net.exec(&["ip", "link", "set", "late0", "up"]).unwrap();
    fabric.settle();
    wait_ok(&fabric.agents[1]);
    fabric.add_pods();
    fabric.reach_all();
}

/// A fabric without a firewall program carries packets, and says what is missing.
#[test]
fn neither_nft_nor_iptables() {
    let mut fabric = fabric!(2, Some(VXLAN));
    for _host in 0..2 {
        let mut options = fabric.options();
        options.env.push(("PATH".into(), "/nonexistent".into()));
        fabric.start(&options);
    }
    fabric.settle();
    fabric.add_pods();
    fabric.reach_all();
    for agent in &fabric.agents {
        let fault = wait_fault(agent, "firewall-failed");
        println!("INPUT {fault}");
        assert!(fault.contains("is not installed") && fault.contains("apt install nftables"), "{fault}");
        assert_eq!(status(agent)["state"], "degraded");
    }
}

#[test]
fn a_health_port_in_use() {
    let mut fabric = fabric!(1, Some(VXLAN));
    let net = fabric.lab.hosts[0].net.clone();
    let taken = net.run(|| std::net::TcpListener::bind("127.0.0.1:10254")).unwrap().unwrap();
    let options = fabric.options();
    fabric.start(&options);
    let ended = fabric.agents[0].wait(SOON).unwrap();
    let log = fabric.agents[0].log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(
        log.contains("127.0.0.1:10254") && log.contains("next: choose another with --healthz-ip"),
        "{log}"
    );
    assert_eq!(net.links().unwrap(), ["lo", "eth0"]);
    drop(taken);
    fabric.agents[0].restart().unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
}

/// Whoever can open the socket may send anything, slowly or not at all.
#[test]
fn garbage_on_the_socket() {
    let mut fabric = fabric!(1, Some(VXLAN));
    fabric.start_all();
    let agent = &fabric.agents[0];
    wait_ok(agent);
    let silent: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
    for (i, mut stream) in silent.iter().enumerate() {
        stream.write_all(&b"{\"version\":"[..i % 11]).unwrap();
    }
    let garbage: [&[u8]; 8] = [
        b"\n",
        b"\x00\xff\xfe\x80\n",
        b"{}\n",
        b"[[[[[[[[[[[[[[[[[[[[\n",
        b"{\"version\":1}\n",
        b"{\"version\":1,\"request\":\"shutdown\"}\n",
        b"{\"version\":-1,\"request\":\"status\"}\n",
        b"GET / HTTP/1.1\n",
    ];
    for bytes in garbage {
        let answer = agent.ask(bytes).unwrap();
        assert!(answer.contains("\"error\""), "{answer}");
    }
    drop(agent.ask(&b"x".repeat(1 << 20)));
    drop(agent.ask(&b"[".repeat(1 << 20)));
    wait_ok(agent);
    drop(silent);
    assert_eq!(status(agent)["state"], "ok");
}

/// An agent whose view of the file system a shell command prepares, `$D` being its folder, in a mount namespace of
/// its own.
fn mounted(fabric: &Fabric, host: usize, prepare: &str) -> AgentOptions {
    let dir = fabric.folder(host);
    fs::create_dir_all(dir.join("state")).unwrap();
    let text = format!(r#"exec unshare -m sh -c '{{ {prepare}; }} && exec "$@"' twill {TWILL} "$@""#,);
    let text = format!("export D={}\n{text}", dir.display());
    AgentOptions { program: fabric.script(&format!("twill-mounted-{host}"), &text), ..fabric.options() }
}

/// A path as the agent sees it.
fn inside(fabric: &Fabric, path: &str) -> PathBuf {
    let dir = fabric.folder(0);
    let seen = dir.strip_prefix("/").unwrap().join(path);
    PathBuf::from(format!("/proc/{}/root", fabric.agents[0].pid())).join(seen)
}

const NO_ROOM: &str = "mount -t tmpfs -o size=4k none $D/state && head -c 4096 /dev/zero > $D/state/hog";

#[test]
fn a_disk_that_is_full_or_read_only_at_the_first_start() {
    for prepare in [NO_ROOM, "mount -t tmpfs -o ro none $D/state"] {
        let mut fabric = fabric!(1, Some(VXLAN));
        let options = mounted(&fabric, 0, prepare);
        fabric.start(&options);
        let ended = fabric.agents[0].wait(SOON).unwrap();
        let log = fabric.agents[0].log();
        assert_eq!(ended.code(), Some(1), "{log}");
        println!("INPUT {}", log.lines().last().unwrap());
        assert!(log.contains("cannot keep the node id in") && log.contains("--state-dir"), "{log}");
        let cause = ["No space left on device", "Read-only file system"];
        assert!(cause.iter().any(|cause| log.contains(cause)), "{log}");
        assert_eq!(fabric.lab.hosts[0].net.links().unwrap(), ["lo", "eth0"]);
    }
}

/// State directory and subnet file on a disk that fills up: packets flow, both files are kept as they were as long as
/// they are there, and written once there is room.
#[test]
fn a_disk_that_fills_up() {
    let mut fabric = fabric!(2, Some(VXLAN));
    let options = mounted(&fabric, 0, "mount -t tmpfs -o size=64k none $D/state");
    let subnet_file = fabric.folder(0).join("state/subnet.env");
    fabric.start(&options.arg("--subnet-file").arg(&subnet_file));
    let options = fabric.options();
    fabric.start(&options);
    let file = inside(&fabric, "state/subnet.env");
    for agent in &fabric.agents {
        wait_ok(agent);
    }
    let read = |path: &PathBuf| fs::read_to_string(path).map_err(|error| error.to_string());
    let text = wait("the subnet file", || read(&file));
    for (host, text) in
        fabric.lab.hosts.iter().zip([text.clone(), read(&fabric.agents[1].files.subnet).unwrap()])
    {
        fabric.pods.push(host.pod(&twill::lab::PodSubnet::from_subnet_env(&text).unwrap()).unwrap());
    }
    fabric.reach_all();
    let streams = fabric.ring();
    let hog = inside(&fabric, "state/hog");
    fill(&hog);
    fabric.put(&key("10.244.250.0-24"), &flannels("192.168.77.250", "0e:00:00:00:00:fa"));
    let fault = wait_fault(&fabric.agents[0], "file-failed");
    println!("INPUT {fault}");
    assert!(fault.contains("snapshot.json") && fault.contains("No space left"), "{fault}");
    assert_eq!(read(&file).unwrap(), text);
    fs::remove_file(&file).unwrap();
    fill(&hog);
    wait_status(&fabric.agents[0], "both files", |status| faults(status, "file-failed").len() == 2);
    fabric.wait_route(0, "10.244.250.0/24");
    let lines = fabric.agents[0].log().lines().count();
    throughout(std::time::Duration::from_secs(2), || {});
    assert_eq!(fabric.agents[0].log().lines().count(), lines, "{}", fabric.agents[0].log());
    fs::remove_file(&hog).unwrap();
    wait_ok(&fabric.agents[0]);
    assert_eq!(read(&file).unwrap(), text);
    nothing_lost(streams);
}

/// Appends to a file until the disk is full.
fn fill(path: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

/// The node id is there, and nothing can be written: enough to run on, not enough to be silent about.
#[test]
fn a_disk_that_became_read_only() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    let streams = fabric.ring();
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    let node = fs::read_to_string(state(&fabric.agents[0]).join("node.json")).unwrap();
    let options =
        mounted(&fabric, 0, "mount --bind -o ro $D/state $D/state && mount -o remount,ro,bind $D/state");
    fabric.agents[0].restart_with(options).unwrap();
    fabric.settle();
    let fault = wait_fault(&fabric.agents[0], "file-failed");
    assert!(fault.contains("snapshot.json") && fault.contains("Read-only file system"), "{fault}");
    assert!(node.contains(status(&fabric.agents[0])["node"].as_str().unwrap()));
    assert_eq!(fabric.lease_key(0), own);
    nothing_lost(streams);
}

/// As any user: what is missing is named, and nothing panics.
#[test]
fn no_privilege() {
    let mut fabric = fabric!(1, Some(VXLAN));
    let dir = fabric.folder(0);
    for part in ["state", "run"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    // The lab's folder is closed to others, so only the capabilities go.
    let script =
        fabric.script("twill-as-anyone", &format!("exec setpriv --bounding-set=-net_admin {TWILL} \"$@\""));
    let options = AgentOptions { program: script, ..fabric.options() };
    fabric.start(&options);
    let ended = fabric.agents[0].wait(SOON).unwrap();
    let log = fabric.agents[0].log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("CAP_NET_ADMIN is missing; next: run as root"), "{log}");
    assert_eq!(fabric.get("/coreos.com/network/subnets").len(), 0, "a lease without a data plane");
    assert_eq!(fabric.lab.hosts[0].net.links().unwrap(), ["lo", "eth0"]);
}

/// What is in the way is printed, and nothing is touched.
#[test]
fn a_foreign_route_of_the_network_is_refused_by_name() {
    let mut fabric = fabric!(1, Some(VXLAN));
    fabric.lab.hosts[0].net.exec(&["ip", "route", "add", &subnet("10.244.0.0-16"), "dev", "eth0"]).unwrap();
    let options = fabric.options();
    fabric.start(&options);
    let ended = fabric.agents[0].wait(SOON).unwrap();
    let log = fabric.agents[0].log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("10.244.0.0/16 dev eth0") && log.contains("--force"), "{log}");
    assert_eq!(fabric.get("/coreos.com/network/subnets").len(), 0);
}
