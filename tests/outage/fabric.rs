//! A fabric under test: hosts, an etcd, agents and pods; and what tests ask of them.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use twill::lab::{
    AgentOptions, AgentProcess, Cancel, EtcdProcess, Lab, LabOptions, Pod, Process, StoreAt, probe,
};

use crate::ask::{Kv, status, wait, wait_status};

pub(crate) const TWILL: &str = env!("CARGO_BIN_EXE_twill");
/// The subnets from 10.244.200.0 on are none that an agent draws: tests have them for hosts that are but data.
pub(crate) const VXLAN: &str =
    r#"{"Network":"10.244.0.0/16","SubnetMax":"10.244.199.0","Backend":{"Type":"vxlan"}}"#;
pub(crate) const CONFIG: &str = "/coreos.com/network/config";
/// For whatever should take moments, on a machine that has much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Gives a fabric, or says why there can be none and ends the test.
macro_rules! fabric {
    ($hosts:expr, $config:expr) => {
        match $crate::fabric::Fabric::new($hosts, $config) {
            Ok(fabric) => fabric,
            Err(reason) => return println!("SKIP: {reason}"),
        }
    };
}
pub(crate) use fabric;

/// Fields are dropped in this order: agents before the etcd they talk to, all before the namespaces.
pub(crate) struct Fabric {
    pub(crate) agents: Vec<AgentProcess>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) etcd: EtcdProcess,
    pub(crate) lab: Lab,
}

impl Fabric {
    /// Hosts and an etcd with this network configuration, if any; no agents.
    pub(crate) fn new(hosts: u16, config: Option<&str>) -> Result<Self, String> {
        Lab::available().map_err(|error| error.to_string())?;
        let lab = Lab::new(&LabOptions { hosts, ..LabOptions::default() }).unwrap();
        let etcd = match lab.etcd() {
            Err(error @ twill::lab::LabError::Missing { .. }) => return Err(error.to_string()),
            etcd => etcd.unwrap(),
        };
        let fabric = Self { agents: Vec::new(), pods: Vec::new(), etcd, lab };
        if let Some(config) = config {
            fabric.put(CONFIG, config);
        }
        Ok(fabric)
    }

    pub(crate) fn options(&self) -> AgentOptions {
        AgentOptions::new(TWILL, StoreAt::Etcd { endpoints: self.etcd.endpoint() })
    }

    /// Starts one more agent, on the next host that has none.
    pub(crate) fn start(&mut self, options: &AgentOptions) -> usize {
        let index = self.agents.len();
        self.agents.push(self.lab.hosts[index].agent(options).unwrap());
        index
    }

    /// Starts an agent on every host and waits until all are ready and know each other.
    pub(crate) fn start_all(&mut self) {
        for _host in 0..self.lab.hosts.len() {
            let options = self.options();
            self.start(&options);
        }
        self.settle();
    }

    /// Waits until all agents are ready and know each other.
    pub(crate) fn settle(&mut self) {
        let others = self.agents.len() - 1;
        for agent in &mut self.agents {
            agent.wait_ready(SOON).unwrap();
            wait_status(agent, "all peers", |s| s["peers"].as_array().unwrap().len() >= others);
        }
    }

    /// One pod on each host that has an agent.
    pub(crate) fn add_pods(&mut self) {
        for (host, agent) in self.lab.hosts.iter().zip(&self.agents) {
            self.pods.push(host.pod(&agent.subnet().unwrap()).unwrap());
        }
    }

    /// Agents, pods, and every pair reached once.
    pub(crate) fn up(mut self) -> Self {
        self.start_all();
        self.add_pods();
        self.reach_all();
        self
    }

    pub(crate) fn address(&self, pod: usize) -> IpAddr {
        self.pods[pod].addresses[0]
    }

    pub(crate) fn reach(&self, from: usize, to: usize) {
        let reached = probe::ping_until(&self.pods[from].net, self.address(to), SOON, &Cancel::default());
        reached.unwrap_or_else(|error| panic!("{error}{}", self.logs()));
    }

    pub(crate) fn reach_all(&self) {
        for from in 0..self.pods.len() {
            (0..self.pods.len()).filter(|to| *to != from).for_each(|to| self.reach(from, to));
        }
    }

    /// A counted stream of 1 kHz between the pods of two hosts, running.
    pub(crate) fn stream(&self, from: usize, to: usize) -> probe::Stream {
        let (from, target) = (&self.pods[from].net, self.address(to));
        let stream = probe::Stream::start(from, &self.pods[to].net, target, 1000).unwrap();
        wait("the stream to run", || (stream.answered() >= 100).then_some(()).ok_or("it does not".into()));
        stream
    }

