//! This host's firewall: which engine, what a pass does, and when there is nothing to do.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::sync::Mutex;
use twill_backends::filter::Filter;
use twill_backends::guard::{Element, Guard};

use super::guard::GuardTable;
use super::iptables::{Flavour, Iptables};
use super::monitor::{BACKSTOP, Monitor};
use super::news::{INET, IPV4, IPV6, Watch};
use super::nft::{self, Nft};
use super::step::{Plan, Step};
use super::tools::Tools;
use super::{Applied, Counters, Engine, FilterError, Firewall, Heard, Options, PolicyDrop};
use crate::config::FirewallMode;

/// How often a load is read back and tried again within one pass.
const ROUNDS: usize = 3;

/// The firewall of the network namespace this runs in.
#[derive(Debug)]
pub struct HostFirewall {
    engine: Engine,
    reason: String,
    nft: Nft,
    guard: GuardTable,
    /// The iptables programs of plain name.
    iptables: Iptables,
    /// Those of the other kernel interface, where both are installed.
    other: Option<Iptables>,
    monitor: Monitor,
    memory: Mutex<Memory>,
}

/// What earlier passes of this process found out.
#[derive(Debug, Default)]
struct Memory {
    /// Nothing is left of the other engine or of flanneld.
    clean: bool,
    /// Loads that this host's tools read back otherwise than written, though complete: not to be repeated.
    settled: Vec<Step>,
    /// Networks whose rules are ours, whether wanted any more or not.
    networks: BTreeSet<IpNet>,
}

impl HostFirewall {
    /// Chooses the engine, for the life of this value, and listens from here on. Needs a tokio runtime.
    pub async fn open(options: Options) -> Self {
        let tools = Tools::new(options.path);
        let nft = Nft::new(tools.clone(), &options.instance);
        let guard = GuardTable::new(Nft::new(tools.clone(), &options.instance), &options.instance);
        let iptables = Iptables::new(tools.clone(), "");
        let flavour = iptables.flavour().await.ok();
        let other = flavour
            .map(|flavour| Iptables::new(tools, if flavour == Flavour::Nft { "-legacy" } else { "-nft" }));
        let mut this = Self {
            engine: Engine::Nftables,
            reason: "asked for".to_owned(),
            monitor: Monitor::open(watches(nft.table(), guard.table()), options.resync.max(BACKSTOP)),
            nft,
            guard,
            iptables,
            other,
            memory: Mutex::new(Memory {
                networks: options.previous.into_iter().collect(),
                ..Memory::default()
            }),
        };
        match options.mode {
            FirewallMode::Auto => (this.engine, this.reason) = this.choose().await,
            FirewallMode::Nftables => {}
            FirewallMode::Iptables => this.engine = Engine::Iptables,
        }
        if this.engine == Engine::Iptables && flavour == Some(Flavour::Legacy) {
            let guard = watches("", this.guard.table()).into_iter().filter(|watch| watch.guard);
            this.monitor = Monitor::open(guard.collect(), options.resync);
        }
        tracing::info!(engine = ?this.engine, reason = this.reason, "firewall engine");
        this
    }

    /// Why this engine.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    async fn choose(&self) -> (Engine, String) {
        let installed = self.iptables.installed(false) || self.iptables.installed(true);
        if installed {
            if self.iptables.has_chains().await || self.other_has_chains().await {
                return (Engine::Iptables, "flanneld's chains exist".to_owned());
            }
            if let Some(drop) = self.drops().await.iter().find(|drop| drop.iptables) {
                return (Engine::Iptables, format!("{} has policy DROP", drop.chain));
            }
        }
        match (self.nft.installed(), installed) {
            (true, _) => (Engine::Nftables, "no flanneld chains and no FORWARD policy DROP".to_owned()),
            (false, true) => (Engine::Iptables, "nft is not installed".to_owned()),
            (false, false) => (Engine::Nftables, "neither nft nor iptables is installed".to_owned()),
        }
    }

    async fn other_has_chains(&self) -> bool {
        match &self.other {
            Some(other) => other.has_chains().await,
            None => false,
        }
    }

    /// Chains that drop what is forwarded, in any interface of the kernel.
    async fn drops(&self) -> Vec<PolicyDrop> {
        let mut drops = self.nft.forward_drops().await.unwrap_or_default();
        for tables in std::iter::once(&self.iptables).chain(&self.other) {
            if tables.flavour().await.is_ok_and(|flavour| flavour == Flavour::Legacy) {
                drops.extend(tables.forward_drops().await);
            }
        }
        drops
    }

    async fn plan(&self, want: &Filter, memory: &Memory, leftovers: bool) -> Plan {
        let nets: Vec<IpNet> = match want.nets.as_slice() {
            [] => Vec::new(),
            some => some.iter().map(|net| net.network).chain(memory.networks.iter().copied()).collect(),
        };
        let nothing = Filter::default();
        let mut plan = Plan::default();
        let nftables = self.engine == Engine::Nftables;
        if !nftables {
            plan = self.iptables.plan(want, &nets).await;
        }
        match self.plan_nft(if nftables { want } else { &nothing }, leftovers).await {
            Ok(steps) => plan.steps.extend(steps),
            Err(e) if !nftables || !want.wants_rules() => plan.warnings.push(e.to_string()),
            Err(e) => plan.failure = Some(e),
        }
        // What is left stays as long as not all of ours can be loaded.
        if leftovers && plan.failure.is_none() {
            for tables in Some(&self.iptables).filter(|_| nftables).into_iter().chain(&self.other) {
                let more = tables.plan(&nothing, &nets).await;
                plan.steps.extend(more.steps);
                plan.warnings.extend(more.warnings);
            }
        }
        plan.steps.sort_by_key(|step| !step.load);
        plan
    }

    /// Our table, and flanneld's when leftovers are looked for.
    async fn plan_nft(&self, want: &Filter, leftovers: bool) -> Result<Vec<Step>, FilterError> {
        let silent = self.engine == Engine::Iptables && !leftovers;
        if silent || (!want.wants_rules() && !self.nft.installed()) {
            return Ok(Vec::new());
        }
        let tables = self.nft.tables().await?;
        let mut steps: Vec<Step> = self.nft.plan(want, &tables).await?.into_iter().collect();
        if leftovers {
            let left = nft::FLANNELD.iter().filter(|(f, n)| tables.contains(&((*f).into(), (*n).into())));
            steps.extend(left.map(|(family, name)| nft::delete(family, name, "left by flanneld")));
        }
        Ok(steps)
    }

    /// Runs every step, whatever becomes of the others, unless they would wait for the same. Returns what failed.
    async fn run<'s>(&self, steps: &'s [Step], done: &mut Vec<String>) -> Vec<(&'s Step, FilterError)> {
        let mut failed = Vec::new();
        for step in steps {
            // Both engines' programs are found on the same path.
            match self.nft.tools().step(step).await {
                Ok(()) => done.push(step.to_string()),
                Err(error) => failed.push((step, error)),
            }
            if failed.last().is_some_and(|(_, error)| error.is_wait()) {
                break;
            }
        }
        failed
    }
}

