//! Hosts with agents and pods, and streams between the pods.

use std::net::IpAddr;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;
use twill::lab::probe::{Stream, StreamReport, ping_until};
use twill::lab::{AgentOptions, AgentProcess, Cancel, Host, Lab, LabOptions, Netns, Pod, StoreAt};

use crate::dump;

/// The program under test.
pub(crate) const TWILL: &str = env!("CARGO_BIN_EXE_twill");
/// How long anything may take that is waited for, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The answers that tell that a stream runs.
const RUNS: u64 = 10;

/// The commands that need no flags of the agent.
const LOOKING: [&str; 5] = ["status", "peers", "verify", "trace", "watch"];

/// Says why, and gives up, where network namespaces cannot be made.
macro_rules! need_namespaces {
    () => {
        if let Err(reason) = twill::lab::Lab::available() {
            println!("SKIP: {reason}");
            return;
        }
    };
}
pub(crate) use need_namespaces;

/// Says why, and gives up, where there is no etcd.
macro_rules! need_etcd {
    () => {
        $crate::fabric::need_namespaces!();
        if std::process::Command::new("etcd").arg("--version").output().is_err() {
            println!("SKIP: etcd is not installed");
            return;
        }
    };
}
pub(crate) use need_etcd;

/// Which address families a fabric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Dual,
}

impl Families {
    pub(crate) fn ipv4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn ipv6(self) -> bool {
        self != Self::V4
    }

    /// The network configuration for `backend`, an object's text. The subnets from 10.244.200.0 on are none that an
    /// agent draws: tests have them for what nobody is.
    pub(crate) fn config(self, backend: &str) -> String {
        let v4 = if self.ipv4() {
            r#""Network":"10.244.0.0/16","SubnetMax":"10.244.199.0","#
        } else {
            r#""EnableIPv4":false,"#
        };
        let v6 = if self.ipv6() { r#""EnableIPv6":true,"IPv6Network":"fd00:244::/48","# } else { "" };
        format!(r#"{{{v4}{v6}"Backend":{backend}}}"#)
    }
}

/// Hosts without agents.
pub(crate) fn lab(hosts: u16, families: Families) -> Lab {
    let (ipv4, ipv6) = (families.ipv4(), families.ipv6());
    Lab::new(&LabOptions { hosts, ipv4, ipv6, ..LabOptions::default() }).unwrap()
}

/// Hosts, each with an agent and a pod. Dropped in this order.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) agents: Vec<AgentProcess>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) lab: Lab,
    pub(crate) families: Families,
    pub(crate) store: StoreAt,
}

impl Fabric {
    /// Three hosts with leases in files, every agent started with `flags`, all pods reaching each other.
    pub(crate) fn new(families: Families, backend: &str, flags: &[&str]) -> Self {
        Self::mixed(families, backend, [flags; 3])
    }

    /// [`Fabric::new`] with flags for each host's agent.
    pub(crate) fn mixed(families: Families, backend: &str, flags: [&[&str]; 3]) -> Self {
        Self::on(lab(3, families), families, backend, flags)
    }

    /// [`Fabric::mixed`] on hosts that are there.
    pub(crate) fn on(lab: Lab, families: Families, backend: &str, flags: [&[&str]; 3]) -> Self {
        let store = files(&lab);
        Self::over(store, lab, families, backend, &flags)
    }

    /// [`Fabric::on`] with the leases in another place, and as many agents as there are flags for.
    pub(crate) fn over(
        store: StoreAt,
        lab: Lab,
        families: Families,
        backend: &str,
        flags: &[&[&str]],
    ) -> Self {
        write_config(&lab, &store, &families.config(backend));
        let start = |(host, flags): (&Host, &&[&str])| host.agent(&options(store.clone(), flags)).unwrap();
        let agents: Vec<AgentProcess> = lab.hosts.iter().zip(flags).map(start).collect();
        let mut fabric = Self { agents, pods: Vec::new(), lab, families, store };
        fabric.wait_ready();
        fabric.add_pods();
        fabric.wait_reachable();
        fabric.wait_settled();
        fabric
    }

    pub(crate) fn wait_ready(&mut self) {
        for agent in &mut self.agents {
            agent.wait_ready(PATIENCE).unwrap();
        }
    }

    /// One pod on every host.
    fn add_pods(&mut self) {
        for (host, agent) in self.lab.hosts.iter().zip(&self.agents) {
            self.pods.push(host.pod(&agent.subnet().unwrap()).unwrap());
        }
    }

    pub(crate) fn wait_reachable(&self) {
        all_reach_each_other(&self.pods);
    }

    /// Waits until every agent says that all is as wanted.
    pub(crate) fn wait_settled(&self) {
        for index in 0..self.agents.len() {
            wait_for("a settled agent", || {
                let status = self.status(index);
                let peers = status["peers"].as_array().map_or(0, Vec::len);
                (status["state"] == "ok" && peers + 1 == self.agents.len()).then_some(()).ok_or(status)
            });
        }
    }

