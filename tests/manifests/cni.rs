//! The CNI configuration, put on a node as the DaemonSet does it and run as a container runtime does it: every plugin in
//! turn, each with the result of the one before. The agent is the unit's.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use twill::lab::{Lab, LabOptions};

use crate::machine::{Disk, Machine, unavailable};
use crate::shipped;

/// Where Debian has the plugins of containernetworking-plugins.
const PLUGINS: &str = "/usr/lib/cni";
const BIN: &str = "/var/lib/cni-bin";
const CONFLIST: &str = "/etc/cni/net.d/10-flannel.conflist";

/// A request to one plugin. Its answer is null if it gave none.
fn ask(machine: &Machine, verb: &str, plugin: &Value) -> Value {
    let kind = plugin["type"].as_str().unwrap();
    let folder =
        if machine.run(&["test", "-e", &format!("{BIN}/{kind}")]).status.success() { BIN } else { PLUGINS };
    let mut call = machine.command(&["env", &format!("{folder}/{kind}")]);
    call.env("CNI_COMMAND", verb).env("CNI_PATH", format!("{BIN}:{PLUGINS}")).env("CNI_CONTAINERID", "c1");
    call.env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/c1");
    let mut child = call.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(plugin.to_string().as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{verb} {kind}: {}", String::from_utf8_lossy(&stdout));
    serde_json::from_slice(&stdout).unwrap_or_default()
}

/// The plugins of a configuration list, with what a runtime adds to each.
fn plugins(list: &Value) -> Vec<Value> {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let complete = |plugin: &Value| {
        let mut plugin = plugin.clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        if plugin["capabilities"]["portMappings"] == true {
            plugin["runtimeConfig"] = json!({ "portMappings": ports });
        }
        plugin.as_object_mut().unwrap().remove("capabilities");
        plugin
    };
    list["plugins"].as_array().unwrap().iter().map(complete).collect()
}

/// What was there first is kept, once.
fn installed(machine: &Machine) {
    machine.ok(&["mkdir", "-p", BIN, "/etc/cni/net.d"]);
    machine.ok(&["sh", "-c", &format!("echo flannel > {BIN}/flannel")]);
    machine.ok(&["chown", "-R", "12345:12345", BIN, "/etc/cni/net.d"]);
    // As the DaemonSet's container may.
    let install = [
        "setpriv",
        "--bounding-set=-all,+dac_override",
        "env",
        "PLUGIN=/usr/local/bin/twill-cni",
        "install-cni",
        BIN,
        CONFLIST,
        "/etc/twill/cni-conf.json",
    ];
    machine.ok(&install);
    machine.ok(&install);
    assert_eq!(machine.ok(&["cat", &format!("{BIN}/flannel.before-twill")]), "flannel");
    assert_eq!(machine.ok(&["ls", BIN]), "flannel\nflannel.before-twill\ntwill");
    assert_eq!(machine.ok(&["ls", "/etc/cni/net.d"]), "10-flannel.conflist");
}

#[test]
fn the_configuration_attaches_a_container() {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return;
    }
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    if let Some(reason) = unavailable(&lab) {
        println!("SKIP: {reason}");
        return;
    }
    assert!(Path::new(PLUGINS).join("portmap").exists(), "install containernetworking-plugins");
    let disk = Disk::new(&lab, &lab.hosts[0]);
    disk.write("etc/twill/twill.env", "TWILL_STORE=file:/var/lib/twill/leases\nTWILL_IP_MASQ=true\n");
    disk.write("etc/twill/cni-conf.json", &shipped::text("cni/10-flannel.conflist"));
    disk.program("bin/twill-cni", Path::new(env!("CARGO_BIN_EXE_twill-cni")));
    disk.program("bin/install-cni", &shipped::path("install-cni"));
    let machine = disk.boot(&lab.hosts[0]);

    installed(&machine);
    let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
    machine.ok(&["mkdir", "-p", "/var/lib/twill/leases"]);
    machine.ok(&["twill", "config", "set", "--store", "file:/var/lib/twill/leases", config]);
    machine.ok(&["systemctl", "start", "twill"]);
    machine.ok(&["ip", "netns", "add", "c1"]);

    let list: Value = serde_json::from_str(&machine.ok(&["cat", CONFLIST])).unwrap();
    let plugins = plugins(&list);
    let mut result = Value::Null;
    for plugin in &plugins {
        let mut plugin = plugin.clone();
        if !result.is_null() {
            plugin["prevResult"] = result;
        }
        result = ask(&machine, "ADD", &plugin);
    }
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let gateway = result["ips"][0]["gateway"].as_str().unwrap();
    let routes = machine.ok(&["ip", "-n", "c1", "route"]);
    assert!(routes.contains(&format!("default via {gateway}")), "{routes}");
    assert!(machine.ok(&["ip", "-n", "c1", "-br", "addr"]).contains(&address));
    assert!(machine.ok(&["cat", "/sys/class/net/cni0/mtu"]) == "1450");
    let mapped = || machine.ok(&["iptables-save", "-t", "nat"]).contains(&format!("{address}:80"));
    assert!(mapped(), "{}", machine.ok(&["iptables-save", "-t", "nat"]));
    let reserved = format!("/var/lib/cni/networks/cbr0/{address}");
    machine.ok(&["test", "-e", &reserved]);

    for plugin in plugins.iter().rev() {
        let mut plugin = plugin.clone();
        plugin["prevResult"] = result.clone();
        ask(&machine, "DEL", &plugin);
    }
    assert!(!mapped());
    assert!(!machine.run(&["test", "-e", &reserved]).status.success());
}
