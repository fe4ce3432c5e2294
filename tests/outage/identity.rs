//! State directories that are lost, cloned, shared or corrupt.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use twill::lab::AgentOptions;

use crate::ask::{state, status, throughout, wait, wait_fault, wait_log, wait_ok};
use crate::fabric::{Fabric, SOON, TWILL, VXLAN, fabric, nothing_lost};

/// An agent that sees another `/etc/machine-id`: the hosts of a lab share one file system, machines do not.
fn on_machine(fabric: &Fabric, id: &str) -> AgentOptions {
    let file = fabric.lab.dir().join(id);
    fs::write(&file, format!("{id}\n")).unwrap();
    let script = format!(
        r#"exec unshare -m sh -c 'mount --bind "$0" /etc/machine-id && exec "$@"' {} {TWILL} "$@""#,
        file.display()
    );
    AgentOptions { program: fabric.script(&format!("twill-on-{id}"), &script), ..fabric.options() }
}

/// What a copy of the disk brings to another host.
fn clone_state(fabric: &Fabric, from: usize, to: usize) {
    let there = fabric.folder(to).join("state").join(state(&fabric.agents[from]).file_name().unwrap());
    fs::create_dir_all(&there).unwrap();
    for file in fs::read_dir(state(&fabric.agents[from])).unwrap().flatten() {
        fs::copy(file.path(), there.join(file.file_name())).unwrap();
    }
}

fn with_snapshot(fabric: &Fabric, agent: usize) {
    let path = state(&fabric.agents[agent]).join("snapshot.json");
    let own = fabric.lease_key(agent);
    wait("a snapshot", || {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if text.contains(&format!("\"own\":[\"{own}\"")) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn a_cloned_disk_makes_a_host_of_its_own() {
    let mut fabric = fabric!(2, Some(VXLAN));
    let options = on_machine(&fabric, "original");
    fabric.start(&options);
    fabric.agents[0].wait_ready(SOON).unwrap();
    with_snapshot(&fabric, 0);
    clone_state(&fabric, 0, 1);
    let options = on_machine(&fabric, "clone");
    fabric.start(&options);
    wait_log(&fabric.agents[1], "the disk was cloned from machine original");
    fabric.settle();
    assert_ne!(fabric.lease_key(0), fabric.lease_key(1));
    let statuses: Vec<_> = fabric.agents.iter().map(wait_ok).collect();
    assert_ne!(statuses[0]["node"], statuses[1]["node"]);
    fabric.add_pods();
    fabric.reach_all();
}

/// The clone's snapshot is the original's: it must not bring up the original's subnet from it.
#[test]
fn a_cloned_disk_waits_for_etcd_rather_than_take_the_originals_place() {
    let mut fabric = fabric!(2, Some(VXLAN));
    let options = on_machine(&fabric, "original");
    fabric.start(&options);
    fabric.agents[0].wait_ready(SOON).unwrap();
    with_snapshot(&fabric, 0);
    clone_state(&fabric, 0, 1);
    fabric.etcd.stop().unwrap();
    let options = on_machine(&fabric, "clone");
    fabric.start(&options);
    wait_fault(&fabric.agents[1], "store-down");
    wait_log(&fabric.agents[1], "the last snapshot is another node's");
    throughout(std::time::Duration::from_secs(3), || {
        assert_eq!(status(&fabric.agents[1])["lease"], serde_json::Value::Null);
    });
    assert!(!fabric.agents[1].files.subnet.exists());
    fabric.etcd.restart().unwrap();
    fabric.settle();
    assert_ne!(fabric.lease_key(0), fabric.lease_key(1));
}

/// The same disk on the same machine id, as with a shared directory: the first stops writing and says who it is at
/// odds with; what it forwards, it forwards.
#[test]
fn one_state_directory_on_two_hosts() {
    let mut fabric = fabric!(3, Some(VXLAN));
    for _host in 0..2 {
        let options = fabric.options();
        fabric.start(&options);
    }
    fabric.settle();
    fabric.add_pods();
    with_snapshot(&fabric, 0);
    let there = fabric.folder(2).join("state").join(state(&fabric.agents[0]).file_name().unwrap());
    fs::create_dir_all(&there).unwrap();
    fs::copy(state(&fabric.agents[0]).join("node.json"), there.join("node.json")).unwrap();
    let (own, kernel) = (fabric.lease_key(0), fabric.kernel(0));
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "duplicate-identity");
    println!("FENCING {fault}");
    assert!(
        fault.contains("192.168.77.1") && fault.contains("192.168.77.3") && fault.contains(&own),
        "{fault}"
    );
    fabric.agents[2].wait_ready(SOON).unwrap();
    let taken = fabric.kv(&own).unwrap();
    assert_eq!(taken.json()["PublicIP"], "192.168.77.3");
    throughout(std::time::Duration::from_secs(2), || {
        assert_eq!(fabric.kv(&own).unwrap().revision, taken.revision);
    });
    let after = fabric.kernel(0);
    assert!(kernel.iter().all(|line| after.contains(line)), "{kernel:#?}\n{after:#?}");
    assert_eq!(fabric.get("/coreos.com/network/subnets/").len(), 2);
}

/// Nothing of the disk is left but the kernel's device: its address proves whose lease it is.
#[test]
fn a_lost_state_directory_does_not_move_the_subnet() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let (own, node) = (fabric.lease_key(0), status(&fabric.agents[0])["node"].clone());
    let streams = fabric.ring();
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fs::remove_dir_all(&fabric.agents[0].files.state).unwrap();
    fs::remove_file(&fabric.agents[0].files.subnet).unwrap();
    fabric.agents[0].restart().unwrap();
    fabric.settle();
    assert_eq!(fabric.lease_key(0), own);
    assert_ne!(wait_ok(&fabric.agents[0])["node"], node);
    assert_eq!(fabric.get("/coreos.com/network/subnets/").len(), 2);
    nothing_lost(streams);
    fabric.reach_all();
}

/// Whatever is in them, files of ours that do not read cost nothing.
#[test]
fn corrupt_state_files() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    let streams = fabric.ring();
    let garbage: [(&str, &[u8]); 5] = [
        ("snapshot.json", b"{\"version\":1,\"config\":"),
        ("snapshot.json", b"\x00\xff\xfe"),
        ("snapshot.json", br#"{"version":7,"config":{"Network":"10.244.0.0/16"}}"#),
        ("node.json", b""),
        ("node.json", b"[\"not\",\"an\",\"identity\"]"),
    ];
    for (file, bytes) in garbage {
        fabric.agents[0].kill(Signal::SIGKILL).unwrap();
        fs::write(state(&fabric.agents[0]).join(file), bytes).unwrap();
        let logged = fabric.agents[0].log().len();
        fabric.agents[0].restart().unwrap();
        fabric.settle();
        let log = fabric.agents[0].log().split_off(logged);
        assert!(log.contains(file), "{log}");
        assert_eq!(fabric.lease_key(0), own, "{file}");
        wait_ok(&fabric.agents[0]);
        repaired(&state(&fabric.agents[0]).join(file));
    }
    nothing_lost(streams);
}

fn repaired(path: &Path) {
    wait("the file written again", || {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        serde_json::from_slice::<serde_json::Map<_, _>>(&bytes).map(drop).map_err(|error| error.to_string())
    });
}
