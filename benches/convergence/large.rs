//! One agent among very many leases: what a change costs, and a loss, and a question.

use std::time::{Duration, Instant};

use twill::lab::{AgentProcess, Lab, LabOptions};

use crate::fabric::{PATIENCE, Spent, agent, answers, cpu, fill, routes, spread, until_routes};
use crate::steady::settle;

/// How often everything is lost, and how often it is asked.
const REPEATS: usize = 5;

pub(crate) fn run(leases: u32, puts: u32) {
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..leases);
    let mut agent = agent(&lab.hosts[0], &etcd, &[]);
    agent.wait_ready(PATIENCE).unwrap();
    settle(&lab, &etcd, &agent);
    let before = Spent::of(&agent);
    let one = |n| until_routes(&lab.hosts, |routes| routes + 1, || fill(&lab, &etcd, n..n + 1));
    let (median, least, most) = spread((leases..leases + puts).map(one).collect(), 1e-3);
    let [own, nft] = before.since(&agent).map(|time| time * 1e3 / f64::from(puts));
    println!(
        "one lease among {leases}: median {median:.1} ms to the kernel (least {least:.1}, most {most:.1}), {own:.2} ms CPU each and {nft:.2} ms of nft, {puts} puts",
    );
    lose_everything(&lab, &agent);
    settle(&lab, &etcd, &agent);
    ask(&agent);
}

/// The device goes, and every entry with it.
fn lose_everything(lab: &Lab, agent: &AgentProcess) {
    let (host, before) = (&lab.hosts[0], cpu(agent));
    let all = routes(host);
    let heal = |_| {
        let begin = Instant::now();
        host.net.exec(&["ip", "link", "del", "flannel.1"]).unwrap();
        while routes(host) != all {
            assert!(begin.elapsed() < PATIENCE, "{}", agent.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        begin.elapsed()
    };
    let (median, least, most) = spread((0..REPEATS).map(heal).collect(), 1.0);
    println!(
        "the device with {all} peers deleted: median {median:.3} s until all is back (least {least:.3}, most {most:.3}), {:.2} s CPU each, {REPEATS} times",
        (cpu(agent) - before) / REPEATS as f64,
    );
}

fn ask(agent: &AgentProcess) {
    let question = || agent.twill(&["status"], &["--json"]).unwrap().len();
    answers(agent, "twill status --json", REPEATS, question);
}
