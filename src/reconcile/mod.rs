//! Belief about the kernel; passes; retry with jittered backoff.
//!
//! The belief is a state or nothing. A pass starts from it, or from an observation where there is none, and does what
//! is missing. Whatever casts doubt on the belief (a failed operation, a lost message, a link that changed) makes the
//! next pass observe.

mod belief;
mod complaints;
mod pace;
mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use twill_backends::diff::{Key, Op, diff, diff_keys};
use twill_backends::family::PerFamily;
use twill_backends::fault::{Code, Fault};
use twill_backends::state::{Link, LinkName, NetState};

use self::belief::Belief;
pub use self::complaints::shadows;
use self::complaints::{never_settles, never_stays};
#[cfg(test)]
pub(crate) use self::pace::HURRIED;
pub(crate) use self::pace::{Pace, Retry, backoff};
pub use self::pass::{Bucket, Durations, Goal, Tally};
use self::pass::{Outcome, Todo};
use crate::kernel::{Change, ForeignRoute, Kernel, KernelError, Observed, Scope};

/// How often a link is written before the pass gives up on it.
const LINK_ROUNDS: usize = 3;

/// What is believed of the kernel, and what remains to be compared.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// The belief.
    have: Belief,
    /// Routes of others inside our networks, as of the last observation.
    foreign: Vec<ForeignRoute>,
    /// How many neighbours the kernel keeps, as of then.
    neighbours: PerFamily<u32>,
    /// What is to be compared. Everything, whenever there is no belief.
    todo: Todo,
    /// Links that did not read back as written: what was wanted, and what was found. They are let be while both stay.
    stuck: BTreeMap<LinkName, (Link, Link)>,
    retry: Retry,
    /// Whether the last pass came to its end with all links standing.
    established: bool,
    /// What fails, for `status` and the log.
    faults: Vec<Fault>,
    /// What was done so far.
    tally: Tally,
    durations: Durations,
}

impl Reconciler {
    /// The wanted state changed at these objects.
    pub fn touch(&mut self, keys: impl IntoIterator<Item = Key>) {
        if let Todo::These(known) = &mut self.todo {
            known.extend(keys);
            if known.is_empty() {
                return;
            }
        }
        self.retry.restart();
    }

    /// The wanted state changed as a whole.
    pub fn touch_all(&mut self) {
        self.todo = Todo::Everything;
        self.retry.restart();
    }

    /// Doubts the belief, so that the next pass observes.
    pub fn doubt(&mut self, now: Instant) {
        self.have.doubt();
        self.retry.hurry(now);
    }

    /// Takes in what the kernel reports. Returns whether it differs from the belief.
    pub fn heard(&mut self, change: &Change, now: Instant) -> bool {
        let Change::Did(ops) = change else {
            self.doubt(now);
            return true;
        };
        let differing = self.have.hear(ops);
        let differs = !differing.is_empty();
        if differs && self.have.certain().is_some() {
            self.touch(differing);
        } else if differs {
            self.retry.hurry(now);
        }
        differs
    }

