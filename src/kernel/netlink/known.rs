//! What the monitor needs to tell changes of what is ours from echoes and noise.

use std::collections::BTreeMap;
use std::net::IpAddr;

use twill_backends::mac::Mac;
use twill_backends::state::{Link, LinkName};

use super::parse::SeenLink;
use crate::kernel::facts::AddrFact;

/// As of the last observation, and of the messages since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Links of ours by index.
    pub(super) links: BTreeMap<u32, (LinkName, Link)>,
    /// The underlay.
    pub(super) underlay: Option<SeenLink>,
    /// Its addresses, in order.
    pub(super) underlay_addrs: Vec<AddrFact>,
    /// Where each Ethernet address of a link of ours was last seen to lead.
    pub(super) fdb: BTreeMap<(u32, Mac), IpAddr>,
    /// Whether an observation found another underlay than was announced.
    pub(super) overtaken: bool,
}

impl Known {
    /// Takes in an observation. If it read the underlay before the message that announces the same, that message will
    /// look like an echo: so it is noted here that the underlay changed.
    pub(super) fn observed(&mut self, found: Self) {
        let changed = self.underlay.as_ref().is_some_and(|before| {
            found.underlay.as_ref().map(SeenLink::identity) != Some(before.identity())
                || found.underlay_addrs != self.underlay_addrs
        });
        *self = Self { overtaken: self.overtaken || changed, ..found };
    }

    /// The name of a link that matters.
    pub(super) fn name_of(&self, index: u32) -> Option<LinkName> {
        let ours = self.links.get(&index).map(|(name, _)| *name);
        ours.or_else(|| self.underlay.as_ref().filter(|seen| seen.index == index).map(|seen| seen.name))
    }

    /// The link of this index is gone, and what was on it.
    pub(super) fn forget(&mut self, index: u32) {
        self.links.remove(&index);
        self.fdb.retain(|(link, _), _| *link != index);
        if self.underlay.as_ref().is_some_and(|seen| seen.index == index) {
            self.underlay = None;
            self.underlay_addrs.clear();
        }
    }
}
