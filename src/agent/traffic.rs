//! Which peers carry packets: they are probed more often where there are too many to probe all of them all the time.
//!
//! # How that is told
//! The kernel notes when an FDB entry last led somewhere, and the userspace datapath when a frame went to a peer. Probes do
//! that, too; so what counts is a frame that went there clearly after this host's last probe. Where packets need no tunnel
//! nothing is noted, and all peers have the same turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use twill_backends::plan::Plan;
use twill_backends::probe::LineId;
use twill_backends::state::Datapath;

use super::{Agent, World};
use crate::kernel::{Kernel, Used};

/// How often that is looked at: 10,000 entries take the kernel some 10 ms.
const EVERY: Duration = Duration::from_secs(10);

impl<W: World> Agent<W> {
    /// When to look again.
    pub(super) fn traffic_due(&self) -> Option<Instant> {
        self.probing.is_crowded().then_some(self.traffic_at)
    }

    /// Tells the probes which peers carry packets, if it is time to.
    pub(super) async fn look_at_traffic(&mut self, now: Instant) {
        let Some(plan) = self.plan.as_ref().filter(|_| self.traffic_due().is_some_and(|at| at <= now)) else {
            return;
        };
        self.traffic_at = now + EVERY;
        let used = match self.carrying.datapath() {
            Datapath::Userspace => self.carrying.used(),
            Datapath::Kernel => match self.world.kernel().used(EVERY).await {
                Ok(used) => used,
                Err(error) => return tracing::debug!(%error, "who carries packets is not known"),
            },
        };
        self.probing.carried(lines(plan, &used), crate::now());
    }
}

/// The peers whose Ethernet addresses were used.
fn lines(plan: &Plan, used: &Used) -> BTreeMap<LineId, Instant> {
    let mut lines = BTreeMap::new();
    for lease in plan.keys() {
        for (family, state) in plan.ways_to(lease) {
            let at = state.fdb.and_then(|fdb| used.get(&(fdb.dev, fdb.mac)));
            lines.extend(at.map(|at| ((lease.clone(), family), *at)));
        }
    }
    lines
}