    /// When the next pass is due; `None` while there is nothing to do.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        (!self.settled()).then(|| self.retry.at().unwrap_or(now))
    }

    /// Whether the kernel is believed to be as wanted.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.have.certain().is_some()
            && matches!(&self.todo, Todo::These(keys) if keys.is_empty())
            && !self.retry.is_failing()
    }

    /// Whether the last pass found every link as wanted, or made it so, and tried all that goes on them.
    #[must_use]
    pub fn established(&self) -> bool {
        self.established
    }

    /// What fails.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How many neighbours the kernel keeps at most, where it says.
    #[must_use]
    pub const fn neighbours(&self) -> PerFamily<u32> {
        self.neighbours
    }

    /// What was done so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// How long the passes took.
    #[must_use]
    pub const fn durations(&self) -> &Durations {
        &self.durations
    }

    /// What the kernel is believed to be; `None` while that has to be read.
    #[must_use]
    pub fn believed(&self) -> Option<&NetState> {
        self.have.certain()
    }

    /// Makes the kernel as wanted. Returns the operations that were done.
    pub async fn pass<K: Kernel>(&mut self, kernel: &K, goal: Goal<'_>) -> Vec<Op> {
        let started = crate::now();
        self.tally.passes += 1;
        self.stuck.retain(|name, (want, _)| goal.want.links.get(name) == Some(want));
        let mut outcome = Outcome::default();
        let ended = self.rounds(kernel, goal, &mut outcome).await;
        self.established = ended.is_ok() && outcome.refused.is_empty();
        if let Err(error) = ended {
            outcome.faults.push(Fault::new(Code::KernelRefused, "kernel", error.to_string()));
        }
        let Outcome { done, mut faults, .. } = outcome;
        self.settle(&faults, started);
        faults.extend(self.stuck.iter().map(|(name, (want, have))| never_settles(name, want, have)));
        faults.extend(shadows(goal.want, &self.foreign));
        self.faults = faults;
        let took = crate::now().duration_since(started);
        self.tally.last_pass_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.durations.add(took);
        done
    }

    /// Writes links until they read back as wanted, then everything else. A link that was written may have lost what
    /// was on it (a replaced one everything, one with another Ethernet address its neighbours), so its round ends in
    /// doubt and the next one observes.
    async fn rounds<K: Kernel>(
        &mut self,
        kernel: &K,
        goal: Goal<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), KernelError> {
        for round in 0.. {
            if self.have.certain().is_none() {
                self.observe(kernel, goal.scope).await?;
            }
            let ops = self.ops(goal, &outcome.refused);
            let links: Vec<Op> = ops.iter().filter(|op| matches!(op, Op::SetLink(..))).cloned().collect();
            if links.is_empty() {
                self.carry_out(kernel, &ops, outcome).await;
                break;
            }
            if round >= LINK_ROUNDS {
                self.give_up_on(&links, outcome);
            } else {
                self.carry_out(kernel, &links, outcome).await;
                self.have.doubt();
            }
        }
        Ok(())
    }

    async fn observe<K: Kernel>(&mut self, kernel: &K, scope: &Scope) -> Result<(), KernelError> {
        self.tally.observations += 1;
        let Observed { net, foreign, neighbours } = kernel.observe(scope).await?;
        self.stuck.retain(|name, (_, found)| net.links.get(name) == Some(found));
        self.have = Belief::observed(net);
        self.foreign = foreign;
        self.neighbours = neighbours;
        self.todo = Todo::Everything;
        Ok(())
    }

    /// What is to be done, less what must not be or cannot be.
    fn ops(&self, goal: Goal<'_>, refused: &BTreeSet<LinkName>) -> Vec<Op> {
        let Some(have) = self.have.certain() else { return Vec::new() };
        let mut ops = match &self.todo {
            Todo::Everything => diff(goal.want, have),
            Todo::These(keys) => diff_keys(goal.want, have, keys),
        };
        let stands =
            |link: LinkName| !refused.contains(&link) || have.links.get(&link).is_some_and(|link| link.up);
        ops.retain(|op| match op {
            Op::SetLink(name, link) => {
                !refused.contains(name) && self.stuck.get(name).is_none_or(|(want, _)| want != link)
            }
            Op::SetNeigh(key, _) => stands(key.dev),
            Op::SetFdb(entry) => stands(entry.dev),
            // A route of somebody else stands where ours would go: a replacement would take theirs away.
            Op::SetRoute(key, route) => {
                route.dev.is_none_or(stands)
                    && !self.foreign.iter().any(|f| (f.dst, f.metric) == (key.dst, key.metric))
            }
            Op::SetSysctl(path, _) => {
                !refused.iter().any(|link| path.split('/').any(|part| part == link.as_str()))
            }
            Op::DelRoute(..) | Op::DelFdb(..) | Op::DelNeigh(..) | Op::DelLink(..) => goal.removals,
        });
        ops
    }

    async fn carry_out<K: Kernel>(&mut self, kernel: &K, ops: &[Op], outcome: &mut Outcome) {
        self.todo = Todo::These(BTreeSet::new());
        let results = if ops.is_empty() { Vec::new() } else { kernel.apply(ops).await };
        for (op, result) in ops.iter().zip(results) {
            match result {
                Ok(()) => {
                    self.tally.operations += 1;
                    self.have.apply(op);
                    outcome.done.push(op.clone());
                }
                Err(error) => {
                    self.tally.refusals += 1;
                    if let Op::SetLink(name, _) = op {
                        outcome.refused.insert(*name);
                    }
                    let cause = match error {
                        // The subject is the operation already.
                        KernelError::Refused { cause, .. } => cause,
                        error @ (KernelError::Unreachable { .. } | KernelError::NoUnderlay(_)) => {
                            error.to_string()
                        }
                    };
                    outcome.faults.push(Fault::new(Code::KernelRefused, op.to_string(), cause));
                }
            }
        }
    }

    /// Lets links be that stand otherwise than written. One that is gone instead is refused, and tried again later.
    fn give_up_on(&mut self, links: &[Op], outcome: &mut Outcome) {
        let Some(have) = self.have.certain() else { return };
        for op in links {
            let Op::SetLink(name, want) = op else { continue };
            if let Some(found) = have.links.get(name) {
                self.stuck.insert(*name, (want.clone(), found.clone()));
            } else {
                outcome.refused.insert(*name);
                outcome.faults.push(never_stays(op));
            }
        }
    }

    /// Plans the retry, and logs the first failure and the recovery.
    fn settle(&mut self, faults: &[Fault], now: Instant) {
        let Some(first) = faults.first() else {
            let attempts = self.retry.done();
            if attempts > 0 {
                tracing::info!(attempts, "the kernel is as wanted again");
            }
            return;
        };
        if self.retry.failed(now) {
            tracing::warn!(failed = faults.len(), first = %first.subject, cause = %first.cause, "the kernel refuses; trying again");
        }
        self.have.doubt();
    }
}

#[cfg(test)]
mod tests;
