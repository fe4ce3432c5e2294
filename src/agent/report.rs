//! What the agent says of itself, and what it does when asked.

use std::time::{Duration, Instant};

use serde_json::Value;
use twill_backends::allocate::fits;
use twill_backends::fault::{Code, Fault};
use twill_backends::plan::Plan;
use twill_backends::tenure::Standing;

use super::socket::{Ask, Request};
use super::status::{
    DatapathStatus, FaultStatus, LeaseStatus, NetworkStatus, PoolStatus, ReconcileStatus, State, Status,
    StoreStatus, UnderlayStatus, VERSION,
};
use super::{Agent, World};
use crate::cli;
use crate::filter::Firewall;
use crate::kernel::preflight::{self, Room, Use};
use crate::store::LeaseStore;

/// How long an agent that is asked to end waits until its answer is written.
const DELIVERY: Duration = Duration::from_secs(1);

impl<W: World> Agent<W> {
    /// Answers a request. Returns whether the agent is to end.
    pub(super) async fn answer(&mut self, request: Request) -> bool {
        let (answer, end) = match request.ask {
            Ask::Status => {
                self.write_up_at_once(crate::now());
                (Ok(Value::Null), false)
            }
            Ask::Release => match self.release().await {
                Ok(key) => (Ok(key.into()), true),
                Err(error) => (Err(error), false),
            },
        };
        if request.reply.send(answer).is_err() {
            tracing::debug!("the caller did not wait for its answer");
        }
        if end && tokio::time::timeout(DELIVERY, request.delivered).await.is_err() {
            tracing::debug!("the caller does not read its answer");
        }
        end
    }

    /// Lets go of the lease. The data plane stays; an agent that runs on would claim the lease again, so it ends.
    async fn release(&self) -> Result<String, String> {
        let Standing::Held(held) = self.tenure.standing() else {
            return Err("this host holds no lease".to_owned());
        };
        let key = held.lease.key.to_string();
        self.world.store().release(held.clone()).await.map_err(|error| error.to_string())?;
        tracing::info!(%key, "lease released; ending");
        Ok(key)
    }

    /// Removes what is ours from the host.
    pub(super) async fn clean_up(&mut self) {
        match self.take_down(false).await {
            Ok(lines) => tracing::info!(removed = lines.len(), "cleaned up"),
            Err(error) => tracing::warn!(error = crate::chain(&*error), "not everything could be cleaned up"),
        }
    }

    /// All but the peers.
    pub(super) fn status(&mut self, now: Instant) -> Status {
        let faults = self.faults();
        self.history.sees(&faults);
        self.history.holds(self.tenure.standing());
        self.history.follows(!self.store.connected || !self.changed.is_empty() || !self.converged(), now);
        let repaired = self.history.repairs([
            ("file", self.papers.repairs()),
            ("firewall", self.filtering.repairs()),
            ("guard", self.guarding.repairs()),
        ]);
        Status {
            version: VERSION,
            state: match (self.judgement.said().ready, faults.is_empty() && self.store.connected) {
                (true, true) => State::Ok,
                (true, false) => State::Degraded,
                (false, _) => State::Failed,
            },
            build: cli::VERSION.to_owned(),
            pid: std::process::id(),
            uptime_s: now.duration_since(self.started).as_secs(),
            age_ms: 0,
            readiness: self.judgement.said().clone(),
            node: self.identity.node.to_string(),
            instance: self.config.site.instance(),
            store: StoreStatus {
                place: self.config.site.store.to_string(),
                connected: self.store.connected,
                revision: self.store.revision.number,
                lag_s: self.history.lag_s(now),
                error: self.store.error.clone(),
            },
            underlay: self.plan.as_ref().map(|plan| UnderlayStatus {
                interface: plan.host().iface.to_string(),
                mtu: plan.host().mtu,
                public: plan.host().addrs.iter().map(|(_, addr)| addr.public.to_string()).collect(),
            }),
            network: self.network_status(),
            lease: self.lease_status(),
            peers: Vec::new(),
            faults: faults.iter().map(FaultStatus::from).collect(),
            reconcile: ReconcileStatus {
                converged: self.converged(),
                tally: self.reconciler.tally(),
                repairs: repaired.values().sum(),
                repaired,
                programmed: self.programmed(),
                durations: self.reconciler.durations().clone(),
            },
            history: self.history.told().clone(),
        }
    }

