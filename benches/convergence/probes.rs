//! What it costs to probe peers that all answer, and to be scraped with them.

use std::time::{Duration, Instant};

use serde_json::Value;
use twill::lab::{AgentProcess, EtcdProcess, Host, Lab, LabOptions, UPLINK};

use crate::answering::{self, Answering};
use crate::fabric::{PATIENCE, Spent, agent, answers, lease, options, peak};
use crate::steady::settle;

/// How long it may take until all is measured of a thousand peers, six packets each.
const MEASURED: Duration = Duration::from_secs(300);
/// How often it is scraped.
const SCRAPES: usize = 20;

pub(crate) fn run(peers: u32, window: Duration) {
    let lab = Lab::new(&LabOptions { hosts: 2, segments: 2, ..LabOptions::default() }).unwrap();
    let etcd = lab.etcd().unwrap();
    let [host, place] = lab.hosts.as_slice() else { unreachable!("two hosts were asked for") };
    answering::fill(&lab, &etcd, place, peers);
    let mut agent = agent(host, &etcd, &[]);
    agent.wait_ready(PATIENCE).unwrap();
    let begin = Instant::now();
    let answering = Answering::start(place, peers, &lease(&lab, &etcd, &agent));
    while well(&agent) < peers as usize {
        assert!(answering.is_alive() && begin.elapsed() < MEASURED, "{} are well", well(&agent));
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("{peers} peers answer: all are well after {:.1} s", begin.elapsed().as_secs_f64());
    rest(host, &agent, window, &format!("probing {peers} peers"));
    assert!(answering.is_alive() && well(&agent) == peers as usize, "{} are well", well(&agent));
    scrape(&agent, "/metrics");
    scrape(&agent, "/v1/status");
    drop(answering);
    unprobed(&lab, &etcd, &mut agent, window);
}

/// How many peers are well, both ways of which are measured.
fn well(agent: &AgentProcess) -> usize {
    let measured = |way: &Value| way["up"] == true && way["mtu"].is_u64();
    let well = |peer: &&Value| {
        let (probe, ways) = (&peer["probe"], peer["probe"]["ways"].as_array());
        probe["verdict"] == "ok" && ways.is_some_and(|ways| ways.len() == 2 && ways.iter().all(measured))
    };
    agent.status().unwrap()["peers"].as_array().unwrap().iter().filter(well).count()
}

/// What the agent does while nothing happens but probing.
fn rest(host: &Host, agent: &AgentProcess, window: Duration, what: &str) {
    let (before, [received, sent]) = (Spent::of(agent), packets(host));
    std::thread::sleep(window);
    let share = |more: f64| more / window.as_secs_f64();
    let [own, programs] = before.since(agent).map(|time| share(time) * 100.0);
    let [received, sent] =
        [packets(host)[0] - received, packets(host)[1] - sent].map(|more| share(more as f64));
    println!(
        "{what} for {} s: {own:.3} % of a core and {programs:.3} % in programs it runs, {received:.0} packets a second in and {sent:.0} out on the underlay; {:.1} MiB at most",
        window.as_secs(),
        peak(agent),
    );
}

/// The same agent, which probes nobody.
fn unprobed(lab: &Lab, etcd: &EtcdProcess, agent: &mut AgentProcess, window: Duration) {
    agent.restart_with(options(etcd, &["--probe-port", "0"])).unwrap();
    agent.wait_ready(PATIENCE).unwrap();
    settle(lab, etcd, agent);
    rest(&lab.hosts[0], agent, window, "probing nobody");
}

fn scrape(agent: &AgentProcess, path: &str) {
    answers(agent, path, SCRAPES, || {
        let (status, body) = agent.get(path).unwrap();
        assert_eq!(status, 200, "{body}");
        body.len()
    });
}

/// The packets that came to a host by the underlay, and that left it.
fn packets(host: &Host) -> [u64; 2] {
    let text = host.net.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let uplink = format!("{UPLINK}:");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&uplink)).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // Eight columns of what was received begin with bytes and packets, and so do those of what was sent.
    [numbers[1], numbers[9]]
}
