//! What an agent does when there is nothing to do.

use std::time::Duration;

use twill::lab::{AgentProcess, EtcdProcess, Lab, LabOptions};

use crate::fabric::{PATIENCE, Requests, Spent, agent, fill, peak};

pub(crate) fn run(leases: u32, window: Duration) {
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..leases);
    let mut agent = agent(&lab.hosts[0], &etcd, &[]);
    agent.wait_ready(PATIENCE).unwrap();
    settle(&lab, &etcd, &agent);
    let (before, written, requests) = (Spent::of(&agent), operations(&agent), Requests::of(&lab, &etcd));
    std::thread::sleep(window);
    let [own, programs] = before.since(&agent).map(|time| time / window.as_secs_f64() * 100.0);
    let writes = operations(&agent) - written;
    let asked = Requests::of(&lab, &etcd).since(&requests);
    println!(
        "{leases} leases, nothing changing for {} s: {own:.3} % of a core and {programs:.3} % in programs it runs, {writes} writes to the kernel, etcd: {asked}; {:.1} MiB at most",
        window.as_secs(),
        peak(&agent),
    );
}

/// Until the agent has nothing left over from its start: a second in which it writes nothing and asks nothing.
pub(crate) fn settle(lab: &Lab, etcd: &EtcdProcess, agent: &AgentProcess) {
    let state = || (operations(agent), Requests::of(lab, etcd));
    let mut before = state();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = state();
        if now == before {
            return;
        }
        before = now;
    }
}

fn operations(agent: &AgentProcess) -> u64 {
    agent.status().unwrap()["reconcile"]["tally"]["operations"].as_u64().unwrap()
}
