//! How fast a fabric converges: real agents, a real etcd, the real kernel, in network namespaces.
//!
//! - *start*: 5,000 leases are in etcd; from the start of the agent's process until all of them are in the kernel and
//!   `subnet.env` is written, with the process's peak memory and CPU time.
//! - *put*: one lease is written to etcd; until its route is in the kernel of every one of three hosts.
//!
//! `cargo bench --bench convergence` measures; with `--test` it runs once, small.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd_client::Client;
use nix::sys::signal::Signal;
use twill::kernel::netlink::Netlink;
use twill::kernel::{Change, Kernel, Scope};
use twill::lab::{AgentOptions, AgentProcess, EtcdProcess, Host, Lab, LabError, LabOptions, StoreAt};
use twill_backends::diff::Op;
use twill_backends::state::RouteKey;

const CONFIG: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.200.0.0","Backend":{"Type":"vxlan"}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// How much to measure.
struct Size {
    leases: u32,
    starts: usize,
    puts: u32,
}

/// What one start took.
struct Start {
    wall: Duration,
    peak_kib: u64,
    cpu: Duration,
}

fn main() {
    if let Err(error) = Lab::available() {
        println!("SKIP: {error}");
        return;
    }
    let test = std::env::args().any(|arg| arg == "--test");
    let size = if test {
        Size { leases: 100, starts: 1, puts: 3 }
    } else {
        Size { leases: 5000, starts: 7, puts: 50 }
    };
    start(&size);
    put(&size);
}

fn start(size: &Size) {
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..size.leases);
    let mut agent = agent(&lab.hosts[0], &etcd, &["--cleanup-on-exit"]);
    agent.wait_ready(PATIENCE).unwrap();
    let mut runs: Vec<Start> =
        (0..size.starts).map(|_| one_start(&lab.hosts[0], &mut agent, size.leases)).collect();
    runs.sort_by_key(|run| run.wall);
    let middle = &runs[runs.len() / 2];
    let peak = runs.iter().map(|run| run.peak_kib).max().unwrap_or_default();
    println!(
        "start with {} leases: median {:.3} s wall (least {:.3}, most {:.3}), {:.2} s CPU, at most {:.1} MiB, {} runs",
        size.leases,
        middle.wall.as_secs_f64(),
        runs[0].wall.as_secs_f64(),
        runs[runs.len() - 1].wall.as_secs_f64(),
        middle.cpu.as_secs_f64(),
        peak as f64 / 1024.0,
        runs.len(),
    );
}

/// Ends the agent, which cleans its host up, and starts it again.
fn one_start(host: &Host, agent: &mut AgentProcess, leases: u32) -> Start {
    agent.kill(Signal::SIGTERM).unwrap();
    assert_eq!(routes(host), 0, "the host is clean");
    let begin = Instant::now();
    agent.restart().unwrap();
    while agent.subnet().is_err() {
        assert!(begin.elapsed() < PATIENCE, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    let wall = begin.elapsed();
    let proc = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", agent.pid())).unwrap();
    let (peak_kib, cpu) = (peak(&proc("status")), cpu(&proc("stat")));
    assert_eq!(routes(host), leases as usize, "every lease has its route");
    Start { wall, peak_kib, cpu }
}

fn put(size: &Size) {
    let lab = Lab::new(&LabOptions::default()).unwrap();
    let etcd = lab.etcd().unwrap();
    fill(&lab, &etcd, 0..100);
    let mut agents: Vec<AgentProcess> = lab.hosts.iter().map(|host| agent(host, &etcd, &[])).collect();
    agents.iter_mut().for_each(|agent| agent.wait_ready(PATIENCE).unwrap());
    let mut times: Vec<Duration> = (1000..1000 + size.puts).map(|n| one_put(&lab, &etcd, n)).collect();
    times.sort();
    println!(
        "put of one lease: median {:.1} ms until every kernel of {} has it (least {:.1}, most {:.1}), {} puts",
        times[times.len() / 2].as_secs_f64() * 1e3,
        lab.hosts.len(),
        times[0].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
        times.len(),
    );
}

fn one_put(lab: &Lab, etcd: &EtcdProcess, n: u32) -> Duration {
    let (listening, ready) = mpsc::channel();
    let waiting: Vec<_> = lab.hosts.iter().map(|host| wait_for_route(host, n, listening.clone())).collect();
    for _ in &waiting {
        ready.recv_timeout(PATIENCE).unwrap();
    }
    let begin = fill(lab, etcd, n..n + 1);
    waiting.into_iter().map(|thread| thread.join().unwrap().unwrap().duration_since(begin)).max().unwrap()
}

/// Waits, in a host's namespace, until the kernel announces the route of lease `n`.
fn wait_for_route(host: &Host, n: u32, listening: mpsc::Sender<()>) -> JoinHandle<Result<Instant, LabError>> {
    let thread = host.net.thread(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kernel = Netlink::open().unwrap();
            listening.send(()).unwrap();
            let scope = scope();
            loop {
                let there = match kernel.changed(&scope).await {
                    Change::Did(ops) => ops.iter().any(|op| sets_route(op, subnet(n))),
                    // Something else changed as well, and swallowed the operations.
                    Change::Unknown(_) | Change::Underlay => {
                        let routes = kernel.observe(&scope).await.unwrap().net.routes;
                        routes.keys().any(|key| key.dst == subnet(n))
                    }
                };
                if there {
                    return Instant::now();
                }
            }
        })
    });
    thread.unwrap()
}