    fn network_status(&self) -> Option<NetworkStatus> {
        let plan = self.plan.as_ref()?;
        Some(NetworkStatus {
            networks: plan.own().network.pools.iter().map(|(_, pool)| pool.network.to_string()).collect(),
            backend: plan.backend().kind().to_owned(),
            mtu: plan.backend().mtu(plan.host()),
            firewall: self
                .firewall
                .as_ref()
                .map(|firewall| firewall.engine().to_string())
                .unwrap_or_default(),
            datapath: plan
                .backend()
                .datapath()
                .map(|_| DatapathStatus { checksums: self.trying.status(plan), ..self.carrying.status() }),
            guard: self.firewall.as_ref().and_then(|_| self.guarding.status()),
            pools: self.census().pools.iter().map(|(_, pool)| PoolStatus::from(*pool)).collect(),
            devices: plan.backend().links().iter().map(|(_, link)| link.to_string()).collect(),
        })
    }

    /// How many peers the kernel leads to, as far as is known.
    fn programmed(&self) -> usize {
        let Some(plan) = &self.plan else { return 0 };
        if self.converged() {
            return plan.peers();
        }
        self.reconciler.believed().map_or(0, |have| plan.present(have))
    }

    fn lease_status(&self) -> Option<LeaseStatus> {
        let lease = self.tenure.lease()?;
        let standing = match self.tenure.standing() {
            Standing::Held(_) => "held",
            Standing::Remembered(_) => "remembered",
            Standing::Lost(_) => "lost",
            Standing::Parked(..) => "parked",
            Standing::Without => "none",
        };
        let left = |at: std::time::Instant| at.saturating_duration_since(crate::now()).as_secs();
        Some(LeaseStatus {
            key: lease.key.to_string(),
            subnets: lease.subnets.iter().map(|(_, net)| net.to_string()).collect(),
            standing: standing.to_owned(),
            expires_in_s: self.tenure.expires_at().map(left),
        })
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let down = self.store.error.as_ref().map(|error| Fault::new(Code::StoreDown, "store", error));
        let one = [&self.config_fault, &self.obstacle, &self.found.fault];
        let planned = self.plan.iter().flat_map(Plan::faults);
        let mut faults: Vec<Fault> = down.into_iter().collect();
        faults.extend(one.into_iter().flatten().cloned());
        faults.extend(self.tenure.fault().cloned());
        faults.extend(self.outgrown());
        faults.extend(self.leases.faults());
        faults.extend(planned.cloned());
        faults.extend(self.reconciler.faults().iter().cloned());
        faults.extend(self.filtering.faults().iter().cloned());
        faults.extend(self.guarding.serious().iter().cloned());
        faults.extend(self.carrying.faults().iter().cloned());
        faults.extend(self.papers.faults().cloned());
        faults.extend(self.room());
        faults.extend(self.probing.faults());
        faults.extend(self.trying.faults());
        faults
    }

    /// What is about to run out.
    fn room(&self) -> Vec<Fault> {
        let census = self.census();
        preflight::room(&Room {
            limits: self.reconciler.neighbours(),
            on_link: census.on_link,
            pools: census.pools,
        })
    }

    /// Whether the lease held does not fit the configuration. It is kept: pods run in it.
    fn outgrown(&self) -> Option<Fault> {
        let (lease, network) = (self.tenure.lease()?, self.network.as_ref()?);
        let cause = "the lease does not fit the network configuration; it is kept";
        (!fits(&lease.subnets, network))
            .then(|| Fault::new(Code::LeaseOutgrown, lease.key.to_string(), cause))
    }
}

impl From<Use> for PoolStatus {
    fn from(pool: Use) -> Self {
        let leased = u64::try_from(pool.leased).unwrap_or(u64::MAX);
        Self { network: pool.network.to_string(), size: u64::try_from(pool.size).unwrap_or(u64::MAX), leased }
    }
}

impl From<&Fault> for FaultStatus {
    fn from(fault: &Fault) -> Self {
        let (cause, next) = fault.cause_and_next();
        Self {
            code: fault.code.to_string(),
            subject: fault.subject.clone(),
            cause: cause.to_owned(),
            next: next.to_owned(),
        }
    }
}
