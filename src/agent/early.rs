//! Frames are carried from the first moment on, by what the last run knew.
//!
//! # Why
//! What the kernel forwards by goes on while no agent runs, and while one starts. What this program forwards by went
//! with its process. It is on disk, and to go on with it is what the kernel does: whatever the store says differently
//! follows as soon as it says so.

use std::time::Instant;

use twill_backends::backend::from_config;
use twill_backends::host::Own;
use twill_backends::leases::{LeaseEvent, Leases};
use twill_backends::plan::Plan;
use twill_backends::state::Datapath as Who;

use super::{Agent, World};
use crate::kernel::Kernel;

impl<W: World> Agent<W> {
    /// Serves the tunnel devices of the last run that are still there. Nothing on the host is changed.
    pub async fn carry_early(&mut self) {
        let now = crate::now();
        if let Some(plan) = self.last_plan(now).await {
            self.carrying.want(&plan);
            self.carrying.pass(now, true);
        }
    }

    /// The plan of the last run, if this program carried frames by it and may again.
    async fn last_plan(&mut self, now: Instant) -> Option<Plan> {
        let memory = self.memory.clone()?;
        let own = memory.own?;
        let backend = from_config(&memory.config).ok()?;
        let kernel = self.world.kernel();
        self.carrying.choose(&*backend, kernel).await;
        if self.carrying.datapath() != Who::Userspace {
            return None;
        }
        self.found.underlay = kernel.underlay(&self.underlay_choice(&memory.config)).await.ok();
        let host = self.host(&*backend).await?;
        let facts = kernel.facts(None).await.ok()?;
        let alias = host.alias();
        // One that is not there is made as planned, and one of another kind is replaced, when all is known.
        let ours = |link| facts.link(link).is_some_and(|fact| fact.alias == alias);
        if !backend.links().iter().all(|(_, link)| ours(*link)) {
            return None;
        }
        let former = self.former(&memory.config);
        let policy = self.policy();
        let own = Own { key: own.key, subnets: own.subnets, former, policy, network: memory.config };
        let mut leases = Leases::new(self.config.delete_hold);
        leases.apply(LeaseEvent::Snapshot { leases: memory.leases, faults: Vec::new() }, now);
        let mut plan = Plan::new(backend, host, own);
        plan.measured(self.probing.facts());
        plan.reset(&leases);
        Some(plan)
    }
}