fn sets_route(op: &Op, subnet: ipnet::IpNet) -> bool {
    matches!(op, Op::SetRoute(RouteKey { dst, .. }, _) if *dst == subnet)
}

fn agent(host: &Host, etcd: &EtcdProcess, args: &[&str]) -> AgentProcess {
    let store = StoreAt::Etcd { endpoints: etcd.endpoint() };
    let options = AgentOptions::new(env!("CARGO_BIN_EXE_twill"), store);
    host.agent(&args.iter().fold(options, |options, arg| options.arg(*arg))).unwrap()
}

/// Writes the configuration and leases as flanneld would, from inside the underlay. Returns when the last write began.
fn fill(lab: &Lab, etcd: &EtcdProcess, leases: std::ops::Range<u32>) -> Instant {
    let endpoint = etcd.endpoint();
    let write = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::connect([endpoint], None).await.unwrap();
            client.put("/coreos.com/network/config", CONFIG, None).await.unwrap();
            let mut begin = Instant::now();
            for n in leases {
                let (a, b) = (n >> 8, n & 255);
                let key = format!("/coreos.com/network/subnets/10.{a}.{b}.0-24");
                let value = format!(
                    r#"{{"PublicIP":"192.168.{}.{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{a:02x}:{b:02x}"}}}}"#,
                    100 + a,
                    b
                );
                begin = Instant::now();
                client.put(key, value, None).await.unwrap();
            }
            begin
        })
    };
    lab.underlay.net.run(write).unwrap()
}

fn routes(host: &Host) -> usize {
    let observe = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Netlink::open().unwrap().observe(&scope()).await.unwrap() })
    };
    host.net.run(observe).unwrap().net.routes.len()
}

fn scope() -> Scope {
    Scope {
        links: BTreeSet::from(["flannel.1".try_into().unwrap()]),
        networks: vec![("10.0.0.0/8".parse().unwrap(), 24)],
        underlay: Some("eth0".try_into().unwrap()),
        ..Scope::default()
    }
}

fn subnet(n: u32) -> ipnet::IpNet {
    let base: IpAddr = [10, u8::try_from(n >> 8).unwrap(), u8::try_from(n & 255).unwrap(), 0].into();
    ipnet::IpNet::new(base, 24).unwrap()
}

/// `VmHWM` of `/proc/<pid>/status`, in KiB.
fn peak(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// `utime` and `stime` of `/proc/<pid>/stat`, whose unit is a hundredth of a second.
fn cpu(stat: &str) -> Duration {
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