impl Firewall for HostFirewall {
    fn engine(&self) -> Engine {
        self.engine
    }

    async fn apply(&self, want: &Filter) -> Result<Applied, FilterError> {
        let mut memory = self.memory.lock().await;
        memory.networks.extend(want.nets.iter().map(|net| net.network));
        let mut applied = Applied::default();
        let mut before: Vec<Step> = Vec::new();
        for _ in 0..ROUNDS {
            let plan = self.plan(want, &memory, !memory.clean).await;
            let (mut loads, removals): (Vec<_>, Vec<_>) = plan.steps.into_iter().partition(|step| step.load);
            loads.retain(|step| !memory.settled.contains(step));
            if !loads.is_empty() && loads.iter().all(|step| step.close && before.contains(step)) {
                applied
                    .warnings
                    .extend(loads.iter().map(|s| format!("{}: reads back otherwise: {}", s.what, s.seen)));
                memory.settled = std::mem::take(&mut loads);
            }
            if loads.is_empty() {
                if let Some(error) = plan.failure {
                    return Err(error);
                }
                applied.warnings.extend(plan.warnings);
                let failed = self.run(&removals, &mut applied.removed).await;
                memory.clean = failed.is_empty();
                applied.warnings.extend(failed.iter().map(|(step, error)| format!("{}: {error}", step.what)));
                return Ok(applied);
            }
            if let Some((_, error)) = self.run(&loads, &mut applied.loaded).await.into_iter().next() {
                return Err(error);
            }
            before = loads;
        }
        let (what, why) = before.pop().map(|step| (step.what, step.why)).unwrap_or_default();
        Err(FilterError::NotAsWritten { what, why })
    }

    async fn guard(
        &self,
        want: Option<&Guard>,
        touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> Result<Applied, FilterError> {
        self.guard.keep(want, touched, removals).await
    }

    fn counters(&self) -> Counters {
        self.guard.counters()
    }

    async fn describe(&self, want: &Filter, guard: Option<&Guard>) -> Result<Vec<String>, FilterError> {
        let memory = self.memory.lock().await;
        let plan = self.plan(want, &memory, true).await;
        if let Some(error) = plan.failure {
            return Err(error);
        }
        let steps = plan.steps.iter().filter(|step| !memory.settled.contains(step)).map(Step::to_string);
        // Without its tool an agent reports the guard as a fault.
        let guard = self.guard.describe(guard).await.unwrap_or_else(|error| vec![format!("# {error}")]);
        Ok(steps.chain(guard).collect())
    }

    async fn shut_out(&self, guard: &Guard) -> Result<BTreeSet<Element>, FilterError> {
        self.guard.shut_out(guard).await
    }

    async fn changed(&self) -> Heard {
        let heard = self.monitor.changed(&self.guard).await;
        if heard.guard {
            self.guard.doubt();
        }
        heard
    }

    async fn obstacles(&self, want: &Filter) -> Vec<PolicyDrop> {
        if self.engine == Engine::Iptables || !want.forward || !want.wants_rules() {
            return Vec::new();
        }
        let mut drops = self.drops().await;
        drops.retain(|drop| want.family(drop.v6).next().is_some() || drop.chain.starts_with("inet "));
        drops
    }
}

/// Our tables, and the chains of iptables-nft that hold flanneld's rules or the policy that defeats ours.
fn watches(table: &str, guard: &str) -> Vec<Watch> {
    let whole = |table: &str, guard| Watch { family: INET, table: table.to_owned(), chains: &[], guard };
    let mut watches = vec![whole(table, false), whole(guard, true)];
    for family in [IPV4, IPV6] {
        let part = |table: &str, chains| Watch { family, table: table.to_owned(), chains, guard: false };
        let nat = part("nat", &["POSTROUTING", "FLANNEL-POSTRTG"]);
        let filter = part("filter", &["FORWARD", "FLANNEL-FWD"]);
        watches.extend([nat, filter]);
    }
    watches
}
