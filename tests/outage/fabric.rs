//! A fabric under test: hosts, an etcd, agents and pods; and what tests ask of them.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use twill::lab::{
    AgentOptions, AgentProcess, Cancel, EtcdProcess, Lab, LabOptions, Pod, Process, Seen, StoreAt, probe,
    until,
};

pub(crate) const TWILL: &str = env!("CARGO_BIN_EXE_twill");
pub(crate) const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
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

/// A key of etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kv {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) revision: u64,
    /// The etcd lease; 0 is none.
    pub(crate) lease: i64,
}

impl Kv {
    fn read(kv: &Value) -> Self {
        let text = |field: &str| String::from_utf8(base64(kv[field].as_str().unwrap_or_default())).unwrap();
        Self {
            key: text("key"),
            value: text("value"),
            revision: kv["mod_revision"].as_u64().unwrap(),
            lease: kv["lease"].as_i64().unwrap_or(0),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The etcd lease as etcdctl wants it.
    pub(crate) fn lease_id(&self) -> String {
        format!("{:x}", self.lease)
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
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

/// Looks until there is a value; the error of the last look is shown when the time is over.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let seen = |looked: Result<T, String>| looked.map_or_else(Seen::NotYet, Seen::Yes);
    until(what, SOON, &Cancel::default(), || Ok(seen(look()))).unwrap_or_else(|error| panic!("{error}"))
}

/// Lets the time pass while looking at something that must stay true.
pub(crate) fn throughout(time: Duration, mut look: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `twill status --json` prints, asked for without a process: tests look often.
pub(crate) fn ask_status(agent: &AgentProcess) -> Result<Value, String> {
    let answer = ask_socket(agent, b"{\"version\":1,\"request\":\"status\"}\n")?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
    Ok(answer["ok"].take())
}

/// Writes bytes to an agent's socket and reads one line.
pub(crate) fn ask_socket(agent: &AgentProcess, bytes: &[u8]) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket(agent))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(bytes)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    exchange().map_err(|error| format!("the agent's socket: {error}"))
}

/// Where an agent's socket is: there is one instance in each run directory.
pub(crate) fn socket(agent: &AgentProcess) -> PathBuf {
    let instance = std::fs::read_dir(&agent.files.run).into_iter().flatten().flatten().next();
    instance.map(|dir| dir.path().join("agent.sock")).unwrap_or_default()
}

/// The state directory of an agent's instance.
pub(crate) fn state(agent: &AgentProcess) -> PathBuf {
    std::fs::read_dir(&agent.files.state).unwrap().flatten().next().unwrap().path()
}

pub(crate) fn status(agent: &AgentProcess) -> Value {
    wait("an answer of the agent", || ask_status(agent))
}

/// Waits until the status is as wanted.
pub(crate) fn wait_status(agent: &AgentProcess, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait(what, || {
        let status = ask_status(agent)?;
        if is(&status) { Ok(status) } else { Err(format!("{status:#}{}", twill::lab::tail(&agent.log()))) }
    })
}

/// The faults of a status with this code.
pub(crate) fn faults<'a>(status: &'a Value, code: &str) -> Vec<&'a Value> {
    status["faults"].as_array().unwrap().iter().filter(|fault| fault["code"] == code).collect()
}

/// Waits for a fault, and returns it as `subject: cause; next: …`.
pub(crate) fn wait_fault(agent: &AgentProcess, code: &str) -> String {
    let status = wait_status(agent, code, |status| !faults(status, code).is_empty());
    let fault = faults(&status, code)[0];
    let text = |field: &str| fault[field].as_str().unwrap().to_owned();
    assert!(!text("next").is_empty(), "{fault:#}");
    format!("{}: {}; next: {}", text("subject"), text("cause"), text("next"))
}

/// Waits until an agent has nothing to complain of.
pub(crate) fn wait_ok(agent: &AgentProcess) -> Value {
    wait_status(agent, "no faults", |status| status["state"] == "ok")
}

pub(crate) fn wait_log(agent: &AgentProcess, text: &str) {
    wait(text, || {
        let log = agent.log();
        if log.contains(text) { Ok(()) } else { Err(twill::lab::tail(&log)) }
    });
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
