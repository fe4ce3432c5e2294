//! What the store answers, and what follows from it.

use std::time::{Duration, Instant};

use twill_backends::allocate::ClaimError;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::Attrs;

use super::seen::duplicate_identity;
use super::{Errand, Standing, Tenure, is_another_process};
use crate::reconcile::backoff;
use crate::store::{Held, StoreError, Term};

/// How often a parked host, or one that found no subnet, looks again without being told to.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The shortest time between two renewals, whatever the operator's margin leaves of a short lease.
const BREATHER: Duration = Duration::from_secs(1);

impl Tenure {
    /// The store answered the call. Returns whether the lease that the data plane is built on changed.
    pub fn answered(&mut self, answer: Result<Held, StoreError>, now: Instant) -> bool {
        let errand = self.calling.take();
        let before = self.lease().map(|lease| (lease.key.clone(), lease.subnets));
        match answer {
            Ok(held) => self.holds(held, errand, now),
            Err(StoreError::Lost { key, holder, cause }) => {
                tracing::warn!(%key, %cause, "the lease is lost");
                self.lost_to(holder.as_deref(), now);
            }
            Err(StoreError::Claim(error)) => self.refused(&error, now),
            Err(error) => self.failed(&error, now),
        }
        self.catch_up(now);
        before != self.lease().map(|lease| (lease.key.clone(), lease.subnets))
    }

    fn holds(&mut self, held: Held, errand: Option<Errand>, now: Instant) {
        if self.failures > 0 {
            tracing::info!(attempts = self.failures, "the store does as asked again");
        }
        self.failures = 0;
        self.retry_at = None;
        self.fault = None;
        self.settled = true;
        match held.term {
            Term::Permanent => (self.renew_at, self.expires_at) = (None, None),
            Term::Renewable { .. } if errand == Some(Errand::Value) && self.renew_at.is_some() => {}
            Term::Renewable { ttl, .. } => {
                self.renew_at = Some(now + renew_after(ttl, self.margin));
                self.expires_at = Some(now + ttl);
            }
        }
        self.previous = held.lease.subnets;
        self.standing = Standing::Held(held);
    }

    /// The lease is gone, or is somebody else's by now.
    pub(super) fn lost_to(&mut self, holder: Option<&Attrs>, now: Instant) {
        let Some(lease) = self.lease().cloned() else { return };
        match holder.filter(|holder| is_another_process(&lease.attrs, holder)) {
            Some(other) => {
                let fault = duplicate_identity(&lease, other);
                tracing::error!(%fault, "another host uses our identity; no longer writing, forwarding as before");
                self.standing = Standing::Parked(lease, fault);
            }
            None => {
                tracing::warn!(key = %lease.key, "claiming the lease again");
                self.standing = Standing::Lost(lease);
            }
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
        self.fault = Some(Fault::new(Code::StoreDown, "lease", error.to_string()));
        self.retry_at = Some(now + backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

/// When a lease of this length is renewed: at a third, which leaves two more chances; earlier if the operator's margin
/// says so.
fn renew_after(ttl: Duration, margin: Duration) -> Duration {
    (ttl / 3).min(ttl.saturating_sub(margin).max(BREATHER))
}
