//! The files that keep others off Twill's devices, under those others: each leaves our names alone, and does not leave
//! alone what is called otherwise.

use std::path::Path;

use twill::lab::{Cancel, Lab, LabOptions, Seen, until};

use crate::machine::{Disk, Machine, PATIENCE, unavailable};
use crate::shipped;

const OURS: [&str; 3] = ["flannel.1", "flannel-v6.1", "cni0"];
const SERVICE: &str = "[Unit]\nDefaultDependencies=no\n[Service]\n";
/// Of udev's rules, the one that applies `.link` files; the others are about this machine's devices.
const RULE: &str = r#"SUBSYSTEM=="net", ACTION=="add", IMPORT{builtin}="net_setup_link""#;

/// A machine with udev, without links, and the lab it is in.
fn machine(more: impl Fn(&Disk)) -> Option<(Machine, Lab)> {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return None;
    }
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let udevd = Path::new("/lib/systemd/systemd-udevd");
    let missing = || (!udevd.exists()).then(|| "udev is not installed".to_owned());
    if let Some(reason) = unavailable(&lab).or_else(missing) {
        println!("SKIP: {reason}");
        return None;
    }
    let disk = Disk::new(&lab, &lab.hosts[0]);
    disk.unit("udevd.service", &format!("{SERVICE}Type=notify\nExecStart={}\n", udevd.display()));
    disk.write("etc/udev/rules.d/80-net-setup-link.rules", RULE);
    disk.write("etc/systemd/network/10-twill.link", &shipped::text("udev/10-twill.link"));
    more(&disk);
    let machine = disk.boot(&lab.hosts[0]);
    machine.ok(&["mount", "-t", "tmpfs", "tmpfs", "/lib/udev/rules.d"]);
    machine.ok(&["systemctl", "start", "udevd"]);
    Some((machine, lab))
}

fn wait(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    until(what, PATIENCE, &Cancel::default(), || Ok(look().map_or_else(Seen::NotYet, Seen::Yes))).unwrap();
}

fn link(machine: &Machine, name: &str, kind: &[&str]) {
    machine.ok(&[&["ip", "link", "add", name], kind].concat());
}

/// What udev says of a device, once it has seen it.
fn link_file(machine: &Machine, name: &str) -> String {
    let mut file = String::new();
    wait("udev", || {
        let said = machine.ok(&["udevadm", "info", &format!("/sys/class/net/{name}")]);
        let line = said.lines().find_map(|line| line.strip_prefix("E: ID_NET_LINK_FILE="));
        line.unwrap_or_default().clone_into(&mut file);
        if file.is_empty() { Err(said) } else { Ok(()) }
    });
    file
}

#[test]
fn udev_keeps_the_ethernet_addresses() {
    let Some((machine, _lab)) = machine(|_| {}) else { return };
    let vxlan = |name: &str, id: &str, port: &str| {
        link(&machine, name, &["type", "vxlan", "id", id, "dev", "eth0", "dstport", port]);
    };
    // 1: the kernel's random address; 3: set by somebody.
    let assigned = |name: &str| machine.ok(&["cat", &format!("/sys/class/net/{name}/addr_assign_type")]);
    vxlan("flannel.1", "1", "8472");
    vxlan("flannel-v6.1", "1", "8473");
    link(&machine, "cni0", &["type", "bridge"]);
    for name in OURS {
        assert_eq!(link_file(&machine, name), "/etc/systemd/network/10-twill.link");
        assert_eq!(assigned(name), "1", "{name}");
    }
    vxlan("other.1", "3", "8474");
    assert!(link_file(&machine, "other.1").ends_with("/99-default.link"));
    wait("udev's own address", || {
        (assigned("other.1") == "3").then_some(()).ok_or_else(|| assigned("other.1"))
    });
}

#[test]
fn networkd_leaves_the_devices_alone() {
    let networkd = "/lib/systemd/systemd-networkd";
    if !Path::new(networkd).exists() {
        println!("SKIP: systemd-networkd is not installed");
        return;
    }
    let ready = machine(|disk| {
        disk.write("etc/systemd/network/10-twill.network", &shipped::text("networkd/10-twill.network"));
        let all = "[Match]\nName=flannel* cni* other*\n[Network]\nLinkLocalAddressing=no\nLLDP=no\n\
                   ConfigureWithoutCarrier=yes\nAddress=192.0.2.7/32\n";
        disk.write("etc/systemd/network/99-all.network", all);
        let unit = format!(
            "{SERVICE}Type=notify\nExecStart=!!{networkd}\nUser=systemd-network\nAmbientCapabilities=CAP_NET_ADMIN\n\
             RuntimeDirectory=systemd/netif\n"
        );
        disk.unit("networkd.service", &unit);
    });
    let Some((machine, _lab)) = ready else { return };
    machine.ok(&["systemctl", "start", "networkd"]);
    for name in OURS.iter().chain(&["other"]) {
        link(&machine, name, &["type", "bridge"]);
    }
    let state = |name: &str| {
        let index = machine.ok(&["cat", &format!("/sys/class/net/{name}/ifindex")]);
        let said = machine.run(&["cat", &format!("/run/systemd/netif/links/{index}")]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().find_map(|line| line.strip_prefix("ADMIN_STATE=")).unwrap_or_default().to_owned()
    };
    let configured = || machine.ok(&["ip", "-br", "addr", "show", "other"]);
    wait("the other device's address", || {
        configured().contains("192.0.2.7").then_some(()).ok_or_else(configured)
    });
    for name in OURS {
        wait(name, || (state(name) == "unmanaged").then_some(()).ok_or_else(|| state(name)));
        assert!(!machine.ok(&["ip", "-br", "addr", "show", name]).contains("192.0.2.7"), "{name}");
    }
}

/// Where it is installed only: a test run must not bring a network manager to somebody's machine.
#[test]
fn network_manager_leaves_the_devices_alone() {
    let manager = "/usr/sbin/NetworkManager";
    if !Path::new(manager).exists() {
        println!("SKIP: NetworkManager is not installed");
        return;
    }
    let ready = machine(|disk| {
        disk.write("etc/NetworkManager/conf.d/twill.conf", &shipped::text("networkmanager/twill.conf"));
        let dbus = "ExecStart=/usr/bin/dbus-daemon --system --nofork --nopidfile --nosyslog\nRuntimeDirectory=dbus\n";
        disk.unit("dbus.service", &format!("{SERVICE}{dbus}"));
        disk.unit("manager.service", &format!("{SERVICE}ExecStart={manager} --no-daemon\n"));
    });
    let Some((machine, _lab)) = ready else { return };
    machine.ok(&["systemctl", "start", "dbus", "manager"]);
    // Of a kind that it manages.
    for name in OURS.iter().chain(&["other"]) {
        link(&machine, name, &["type", "veth", "peer", "name", &format!("p-{name}")]);
    }
    let state = |name: &str| {
        let said = machine.run(&["nmcli", "-t", "-f", "DEVICE,STATE", "device"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .to_owned()
    };
    wait("the other device to be managed", || {
        let state = state("other");
        if state.is_empty() || state.starts_with("unmanaged") { Err(state) } else { Ok(()) }
    });
    for name in OURS {
        wait(name, || (state(name) == "unmanaged").then_some(()).ok_or_else(|| state(name)));
    }
}
