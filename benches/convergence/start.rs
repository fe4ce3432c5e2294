//! From nothing to all leases in the kernel.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::{AgentProcess, Host, Lab, LabOptions};

use crate::fabric::{PATIENCE, agent, cpu, fill, peak, routes, spread};

/// What one start took.
struct Start {
    wall: Duration,
    peak: f64,
    cpu: f64,
}

pub(crate) fn run(leases: u32, starts: usize) {
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..leases);
    let mut agent = agent(&lab.hosts[0], &etcd, &["--cleanup-on-exit"]);
    agent.wait_ready(PATIENCE).unwrap();
    let mut runs: Vec<Start> = (0..starts).map(|_| one(&lab.hosts[0], &mut agent, leases)).collect();
    runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let (median, least, most) = spread(runs.iter().map(|run| run.wall).collect(), 1.0);
    println!(
        "start with {leases} leases: median {median:.3} s wall (least {least:.3}, most {most:.3}), {:.2} s CPU, at most {:.1} MiB, {starts} runs",
        runs[starts / 2].cpu,
        runs.iter().map(|run| run.peak).fold(0.0, f64::max),
    );
}

/// Ends the agent, which cleans its host up, and starts it again.
fn one(host: &Host, agent: &mut AgentProcess, leases: u32) -> Start {
    agent.kill(Signal::SIGTERM).unwrap();
    assert_eq!(routes(host), 0, "the host is clean");
    let begin = Instant::now();
    agent.restart().unwrap();
    while agent.subnet().is_err() {
        assert!(begin.elapsed() < PATIENCE, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    let run = Start { wall: begin.elapsed(), peak: peak(agent), cpu: cpu(agent) };
    assert_eq!(routes(host), leases as usize, "every lease has its route");
    run
}
