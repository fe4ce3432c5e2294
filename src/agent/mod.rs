//! The one loop: lease events, kernel events, timers, signals.
//!
//! The agent is level-triggered. An input only changes what is known; then `Agent::step` does everything that what
//! is known allows and demands, whatever the order in which it became known. So a start, a restart, a store that comes
//! back and an address that changes are one code path.

mod adoption;
pub mod board;
mod calls;
mod carried;
mod carrying;
mod census;
pub mod confine;
mod early;
mod end;
mod filtering;
pub mod flanneld;
mod guarding;
pub mod handover;
mod history;
pub mod identity;
mod input;
mod leaving;
pub mod lock;
pub mod memory;
mod papers;
pub mod preview;
pub mod privilege;
mod probing;
mod readiness;
mod report;
pub mod socket;
pub mod status;
mod step;
mod surroundings;
pub mod survey;
mod traffic;
mod trying;
mod underlay;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twill_backends::fault::Fault;
use twill_backends::lease::LeaseKey;
use twill_backends::leases::Leases;
use twill_backends::network::NetworkConfig;
use twill_backends::plan::Plan;
use twill_backends::tenure::Tenure;

use self::board::Board;
use self::calls::Calling;
use self::carrying::Carrying;
use self::census::Census;
pub use self::end::{AgentError, End};
use self::filtering::Filtering;
use self::guarding::Guarding;
use self::history::History;
use self::identity::Identity;
use self::input::Input;
use self::leaving::Leaving;
use self::memory::Memory;
use self::papers::Papers;
use self::probing::Probing;
use self::readiness::Judgement;
use self::socket::Visit;
use self::trying::Trying;
use self::underlay::Found;
pub use self::underlay::choice as underlay_choice;
use crate::config::Config;
use crate::filter::{self, Firewall};
use crate::kernel::{Kernel, Scope};
use crate::reconcile::Reconciler;
use crate::store::{LeaseStore, Revision};
use crate::subnet_env::Previous;

/// How long the store may take at start before the last run's memory is used.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How often files of ours are looked at, which nobody announces changes of.
const TICK: Duration = Duration::from_millis(500);
/// How often everything is read back from the kernel although nothing was announced.
const RESYNC: Duration = Duration::from_secs(60);

/// What an agent acts on.
pub trait World: Send + Sync {
    /// Where leases live.
    type Store: LeaseStore + 'static;
    /// The network stack.
    type Kernel: Kernel;
    /// The firewall.
    type Firewall: Firewall;

    /// Where leases live.
    fn store(&self) -> Arc<Self::Store>;
    /// The network stack.
    fn kernel(&self) -> &Self::Kernel;
    /// The firewall, once it is known what the network's configuration asks for.
    fn firewall(&self, options: filter::Options) -> impl Future<Output = Self::Firewall> + Send;
}

/// One host's agent.
#[derive(Debug)]
pub struct Agent<W: World> {
    world: W,
    config: Config,
    identity: Identity,
    started: Instant,
    /// What subnet.env said before this run; the subnets are those of the state directory where that knows any.
    previous: Previous,
    /// What the last run knew.
    memory: Option<Memory>,

    /// The network's configuration in force, and what was found wrong with the one in the store.
    network: Option<NetworkConfig>,
    config_fault: Option<Fault>,
    leases: Leases,
    leaving: Leaving,
    /// Leases that were not planned yet since they changed.
    changed: BTreeSet<LeaseKey>,
    /// Whether a snapshot of this run has come: nothing is taken away before.
    snapshot: bool,
    store: StoreState,
    found: Found,
    tenure: Tenure,
    /// What this host must be. It stays in force until another one can be made.
    plan: Option<Plan>,
    /// Whether something changed that the plan is made of.
    replan: bool,
    scope: Scope,
    /// Whether a plan was made in this run: from then on nothing ends the agent.
    begun: bool,
    /// Whether it was made sure that the network is free on this host.
    cleared: bool,
    /// What keeps a plan from being made again.
    obstacle: Option<Fault>,
    /// Whether flanneld ran here, so that what looks like its routes is ours.
    flanneld_ran: bool,
    reconciler: Reconciler,
    resync_at: Instant,
    /// Whether the kernel was heard to differ from what was believed.
    disturbed: bool,
    history: History,
    firewall: Option<W::Firewall>,
    filtering: Filtering,
    guarding: Guarding,
    carrying: Carrying,
    probing: Probing,
    /// When to look which peers carry packets.
    traffic_at: Instant,
    /// Taken when it is asked for after leases changed.
    census: OnceLock<Census>,
    trying: Trying,
    papers: Papers,
    ready: watch::Sender<bool>,
    judgement: Judgement,
    board: Board,
}

