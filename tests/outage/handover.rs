//! Take-overs with leases in etcd: there and away.

use nix::sys::signal::Signal;

use crate::ask::{state, status, wait, wait_ok, wait_status};
use crate::fabric::{Fabric, SOON, VXLAN, fabric, nothing_lost};

/// Has another process take over the first host.
fn take_over(fabric: &mut Fabric, flags: &[&str]) {
    let options = flags.iter().fold(fabric.options(), |options, flag| options.arg(*flag));
    let ended = fabric.agents[0].take_over(options).unwrap();
    assert!(ended.success(), "{ended}");
    let pid = fabric.agents[0].pid();
    wait_status(&fabric.agents[0], "the successor", |status| status["pid"] == pid);
}

/// Agents that carry frames themselves, and pods.
fn userspace(mut fabric: Fabric) -> Fabric {
    for _host in 0..3 {
        let options = fabric.options().arg("--datapath").arg("userspace");
        fabric.start(&options);
    }
    fabric.settle();
    fabric.add_pods();
    fabric.reach_all();
    fabric
}

#[test]
fn a_successor_keeps_key_and_etcd_lease_and_claims_them_again_when_they_go() {
    let mut fabric = fabric!(3, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    let before = fabric.kv(&own).unwrap();
    let streams = fabric.ring();
    for _ in 0..3 {
        take_over(&mut fabric, &[]);
        wait_ok(&fabric.agents[0]);
    }
    assert_eq!(fabric.kv(&own).unwrap(), before);
    fabric.ctl(&["lease", "revoke", &before.lease_id()]);
    wait("the lease", || {
        let kv = fabric.kv(&own).ok_or("gone")?;
        if kv.lease != before.lease { Ok(()) } else { Err("not revoked".to_owned()) }
    });
    wait_ok(&fabric.agents[0]);
    nothing_lost(streams);
}

#[test]
fn a_successor_goes_on_while_etcd_is_away() {
    let mut fabric = userspace(fabric!(3, Some(VXLAN)));
    let own = fabric.lease_key(0);
    let before = fabric.kv(&own).unwrap();
    let streams = fabric.ring();
    fabric.etcd.signal(Signal::SIGSTOP).unwrap();
    for _ in 0..2 {
        take_over(&mut fabric, &["--datapath", "userspace"]);
        let status = status(&fabric.agents[0]);
        assert_eq!((&status["lease"]["standing"], &status["state"]), (&"held".into(), &"degraded".into()));
        fabric.agents[0].wait_ready(SOON).unwrap();
    }
    fabric.etcd.signal(Signal::SIGCONT).unwrap();
    wait_ok(&fabric.agents[0]);
    assert_eq!(fabric.kv(&own).unwrap(), before);
    nothing_lost(streams);
}

#[test]
fn frames_flow_before_etcd_answers() {
    let mut fabric = userspace(fabric!(3, Some(VXLAN)));
    // The snapshot is written at most once a second.
    let (snapshot, peer) = (state(&fabric.agents[0]).join("snapshot.json"), fabric.lease_key(1));
    wait("the peer in the snapshot", || {
        let text = std::fs::read_to_string(&snapshot).map_err(|error| error.to_string())?;
        if text.contains(&peer) { Ok(()) } else { Err(text) }
    });
    let stream = fabric.stream(0, 1);
    fabric.etcd.signal(Signal::SIGSTOP).unwrap();
    // An agent that waits for its store says that it has before anything flows. Where the machine has much else to do,
    // one start may take as long, so the next is looked at.
    let early = (0..5).any(|_| {
        fabric.agents[0].kill(Signal::SIGKILL).unwrap();
        let (before, said) = (stream.answered(), fabric.agents[0].log().len());
        fabric.agents[0].restart().unwrap();
        wait("answers", || (stream.answered() > before + 100).then_some(()).ok_or("none".to_owned()));
        !fabric.agents[0].log()[said..].contains("starting from the last run's snapshot")
    });
    println!("GAP without etcd {:?}", stream.stop().unwrap().longest_gap);
    assert!(early, "{}", fabric.agents[0].log());
    fabric.etcd.signal(Signal::SIGCONT).unwrap();
    wait_ok(&fabric.agents[0]);
    fabric.reach_all();
}
