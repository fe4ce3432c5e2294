//! The parts: agents, leases as flanneld would write them, and what is in a host's kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd_client::Client;
use ipnet::IpNet;
use twill::kernel::netlink::Netlink;
use twill::kernel::{Change, Kernel, Scope};
use twill::lab::{AgentOptions, AgentProcess, EtcdProcess, Host, Lab, LabError, StoreAt, probe};
use twill_backends::diff::Op;
use twill_backends::lease::Lease;

/// Agents take subnets from 10.200.0.0 on; those before are for the leases of [`fill`].
const CONFIG: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.200.0.0","Backend":{"Type":"vxlan"}}"#;
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn agent(host: &Host, etcd: &EtcdProcess, args: &[&str]) -> AgentProcess {
    host.agent(&options(etcd, args)).unwrap()
}

pub(crate) fn options(etcd: &EtcdProcess, args: &[&str]) -> AgentOptions {
    let store = StoreAt::Etcd { endpoints: etcd.endpoint() };
    let options = AgentOptions::new(env!("CARGO_BIN_EXE_twill"), store);
    args.iter().fold(options, |options, arg| options.arg(*arg))
}

/// Writes the configuration and leases as flanneld would, from inside the underlay. Returns when the last write began.
pub(crate) fn fill(lab: &Lab, etcd: &EtcdProcess, leases: Range<u32>) -> Instant {
    fill_with(lab, etcd, leases, |_| String::new())
}

/// The same, with `more` fields at the end of each value.
pub(crate) fn fill_with(
    lab: &Lab,
    etcd: &EtcdProcess,
    leases: Range<u32>,
    more: impl Fn(u32) -> String + Sync,
) -> Instant {
    let endpoint = etcd.endpoint();
    let write = || {
        runtime().block_on(async {
            let mut client = Client::connect([endpoint], None).await.unwrap();
            client.put("/coreos.com/network/config", CONFIG, None).await.unwrap();
            let mut begin = Instant::now();
            for n in leases {
                let (a, b) = (n >> 8, n & 255);
                let key = format!("/coreos.com/network/subnets/10.{a}.{b}.0-24");
                let value = format!(
                    r#"{{"PublicIP":"192.168.{}.{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{a:02x}:{b:02x}"}}{}}}"#,
                    100 + a,
                    b,
                    more(n),
                );
                begin = Instant::now();
                client.put(key, value, None).await.unwrap();
            }
            begin
        })
    };
    lab.underlay.net.run(write).unwrap()
}

/// The lease of an agent, as etcd has it.
pub(crate) fn lease(lab: &Lab, etcd: &EtcdProcess, agent: &AgentProcess) -> Lease {
    let (endpoint, status) = (etcd.endpoint(), agent.status().unwrap());
    let key = status["lease"]["key"].as_str().unwrap();
    let read = || {
        runtime().block_on(async {
            let mut client = Client::connect([endpoint], None).await.unwrap();
            let found = client.get(format!("/coreos.com/network/subnets/{key}"), None).await.unwrap();
            Lease::decode(key, found.kvs()[0].value()).unwrap()
        })
    };
    lab.underlay.net.run(read).unwrap()
}

/// How many routes of the fabric a host has.
pub(crate) fn routes(host: &Host) -> usize {
    host.net.run(|| runtime().block_on(async { observe(&Netlink::open().unwrap()).await })).unwrap().len()
}

/// Tells when each of `hosts` has as many routes as `wanted` makes of their present number, counted from what `act`
/// returns: the instant at which it began.
pub(crate) fn until_routes(
    hosts: &[Host],
    wanted: fn(usize) -> usize,
    act: impl FnOnce() -> Instant,
) -> Duration {
    let (listening, ready) = mpsc::channel();
    let waiting: Vec<_> = hosts.iter().map(|host| listen(host, wanted, listening.clone())).collect();
    for _ in &waiting {
        ready.recv_timeout(PATIENCE).unwrap();
    }
    let begin = act();
    waiting.into_iter().map(|thread| thread.join().unwrap().unwrap().duration_since(begin)).max().unwrap()
}