/// What is known of the store.
#[derive(Debug, Default)]
struct StoreState {
    connected: bool,
    revision: Revision,
    error: Option<String>,
}

impl<W: World> Agent<W> {
    /// An agent that has done nothing yet.
    pub fn new(world: W, config: Config, identity: Identity, ready: watch::Sender<bool>) -> Self {
        let started = crate::now();
        let previous = Previous::read(&config.subnet_file);
        let papers = Papers::new(config.subnet_file.clone(), config.site.state_dir().join("snapshot.json"));
        let memory = papers.recall(&identity.node.to_string());
        let remembered = memory.as_ref().and_then(|memory| memory.own.as_ref());
        let mut trying = Trying::new(config.datapath.checksums, config.probe_port);
        trying.recall(memory.as_ref().map(|memory| memory.choices.clone()).unwrap_or_default());
        let had = remembered.map_or(previous.subnets, |own| own.subnets);
        Self {
            started,
            previous,
            memory,
            network: None,
            config_fault: None,
            leases: Leases::new(config.delete_hold),
            leaving: Leaving::default(),
            changed: BTreeSet::new(),
            snapshot: false,
            store: StoreState::default(),
            found: Found::default(),
            tenure: Tenure::new(had, config.renew_margin),
            plan: None,
            replan: true,
            scope: Scope::default(),
            begun: false,
            cleared: false,
            obstacle: None,
            flanneld_ran: false,
            reconciler: Reconciler::default(),
            resync_at: started + RESYNC,
            disturbed: false,
            history: History::default(),
            firewall: None,
            filtering: Filtering::default(),
            guarding: Guarding::default(),
            carrying: Carrying::new(config.datapath),
            probing: Probing::default(),
            traffic_at: started,
            census: OnceLock::new(),
            trying,
            papers,
            ready,
            judgement: Judgement::default(),
            board: Board::new(started),
            world,
            config,
            identity,
        }
    }

    /// Runs until `stop` is called, an operator asks it to let go of its lease, or another process takes over. The data
    /// plane stays.
    ///
    /// # Errors
    /// At start only: the configuration or the host is refused.
    pub async fn run(
        mut self,
        mut visits: mpsc::Receiver<Visit>,
        stop: CancellationToken,
    ) -> Result<End, AgentError> {
        let store = self.world.store();
        let mut events = std::pin::pin!(store.watch());
        let mut calling: Option<Calling> = None;
        loop {
            self.step().await?;
            if calling.is_none() {
                calling = self.tenure.next_call(crate::now()).map(|call| self.call(call));
            }
            let input = self.wait(&mut events, &mut calling, &mut visits, &stop).await;
            self.board.hears(&input);
            match input {
                Input::Stop => break,
                Input::Ask(request) => {
                    if self.answer(request).await {
                        break;
                    }
                }
                Input::Heir(heir) => {
                    if let Some(end) = self.hand_over(heir, &mut calling, &mut visits, &stop).await {
                        return Ok(end);
                    }
                }
                Input::Answer(answer) => {
                    calling = None;
                    self.answered(answer);
                }
                Input::Store(event) => {
                    self.hear_store(event);
                    // A burst, as when many hosts start, is planned as one change.
                    while let Some(Some(event)) = futures::StreamExt::next(&mut events).now_or_never() {
                        self.hear_store(event);
                    }
                }
                Input::Kernel(change) => self.hear_kernel(&change),
                Input::Firewall(heard) => self.hear_firewall(heard),
                Input::Probes => self.hear_probes(),
                Input::Trial => self.hear_trial(),
                Input::Time => {}
            }
        }
        if self.config.cleanup_on_exit {
            self.clean_up().await;
        }
        Ok(End::Told)
    }
}
