//! `twill demo`: a fabric of a few hosts on this machine, from nothing to pods that talk, in one command.
//!
//! It does what an operator would: writes the network config with `twill config set`, starts a real agent on each host,
//! attaches a pod to each, and then measures what pods can reach.

mod check;
mod config;
mod report;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use report::Report;

use super::command::{CommandError, Ready, configure, ready};
use super::relay::Relay;
use super::view::View;
use super::{AgentOptions, AgentProcess, EtcdProcess, Lab, LabOptions, Pod, PodSubnet, StoreAt};
use crate::config::{DemoBackend, DemoConfig, DemoStore};
use check::{Matrix, reach, throughput};

/// How long all agents together may take until they are ready.
const READY: Duration = Duration::from_secs(30);

/// Runs the demo as a command: on stdout, with this program as the agent, ended by Ctrl-C. Returns the exit status.
/// Must be called while the process has one thread: a user namespace can only be entered then.
#[must_use]
pub fn command(config: &DemoConfig) -> u8 {
    let begin = Instant::now();
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut view = View::new(Box::new(stdout), terminal, begin);
    // Before anything is entered, so that a browser on the machine reaches it.
    let page = config.keep.then(Relay::new).transpose().map_err(CommandError::from);
    let result = page.and_then(|page| run(config, &ready()?, page, &mut view));
    finish(config, result, begin, &mut view)
}

/// Builds, checks, shows, and with `keep` waits until cancelled.
fn run(
    config: &DemoConfig,
    ready: &Ready,
    page: Option<Relay>,
    view: &mut View,
) -> Result<Report, CommandError> {
    let begin = Instant::now();
    view.title(config)?;
    let mut demo = Demo::build(config, ready, view)?;
    let matrix = demo.check(config, view)?;
    let gbps = demo.throughput(&matrix, view)?;
    let report = Report::new(config, &matrix, gbps, begin.elapsed());
    view.tables(&demo.rows(), &matrix, &report)?;
    if let Some(page) = page {
        let [first, ..] = demo.agents.as_slice() else { return Ok(report) };
        let page = page.lead_to(first.http_socket())?;
        view.look_around(&demo, ready.unprivileged, page)?;
        if config.json {
            view.json(&report)?;
        }
        while !ready.cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    demo.end();
    Ok(report)
}

/// What is up while a demo runs. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Demo {
    agents: Vec<AgentProcess>,
    pods: Vec<Pod>,
    _etcd: Option<EtcdProcess>,
    lab: Lab,
    store: StoreAt,
    backend: DemoBackend,
    program: PathBuf,
}

/// One host as the tables show it.
#[derive(Debug)]
pub(super) struct Row {
    host: String,
    addresses: Vec<String>,
    subnets: Vec<String>,
    pod: Vec<String>,
}

impl Demo {
    fn build(config: &DemoConfig, ready: &Ready, view: &mut View) -> Result<Self, CommandError> {
        view.begin("hosts", "building network namespaces")?;
        let lab = Lab::new(&LabOptions {
            hosts: config.hosts,
            ipv6: config.ipv6,
            visible: config.keep,
            cancel: ready.cancel.clone(),
            ..LabOptions::default()
        })?;
        view.done("hosts", &format!("{} network namespaces behind one bridge", config.hosts))?;
        let (etcd, store) = start_store(config, &lab, view)?;
        let mut demo = Self {
            agents: Vec::new(),
            pods: Vec::new(),
            _etcd: etcd,
            lab,
            store,
            backend: config.backend,
            program: ready.program.clone(),
        };
        demo.configure(config, view)?;
        demo.start_agents(view)?;
        demo.attach_pods(view)?;
        Ok(demo)
    }

    /// Writes the network config as an operator would.
    fn configure(&self, config: &DemoConfig, view: &mut View) -> Result<(), CommandError> {
        view.begin("config", "writing it with `twill config set`")?;
        let json = config::network(config);
        configure(&self.lab, &self.program, &self.store, &json)?;
        Ok(view.done("config", &json)?)
    }

