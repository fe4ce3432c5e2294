//! One process takes over from another, and packets do not notice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use twill::lab::{LabError, Pod};

use crate::dump::difference;
use crate::fabric::{
    Fabric, Families, PATIENCE, TWILL, files, lab, need_namespaces, options, wait_for, write_config,
};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
const USERSPACE: &[&str] = &["--datapath", "userspace"];
const PLAIN: &[&str] = &["--datapath", "plain"];

/// Has a process with `flags` take over the first host, and waits until it says that all is well.
fn take_over(fabric: &mut Fabric, flags: &[&str]) {
    let before = fabric.agents[0].pid();
    let status = fabric.agents[0].take_over(options(files(&fabric.lab), flags)).unwrap();
    assert!(status.success(), "{status}");
    fabric.wait_settled();
    let pid = fabric.agents[0].pid();
    assert_ne!(pid, before);
    assert_eq!(fabric.status(0)["pid"], pid);
    assert_eq!(std::fs::read_to_string(lock(fabric)).unwrap().trim(), pid.to_string());
}

/// The folder of the first host's instance.
fn run_dir(fabric: &Fabric) -> PathBuf {
    let entries = std::fs::read_dir(&fabric.agents[0].files.run).unwrap();
    entries.map(|entry| entry.unwrap().path()).next().unwrap()
}

fn lock(fabric: &Fabric) -> PathBuf {
    run_dir(fabric).join("lock")
}

/// The leases as they stand in the store.
fn leases(fabric: &Fabric) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(fabric.lab.dir().join("leases/subnets")).unwrap();
    let mut leases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    leases.sort();
    leases
}

/// Take-overs in a row under a packet a millisecond: none is lost, nothing is written, and whoever asks for health is
/// answered.
fn in_a_row(families: Families, backend: &str, flags: &[&str], times: usize) {
    let mut fabric = Fabric::new(families, backend, flags);
    let what = format!("{times} take-overs {backend} {families:?} {flags:?}");
    let (before, written) = (fabric.state(0), leases(&fabric));
    let streams = fabric.streams(1000);
    for _ in 0..times {
        take_over(&mut fabric, flags);
        let status = fabric.status(0);
        assert_eq!(status["reconcile"]["tally"]["operations"], 0, "{what}: {status}");
        assert_eq!(status["lease"]["standing"], "held", "{what}: {status}");
    }
    streams.wait_running();
    streams.assert_lossless(&what);
    assert_eq!(difference(&before, &fabric.state(0)), Vec::<String>::new(), "{what}");
    assert_eq!(leases(&fabric), written, "{what}");
}

#[test]
fn twenty_take_overs_of_a_userspace_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, VXLAN, USERSPACE, 20);
}

#[test]
fn plain_frames_are_handed_over_too() {
    need_namespaces!();
    in_a_row(Families::V4, VXLAN, PLAIN, 3);
}

#[test]
fn take_overs_of_a_kernel_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, VXLAN, &["--ip-masq"], 5);
}

#[test]
fn take_overs_of_a_host_gw_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, HOST_GW, &["--ip-masq"], 5);
}
