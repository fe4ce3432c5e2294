//! What is seen of the own lease in the store, and what follows from it.
//!
//! # Why
//! The watch and the answers to calls come on different ways, so that a write may be seen before the call that made it
//! has answered. Whatever is seen during a call waits for its answer; the revision then tells which came last.

use std::time::Instant;

use super::{Standing, Tenure, is_another_process};
use crate::fault::{Code, Fault};
use crate::lease::{Attrs, Lease, LeaseKey};

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    /// This lease.
    Lease {
        lease: Box<Lease>,
        /// Whether the revision is that of its write; otherwise it stood there by then.
        written: bool,
    },
    /// Nothing, or something that is no lease.
    Nothing,
}

impl Tenure {
    /// A lease was written under some key, by us or by somebody else, at this revision.
    pub fn saw_put(&mut self, lease: &Lease, revision: u64, now: Instant) {
        self.saw(&lease.key, revision, || Seen::Lease { lease: Box::new(lease.clone()), written: true }, now);
    }

    /// A key is gone, or what was written under it does not decode.
    pub fn saw_delete(&mut self, key: &LeaseKey, revision: u64, now: Instant) {
        self.saw(key, revision, || Seen::Nothing, now);
    }

    /// All leases were listed at this revision, and this is what stood under our key.
    pub fn saw_snapshot(&mut self, own: Option<&Lease>, revision: u64, now: Instant) {
        let Some(key) = self.lease().map(|lease| lease.key.clone()) else { return };
        let seen = || {
            own.map_or(Seen::Nothing, |lease| Seen::Lease { lease: Box::new(lease.clone()), written: false })
        };
        self.saw(&key, revision, seen, now);
    }

    /// The store's revisions do not continue those seen before: they guard nothing any more, until the lease is read.
    pub const fn saw_another_history(&mut self, now: Instant) {
        self.rewound = self.calling.is_some();
        if let Standing::Held(held) = &mut self.standing {
            held.revision = 0;
            self.renew_at = Some(now);
        }
    }

    /// The store answers again: what failed need not wait any longer, and what happened to the lease meanwhile is read.
    pub const fn saw_store_back(&mut self, now: Instant) {
        if self.failures > 0 {
            self.retry_at = None;
        }
        if matches!(self.standing, Standing::Held(_)) {
            self.renew_at = Some(now);
        }
    }

    /// Judges what was seen while a call was under way.
    pub(super) fn catch_up(&mut self, now: Instant) {
        if self.rewound {
            self.saw_another_history(now);
        }
        for (key, (revision, seen)) in std::mem::take(&mut self.seen) {
            self.consider(&key, revision, seen, now);
        }
    }

    fn saw(&mut self, key: &LeaseKey, revision: u64, seen: impl FnOnce() -> Seen, now: Instant) {
        if self.calling.is_some() {
            self.seen.insert(key.clone(), (revision, seen()));
        } else if self.waits_for_room() || self.lease().is_some_and(|own| own.key == *key) {
            self.consider(key, revision, seen(), now);
        }
    }

    fn consider(&mut self, key: &LeaseKey, revision: u64, seen: Seen, now: Instant) {
        // Any lease that goes may be the one in the way.
        if self.waits_for_room() && seen == Seen::Nothing {
            self.retry_at = None;
        }
        let Standing::Held(held) = &mut self.standing else { return };
        // What was seen at the very revision of our write holds: where it is not our write, the store went back in time
        // and has caught up.
        if held.lease.key != *key || revision < held.revision {
            return;
        }
        let rewound = held.revision == 0;
        match seen {
            Seen::Nothing => self.lost_to(None, "it is gone from the store", now),
            Seen::Lease { lease, written } if is_ours(&held.lease.attrs, &lease.attrs) => {
                // An operator may have edited it: what differs from what is wanted is published again. Or a call took
                // effect whose answer was lost: then nothing is left to complain about. Or it had gone, and came back by
                // a call of long ago: only its record tells, which a renewal reads.
                let unknown = written && revision > held.revision && !rewound;
                held.lease.attrs = lease.attrs;
                (self.failures, self.retry_at, self.fault) = (0, None, None);
                self.renew_at = if unknown { Some(now) } else { self.renew_at };
            }
            // In a store restored from a backup stands what an earlier process of this host wrote.
            Seen::Lease { lease, .. } => {
                let holder = Some(&lease.attrs).filter(|_| !rewound);
                self.lost_to(holder, "somebody else wrote it", now);
            }
        }
    }

    /// Whether no lease can be claimed as long as all others stay.
    fn waits_for_room(&self) -> bool {
        self.fault().is_some_and(|fault| {
            matches!(fault.code, Code::PoolExhausted | Code::LeaseLost | Code::DuplicateAddress)
        })
    }
}

fn is_ours(own: &Attrs, written: &Attrs) -> bool {
    written.node_id == own.node_id && !is_another_process(own, written) && written.session.is_some()
}

pub(super) fn duplicate_identity(own: &Lease, other: &Attrs) -> Fault {
    let address = |attrs: &Attrs| {
        let v4 = attrs.public_ip.map(|ip| ip.to_string());
        v4.or_else(|| attrs.public_ipv6.map(|ip| ip.to_string())).unwrap_or_else(|| "no address".to_owned())
    };
    let node = own.attrs.node_id.as_deref().unwrap_or("unknown");
    let (ours, theirs) = (address(&own.attrs), address(other));
    Fault::new(
        Code::DuplicateIdentity,
        own.key.to_string(),
        format!("two processes hold the identity of node {node}: this one at {ours}, another at {theirs}"),
    )
}
