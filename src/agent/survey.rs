//! What this host is and what its leases want of it: for commands that look and change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use twill_backends::allocate::{Choice, Claim, Taken, choose};
use twill_backends::backend::{Backend, from_config};
use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::Fault;
use twill_backends::guard::Element;
use twill_backends::host::Fact;
use twill_backends::lease::{Attrs, Lease, LeaseKey};
use twill_backends::leases::Leases;
use twill_backends::plan::Plan;
use twill_backends::state::{NetState, ROUTE_PROTOCOL, RouteKey};

use super::{Agent, World};
use crate::filter::{Firewall, PolicyDrop};
use crate::kernel::{Kernel, Observed};
use crate::reconcile::shadows;
use crate::store::{LeaseStore, StoreEvent};

/// Why this host could not be looked at.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// How long the store may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this host is, and what its leases want of it.
#[derive(Debug)]
pub struct Survey {
    /// The lease of this host, or the one that it would claim.
    pub lease: Lease,
    /// Whether it would have to be claimed: this host has none.
    pub claim: bool,
    /// All leases.
    pub leases: Vec<Lease>,
    /// Whether the store did not answer, so that the leases are those of the agent's last snapshot.
    pub remembered: bool,
    /// What this host must be.
    pub plan: Plan,
    /// What it is.
    pub observed: Observed,
    /// What would be loaded into the firewall, and removed from it: a line for each transaction, with its reason.
    pub rules: Vec<String>,
    /// Who should be able to send to the tunnel's port, and is not.
    pub shut_out: BTreeSet<Element>,
    /// What of the firewall drops packets of the fabric, and is not ours to change.
    pub drops: Vec<PolicyDrop>,
    /// What is wrong with the leases, or in the way of what they want.
    pub faults: Vec<Fault>,
}

impl<W: World> Agent<W> {
    /// Looks at the leases and at this host. Nothing is written, nowhere.
    ///
    /// # Errors
    /// What would keep an agent from starting.
    pub async fn survey(mut self) -> Result<Survey, Failure> {
        self.listen_once(PATIENCE).await;
        let remembered = self.recall_if_silent();
        let network = self.network.clone().ok_or_else(|| self.no_network())?;
        let backend = from_config(&network).map_err(|fault| fault.to_string())?;
        self.find_underlay(crate::now()).await;
        if let Some(fault) = &self.found.fault {
            return Err(fault.to_string().into());
        }
        let own = self.memory.as_ref().filter(|_| remembered).and_then(|memory| memory.own.as_ref());
        let held = self.lease_of_this_node().or(own).cloned();
        let claim = held.is_none();
        let lease = match held {
            Some(lease) => lease,
            None => self.lease_to_claim(&*backend).await?,
        };
        // As an agent does it: the host is looked at before anything is claimed.
        self.prepare().await?;
        self.tenure.remember(lease.clone(), None);
        self.prepare().await?;
        let mut faults = self.faults();
        let mut plan = self.plan.take().ok_or_else(|| {
            faults.first().map_or("this host could not be looked at".to_owned(), ToString::to_string)
        })?;
        let observed = self.world.kernel().observe(&self.scope).await?;
        let measured = plan.measured(limits(&self.leases, &observed.net));
        plan.update(&self.leases, &measured);
        faults.extend(shadows(plan.want(), &observed.foreign));
        let (mut rules, mut drops, mut shut_out) = (Vec::new(), Vec::new(), BTreeSet::new());
        if let Some(firewall) = &self.firewall {
            rules = firewall.describe(plan.filter(), plan.guard()).await?;
            drops = firewall.obstacles(plan.filter()).await;
            if let Some(guard) = plan.guard() {
                // Where it cannot be read the rules say so.
                shut_out = firewall.shut_out(guard).await.unwrap_or_default();
            }
        }
        let leases = self.leases.of_hosts().cloned().collect();
        Ok(Survey { lease, claim, leases, remembered, plan, observed, rules, shut_out, drops, faults })
    }

    /// Takes the last run's memory for known if the store said nothing, as a start does. Returns whether it did.
    fn recall_if_silent(&mut self) -> bool {
        let memory = self.memory.clone().filter(|_| self.network.is_none() && self.config_fault.is_none());
        let remembered = memory.is_some();
        memory.into_iter().for_each(|memory| self.know(memory, crate::now()));
        remembered
    }

    /// Takes in what the store says, until its first snapshot. One that does not answer leaves the last run's memory.
    pub(super) async fn listen_once(&mut self, patience: Duration) {
        let store = self.world.store();
        let mut events = std::pin::pin!(store.watch());
        let listen = async {
            while let Some(event) = events.next().await {
                let last = matches!(event, StoreEvent::Snapshot { .. });
                self.hear_store(event);
                if last {
                    break;
                }
            }
        };
        if tokio::time::timeout(patience, listen).await.is_err() {
            tracing::warn!("the store does not answer");
        }
    }

    fn no_network(&self) -> Failure {
        match (&self.config_fault, &self.store.error) {
            (Some(fault), _) => fault.to_string().into(),
            (None, Some(error)) => error.clone().into(),
            (None, None) => "the store did not answer in time; next: check that it runs".into(),
        }
    }

    /// The lease that a claim would most likely get: the first free subnet, where chance would decide.
    async fn lease_to_claim(&self, backend: &dyn Backend) -> Result<Lease, Failure> {
        let network = self.network.as_ref().ok_or_else(|| self.no_network())?;
        let host = self.host(backend).await.ok_or("there is no underlay")?;
        let attrs = Attrs { node_id: Some(self.identity.node.to_string()), ..backend.attrs(&host) };
        let taken = |lease: &Lease| Taken {
            key: lease.key.clone(),
            subnets: lease.subnets,
            lease: Some(lease.clone()),
            permanent: false,
            created: 0,
        };
        let taken: Vec<Taken> = self.leases.iter().map(taken).collect();
        let evidence = self.evidence(backend).await;
        let claim = Claim { attrs: attrs.clone(), previous: self.tenure.had(), pinned: false, evidence };
        let key = match choose(&claim, network, &taken, &mut |_| 0)? {
            Choice::Rewrite(key) | Choice::Yield(key) => key,
            Choice::Create(subnets) => LeaseKey::of(&subnets),
        };
        Ok(Lease { subnets: key.subnets().map_err(|fault| fault.to_string())?, key, attrs, vacant: false })
    }
}

/// What an agent measured of its peers. It stands in the routes that it made, and nowhere else once it has ended.
fn limits(leases: &Leases, have: &NetState) -> BTreeMap<LeaseKey, PerFamily<Fact>> {
    let nets = leases
        .iter()
        .flat_map(|lease| lease.subnets.iter().map(move |(family, net)| (lease, family, net.trunc())));
    let mut limits: BTreeMap<LeaseKey, PerFamily<Fact>> = BTreeMap::new();
    for (lease, family, net) in nets {
        let key = RouteKey { dst: net, metric: if family == Family::V4 { 0 } else { 1024 } };
        if let Some(mtu) =
            have.routes.get(&key).filter(|route| route.protocol == ROUTE_PROTOCOL).and_then(|route| route.mtu)
        {
            limits
                .entry(lease.key.clone())
                .or_default()
                .set(family, Some(Fact { mtu: Some(mtu), direct: None }));
        }
    }
    limits
}
