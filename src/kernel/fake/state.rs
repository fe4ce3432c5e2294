//! The state of a kernel in memory, and how operations change it.

use tokio::time::Instant;
use twill_backends::diff::Op;
use twill_backends::state::{Link, LinkName, NetState};

use super::Failure;
use crate::kernel::facts::HostFacts;
use crate::kernel::{Change, ForeignRoute, KernelError};

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) net: NetState,
    pub(super) foreign: Vec<ForeignRoute>,
    pub(super) facts: HostFacts,
    pub(super) news: Vec<Change>,
    /// When the news are told.
    pub(super) due: Option<Instant>,
    pub(super) failing: Vec<Failure>,
    pub(super) blind: usize,
    /// The largest MTU a link gets, whatever is asked.
    pub(super) clamp: Option<u32>,
    /// Whether links are taken away as soon as they are set.
    pub(super) losing: bool,
    /// Whether a foreign socket has the port of the tunnels.
    pub(super) port_taken: bool,
    /// Whether VXLAN devices cannot be made.
    pub(super) no_vxlan: bool,
    pub(super) applied: Vec<Op>,
    pub(super) observed: usize,
}

impl Inner {
    /// Carries out one operation, unless it is made to fail, and echoes it.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), KernelError> {
        let refused = |cause: &str| KernelError::Refused { op: op.to_string(), cause: cause.to_owned() };
        if self.fails(op) {
            return Err(refused("made to fail"));
        }
        if let Some(dev) = device(op)
            && !self.net.links.contains_key(&dev)
        {
            return if op.is_removal() { Ok(()) } else { Err(refused("there is no such link")) };
        }
        if let Op::SetRoute(_, route) = op
            && let Some(dev) = route.dev
            && self.net.links.get(&dev).is_none_or(|link| !link.up)
            && self.facts.link(dev).is_none()
        {
            return Err(refused("Network is down"));
        }
        if let Op::SetLink(_, link) = op
            && self.no_vxlan
            && link.vxlan().is_some()
        {
            return Err(refused(super::NO_VXLAN));
        }
        if let Op::SetLink(name, link) = op
            && self.port_taken
            && link.vxlan().is_some()
            && link.up
        {
            self.carry_out(&Op::SetLink(*name, Link { up: false, ..link.clone() }));
            return Err(refused("Address already in use"));
        }
        self.carry_out(op);
        if let Op::SetLink(name, _) = op
            && self.losing
        {
            self.carry_out(&Op::DelLink(*name));
        }
        self.applied.push(op.clone());
        self.news.push(match op {
            // What a link's echo says cannot be told in operations.
            Op::SetLink(..) | Op::DelLink(..) => Change::Unknown("a link of ours changed"),
            Op::SetSysctl(..)
            | Op::SetNeigh(..)
            | Op::SetFdb(..)
            | Op::SetRoute(..)
            | Op::DelRoute(..)
            | Op::DelFdb(..)
            | Op::DelNeigh(..) => Change::Did(vec![op.clone()]),
        });
        Ok(())
    }

    /// Looks, unless that is made to fail.
    pub(super) fn look(&mut self) -> Result<(), KernelError> {
        if self.blind > 0 {
            self.blind -= 1;
            return Err(KernelError::Unreachable { attempt: "list links", cause: "made to fail".to_owned() });
        }
        Ok(())
    }

    fn fails(&mut self, op: &Op) -> bool {
        let mut fails = false;
        self.failing.retain_mut(|failure| match failure {
            Failure::Nth(0) => {
                fails = true;
                false
            }
            Failure::Nth(n) => {
                *n -= 1;
                true
            }
            Failure::Rank(rank) => {
                fails |= op.rank() == *rank;
                true
            }
            Failure::Matching(text) => {
                fails |= op.to_string().contains(text.as_str());
                true
            }
        });
        fails
    }

    /// Changes the state as the kernel does, with what a link takes along.
    pub(super) fn carry_out(&mut self, op: &Op) {
        let before = match op {
            Op::SetLink(name, _) | Op::DelLink(name) => self.net.links.get(name).cloned(),
            Op::SetFdb(entry) => {
                self.net.fdb.retain(|other| (other.dev, other.mac) != (entry.dev, entry.mac));
                None
            }
            Op::SetSysctl(..)
            | Op::SetNeigh(..)
            | Op::SetRoute(..)
            | Op::DelRoute(..)
            | Op::DelFdb(..)
            | Op::DelNeigh(..) => None,
        };
        match (op, before) {
            (Op::SetLink(name, want), Some(have)) if want.replaces(&have) => self.bare(*name),
            (Op::SetLink(name, want), Some(have)) if want.mac != have.mac => {
                self.net.neighs.retain(|key, _| key.dev != *name);
            }
            (Op::DelLink(name), _) => self.bare(*name),
            _ => {}
        }
        self.net.apply(op);
        if let (Op::SetLink(name, _), Some(clamp)) = (op, self.clamp)
            && let Some(link) = self.net.links.get_mut(name)
        {
            link.mtu = link.mtu.min(clamp);
        }
    }

    /// Takes everything off a link.
    fn bare(&mut self, name: LinkName) {
        self.net.neighs.retain(|key, _| key.dev != name);
        self.net.fdb.retain(|entry| entry.dev != name);
        self.net.routes.retain(|_, route| route.dev != Some(name));
    }
}

/// The link of ours an entry is on. Routes may lead through others.
const fn device(op: &Op) -> Option<LinkName> {
    match op {
        Op::SetNeigh(key, _) | Op::DelNeigh(key) => Some(key.dev),
        Op::SetFdb(entry) | Op::DelFdb(entry) => Some(entry.dev),
        Op::SetRoute(..) | Op::DelRoute(..) | Op::SetLink(..) | Op::DelLink(_) | Op::SetSysctl(..) => None,
    }
}
