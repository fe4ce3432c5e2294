//! Where a host differs from what its leases want of it, in words. Pure.

mod code;
mod report;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use twill_backends::diff::{Op, diff};
use twill_backends::family::Family;
use twill_backends::lease::Lease;
use twill_backends::state::{LinkName, NetState};

pub use code::{Deviation, device};
pub use report::{Other, Outcome, Report};

/// One entry that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How it differs: stable, for scripts.
    pub code: &'static str,
    /// Which entry: `route 10.244.2.0/24`.
    pub entry: String,
    /// The peer it is for, if it is for one.
    pub peer: Option<Peer>,
    /// What it should be; `None` if it should not be there.
    pub wanted: Option<String>,
    /// What it is; `None` if it is missing.
    pub found: Option<String>,
    /// What would set it right, as an operator would type it.
    pub fix: String,
}

/// Whose entry it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The key of its lease.
    pub key: String,
    /// Its public address, of the family of the entry.
    pub public: Option<IpAddr>,
}

/// What differs, in the order in which it would be set right. Where a link is missing, what belongs on it is missing
/// too, and is counted with it.
#[must_use]
pub fn differences(want: &NetState, have: &NetState, leases: &[Lease]) -> Vec<Difference> {
    let ops = diff(want, have);
    let missing: BTreeSet<LinkName> =
        want.links.keys().filter(|link| !have.links.contains_key(*link)).copied().collect();
    let mut hanging: BTreeMap<LinkName, usize> = BTreeMap::new();
    let mut told = Vec::new();
    for op in &ops {
        match on(op, &missing) {
            Some(link) => *hanging.entry(link).or_default() += 1,
            // It is what was found where another one is wanted.
            None if matches!(op, Op::DelFdb(entry) if words::moved(want, entry).is_some()) => {}
            None => told.push(op),
        }
    }
    let difference = |op: &Op| {
        let mut entry = words::entry(op);
        if let Op::SetLink(link, _) = op
            && let Some(entries) = hanging.get(link)
        {
            entry = words::with_what_is_on_it(&entry, *entries);
        }
        let (wanted, found) = words::compared(op, want, have);
        let code = code::of(op, want, have).code;
        Difference { code, entry, peer: peer(op, leases), wanted, found, fix: op.to_string() }
    };
    told.into_iter().map(difference).collect()
}

/// The missing link that an entry belongs on.
fn on(op: &Op, missing: &BTreeSet<LinkName>) -> Option<LinkName> {
    let link = match op {
        Op::SetNeigh(key, _) | Op::DelNeigh(key) => Some(key.dev),
        Op::SetFdb(entry) | Op::DelFdb(entry) => Some(entry.dev),
        Op::SetRoute(_, route) | Op::DelRoute(_, route) => route.dev,
        Op::SetSysctl(path, _) => {
            missing.iter().find(|link| path.split('/').any(|part| part == link.as_str())).copied()
        }
        Op::SetLink(..) | Op::DelLink(_) => None,
    };
    link.filter(|link| missing.contains(link))
}

fn peer(op: &Op, leases: &[Lease]) -> Option<Peer> {
    let of_net = |is: &dyn Fn(IpNet) -> bool| {
        leases.iter().find_map(|lease| {
            let (family, _) = lease.subnets.iter().find(|(_, net)| is(net.trunc()))?;
            Some((lease, family))
        })
    };
    let (lease, family) = match op {
        Op::SetNeigh(key, _) | Op::DelNeigh(key) => of_net(&|net| net.addr() == key.ip)?,
        Op::SetRoute(key, _) | Op::DelRoute(key, _) => of_net(&|net| net == key.dst)?,
        Op::SetFdb(entry) | Op::DelFdb(entry) => {
            let family = Family::of(&entry.dst);
            (leases.iter().find(|lease| lease.attrs.public(family) == Some(entry.dst))?, family)
        }
        Op::SetLink(..) | Op::SetSysctl(..) | Op::DelLink(_) => return None,
    };
    Some(Peer { key: lease.key.to_string(), public: lease.attrs.public(family) })
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.public {
            Some(public) => write!(f, "{} at {public}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

#[cfg(test)]
mod tests;