    /// A stream of each family from the first host's pod to the second's.
    pub(crate) fn streams(&self, per_second: u32) -> Streams {
        Streams::start(&self.pods[0], &self.pods[1], per_second)
    }

    /// What a host has, and its subnet file.
    pub(crate) fn state(&self, index: usize) -> Vec<String> {
        let mut lines = dump::of(&self.lab.hosts[index].net);
        let env = std::fs::read_to_string(&self.agents[index].files.subnet).unwrap_or_default();
        lines.extend(env.lines().map(str::to_owned));
        lines
    }

    /// Runs a `twill` command about a host's agent there.
    pub(crate) fn twill(&self, index: usize, words: &[&str]) -> Output {
        twill(&self.lab.hosts[index], &self.agents[index], &self.store, words)
    }

    /// What an agent says of itself; nothing while it says nothing.
    pub(crate) fn status(&self, index: usize) -> Value {
        self.agents[index].status().unwrap_or_default()
    }

    /// The subnet of a host in the family of `like`.
    pub(crate) fn subnet(&self, index: usize, v6: bool) -> IpNet {
        let subnet = self.agents[index].subnet().unwrap();
        let gateway = subnet.gateways().into_iter().find(|gateway| gateway.addr().is_ipv6() == v6);
        gateway.unwrap().trunc()
    }
}

/// Agents of this binary, with the leases in `store`.
pub(crate) fn options(store: StoreAt, flags: &[&str]) -> AgentOptions {
    let options = AgentOptions::new(TWILL, store);
    flags.iter().fold(options, |options, flag| options.arg(*flag))
}

/// Puts the network configuration into the store.
pub(crate) fn write_config(lab: &Lab, store: &StoreAt, config: &str) {
    let mut command = Command::new(TWILL);
    command.args(["config", "set"]).args(store.flags()).arg(config);
    lab.hosts[0].net.output(command).unwrap();
}

/// Runs a `twill` command on a host with these flags and the agent's store, directories and subnet file.
pub(crate) fn twill(host: &Host, agent: &AgentProcess, store: &StoreAt, words: &[&str]) -> Output {
    let mut run = command(agent, store, words);
    host.net.run(|| run.output()).unwrap().unwrap()
}

/// The same, not run yet.
pub(crate) fn command(agent: &AgentProcess, store: &StoreAt, words: &[&str]) -> Command {
    let mut run = Command::new(TWILL);
    run.args(words).args(store.flags());
    run.arg("--state-dir").arg(&agent.files.state).arg("--run-dir").arg(&agent.files.run);
    // Those that look take what the running agent was told.
    if words.first().is_none_or(|verb| !LOOKING.contains(verb)) {
        run.arg("--subnet-file").arg(&agent.files.subnet);
    }
    run
}

/// Where the leases of a lab are.
pub(crate) fn files(lab: &Lab) -> StoreAt {
    StoreAt::File(lab.dir().join("leases"))
}

/// Every pod pings every other, in all families.
pub(crate) fn all_reach_each_other(pods: &[Pod]) {
    for from in pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            for target in &to.addresses {
                ping_until(&from.net, *target, PATIENCE, &Cancel::default())
                    .unwrap_or_else(|error| panic!("{} to {} at {target}: {error}", from.name, to.name));
            }
        }
    }
}

/// Looks until `look` is content; what it saw last is in the panic's message.
pub(crate) fn wait_for<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => panic!("waited in vain for {what}: {seen:#?}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Streams between two pods, one of each family.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    /// Where the kernel counts what it dropped.
    ends: [Netns; 2],
}

impl Streams {
    /// Starts them, and waits until they run.
    pub(crate) fn start(from: &Pod, to: &Pod, per_second: u32) -> Self {
        let start = |target: &IpAddr| Stream::start(&from.net, &to.net, *target, per_second).unwrap();
        let ends = [from.net.clone(), to.net.clone()];
        let streams = Self { streams: to.addresses.iter().map(start).collect(), ends };
        streams.wait_running();
        streams
    }

    /// Waits until more answers have come on each.
    pub(crate) fn wait_running(&self) {
        for stream in &self.streams {
            let goal = stream.answered() + RUNS;
            wait_for("answers of a stream", || {
                let answered = stream.answered();
                (answered >= goal).then_some(()).ok_or(answered)
            });
        }
    }

    /// Ends them: the worst of each number.
    pub(crate) fn stop(self) -> StreamReport {
        let reports = self.streams.into_iter().map(|stream| stream.stop().unwrap());
        reports
            .reduce(|a, b| StreamReport {
                sent: a.sent + b.sent,
                received: a.received + b.received,
                answered: a.answered + b.answered,
                longest_gap: a.longest_gap.max(b.longest_gap),
            })
            .unwrap()
    }

    /// Ends them: not one packet may be lost.
    pub(crate) fn assert_lossless(self, what: &str) {
        let ends = self.ends.clone();
        let report = self.stop();
        println!("LOSS {what} {} of {}", report.lost(), report.sent);
        let counters = || ends.map(|net| dump::run(&net, "nstat -as")).join("\n");
        assert_eq!(report.lost(), 0, "{what}: {report:?}\n{}", counters());
    }
}
