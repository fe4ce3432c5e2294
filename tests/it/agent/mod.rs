//! The whole agent, on a store, a kernel and a firewall in memory, with a clock that jumps from event to event.

mod carrying;
mod changes;
mod failures;
mod handover;
mod leases;
mod random;
mod start;
mod telling;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twill::agent::board::View;
use twill::agent::identity::Identity;
use twill::agent::socket::{Ask, Request, Visit};
use twill::agent::status::{State, Status};
use twill::agent::{Agent, AgentError, End, World};
use twill::config::{
    Config, DatapathConfig, DatapathMode, Dirs, FilterConfig, FirewallMode, InterfaceConfig, Site,
    StoreConfig,
};
use twill::filter::Options;
use twill::filter::fake::FakeFirewall;
use twill::kernel::facts::{AddrFact, LinkFact};
use twill::kernel::fake::FakeKernel;
use twill::store::table::Record;
use twill::store::{MemoryStore, MemoryTable};
use twill_backends::checksums::Wish;
use twill_backends::diff::Op;
use twill_backends::lease::{Attrs, LeaseKey};
use twill_backends::state::{LinkName, NetState, RouteKey};
use uuid::Uuid;

/// The pool leaves 10.5.1.0 to 10.5.99.0 to the tests' own peers.
const CONFIG: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","SubnetMax":"10.5.119.0","Backend":{"Type":"vxlan"}}"#;
/// The longest any test waits for something, on the clock that jumps.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long deletions are held in these tests.
const HOLD: Duration = Duration::from_secs(300);

/// What an agent acts on.
struct Fakes {
    store: Arc<MemoryStore>,
    kernel: FakeKernel,
    firewall: FakeFirewall,
}

impl World for Fakes {
    type Store = MemoryStore;
    type Kernel = FakeKernel;
    type Firewall = FakeFirewall;

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store)
    }

    fn kernel(&self) -> &FakeKernel {
        &self.kernel
    }

    async fn firewall(&self, _options: Options) -> FakeFirewall {
        self.firewall.clone()
    }
}

/// One host: what outlives its agents.
struct Host {
    table: MemoryTable,
    kernel: FakeKernel,
    firewall: FakeFirewall,
    config: Config,
    identity: Identity,
    dir: TempDir,
}

/// An agent that runs.
struct Running {
    visits: mpsc::Sender<Visit>,
    view: View,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<Result<End, AgentError>>,
}

impl Host {
    /// Host `n` of the fabric whose leases are in `table`, with [`CONFIG`] in it unless something is already.
    fn new(n: u8, table: &MemoryTable) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            site: Site {
                store: StoreConfig::File { dir: "/nowhere".into() },
                dirs: Dirs { state: dir.path().join("state"), run: dir.path().join("run") },
                warnings: Vec::new(),
            },
            interface: InterfaceConfig::default(),
            datapath: DatapathConfig {
                mode: DatapathMode::Auto,
                check_source: true,
                checksums: Wish::Auto,
                queues: 1,
            },
            filter: FilterConfig {
                masquerade: true,
                random_fully: false,
                forward: true,
                check_senders: true,
                mode: FirewallMode::Auto,
            },
            subnet_file: dir.path().join("subnet.env"),
            renew_margin: Duration::from_secs(3600),
            blackhole: false,
            resync: Duration::from_secs(5),
            health: None,
            page: None,
            probe_port: None,
            ready_peers: 50,
            delete_hold: HOLD,
            confine: false,
            take_over: false,
            force: false,
            cleanup_on_exit: false,
            verbosity: 0,
        };
        Self {
            table: table.clone(),
            kernel: FakeKernel::host(n),
            firewall: FakeFirewall::default(),
            config,
            identity: Identity { node: Uuid::from_u128(n.into()), session: Uuid::new_v4() },
            dir,
        }
    }

    /// Host 1 of a fabric with [`CONFIG`].
    fn alone() -> Self {
        let table = MemoryTable::default();
        table.set_config(Some(CONFIG));
        Self::new(1, &table)
    }

    fn start(&self) -> Running {
        let identity = Identity { session: Uuid::new_v4(), ..self.identity.clone() };
        let (agent, ready) = self.agent(identity);
        self.run(agent, ready)
    }

    /// An agent that has done nothing yet.
    fn agent(&self, identity: Identity) -> (Agent<Fakes>, watch::Receiver<bool>) {
        let world = Fakes {
            store: Arc::new(MemoryStore::new(self.table.clone())),
            kernel: self.kernel.clone(),
            firewall: self.firewall.clone(),
        };
        let (ready, is_ready) = watch::channel(false);
        (Agent::new(world, self.config.clone(), identity, ready), is_ready)
    }

    fn run(&self, agent: Agent<Fakes>, ready: watch::Receiver<bool>) -> Running {
        let (visits, came) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let view = agent.view();
        let task = tokio::spawn(agent.run(came, stop.clone()));
        Running { visits, view, ready, stop, task }
    }

    /// Starts an agent and waits until it is ready.
    async fn started(&self) -> Running {
        let mut agent = self.start();
        agent.is_ready().await;
        agent
    }

    fn env(&self) -> String {
        std::fs::read_to_string(&self.config.subnet_file).unwrap_or_default()
    }

    fn memory(&self) -> PathBuf {
        self.config.site.state_dir().join("snapshot.json")
    }

    /// This host's lease as the store has it.
    fn lease(&self) -> Option<Record> {
        let node = self.identity.node.to_string();
        let ours = |record: &Record| {
            Attrs::decode(&record.value).is_ok_and(|attrs| attrs.node_id.as_ref() == Some(&node))
        };
        self.table.records().into_iter().find(ours)
    }

    /// Puts a bridge with the first address of a subnet on the host, as the bridge plugin does for pods.
    fn add_bridge(&self, subnet: &str) {
        let mut facts = self.kernel.host_facts();
        let name = "cni0".try_into().unwrap();
        facts.links.push(LinkFact {
            index: 50,
            name,
            mac: None,
            mtu: 1450,
            alias: String::new(),
            running: true,
            up: true,
            vxlan: None,
        });
        facts.addrs.push(AddrFact { index: 50, net: subnet.parse().unwrap(), ..facts.addrs[0].clone() });
        self.kernel.set_facts(facts);
    }

    /// Gives the underlay interface another address.
    fn move_to(&self, address: &str) {
        let mut facts = self.kernel.host_facts();
        facts.addrs[0].net = address.parse().unwrap();
        self.kernel.set_facts(facts);
    }

    /// Waits until the kernel leads to exactly these peers.
    async fn leads_to(&self, peers: &[u8]) {
        let want: Vec<RouteKey> = peers.iter().map(|n| route(*n)).collect();
        let arrived = || {
            let net = self.kernel.net();
            let keys = net.routes.keys().copied().filter(|key| key.dst.to_string().starts_with("10.5."));
            keys.collect::<Vec<_>>() == want
        };
        until(&format!("routes to {peers:?}, not {:?}", self.kernel.net().routes.keys()), arrived).await;
    }
}

