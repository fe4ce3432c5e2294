//! Agents that start while etcd is not there, or is not what they were told.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::{LabError, StoreAt};

use crate::ask::{ask_status, faults, state, throughout, wait, wait_fault, wait_ok, wait_status};
use crate::fabric::{Fabric, SOON, TWILL, VXLAN, fabric, nothing_lost, run};

/// The most lines an agent may log about an outage of up to a minute.
const LINES: usize = 9;

/// The whole host restarts during the outage: the kernel has nothing, the state directory has the last snapshot.
#[test]
fn a_host_restarts_during_an_outage() {
    let mut fabric = fabric!(3, Some(VXLAN)).up();
    let lease = fabric.lease_key(0);
    wait("the snapshot on disk", || {
        let text = std::fs::read_to_string(state(&fabric.agents[0]).join("snapshot.json"));
        let text = text.map_err(|error| error.to_string())?;
        let all = (0..3).all(|host| text.contains(&fabric.lease_key(host)));
        if all { Ok(()) } else { Err(text) }
    });
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fabric.etcd.stop().unwrap();
    fabric.lab.hosts[0].net.delete_link("flannel.1").unwrap();
    std::fs::remove_file(&fabric.agents[0].files.subnet).unwrap();
    let begin = Instant::now();
    fabric.agents[0].restart().unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    println!("OUTAGE start without etcd, with a snapshot: ready in {} ms", begin.elapsed().as_millis());
    fabric.reach_all();
    let status = wait_status(&fabric.agents[0], "degraded", |status| status["state"] == "degraded");
    assert_eq!(status["lease"]["standing"], "remembered");
    assert!(!faults(&status, "store-down").is_empty(), "{status:#}");
    assert_eq!(fabric.lease_key(0), lease);
    let streams = fabric.ring();
    fabric.etcd.restart().unwrap();
    let begin = Instant::now();
    for agent in &fabric.agents {
        assert_eq!(wait_ok(agent)["lease"]["standing"], "held");
    }
    println!("OUTAGE start without etcd: content {} ms after it is back", begin.elapsed().as_millis());
    nothing_lost(streams);
    assert_eq!(fabric.lease_key(0), lease);
}

/// Without a snapshot there is nothing to start from: the agent waits, says so, and begins when etcd does.
#[test]
fn a_first_start_during_an_outage() {
    let mut fabric = fabric!(1, Some(VXLAN));
    fabric.etcd.stop().unwrap();
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "store-down");
    assert!(
        fault.contains("cannot watch the leases") && fault.contains("next: check that it runs"),
        "{fault}"
    );
    assert_eq!(ask_status(&fabric.agents[0]).unwrap()["state"], "failed");
    throughout(Duration::from_secs(3), || {
        assert_eq!(fabric.agents[0].get("/readyz").unwrap().0, 503);
    });
    let lines = fabric.agents[0].log().lines().count();
    assert!(lines <= LINES, "{}", fabric.agents[0].log());
    fabric.etcd.restart().unwrap();
    let begin = Instant::now();
    fabric.agents[0].wait_ready(SOON).unwrap();
    println!("OUTAGE first start: ready {} ms after etcd", begin.elapsed().as_millis());
    wait_ok(&fabric.agents[0]);
}

/// `twill status` tells scripts by its exit status, and people by its text.
#[test]
fn the_command_says_so() {
    let mut fabric = fabric!(1, Some(VXLAN));
    fabric.start_all();
    wait_ok(&fabric.agents[0]);
    let text = fabric.agents[0].twill(&["status"], &[]).unwrap();
    assert!(text.contains("state     ok"), "{text}");
    fabric.etcd.stop().unwrap();
    wait_fault(&fabric.agents[0], "store-down");
    let error = fabric.agents[0].twill(&["status"], &["--json"]).unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    let error = fabric.agents[0].twill(&["status"], &[]).unwrap_err().to_string();
    assert!(error.contains("exit status: 2") && error.contains("next: start it (twill agent)"), "{error}");
}

/// Neither text that is no URL, nor a port where nobody or somebody else listens, ends in anything but a clear word.
#[test]
fn endpoints_that_are_none() {
    let mut fabric = fabric!(3, Some(VXLAN));
    let over = Arc::new(AtomicBool::new(false));
    let strange = talk(&fabric, "192.168.77.254:99", &over);
    for endpoints in ["http://192.168.77.254:1", "http://192.168.77.254:99", "https://192.168.77.254:2379"] {
        let mut options = fabric.options();
        options.store = StoreAt::Etcd { endpoints: endpoints.to_owned() };
        let agent = fabric.start(&options);
        let fault = wait_fault(&fabric.agents[agent], "store-down");
        assert!(fault.contains(endpoints), "{fault}");
        println!("OUTAGE endpoint: {fault}");
    }
    for agent in &fabric.agents {
        assert_eq!(ask_status(agent).unwrap()["state"], "failed");
        assert!(agent.log().lines().count() <= LINES, "{}", agent.log());
    }
    over.store(true, Ordering::SeqCst);
    strange.join().unwrap().unwrap();
    for garbage in ["not a url", "http://", "http://[::1", "ftp://a:1", "http://a:99999", ","] {
        let mut command = Command::new(TWILL);
        let dir = fabric.folder(0);
        command.args(["agent", "--etcd-endpoints", garbage, "--healthz-port", "0", "--state-dir"]);
        command.arg(dir.join("s")).arg("--run-dir").arg(dir.join("r"));
        let output = run(&fabric, 0, command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !stderr.contains("panicked"), "{garbage}: {stderr}");
        assert!(stderr.contains("--etcd-endpoints"), "{garbage}: {stderr}");
    }
}

/// Somebody who speaks first, and not HTTP.
fn talk(fabric: &Fabric, at: &'static str, over: &Arc<AtomicBool>) -> JoinHandle<Result<(), LabError>> {
    let over = Arc::clone(over);
    let talk = move || {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        while !over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((mut stream, _)) => drop(stream.write_all(b"220 mail.example ESMTP\r\n")),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    fabric.lab.underlay.net.thread(talk).unwrap()
}

/// A password that is wrong is said to be, and never shown; without authentication it does not matter.
#[test]
fn a_wrong_password() {
    let mut fabric = fabric!(1, Some(VXLAN));
    fabric.ctl(&["user", "add", "root:correct"]);
    fabric.ctl(&["user", "grant-role", "root", "root"]);
    fabric.ctl(&["auth", "enable"]);
    let options = fabric.options().arg("--etcd-username=root").arg("--etcd-password=hunter2");
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "store-down");
    assert!(fault.contains("authentication failed"), "{fault}");
    throughout(Duration::from_secs(3), || {});
    let log = fabric.agents[0].log();
    assert!(log.lines().count() <= LINES && !log.contains("hunter2"), "{log}");
    fabric.ctl(&["--user", "root:correct", "auth", "disable"]);
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_ok(&fabric.agents[0]);
}
