//! Which leases cannot stand beside each other: a sorted index over what they claim.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::Family;
use crate::lease::LeaseKey;
use crate::mac::Mac;
use crate::state::LinkName;

/// Something a lease claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// A subnet, which two leases share if they overlap. Without host bits.
    Net(IpNet),
    /// A public address.
    Address(IpAddr),
    /// An Ethernet address on a tunnel device.
    Vtep(LinkName, Mac),
    /// A node id.
    Node(String),
}

/// Leases by what they claim.
#[derive(Debug)]
pub(crate) struct Index {
    entries: BTreeSet<(Mark, LeaseKey)>,
    /// How many subnets there are of each prefix length: the lengths at which a wider subnet can be found.
    lens: BTreeMap<(Family, u8), usize>,
}

impl Index {
    /// No claims.
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeSet::new(), lens: BTreeMap::new() }
    }

    /// Adds one claim.
    pub(crate) fn insert(&mut self, mark: Mark, key: LeaseKey) {
        let len = len_of(&mark);
        if self.entries.insert((mark, key))
            && let Some(len) = len
        {
            *self.lens.entry(len).or_default() += 1;
        }
    }

    /// Takes one claim back.
    pub(crate) fn remove(&mut self, mark: Mark, key: LeaseKey) {
        let len = len_of(&mark);
        if self.entries.remove(&(mark, key))
            && let Some(len) = len
            && let Some(count) = self.lens.get_mut(&len)
        {
            *count -= 1;
            if *count == 0 {
                self.lens.remove(&len);
            }
        }
    }

    /// The leases that share this claim, the claimant among them; one may come twice.
    pub(crate) fn sharing(&self, mark: &Mark) -> impl Iterator<Item = &LeaseKey> {
        let (exact, net) = match mark {
            Mark::Net(net) => (None, Some(*net)),
            Mark::Address(_) | Mark::Vtep(..) | Mark::Node(_) => (Some(mark.clone()), None),
        };
        let same = exact.into_iter().flat_map(|mark| self.exactly(mark));
        let overlapping = net.into_iter().flat_map(|net| self.inside(net).chain(self.around(net)));
        same.chain(overlapping)
    }

    fn exactly(&self, mark: Mark) -> impl Iterator<Item = &LeaseKey> {
        let from = (mark.clone(), LeaseKey::new(""));
        self.entries.range(from..).take_while(move |(m, _)| *m == mark).map(|(_, key)| key)
    }

    /// Subnets whose base address is in `net`. A subnet sorts by its base, then by its length.
    fn inside(&self, net: IpNet) -> impl Iterator<Item = &LeaseKey> {
        let first = IpNet::new(net.network(), 0).unwrap_or(net);
        self.entries
            .range((Mark::Net(first), LeaseKey::new(""))..)
            .take_while(move |(mark, _)| matches!(mark, Mark::Net(n) if net.contains(&n.network())))
            .map(|(_, key)| key)
    }

    /// Subnets that contain `net` and begin before it or with it.
    fn around(&self, net: IpNet) -> impl Iterator<Item = &LeaseKey> {
        let family = Family::of_net(&net);
        self.lens
            .range((family, 0)..(family, net.prefix_len()))
            .filter_map(move |((_, len), _)| IpNet::new(net.network(), *len).ok())
            .flat_map(|wider| self.exactly(Mark::Net(wider.trunc())))
    }
}

fn len_of(mark: &Mark) -> Option<(Family, u8)> {
    match mark {
        Mark::Net(net) => Some((Family::of_net(net), net.prefix_len())),
        Mark::Address(_) | Mark::Vtep(..) | Mark::Node(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(a: &IpNet, b: &IpNet) -> bool {
        a.contains(b) || b.contains(a)
    }

    prop_compose! {
        fn subnet()(v6 in any::<bool>(), bits in 0_u32..16, len in 0_u8..=4) -> IpNet {
            let addr: IpAddr = if v6 {
                std::net::Ipv6Addr::from(u128::from(bits) << 124).into()
            } else {
                std::net::Ipv4Addr::from(bits << 28).into()
            };
            IpNet::new(addr, len).unwrap().trunc()
        }
    }

    proptest! {
        #[test]
        fn sharing_a_subnet_is_overlapping(nets in proptest::collection::vec(subnet(), 0..20), asked in subnet(), gone in 0..20_usize) {
            let mut index = Index::new();
            for (n, net) in nets.iter().enumerate() {
                index.insert(Mark::Net(*net), LeaseKey::new(format!("{n}")));
                index.insert(Mark::Node("x".to_owned()), LeaseKey::new(format!("{n}")));
            }
            if let Some(net) = nets.get(gone) {
                index.remove(Mark::Net(*net), LeaseKey::new(format!("{gone}")));
            }
            let found: BTreeSet<_> = index.sharing(&Mark::Net(asked)).cloned().collect();
            let expected: BTreeSet<_> = nets.iter().enumerate()
                .filter(|(n, net)| *n != gone && overlap(net, &asked))
                .map(|(n, _)| LeaseKey::new(format!("{n}"))).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(index.sharing(&Mark::Node("x".to_owned())).count(), nets.len());
        }
    }
}