impl Running {
    async fn is_ready(&mut self) {
        let ready = tokio::time::timeout(PATIENCE, self.ready.wait_for(|ready| *ready)).await;
        let ready = ready.map(|ready| ready.is_ok());
        if ready.is_err() {
            panic!("not ready: {}", self.status().await);
        }
        assert_eq!(ready, Ok(true), "the agent ended");
    }

    async fn ask(&self, ask: Ask) -> Result<serde_json::Value, String> {
        let (reply, answer) = oneshot::channel();
        let (_delivery, delivered) = oneshot::channel();
        let request = Request { ask, reply, delivered };
        self.visits.send(Visit::Asks(request)).await.unwrap();
        answer.await.unwrap()
    }

    async fn status(&self) -> Status {
        self.ask(Ask::Status).await.unwrap();
        self.view.status().await.unwrap()
    }

    async fn codes(&self) -> Vec<String> {
        self.status().await.faults.into_iter().map(|fault| fault.code).collect()
    }

    /// Waits until exactly these faults are shown.
    async fn shows(&self, codes: &[&str]) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            let shown: Vec<&str> = status.faults.iter().map(|fault| fault.code.as_str()).collect();
            if shown == codes {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "faults other than {codes:?}:\n{status}");
            pause(5).await;
        }
    }

    /// Waits until all is well.
    async fn is_well(&self) {
        self.shows(&[]).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !matches!(self.status().await, Status { state: State::Ok, reconcile, .. } if reconcile.converged)
        {
            assert!(tokio::time::Instant::now() < deadline, "{}", self.status().await);
            pause(5).await;
        }
    }

    /// Ends the agent as SIGTERM does.
    async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    async fn ended(self) -> Result<End, AgentError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the agent ends").unwrap()
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        pause(5).await;
    }
}

fn tunnel() -> LinkName {
    "flannel.1".try_into().unwrap()
}

/// The route to peer `n`.
fn route(n: u8) -> RouteKey {
    RouteKey { dst: format!("10.5.{n}.0/24").parse().unwrap(), metric: 0 }
}

fn key(n: u8) -> String {
    format!("10.5.{n}.0-24")
}

/// Writes the lease of peer `n` as flanneld does; its tunnel has the address `mac`.
fn put_peer_with(table: &MemoryTable, n: u8, mac: u8) {
    let value = format!(
        r#"{{"PublicIP":"192.168.77.{n}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:01:{mac:02x}"}}}}"#
    );
    table.put_raw(&key(n), value.as_bytes(), false);
}

/// Peers 2 to `last`.
fn put_peers(table: &MemoryTable, last: u8) -> Vec<u8> {
    let peers: Vec<u8> = (2..=last).collect();
    peers.iter().for_each(|n| put_peer_with(table, *n, *n));
    peers
}

/// What was taken away from a kernel since `before` operations.
fn removals(kernel: &FakeKernel, before: usize) -> Vec<Op> {
    kernel.applied().into_iter().skip(before).filter(Op::is_removal).collect()
}

/// What a kernel would be had this host's agent just started on an empty one.
async fn fresh_net(host: &Host) -> NetState {
    let other =
        Host { identity: host.identity.clone(), kernel: FakeKernel::default(), ..Host::new(1, &host.table) };
    let facts = host.kernel.host_facts();
    other.kernel.set_facts(facts);
    let agent = other.started().await;
    agent.is_well().await;
    agent.stop().await;
    other.kernel.net()
}

/// The key of a record, as text.
fn name(record: &Record) -> &LeaseKey {
    &record.key
}
