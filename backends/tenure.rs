//! How this host comes to hold a lease, keeps it, loses it and gets it back: decisions only, no calls.
//!
//! # Why
//! Losing the lease never ends the agent, and never changes the subnet under running pods. A lost lease is claimed
//! again, *pinned* to the same subnet. If another node has it by then, this host is parked: it forwards as before,
//! writes nothing, and says so, until the other node's lease is gone or an operator decides. A second process with this
//! host's identity parks it for good: whatever either of them wrote, the other would take for its own. What an earlier
//! process of this host asked for before it ended may take effect late, though. It does so once, and bears this host's
//! address: only who writes from it twice is alive.

mod answer;
mod seen;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::allocate::{Claim, Evidence};
use crate::fault::{Code, Fault};
use crate::lease::{Attrs, Lease, LeaseKey, Subnets};
use crate::record::Held;

pub use self::answer::Remark;
use self::seen::Seen;

/// Where this host stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It has no lease, and had none in this run.
    Without,
    /// It remembers one from its last run; the store has not confirmed it.
    Remembered(Lease),
    /// It holds one.
    Held(Held),
    /// It lost the one it had and claims it again; the data plane stays as it was.
    Lost(Lease),
    /// Another node has its subnet, or its identity: nothing is written.
    Parked(Lease, Fault),
}

/// A call to the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// Claim a lease.
    Acquire(Claim),
    /// Keep it alive.
    Renew(Held),
    /// Rewrite its value.
    Publish(Box<Held>, Box<Attrs>),
}

/// A lease that is held, and its term: what another process needs to go on with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The lease.
    pub held: Held,
    /// When to renew it; `None` for a reservation.
    pub renew_at: Option<Instant>,
    /// When it ends unless it is renewed.
    pub expires_at: Option<Instant>,
}

/// What a call under way is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Errand {
    /// A new term begins with the answer.
    Term,
    /// The value is rewritten; the term runs on.
    Value,
}

/// This host's tenure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenure {
    standing: Standing,
    /// What to publish; nothing is claimed before it is known.
    attrs: Option<Attrs>,
    evidence: Evidence,
    /// The subnets of an earlier run.
    previous: Subnets,
    margin: Duration,
    /// Whether a lease was held in this run: from then on only its subnet will do, because pods may use it.
    settled: bool,
    /// What the call under way is about; at most one is.
    calling: Option<Errand>,
    /// What was seen of each key meanwhile, and at which revision: judged once the call has answered.
    seen: BTreeMap<LeaseKey, (u64, Seen)>,
    /// Whether the store's history was seen to break off meanwhile.
    rewound: bool,
    renew_at: Option<Instant>,
    expires_at: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    fault: Option<Fault>,
    /// The other session of this node that wrote our lease once, from our address.
    other: Option<String>,
    remarks: Vec<Remark>,
}

impl Tenure {
    /// A host that has not asked the store yet. `previous` are the subnets it had before, if any; `margin` is the
    /// operator's: how long before its end a lease is renewed at the latest.
    #[must_use]
    pub fn new(previous: Subnets, margin: Duration) -> Self {
        Self {
            standing: Standing::Without,
            attrs: None,
            evidence: Evidence::default(),
            previous,
            margin,
            settled: false,
            calling: None,
            seen: BTreeMap::new(),
            rewound: false,
            renew_at: None,
            expires_at: None,
            retry_at: None,
            failures: 0,
            fault: None,
            other: None,
            remarks: Vec::new(),
        }
    }

    /// The lease of the last run, for a start without the store. `expires` is when it ends, if it does.
    pub fn remember(&mut self, lease: Lease, expires: Option<Instant>) {
        self.previous = lease.subnets;
        self.expires_at = expires;
        self.standing = Standing::Remembered(lease);
    }

    /// The lease held, for a process that takes over.
    #[must_use]
    pub fn holding(&self) -> Option<Holding> {
        let Standing::Held(held) = &self.standing else { return None };
        Some(Holding { held: held.clone(), renew_at: self.renew_at, expires_at: self.expires_at })
    }

    /// Goes on with a lease that another process of this host held.
    pub fn go_on(&mut self, holding: Holding) {
        let Holding { held, renew_at, expires_at } = holding;
        (self.renew_at, self.expires_at) = (renew_at, expires_at);
        self.previous = held.lease.subnets;
        self.settled = true;
        self.standing = Standing::Held(held);
    }

    /// Goes on from a lease that another process of this host lost: it is claimed again.
    pub fn go_on_without(&mut self, lease: Lease, now: Instant) {
        self.previous = lease.subnets;
        self.settled = true;
        self.retry_at = Some(now);
        self.standing = Standing::Lost(lease);
    }

