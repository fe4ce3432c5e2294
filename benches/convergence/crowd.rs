//! Many agents on one etcd.

use std::time::{Duration, Instant};

use twill::lab::{AgentProcess, EtcdProcess, Host, Lab, LabOptions};

use crate::fabric::{PATIENCE, Requests, agent, cpu, fill, peak, routes, spread, until_routes};

/// All hosts share this machine's processors, on which each would spend what it may spend on probing by itself.
const SILENT: [&str; 2] = ["--probe-port", "0"];

/// `repeats`: how often one joins and leaves, and etcd starts again. More than three in a small crowd, and its agents hold
/// the deletions back.
pub(crate) fn run(size: u32, repeats: u32, window: Duration) {
    let hosts = u16::try_from(size + 1).unwrap();
    let mut lab = Lab::new(&LabOptions { hosts, ..LabOptions::default() }).unwrap();
    let mut etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..0);
    // The last host joins later.
    let guest = lab.hosts.pop().unwrap();
    let agents = storm(&lab.hosts, &etcd);
    let most = agents.iter().map(peak).fold(0.0, f64::max);
    println!("{size} agents: {most:.1} MiB at most");
    come_and_go(&lab, &guest, &etcd, repeats);
    restarts(&lab, &mut etcd, repeats);
    idle(&lab, &etcd, &agents, window);
}

/// All agents start at once.
fn storm(hosts: &[Host], etcd: &EtcdProcess) -> Vec<AgentProcess> {
    let begin = Instant::now();
    let agents: Vec<AgentProcess> = hosts.iter().map(|host| agent(host, etcd, &SILENT)).collect();
    let spawned = begin.elapsed();
    for (host, agent) in hosts.iter().zip(&agents) {
        while routes(host) != hosts.len() - 1 {
            assert!(begin.elapsed() < PATIENCE * 3, "{}: {}", host.name, agent.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let (all, spent) = (begin.elapsed(), agents.iter().map(cpu).sum::<f64>());
    println!(
        "{} agents start within {:.1} s: all kernels agree after {:.1} s; {:.2} s CPU per agent",
        hosts.len(),
        spawned.as_secs_f64(),
        all.as_secs_f64(),
        spent / agents.len() as f64,
    );
    agents
}

/// One agent comes to a fresh host, and gives its lease back.
fn come_and_go(lab: &Lab, guest: &Host, etcd: &EtcdProcess, repeats: u32) {
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let mut agent = None;
        let start = || {
            let begin = Instant::now();
            agent = Some(crate::fabric::agent(guest, etcd, &[&SILENT[..], &["--cleanup-on-exit"]].concat()));
            begin
        };
        joins.push(until_routes(&lab.hosts, |routes| routes + 1, start));
        let mut agent = agent.unwrap();
        agent.wait_ready(PATIENCE).unwrap();
        let release = || {
            let begin = Instant::now();
            agent.twill(&["lease", "release"], &["--own"]).unwrap();
            begin
        };
        leaves.push(until_routes(&lab.hosts, |routes| routes - 1, release));
        agent.wait(PATIENCE).unwrap();
    }
    for (what, times) in
        [("joins, from the start of its process", joins), ("leaves, from its release", leaves)]
    {
        let (median, least, most) = spread(times, 1.0);
        println!(
            "one more than {} {what}: all kernels agree after median {median:.2} s (least {least:.2}, most {most:.2}), {repeats} times",
            lab.hosts.len(),
        );
    }
}

/// etcd ends and starts again; a lease that is written as soon as it answers reaches everybody.
fn restarts(lab: &Lab, etcd: &mut EtcdProcess, repeats: u32) {
    let again = |n| {
        until_routes(
            &lab.hosts,
            |routes| routes + 1,
            || {
                etcd.restart().unwrap();
                let up = Instant::now();
                fill(lab, etcd, n..n + 1);
                up
            },
        )
    };
    let (median, least, most) = spread((0..repeats).map(again).collect(), 1.0);
    println!(
        "etcd starts again: a lease written as soon as it answers is in all kernels after median {median:.2} s (least {least:.2}, most {most:.2}), {repeats} times"
    );
}

/// What etcd is asked while nothing happens.
fn idle(lab: &Lab, etcd: &EtcdProcess, agents: &[AgentProcess], window: Duration) {
    let time = || agents.iter().map(cpu).sum::<f64>();
    let (before, requests) = (time(), Requests::of(lab, etcd));
    std::thread::sleep(window);
    let share = (time() - before) / window.as_secs_f64() / agents.len() as f64 * 100.0;
    let asked = Requests::of(lab, etcd).since(&requests);
    println!(
        "{} agents, nothing changing for {} s: {share:.3} % of a core each; etcd: {asked}",
        agents.len(),
        window.as_secs(),
    );
}
