//! Everything that what is known allows and demands.

use std::time::Instant;

use twill_backends::backend::from_config;
use twill_backends::diff::Op;
use twill_backends::host::Own;
use twill_backends::lease::Attrs;
use twill_backends::leases::LeaseEvent;
use twill_backends::plan::{Plan, Replanned};
use twill_backends::tenure::{Remark, Standing};

use super::memory::Memory;
use super::{Agent, AgentError, RESYNC, STORE_PATIENCE, World};
use crate::reconcile::Goal;

impl<W: World> Agent<W> {
    /// Does everything that is possible and due.
    pub(super) async fn step(&mut self) -> Result<(), AgentError> {
        let now = crate::now();
        self.tenure.remarks().into_iter().for_each(tell);
        self.board.begins("what it was told");
        self.recall(now);
        let gone = self.leaving.gone(now);
        self.forget(gone, now);
        let let_go = self.leases.expire(now);
        if !let_go.is_empty() {
            self.changed.extend(let_go);
            self.papers.touch();
        }
        self.board.begins("the underlay");
        self.find_underlay(now).await;
        if self.replan || !self.changed.is_empty() {
            self.census.take();
        }
        if std::mem::take(&mut self.replan)
            && let Err(error) = self.prepare().await
        {
            self.cannot_plan(error)?;
        }
        self.look_around(now).await;
        self.follow();
        self.converge(now).await;
        self.probing.settled(self.converged() && self.carrying.established());
        if let Some(plan) = self.plan.as_ref().filter(|_| self.converged()) {
            self.trying.try_now(plan, self.probing.lost(), self.world.kernel(), now);
        }
        self.look_at_traffic(now).await;
        self.keep_papers(now);
        self.announce();
        if self.judge(now) {
            self.write_up_at_once(now);
        } else {
            self.write_up(now);
        }
        Ok(())
    }

    /// Until when the store has time to say something before the last run's memory is used; `None` once it is not
    /// going to be.
    pub(super) fn patience(&self) -> Option<Instant> {
        let silent = self.network.is_none() && self.config_fault.is_none();
        self.memory.as_ref().filter(|_| silent).map(|_| self.started + STORE_PATIENCE)
    }

    /// Starts from the last run's memory if the store did not answer in time.
    fn recall(&mut self, now: Instant) {
        if self.patience().is_none_or(|end| now < end) {
            return;
        }
        let Some(memory) = self.memory.clone() else { return };
        tracing::warn!(
            leases = memory.leases.len(),
            "the store does not answer; starting from the last run's snapshot"
        );
        let own = memory.own.clone();
        let expires = memory.expires_at(now);
        self.know(memory, now);
        if let Some(own) = own {
            self.tenure.remember(own, expires);
        }
    }

    /// Takes what an earlier process knew for known, as long as the store says nothing else.
    pub(super) fn know(&mut self, memory: Memory, now: Instant) {
        self.changed =
            self.leases.apply(LeaseEvent::Snapshot { leases: memory.leases, faults: Vec::new() }, now);
        self.store.revision = memory.revision;
        self.probing.recall(memory.limits);
        self.trying.recall(memory.choices);
        self.network = Some(memory.config);
        self.replan = true;
    }

    /// Makes the plan, as far as is known what of.
    pub(super) async fn prepare(&mut self) -> Result<(), AgentError> {
        let informed = self.snapshot || self.tenure.lease().is_some();
        let Some(network) = self.network.clone().filter(|_| informed) else { return Ok(()) };
        let backend = match from_config(&network) {
            Ok(backend) => backend,
            Err(fault) => return Err(AgentError::Refused(fault)),
        };
        self.carrying.choose(&*backend, self.world.kernel()).await;
        self.trying.begin_with(&*backend, self.world.kernel()).await;
        let Some(host) = self.host(&*backend).await else { return Ok(()) };
        backend.fits(&host).map_err(AgentError::Refused)?;
        if !self.preflight(&*backend, &host, &network).await? {
            self.replan = true;
            return Ok(());
        }
        self.obstacle = None;
        let attrs = Attrs {
            node_id: Some(self.identity.node.to_string()),
            session: Some(self.identity.session.to_string()),
            probe: self.probing.listener(),
            ..backend.attrs(&host)
        };
        self.tenure.want(attrs);
        let Some(lease) = self.tenure.lease() else { return Ok(()) };
        let own = Own {
            key: lease.key.clone(),
            subnets: lease.subnets,
            former: self.former(&network),
            policy: self.policy(),
            network,
        };
        self.open_firewall(&own.network).await;
        let mut plan = Plan::new(backend, host, own);
        plan.measured(self.probing.facts());
        plan.reset(&self.leases);
        self.changed.clear();
        self.scope = self.scope_of(&plan);
        self.carrying.want(&plan);
        self.filtering.want(plan.filter());
        self.guarding.want(&plan);
        self.probing.want(&plan, &self.leases, &self.identity.node.to_string());
        self.reconciler.touch_all();
        self.reconciler.doubt(crate::now());
        self.plan = Some(plan);
        self.disturbed = false;
        self.begun = true;
        Ok(())
    }

