//! The agent as the DaemonSet's pod has it: the capabilities of its security context, `/proc/sys` read-only, on nodes
//! with the settings that are shipped for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use twill::lab::probe::ping_until;
use twill::lab::{AgentOptions, AgentProcess, Cancel, Lab, LabOptions, Pod, StoreAt};

use crate::kubernetes;
use crate::machine::{PATIENCE, TWILL};
use crate::shipped;

/// Starts a program as a container runtime starts the agent's container.
fn wrapper(lab: &Lab) -> std::path::PathBuf {
    let context = kubernetes::agent().security_context.unwrap();
    let names = context.capabilities.unwrap().add.unwrap();
    let set: String = names.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    assert_eq!(context.allow_privilege_escalation, Some(false));
    let script = format!(
        "#!/bin/sh\nexec unshare -m sh -c '\n\
         mount --make-rprivate / && mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 1\n\
         exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{set} {TWILL} \"$@\"' sh \"$@\"\n"
    );
    let file = lab.dir().join("as-a-pod");
    // By a process of its own: a descriptor that a fork inherits would make the exec fail with ETXTBSY.
    let mut write = Command::new("sh");
    write.args(["-c", "printf %s \"$1\" > \"$2\"; chmod 755 \"$2\"", "sh", &script]).arg(&file);
    assert!(write.status().unwrap().success());
    assert!(fs::metadata(&file).unwrap().permissions().mode() & 0o111 != 0);
    file
}

/// Two hosts with such agents; their pods reach each other.
fn reach_each_other(config: &str, flags: &[&str]) {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: capabilities can only be taken from root");
        return;
    }
    let lab = Lab::new(&LabOptions { hosts: 2, ..LabOptions::default() }).unwrap();
    let store = lab.dir().join("leases");
    fs::create_dir(&store).unwrap();
    fs::write(store.join("config.json"), config).unwrap();
    let options = AgentOptions::new(wrapper(&lab), StoreAt::File(store)).arg("--ip-masq");
    let options = flags.iter().fold(options, |options, flag| options.arg(*flag));
    let mut agents: Vec<AgentProcess> = Vec::new();
    for host in &lab.hosts {
        for (_, path, value) in shipped::settings(&shipped::text("node/90-twill.conf")) {
            host.net.set_sysctl(&path.replace('.', "/"), &value).unwrap();
        }
        agents.push(host.agent(&options).unwrap());
    }
    let mut pods: Vec<Pod> = Vec::new();
    for (host, agent) in lab.hosts.iter().zip(&mut agents) {
        agent.wait_ready(PATIENCE).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        assert!(
            status.contains("NoNewPrivs:\t1") && status.contains("CapBnd:\t0000000000003400"),
            "{status}"
        );
        pods.push(host.pod(&agent.subnet().unwrap()).unwrap());
    }
    ping_until(&pods[0].net, pods[1].addresses[0], PATIENCE, &Cancel::default()).unwrap();
    for agent in &agents {
        let said = agent.twill(&["status"], &[]);
        assert!(said.is_ok(), "{}", said.unwrap_err());
    }
}

#[test]
fn vxlan_needs_no_more() {
    reach_each_other(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#, &[]);
}

#[test]
fn host_gw_with_iptables_needs_no_more() {
    reach_each_other(
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#,
        &["--firewall", "iptables"],
    );
}

#[test]
fn the_userspace_datapath_needs_no_more() {
    // A port that not everybody may have.
    reach_each_other(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":789}}"#, &[]);
}
