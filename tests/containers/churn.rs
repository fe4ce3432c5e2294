//! Many containers come and go, and nothing is left of them.

use std::collections::BTreeSet;
use std::thread;

use twill::lab::Process;

use crate::fabric::{Fabric, PATIENCE, need_containerd, wait_for};
use crate::machine::Left;

const MANY: usize = 100;

/// Does something for each at once; `ctr` is a process of its own for each.
fn all_at_once<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_hundred_containers_at_once_leave_nothing() {
    need_containerd!();
    let fabric = Fabric::new(1, r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#, &[]);
    let machine = &fabric.machines[0];
    let before = fabric.lab.hosts[0].net.links().unwrap();
    let ids: Vec<String> = (1..=MANY).map(|n| format!("c{n}")).collect();
    let mut started: Vec<Process> =
        all_at_once(ids.iter().collect(), |id: &String| machine.spawn("--rm", id));
    wait_for("the containers", || {
        started.iter_mut().for_each(|ctr| ctr.check_alive().unwrap());
        let running = machine.running().len();
        (running == MANY).then_some(()).ok_or(running)
    });
    let left = machine.left();
    let addresses: BTreeSet<&String> = left.addresses.iter().collect();
    let counts = [addresses.len(), left.states.len(), left.veths.len()];
    assert_eq!(counts, [MANY; 3], "{left:?}");
    all_at_once(ids.iter().collect(), |id: &String| machine.kill(id));
    for ctr in &mut started {
        let status = ctr.wait(PATIENCE).unwrap();
        // 128 + SIGKILL: the container's own end, passed on.
        assert_eq!(status.code(), Some(137), "{}", ctr.log());
    }
    // The kernel takes a veth away after its namespace.
    wait_for("the end of the veths", || {
        let left = machine.left();
        (left == Left::default()).then_some(()).ok_or(left)
    });
    let mut after = fabric.lab.hosts[0].net.links().unwrap();
    after.retain(|link| link != "cni0");
    assert_eq!(after, before);
    // Short-lived ones: attached and detached within a moment, all at once.
    let ended =
        all_at_once(ids, |id| machine.run_to_end(&id, &["ip", "-4", "-o", "addr", "show", "dev", "eth0"]));
    for said in ended {
        assert!(said.as_ref().is_ok_and(|said| said.contains(" 10.244.")), "{said:?}");
    }
    wait_for("the end of the veths", || {
        let left = machine.left();
        (left == Left::default()).then_some(()).ok_or(left)
    });
}
