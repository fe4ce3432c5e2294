//! What must hold of a store's history and of what its hosts believed, whoever wrote them down: the model checker, or a
//! real etcd under stress.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use twill_backends::lease::{Attrs, LeaseKey};
use twill_backends::record::overlap;

/// One process of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    pub(crate) node: String,
    pub(crate) session: String,
}

/// What a change left under a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Left {
    Nothing,
    /// What a node of ours wrote, and its address.
    Of(Stamp, Option<Ipv4Addr>),
    /// What flanneld or an operator wrote: it names no process; the address of its host, if it names no node either.
    Unsigned(Option<Ipv4Addr>),
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: LeaseKey,
    pub(crate) left: Left,
}

/// That a process believed to own what a key names, because of the write of this revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Belief {
    pub(crate) who: Stamp,
    pub(crate) key: LeaseKey,
    pub(crate) since: u64,
    /// A revision of the store at which it was believed. At that of its write it was not yet: the host looks first
    /// whether an older lease is in the way, which may be gone when it looks.
    pub(crate) at: u64,
}

impl Stamp {
    pub(crate) fn of(attrs: &Attrs) -> Option<Self> {
        Some(Self { node: attrs.node_id.clone()?, session: attrs.session.clone()? })
    }
}

impl Left {
    /// What a value says of who wrote it.
    pub(crate) fn by(value: &[u8]) -> Self {
        let Ok(attrs) = Attrs::decode(value) else { return Self::Unsigned(None) };
        match Stamp::of(&attrs) {
            Some(stamp) => Self::Of(stamp, attrs.public_ip),
            None => Self::Unsigned(attrs.public_ip.filter(|_| attrs.node_id.is_none())),
        }
    }
}

/// Whoever believes to own a lease wrote it, at the revision it names.
pub(crate) fn unfounded(history: &[Change], beliefs: &[Belief]) -> Option<String> {
    let founded = |belief: &&Belief| {
        let at = history.partition_point(|change| change.revision < belief.since);
        let same = history[at..].iter().take_while(|change| change.revision == belief.since);
        same.filter(|change| change.key == belief.key)
            .any(|change| matches!(&change.left, Left::Of(who, _) if *who == belief.who))
    };
    beliefs.iter().find(|belief| !founded(belief)).map(|belief| format!("{belief:?} rests on no write"))
}

/// At no revision do two nodes own the same address. A belief holds to the next change of the key, after its write, that
/// is not of the same node.
pub(crate) fn shared(history: &[Change], beliefs: &[Belief]) -> Option<String> {
    let mut terms: Vec<(u64, u64, &Belief)> =
        beliefs.iter().map(|belief| (belief.at, end(history, belief), belief)).collect();
    terms.retain(|(at, until, _)| at < until);
    terms.sort();
    terms.iter().enumerate().find_map(|(index, (_, until, one))| {
        let others = terms[index + 1..].iter().take_while(|(since, ..)| since < until);
        let mut rivals =
            others.filter(|(_, _, other)| other.who.node != one.who.node && meet(&one.key, &other.key));
        rivals.next().map(|(_, _, other)| format!("{one:?} until {until}, and {other:?}"))
    })
}

/// No node writes over what another one wrote: only its own, what nobody signed unless it is of another address, and what
/// is not there.
pub(crate) fn overwritten(history: &[Change]) -> Option<String> {
    let mut standing: BTreeMap<&LeaseKey, &Left> = BTreeMap::new();
    history.iter().find_map(|change| {
        let before = standing.insert(&change.key, &change.left);
        match (before, &change.left) {
            (Some(Left::Of(theirs, _)), Left::Of(ours, _)) if theirs.node != ours.node => {
                Some(format!("{ours:?} wrote {} over {theirs:?} at {}", change.key, change.revision))
            }
            (Some(Left::Unsigned(Some(theirs))), Left::Of(ours, at)) if *at != Some(*theirs) => {
                Some(format!("{ours:?} wrote {} over that of {theirs} at {}", change.key, change.revision))
            }
            _ => None,
        }
    })
}

fn end(history: &[Change], belief: &Belief) -> u64 {
    let at = history.partition_point(|change| change.revision <= belief.since);
    let of_other = |change: &&Change| {
        change.key == belief.key
            && !matches!(&change.left, Left::Of(stamp, _) if stamp.node == belief.who.node)
    };
    history[at..].iter().find(of_other).map_or(u64::MAX, |change| change.revision)
}

fn meet(one: &LeaseKey, other: &LeaseKey) -> bool {
    match (one.subnets(), other.subnets()) {
        (Ok(one), Ok(other)) => overlap(&one, &other),
        _ => one == other,
    }
}