/// Follows what a host's kernel announces.
fn listen(
    host: &Host,
    wanted: fn(usize) -> usize,
    listening: mpsc::Sender<()>,
) -> JoinHandle<Result<Instant, LabError>> {
    let follow = move || {
        runtime().block_on(async {
            let (kernel, scope) = (Netlink::open().unwrap(), scope());
            let mut routes = observe(&kernel).await;
            let goal = wanted(routes.len());
            listening.send(()).unwrap();
            while routes.len() != goal {
                match kernel.changed(&scope).await {
                    Change::Did(ops) => ops.iter().for_each(|op| note(&mut routes, op)),
                    // Something else changed as well, and swallowed the operations.
                    Change::Unknown(_) | Change::Underlay => routes = observe(&kernel).await,
                }
            }
            Instant::now()
        })
    };
    host.net.thread(follow).unwrap()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "only routes count")]
fn note(routes: &mut BTreeSet<IpNet>, op: &Op) {
    match op {
        Op::SetRoute(key, _) => routes.insert(key.dst),
        Op::DelRoute(key, ..) => routes.remove(&key.dst),
        _ => false,
    };
}

async fn observe(kernel: &Netlink) -> BTreeSet<IpNet> {
    kernel.observe(&scope()).await.unwrap().net.routes.into_keys().map(|key| key.dst).collect()
}

fn scope() -> Scope {
    Scope {
        links: BTreeSet::from(["flannel.1".try_into().unwrap()]),
        networks: vec![("10.0.0.0/8".parse().unwrap(), 24)],
        underlay: Some("eth0".try_into().unwrap()),
        ..Scope::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The most memory a process had (`VmHWM`), in MiB.
pub(crate) fn peak(agent: &AgentProcess) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The processor time of an agent, in seconds.
pub(crate) fn cpu(agent: &AgentProcess) -> f64 {
    agent.cpu().unwrap().as_secs_f64()
}

/// The processor time of an agent, and of the programs that it ran, in seconds.
pub(crate) struct Spent(f64, f64);

impl Spent {
    pub(crate) fn of(agent: &AgentProcess) -> Self {
        Self(cpu(agent), agent.programs_cpu().unwrap().as_secs_f64())
    }

    /// What was spent since.
    pub(crate) fn since(&self, agent: &AgentProcess) -> [f64; 2] {
        let Self(own, programs) = Self::of(agent);
        [own - self.0, programs - self.1]
    }
}

/// The middle one, and the least and the most, in `unit`s of a second.
pub(crate) fn spread(mut times: Vec<Duration>, unit: f64) -> (f64, f64, f64) {
    times.sort();
    let at = |index: usize| times[index].as_secs_f64() / unit;
    (at(times.len() / 2), at(0), at(times.len() - 1))
}

/// Prints how long an agent takes to answer `what`, and what that costs it. `ask` returns the answer's length in bytes.
pub(crate) fn answers(agent: &AgentProcess, what: &str, times: usize, ask: impl Fn() -> usize) {
    let before = cpu(agent);
    let mut length = 0;
    let question = |_| {
        let begin = Instant::now();
        length = ask();
        begin.elapsed()
    };
    let (median, least, most) = spread((0..times).map(question).collect(), 1e-3);
    println!(
        "{what}: median {median:.1} ms (least {least:.1}, most {most:.1}), {:.1} ms CPU of the agent each, {} KiB, {times} times",
        (cpu(agent) - before) * 1e3 / times as f64,
        length / 1024,
    );
}

/// What an etcd has been asked, by method, and how many events and answers its watchers have had.
#[derive(Debug, PartialEq)]
pub(crate) struct Requests(BTreeMap<String, u64>);

impl Requests {
    pub(crate) fn of(lab: &Lab, etcd: &EtcdProcess) -> Self {
        let address = etcd.endpoint().trim_start_matches("http://").parse().unwrap();
        let (_status, text) = probe::http_get(&lab.underlay.net, address, "/metrics").unwrap();
        Self(text.lines().filter_map(message).fold(BTreeMap::new(), |mut counts, (method, count)| {
            *counts.entry(method).or_default() += count;
            counts
        }))
    }

    /// What came since.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (method, count) in &mut self.0 {
            *count -= before.0.get(method).copied().unwrap_or_default();
        }
        self.0.retain(|_method, count| *count > 0);
        self
    }
}

/// A line of Prometheus text that counts messages: `grpc_server_msg_received_total{grpc_method="Range",…} 7`.
fn message(line: &str) -> Option<(String, u64)> {
    let (name, rest) = line.strip_prefix("grpc_server_msg_")?.split_once("_total{")?;
    let method = rest.split("grpc_method=\"").nth(1)?.split('"').next()?;
    let count = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
    Some((format!("{method} {name}"), count as u64))
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no message");
        }
        let counts: Vec<String> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}
