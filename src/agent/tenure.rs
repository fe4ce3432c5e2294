//! How this host comes to hold a lease, keeps it, loses it and gets it back: decisions only, no calls.
//!
//! # Why
//! Losing the lease never ends the agent, and never changes the subnet under running pods. A lost lease is claimed
//! again, *pinned* to the same subnet. If another node has it by then, this host is parked: it forwards as before,
//! writes nothing, and says so, until the other node's lease is gone or an operator decides.

use std::time::{Duration, Instant};

use twill_backends::allocate::{Claim, ClaimError, Evidence};
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};

use crate::reconcile::backoff;
use crate::store::{Held, StoreError, Term};

/// How often a parked host, or one that found no subnet, looks again without being told to.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where this host stands.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Claim a lease.
    Acquire(Claim),
    /// Keep it alive.
    Renew(Held),
    /// Rewrite its value.
    Publish(Box<Held>, Box<Attrs>),
}

/// This host's tenure.
#[derive(Debug)]
pub struct Tenure {
    standing: Standing,
    /// What to publish; nothing is claimed before it is known.
    attrs: Option<Attrs>,
    evidence: Evidence,
    /// The subnets of an earlier run.
    previous: Subnets,
    margin: Duration,
    /// Whether a call is under way; at most one is.
    calling: bool,
    /// A write to our own key that was seen meanwhile: judged once the call has answered.
    seen: Option<(Lease, u64)>,
    renew_at: Option<Instant>,
    expires_at: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    fault: Option<Fault>,
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
            calling: false,
            seen: None,
            renew_at: None,
            expires_at: None,
            retry_at: None,
            failures: 0,
            fault: None,
        }
    }

    /// The lease of the last run, for a start without the store. `expires` is when it ends, if it does.
    pub fn remember(&mut self, lease: Lease, expires: Option<Instant>) {
        self.previous = lease.subnets;
        self.expires_at = expires;
        self.standing = Standing::Remembered(lease);
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

    /// Whether pods of the subnets this host had before are present.
    #[must_use]
    pub fn occupied(&self) -> bool {
        let had = self.lease().map_or(self.previous, |lease| lease.subnets);
        had.iter().any(|(family, subnet)| self.evidence.carried.get(family) == Some(subnet))
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

    /// This is what the lease should say.
    pub fn want(&mut self, attrs: Attrs, evidence: Evidence) {
        self.attrs = Some(attrs);
        self.evidence = evidence;
    }

    /// The next call to the store, if one is due. It counts as under way until [`Tenure::answered`].
    pub fn next_call(&mut self, now: Instant) -> Option<Call> {
        if self.calling || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let attrs = self.attrs.as_ref()?;
        let call = match &self.standing {
            Standing::Parked(_, fault) if fault.code == Code::DuplicateIdentity => return None,
            Standing::Without | Standing::Remembered(_) | Standing::Lost(_) | Standing::Parked(..) => {
                Call::Acquire(self.claim(attrs))
            }
            Standing::Held(held) if says_else(&held.lease.attrs, attrs) => {
                Call::Publish(Box::new(held.clone()), Box::new(attrs.clone()))
            }
            Standing::Held(held) if self.renew_at.is_some_and(|at| at <= now) => Call::Renew(held.clone()),
            Standing::Held(_) => return None,
        };
        self.calling = true;
        Some(call)
    }

    /// When [`Tenure::next_call`] is worth asking again.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let attrs = self.attrs.as_ref().filter(|_| !self.calling)?;
        let at = match &self.standing {
            Standing::Parked(_, fault) if fault.code == Code::DuplicateIdentity => return None,
            Standing::Held(held) if !says_else(&held.lease.attrs, attrs) => self.renew_at?,
            Standing::Held(_)
            | Standing::Without
            | Standing::Remembered(_)
            | Standing::Lost(_)
            | Standing::Parked(..) => now,
        };
        Some(self.retry_at.map_or(at, |retry| retry.max(at)))
    }

    /// The store answered the call. Returns whether the lease that the data plane is built on changed.
    pub fn answered(&mut self, answer: Result<Held, StoreError>, now: Instant) -> bool {
        self.calling = false;
        let before = self.lease().map(|lease| (lease.key.clone(), lease.subnets));
        match answer {
            Ok(held) => self.holds(held, now),
            Err(StoreError::Lost { key, cause, .. }) => {
                tracing::warn!(%key, %cause, "the lease is lost; claiming it again");
                self.lose(now);
            }
            Err(StoreError::Claim(error)) => self.refused(&error, now),
            Err(error) => self.failed(&error, now),
        }
        if let Some((lease, revision)) = self.seen.take() {
            self.saw_put(&lease, revision, now);
        }
        before != self.lease().map(|lease| (lease.key.clone(), lease.subnets))
    }

    /// A lease was written under some key, by us or by somebody else, at this revision.
    pub fn saw_put(&mut self, lease: &Lease, revision: u64, now: Instant) {
        if self.lease().is_none_or(|own| own.key != lease.key) {
            return;
        }
        if self.calling {
            self.seen = Some((lease.clone(), revision));
        } else if self.judge(lease, revision, now)
            && let Standing::Held(held) = &mut self.standing
        {
            held.revision = held.revision.max(revision);
        }
    }

    /// All leases were listed at this revision, and this is what stood under our key.
    pub fn saw_snapshot(&mut self, own: Option<&Lease>, revision: u64, now: Instant) {
        let Some(key) = self.lease().map(|lease| lease.key.clone()) else { return };
        match own {
            Some(lease) if !self.calling => drop(self.judge(lease, revision, now)),
            Some(_) => {}
            None => self.saw_delete(&key, revision, now),
        }
    }

    /// Whether what stands under our key was written by this process; what follows if not.
    fn judge(&mut self, lease: &Lease, revision: u64, now: Instant) -> bool {
        let Standing::Held(held) = &self.standing else { return false };
        if revision <= held.revision {
            return true;
        }
        let own = &held.lease.attrs;
        if lease.attrs.node_id != own.node_id {
            tracing::warn!(key = %lease.key, "somebody else wrote our lease; claiming it again");
            self.lose(now);
            return false;
        }
        if lease.attrs.session != own.session {
            let fault = duplicate_identity(own, lease);
            tracing::error!(%fault, "another host uses our identity; no longer writing, forwarding as before");
            self.standing = Standing::Parked(held.lease.clone(), fault);
            return false;
        }
        true
    }

    /// A key is gone.
    pub fn saw_delete(&mut self, key: &LeaseKey, revision: u64, now: Instant) {
        let ours = self.lease().is_some_and(|own| own.key == *key);
        match &self.standing {
            Standing::Held(held) if ours && revision > held.revision => {
                tracing::warn!(%key, "our lease is gone from the store; claiming it again");
                self.lose(now);
            }
            Standing::Parked(lease, _) if ours => {
                self.standing = Standing::Lost(lease.clone());
                self.retry_at = None;
            }
            // Any lease that goes may be the subnet that was missing.
            Standing::Without if self.fault.is_some() => self.retry_at = None,
            Standing::Held(_)
            | Standing::Without
            | Standing::Remembered(_)
            | Standing::Lost(_)
            | Standing::Parked(..) => {}
        }
    }

    /// The store's revisions do not continue those seen before: they guard nothing any more.
    pub fn saw_another_history(&mut self) {
        if let Standing::Held(held) = &mut self.standing {
            held.revision = 0;
        }
    }

    fn claim(&self, attrs: &Attrs) -> Claim {
        let had = self.lease().map_or(self.previous, |lease| lease.subnets);
        let pinned = match &self.standing {
            Standing::Lost(_) | Standing::Parked(..) => true,
            Standing::Without | Standing::Remembered(_) | Standing::Held(_) => self.occupied(),
        };
        Claim { attrs: attrs.clone(), previous: had, pinned, evidence: self.evidence.clone() }
    }

    fn holds(&mut self, held: Held, now: Instant) {
        self.failures = 0;
        self.retry_at = None;
        self.fault = None;
        (self.renew_at, self.expires_at) = match held.term {
            Term::Permanent => (None, None),
            Term::Renewable { ttl, .. } => (Some(now + renew_after(ttl, self.margin)), Some(now + ttl)),
        };
        self.previous = held.lease.subnets;
        self.standing = Standing::Held(held);
    }

    fn lose(&mut self, now: Instant) {
        if let Some(lease) = self.lease().cloned() {
            self.standing = Standing::Lost(lease);
        }
        self.renew_at = None;
        self.retry_at = Some(now);
    }

    fn refused(&mut self, error: &ClaimError, now: Instant) {
        let code = match error {
            ClaimError::Exhausted { .. } => Code::PoolExhausted,
            ClaimError::DuplicateAddress { .. } => Code::DuplicateAddress,
            ClaimError::SubnetTaken { .. } => Code::LeaseLost,
        };
        let subject = self.lease().map_or_else(|| "lease".to_owned(), |lease| lease.key.to_string());
        let fault = Fault::new(code, subject, error.to_string());
        if self.fault() != Some(&fault) {
            tracing::error!(%error, "no lease can be claimed; trying again");
        }
        match self.lease().cloned() {
            Some(lease) => self.standing = Standing::Parked(lease, fault),
            None => self.fault = Some(fault),
        }
        self.retry_at = Some(now + LOOK_AGAIN);
    }

    fn failed(&mut self, error: &StoreError, now: Instant) {
        if self.failures == 0 {
            tracing::warn!(%error, "the store did not do as asked; trying again");
        }
        self.retry_at = Some(now + backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

/// When a lease of this length is renewed: at a third, which leaves two more chances; earlier if the operator's margin
/// says so.
fn renew_after(ttl: Duration, margin: Duration) -> Duration {
    (ttl / 3).min(ttl.saturating_sub(margin))
}

/// Whether the value must be rewritten. The session alone does not count: it changes with every write.
fn says_else(written: &Attrs, wanted: &Attrs) -> bool {
    let session = written.session.clone();
    *written != Attrs { session, ..wanted.clone() }
}

fn duplicate_identity(own: &Attrs, other: &Lease) -> Fault {
    let address = |attrs: &Attrs| {
        let v4 = attrs.public_ip.map(|ip| ip.to_string());
        v4.or_else(|| attrs.public_ipv6.map(|ip| ip.to_string())).unwrap_or_else(|| "no address".to_owned())
    };
    let node = own.node_id.as_deref().unwrap_or("unknown");
    let (ours, theirs) = (address(own), address(&other.attrs));
    Fault::new(
        Code::DuplicateIdentity,
        other.key.to_string(),
        format!("two processes hold the identity of node {node}: this one at {ours}, another at {theirs}"),
    )
}