    /// At start a refusal ends the agent before it touches anything. Later on it is a fault, and what runs stays.
    fn cannot_plan(&mut self, error: AgentError) -> Result<(), AgentError> {
        if !self.begun {
            return Err(error);
        }
        let fault = match error {
            AgentError::Refused(fault) => fault,
            AgentError::Preflight(_) | AgentError::TakeOver(_) => return Ok(()),
        };
        if self.obstacle.as_ref() != Some(&fault) {
            tracing::warn!(%fault, "cannot follow the change; everything stays as it is");
        }
        self.obstacle = Some(fault);
        Ok(())
    }

    /// Plans the leases that changed.
    fn follow(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        if let Some(plan) = &mut self.plan {
            let keys = plan.update(&self.leases, &std::mem::take(&mut self.changed));
            self.carrying.want(plan);
            let Replanned { peers, senders } = plan.replanned();
            self.guarding.follow(plan, senders);
            self.probing.follow(plan, &self.leases, peers);
            self.reconciler.touch(keys);
        }
    }

    /// Makes the kernel and the firewall as planned.
    async fn converge(&mut self, now: Instant) {
        let Some(plan) = &self.plan else { return };
        if self.resync_at <= now {
            self.resync_at = now + RESYNC;
            self.reconciler.doubt(now);
        }
        // A peer is let in before anything is sent to it.
        if let Some(firewall) = &self.firewall
            && self.guarding.due(now).is_some_and(|at| at <= now)
        {
            self.board.begins("the guard");
            self.guarding.pass(firewall, self.snapshot).await;
        }
        if self.reconciler.due(now).is_some_and(|at| at <= now) {
            self.board.begins("the kernel");
            let goal = Goal { scope: &self.scope, want: plan.want(), removals: self.snapshot };
            let done = self.reconciler.pass(self.world.kernel(), goal).await;
            self.account(&done);
        }
        self.carrying.pass(now, self.reconciler.established());
        if let Some(firewall) = &self.firewall
            && self.filtering.due(now).is_some_and(|at| at <= now)
        {
            self.board.begins("the firewall");
            self.filtering.pass(firewall).await;
        }
    }

    /// Logs what a pass did: what was asked for quietly, what somebody had broken aloud.
    fn account(&mut self, done: &[Op]) {
        self.board.moved();
        for op in done {
            tracing::debug!(%op, "done");
        }
        if std::mem::take(&mut self.disturbed)
            && let Some(first) = done.first()
        {
            self.history.repaired(done);
            if done.iter().any(|op| matches!(op, Op::SetLink(..))) {
                self.trying.again();
            }
            tracing::info!(operations = done.len(), %first, "repaired");
        }
    }

    /// Whether containers may be started in the subnet. A remembered lease that has ended may be another host's by
    /// now; only pods that run already are a reason to stand by it.
    pub(super) fn may_announce_subnet(&self, now: Instant) -> bool {
        let standing = match self.tenure.standing() {
            Standing::Held(_) => true,
            Standing::Remembered(_) => {
                self.tenure.expires_at().is_none_or(|at| at > now) || self.tenure.occupied()
            }
            Standing::Without | Standing::Lost(_) | Standing::Parked(..) => false,
        };
        standing && self.established()
    }

    /// Whether the links of the fabric stand, and whatever could be put on them was: what a single peer breaks must
    /// not keep this host's containers from starting.
    pub(super) fn established(&self) -> bool {
        self.plan.is_some() && self.reconciler.established() && self.carrying.established()
    }

    /// Whether the kernel is believed to be as wanted.
    pub(super) fn converged(&self) -> bool {
        self.plan.is_some() && self.reconciler.settled()
    }

    /// Ready, once packets of containers would pass.
    fn announce(&mut self) {
        let standing = match self.tenure.standing() {
            Standing::Held(_) | Standing::Remembered(_) => true,
            Standing::Without | Standing::Lost(_) | Standing::Parked(..) => false,
        };
        let was = *self.ready.borrow();
        // A repair under way does not take readiness back; a lease that is gone does.
        let ready = standing && self.papers.written() && (was || self.established());
        if ready != was {
            tracing::info!(ready, "readiness");
            self.ready.send_replace(ready);
        }
    }
}

fn tell(remark: Remark) {
    match remark {
        Remark::Recovered(attempts) => tracing::info!(attempts, "the store does as asked again"),
        Remark::Failing(error) => tracing::warn!(error, "the store did not do as asked; trying again"),
        Remark::Lost(key, cause) => tracing::warn!(%key, cause, "the lease is lost; claiming it again"),
        Remark::Doubled(fault) => {
            tracing::error!(%fault, "another host uses our identity; no longer writing, forwarding as before");
        }
        Remark::Refused(error) => tracing::error!(%error, "no lease can be claimed; trying again"),
    }
}
