//! What the store answers, and what follows from it.

use std::time::{Duration, Instant};

use super::seen::duplicate_identity;
use super::{Errand, Standing, Tenure, is_another_process};
use crate::allocate::ClaimError;
use crate::errand::Setback;
use crate::fault::{Code, Fault};
use crate::lease::{Attrs, LeaseKey};
use crate::record::{Held, Term};

/// How often a parked host, or one that found no subnet, looks again without being told to.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The shortest time between two renewals, whatever the operator's margin leaves of a short lease.
const BREATHER: Duration = Duration::from_secs(1);

/// Something that happened to the tenure and that people want to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Remark {
    /// The store does as asked again, after this many failures.
    Recovered(u32),
    /// The store did not do as asked, for the first time in a row: why.
    Failing(String),
    /// The lease is lost: why. It is claimed again.
    Lost(LeaseKey, String),
    /// Another process has this host's identity.
    Doubled(Fault),
    /// No lease can be claimed.
    Refused(ClaimError),
}

impl Tenure {
    /// The store answered the call. Returns whether the lease that the data plane is built on changed. `pause(n)` is how
    /// long to wait after more than `n` failures in a row.
    pub fn answered(
        &mut self,
        answer: Result<Held, Setback>,
        now: Instant,
        pause: impl Fn(u32) -> Duration,
    ) -> bool {
        let errand = self.calling.take();
        let before = self.lease().map(|lease| (lease.key.clone(), lease.subnets));
        match answer {
            Ok(held) => self.holds(held, errand, now),
            // In a store restored from a backup stands what an earlier process of this host wrote.
            Err(Setback::Lost { holder, cause, .. }) => {
                self.lost_to(holder.as_deref().filter(|_| !self.rewound), &cause, now);
            }
            Err(Setback::Claim(error)) => self.refused(error, now),
            Err(Setback::Failed(cause)) => self.failed(cause, now + pause(self.failures)),
        }
        self.catch_up(now);
        before != self.lease().map(|lease| (lease.key.clone(), lease.subnets))
    }

    fn holds(&mut self, held: Held, errand: Option<Errand>, now: Instant) {
        if self.failures > 0 {
            self.remarks.push(Remark::Recovered(self.failures));
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
    pub(super) fn lost_to(&mut self, holder: Option<&Attrs>, cause: &str, now: Instant) {
        let Some(lease) = self.lease().cloned() else { return };
        self.remarks.push(Remark::Lost(lease.key.clone(), cause.to_owned()));
        let other = holder.filter(|holder| is_another_process(&lease.attrs, holder));
        match other.filter(|other| !self.may_be_late(&lease.attrs, other)) {
            Some(other) => {
                let fault = duplicate_identity(&lease, other);
                self.remarks.push(Remark::Doubled(fault.clone()));
                self.standing = Standing::Parked(lease, fault);
            }
            None => self.standing = Standing::Lost(lease),
        }
        self.renew_at = None;
        self.retry_at = Some(now);
    }

    /// Whether this may be what an earlier process of this host wrote, once.
    fn may_be_late(&mut self, own: &Attrs, other: &Attrs) -> bool {
        let here = (own.public_ip, own.public_ipv6) == (other.public_ip, other.public_ipv6);
        let known = here && self.other == other.session;
        self.other.clone_from(&other.session);
        here && !known
    }

    fn refused(&mut self, error: ClaimError, now: Instant) {
        let code = match &error {
            ClaimError::Exhausted { .. } => Code::PoolExhausted,
            ClaimError::DuplicateAddress { .. } => Code::DuplicateAddress,
            ClaimError::SubnetTaken { .. } => Code::LeaseLost,
        };
        let subject = self.lease().map_or_else(|| "lease".to_owned(), |lease| lease.key.to_string());
        let fault = Fault::new(code, subject, error.to_string());
        if self.fault() != Some(&fault) {
            self.remarks.push(Remark::Refused(error));
        }
        match self.lease().cloned() {
            Some(lease) => self.standing = Standing::Parked(lease, fault),
            None => self.fault = Some(fault),
        }
        self.retry_at = Some(now + LOOK_AGAIN);
    }

    fn failed(&mut self, cause: String, retry_at: Instant) {
        if self.failures == 0 {
            self.remarks.push(Remark::Failing(cause.clone()));
        }
        self.fault = Some(Fault::new(Code::StoreDown, "lease", cause));
        self.retry_at = Some(retry_at);
        self.failures = self.failures.saturating_add(1);
    }
}

/// When a lease of this length is renewed: at a third, which leaves two more chances; earlier if the operator's margin
/// says so.
fn renew_after(ttl: Duration, margin: Duration) -> Duration {
    (ttl / 3).min(ttl.saturating_sub(margin).max(BREATHER))
}