    /// Where this host stands.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The lease that the data plane is built on, confirmed or not.
    #[must_use]
    pub const fn lease(&self) -> Option<&Lease> {
        match &self.standing {
            Standing::Without => None,
            Standing::Remembered(lease) | Standing::Lost(lease) | Standing::Parked(lease, _) => Some(lease),
            Standing::Held(held) => Some(&held.lease),
        }
    }

    /// The subnets of this host: those of its lease, or else of an earlier run.
    #[must_use]
    pub fn had(&self) -> Subnets {
        self.lease().map_or(self.previous, |lease| lease.subnets)
    }

    /// Whether pods of the subnets this host had before are present.
    #[must_use]
    pub fn occupied(&self) -> bool {
        self.had().iter().any(|(family, subnet)| self.evidence.carried.get(family) == Some(subnet))
    }

    /// When the lease ends unless it is renewed.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// What stands in the way.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match &self.standing {
            Standing::Parked(_, fault) => Some(fault),
            Standing::Without | Standing::Remembered(_) | Standing::Held(_) | Standing::Lost(_) => {
                self.fault.as_ref()
            }
        }
    }

    /// What happened since this was asked last.
    pub fn remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// This is what the lease should say.
    pub fn want(&mut self, attrs: Attrs) {
        self.attrs = Some(attrs);
    }

    /// This is what the kernel says of an earlier life of this host, and of its pods.
    pub fn note(&mut self, evidence: Evidence) {
        self.evidence = evidence;
    }

    /// Whether the next call is a claim, and due: what it is based on should be looked at again.
    #[must_use]
    pub fn will_claim(&self, now: Instant) -> bool {
        self.is_free(now)
            && self.attrs.is_some()
            && !self.is_doubled()
            && !matches!(self.standing, Standing::Held(_))
    }

    /// The next call to the store, if one is due. It counts as under way until [`Tenure::answered`].
    pub fn next_call(&mut self, now: Instant) -> Option<Call> {
        if !self.is_free(now) || self.is_doubled() {
            return None;
        }
        let attrs = self.attrs.as_ref()?;
        let ends = self.renew_at.is_some_and(|at| at <= now);
        // A store that refuses writes may yet keep alive what it has.
        let reads_first = |held: &Held| held.revision == 0 || self.failures > 0;
        let (call, errand) = match &self.standing {
            Standing::Held(held) if ends && reads_first(held) => (Call::Renew(held.clone()), Errand::Term),
            Standing::Held(held) if says_else(&held.lease.attrs, attrs) => {
                (Call::Publish(Box::new(held.clone()), Box::new(attrs.clone())), Errand::Value)
            }
            Standing::Held(held) if ends => (Call::Renew(held.clone()), Errand::Term),
            Standing::Held(_) => return None,
            Standing::Without | Standing::Remembered(_) | Standing::Lost(_) | Standing::Parked(..) => {
                (Call::Acquire(self.claim(attrs)), Errand::Term)
            }
        };
        self.calling = Some(errand);
        Some(call)
    }

    /// When [`Tenure::next_call`] is worth asking again.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let attrs = self.attrs.as_ref().filter(|_| self.calling.is_none() && !self.is_doubled())?;
        let at = match &self.standing {
            Standing::Held(held) if !says_else(&held.lease.attrs, attrs) => self.renew_at?,
            Standing::Held(_)
            | Standing::Without
            | Standing::Remembered(_)
            | Standing::Lost(_)
            | Standing::Parked(..) => now,
        };
        Some(self.retry_at.map_or(at, |retry| retry.max(at)))
    }

    /// Whether a call may be made.
    fn is_free(&self, now: Instant) -> bool {
        self.calling.is_none() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Whether another process has this host's identity.
    fn is_doubled(&self) -> bool {
        matches!(&self.standing, Standing::Parked(_, fault) if fault.code == Code::DuplicateIdentity)
    }

    fn claim(&self, attrs: &Attrs) -> Claim {
        let pinned = self.settled || self.occupied();
        Claim { attrs: attrs.clone(), previous: self.had(), pinned, evidence: self.evidence.clone() }
    }
}

/// Whether the value must be rewritten. The session alone does not count: it changes with every write.
fn says_else(written: &Attrs, wanted: &Attrs) -> bool {
    let session = written.session.clone();
    *written != Attrs { session, ..wanted.clone() }
}

/// Whether the value was written by a process of this node that is not this one. A value without a session was
/// written by an operator.
fn is_another_process(own: &Attrs, written: &Attrs) -> bool {
    own.node_id.is_some()
        && written.node_id == own.node_id
        && written.session.is_some()
        && written.session != own.session
}

#[cfg(test)]
mod tests;
