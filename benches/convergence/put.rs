//! One lease more, on three hosts.

use twill::lab::{AgentProcess, Lab, LabOptions};

use crate::fabric::{PATIENCE, agent, fill, spread, until_routes};

pub(crate) fn run(puts: u32) {
    let lab = Lab::new(&LabOptions::default()).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..100);
    let mut agents: Vec<AgentProcess> = lab.hosts.iter().map(|host| agent(host, &etcd, &[])).collect();
    agents.iter_mut().for_each(|agent| agent.wait_ready(PATIENCE).unwrap());
    let one = |n| until_routes(&lab.hosts, |routes| routes + 1, || fill(&lab, &etcd, n..n + 1));
    let (median, least, most) = spread((1000..1000 + puts).map(one).collect(), 1e-3);
    println!(
        "put of one lease: median {median:.1} ms until every kernel of {} has it (least {least:.1}, most {most:.1}), {puts} puts",
        lab.hosts.len(),
    );
}