    /// Streams from each pod to the next, round the ring.
    pub(crate) fn ring(&self) -> Vec<probe::Stream> {
        (0..self.pods.len()).map(|from| self.stream(from, (from + 1) % self.pods.len())).collect()
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        self.etcd.etcdctl(args).unwrap()
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", key, value]);
    }

    /// The keys, values and metadata below a prefix, as etcdctl's JSON has them; text decoded.
    pub(crate) fn get(&self, key: &str) -> Vec<Kv> {
        let answer: Value = serde_json::from_str(&self.ctl(&["get", "--prefix", "-w", "json", key])).unwrap();
        answer["kvs"].as_array().into_iter().flatten().map(Kv::read).collect()
    }

    pub(crate) fn kv(&self, subnet_key: &str) -> Option<Kv> {
        self.get(&key(subnet_key)).pop()
    }

    /// The key of an agent's lease, without the prefix.
    pub(crate) fn lease_key(&self, agent: usize) -> String {
        let status = status(&self.agents[agent]);
        status["lease"]["key"].as_str().unwrap_or_else(|| panic!("no lease: {status:#}")).to_owned()
    }

    /// What the kernel of a host has of ours, sorted.
    pub(crate) fn kernel(&self, host: usize) -> Vec<String> {
        let net = &self.lab.hosts[host].net;
        let commands: [&[&str]; 3] = [
            &["ip", "route", "show", "proto", "70"],
            &["ip", "neigh", "show", "dev", "flannel.1", "nud", "permanent"],
            &["bridge", "fdb", "show", "dev", "flannel.1"],
        ];
        let mut lines: Vec<String> = commands
            .iter()
            .flat_map(|command| {
                net.exec(command).unwrap().lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    }

    pub(crate) fn has_route(&self, host: usize, subnet: &str) -> bool {
        !self.lab.hosts[host].net.exec(&["ip", "route", "show", subnet]).unwrap().is_empty()
    }

    pub(crate) fn wait_route(&self, host: usize, subnet: &str) {
        let missing = || format!("no route to {subnet} on n{}{}", host + 1, self.logs());
        wait("a route", || self.has_route(host, subnet).then_some(()).ok_or_else(missing));
    }

    /// Removals of anything of ours that the kernel of a host announces from here on.
    pub(crate) fn removals(&self, host: usize) -> Removals {
        let host = &self.lab.hosts[host];
        let log = self.lab.dir().join(format!("removals-{}", host.name));
        let mut command = Command::new("ip");
        command.args(["monitor", "route", "neigh", "link"]);
        Removals(Process::spawn(&host.net, "ip monitor", command, &log).unwrap())
    }

    /// The ends of all agents' logs.
    pub(crate) fn logs(&self) -> String {
        let ends = self.agents.iter().enumerate();
        ends.map(|(i, agent)| format!("\nn{}:{}", i + 1, twill::lab::tail(&agent.log()))).collect()
    }

    /// A script in the lab's folder: a program to start agents through.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Where the lab puts the files of the first agent of a host.
    pub(crate) fn folder(&self, host: usize) -> PathBuf {
        self.lab.dir().join(format!("n{}/agent0", host + 1))
    }
}

/// Whatever went wrong, nothing panicked.
impl Drop for Fabric {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for agent in &self.agents {
            let log = agent.log();
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

/// What `ip monitor` saw.
pub(crate) struct Removals(Process);

impl Removals {
    pub(crate) fn seen(&self) -> Vec<String> {
        let ours = |line: &&str| line.contains("Deleted") && line.contains("flannel.1");
        self.0.log().lines().filter(ours).map(str::to_owned).collect()
    }
}

pub(crate) fn key(subnet_key: &str) -> String {
    format!("/coreos.com/network/subnets/{subnet_key}")
}

/// A lease as flanneld 0.20 writes it, byte for byte.
pub(crate) fn flannels(address: &str, mac: &str) -> String {
    format!(
        r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    )
}

/// The subnet of a key: `10.244.3.0-24` is `10.244.3.0/24`.
pub(crate) fn subnet(key: &str) -> String {
    key.replace('-', "/")
}

/// Runs `twill` to its end on a host.
pub(crate) fn run(fabric: &Fabric, host: usize, mut command: Command) -> Output {
    fabric.lab.hosts[host].net.run(|| command.output()).unwrap().unwrap()
}

/// Asserts that streams lost nothing, and stops them.
pub(crate) fn nothing_lost(streams: Vec<probe::Stream>) {
    for stream in streams {
        let report = stream.stop().unwrap();
        assert_eq!(report.lost(), 0, "{report:?}");
    }
}