    fn start_agents(&mut self, view: &mut View) -> Result<(), CommandError> {
        let all = self.lab.hosts.len();
        view.begin("agents", &format!("starting {all} agents"))?;
        let options = AgentOptions::new(&self.program, self.store.clone());
        for host in &self.lab.hosts {
            self.agents.push(host.agent(&options)?);
        }
        let deadline = Instant::now() + READY;
        for (ready, agent) in self.agents.iter_mut().enumerate() {
            view.begin("agents", &format!("{ready} of {all} ready"))?;
            agent.wait_ready(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(view.done("agents", &format!("{all} of {all} ready, each a process on its host"))?)
    }

    fn attach_pods(&mut self, view: &mut View) -> Result<(), CommandError> {
        view.begin("pods", "attaching one to each host")?;
        for (host, agent) in self.lab.hosts.iter().zip(&self.agents) {
            self.pods.push(host.pod(&agent.subnet()?)?);
        }
        Ok(view.done("pods", &format!("{} attached, one on each host", self.pods.len()))?)
    }

    fn check(&mut self, config: &DemoConfig, view: &mut View) -> Result<Matrix, CommandError> {
        let pairs = usize::from(config.hosts) * usize::from(config.hosts.saturating_sub(1));
        let families = if config.ipv6 { ", IPv4 and IPv6" } else { "" };
        view.begin("ping", &format!("{pairs} pairs{families}"))?;
        let matrix = reach(&self.pods, self.lab.cancel())?;
        let done = format!("{} of {} pairs answer{families}", matrix.reachable(), matrix.pairs());
        view.done("ping", &done)?;
        Ok(matrix)
    }

    /// TCP from the first pod to the second; zero if it cannot reach it.
    fn throughput(&self, matrix: &Matrix, view: &mut View) -> Result<f64, CommandError> {
        let [from, to, ..] = self.pods.as_slice() else { return Ok(0.0) };
        if !matrix.reached(0, 1) {
            view.done("tcp", &format!("left out: {} does not answer {}", to.name, from.name))?;
            return Ok(0.0);
        }
        view.begin("tcp", &format!("one stream from {} to {}", from.name, to.name))?;
        let gbps = throughput(from, to, self.lab.cancel())?;
        view.done("tcp", &format!("{gbps:.2} Gbit/s from {} to {}, one stream", from.name, to.name))?;
        Ok(gbps)
    }

    fn rows(&self) -> Vec<Row> {
        let texts = |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect();
        let subnets = |agent: &AgentProcess| {
            let gateways = agent.subnet().as_ref().map(PodSubnet::gateways).unwrap_or_default();
            gateways.iter().map(|net| net.trunc().to_string()).collect()
        };
        let row = |((host, agent), pod): ((&super::Host, &AgentProcess), &Pod)| Row {
            host: host.name.clone(),
            addresses: texts(&host.addresses),
            subnets: subnets(agent),
            pod: texts(&pod.addresses),
        };
        self.lab.hosts.iter().zip(&self.agents).zip(&self.pods).map(row).collect()
    }

    /// Ends all agents at the same time rather than one after the other.
    fn end(&mut self) {
        for agent in &mut self.agents {
            if let Err(error) = agent.signal(nix::sys::signal::Signal::SIGTERM) {
                tracing::debug!(%error, "could not end an agent");
            }
        }
    }
}

fn start_store(
    config: &DemoConfig,
    lab: &Lab,
    view: &mut View,
) -> Result<(Option<EtcdProcess>, StoreAt), CommandError> {
    match config.store {
        DemoStore::File => Ok((None, StoreAt::File(lab.dir().join("leases")))),
        DemoStore::Etcd => {
            view.begin("etcd", "starting")?;
            let etcd = lab.etcd()?;
            let endpoints = etcd.endpoint();
            view.done("etcd", &format!("healthy at {endpoints}"))?;
            Ok((Some(etcd), StoreAt::Etcd { endpoints }))
        }
    }
}

/// Says how it ended: the JSON line if asked for, errors on stderr.
fn finish(config: &DemoConfig, result: Result<Report, CommandError>, begin: Instant, view: &mut View) -> u8 {
    let (report, status) = match result {
        Ok(report) => {
            let status = u8::from(!report.passed());
            (report, status)
        }
        Err(error) => {
            let status = error.report("twill demo", view);
            (Report::failed(config, &error.to_string(), begin.elapsed()), status)
        }
    };
    let told_already = config.keep && report.error.is_none();
    if config.json && !told_already && view.json(&report).is_err() {
        return 1;
    }
    status
}
