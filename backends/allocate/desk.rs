//! The order of claims.

use serde_json::Value;

use super::space::Space;
use super::{Choice, Claim, ClaimError, Taken, fits};
use crate::family::Family;
use crate::lease::{Lease, LeaseKey, Subnets};
use crate::mac::Mac;
use crate::network::{NetworkConfig, overlap};

/// What the kernel says about a lease that carries our address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ours,
    Silent,
    Contrary,
}

struct Desk<'a> {
    claim: &'a Claim,
    config: &'a NetworkConfig,
    taken: &'a [Taken],
    /// The previous subnets without host bits.
    previous: Subnets,
}

/// Decides which lease a host takes. `pick(n)` returns a random number below `n`. The first of these that applies:
///
/// 1. a lease with our node id, whether or not it fits the configuration (see [`misfit`](super::misfit));
/// 2. one with our address and no node id, unless the kernel contradicts: flanneld's, when a host migrates. It must
///    fit the configuration, unless it is the previous one or the kernel says that it is ours;
/// 3. one with our address and another node id, or whose value nobody can read, if the kernel says that it is ours:
///    the state directory was lost. Otherwise our address is announced twice, and nothing is claimed;
/// 4. a reservation, a key that never expires, with our address and no node id, if it fits or is the previous one;
/// 5. the previous subnet of each family, if it is free and fits;
/// 6. a free subnet at random. Of two families the second takes the place in its pool that the first has in its
///    own, if that is free: hosts that race for one IPv4 subnet then race for one key, and all but one notice.
///
/// Two hosts that race for one subnet under different keys both create them, and the younger lease is taken back by its
/// host. If that host ended before it did, the lease still bears its id: it is given up before it is used.
///
/// A pinned claim considers nothing but exactly its previous subnets, fitting or not.
///
/// # Errors
/// No subnet is free; the address is announced twice; or the subnet that pods use belongs to another host.
pub fn choose(
    claim: &Claim,
    config: &NetworkConfig,
    taken: &[Taken],
    pick: &mut dyn FnMut(u64) -> u64,
) -> Result<Choice, ClaimError> {
    let previous = claim.previous.map(|_, net| net.trunc());
    let desk = Desk { claim, config, taken, previous };
    let found = match desk.with_our_id().or_else(|| desk.with_our_address()) {
        Some(found) => Some(found),
        None => desk.proven_by_kernel()?.or_else(|| desk.reserved()),
    };
    match found {
        Some(found) if desk.must_yield(found) => Ok(Choice::Yield(found.key.clone())),
        Some(found) => Ok(Choice::Rewrite(found.key.clone())),
        None if desk.is_pinned() => desk.previous_again(),
        None => desk.free(pick),
    }
}

impl<'a> Desk<'a> {
    fn is_pinned(&self) -> bool {
        self.claim.pinned && !self.previous.is_empty()
    }

    fn with_our_id(&self) -> Option<&'a Taken> {
        let ours = self.claim.attrs.node_id.as_ref()?;
        self.best(|taken, _| node(taken) == Some(ours))
    }

    /// Whether a lease with our id was created although another host's took part of it already.
    fn must_yield(&self, ours: &Taken) -> bool {
        let node = self.claim.attrs.node_id.as_ref();
        let meet = |theirs: &Taken| {
            let nets = ours.subnets.iter();
            nets.into_iter()
                .any(|(family, net)| theirs.subnets.get(family).is_some_and(|other| overlap(other, net)))
        };
        node.is_some()
            && self::node(ours) == node
            && self
                .taken
                .iter()
                .any(|other| other.created < ours.created && self::node(other) != node && meet(other))
    }

    fn with_our_address(&self) -> Option<&'a Taken> {
        self.best(|taken, lease| {
            let verdict = self.verdict(taken);
            !taken.permanent
                && node(taken).is_none()
                && self.our_address(lease).is_some()
                && verdict != Verdict::Contrary
                && (verdict == Verdict::Ours || taken.subnets == self.previous || self.fits(taken))
        })
    }

    fn proven_by_kernel(&self) -> Result<Option<&'a Taken>, ClaimError> {
        let unreadable = self.taken.iter().filter(|taken| taken.lease.is_none());
        let announced = self.taken.iter().filter_map(|taken| {
            let address = self.our_address(taken.lease.as_ref()?)?;
            let theirs = match node(taken) {
                Some(node) => Some(node) != self.claim.attrs.node_id.as_ref(),
                None => !taken.permanent && self.verdict(taken) == Verdict::Contrary,
            };
            theirs.then_some((taken, address))
        });
        let proven = announced.clone().map(|(taken, _)| taken).chain(unreadable);
        let proven = proven.filter(|taken| self.verdict(taken) == Verdict::Ours && self.eligible(taken));
        if let Some(found) = proven.min_by_key(|taken| self.rank(taken)) {
            return Ok(Some(found));
        }
        announced.map(|(taken, address)| Err(announced_twice(taken, &address))).next().unwrap_or(Ok(None))
    }

    fn reserved(&self) -> Option<&'a Taken> {
        self.best(|taken, lease| {
            taken.permanent
                && node(taken).is_none()
                && self.our_address(lease).is_some()
                && (taken.subnets == self.previous || self.fits(taken))
        })
    }

    fn previous_again(&self) -> Result<Choice, ClaimError> {
        let overlaps = |taken: &&Taken| {
            self.previous
                .iter()
                .any(|(family, net)| taken.subnets.get(family).is_some_and(|theirs| overlap(theirs, net)))
        };
        match self.taken.iter().find(overlaps) {
            Some(taken) => Err(ClaimError::SubnetTaken { key: taken.key.clone(), owner: owner(taken) }),
            None => Ok(Choice::Create(self.previous)),
        }
    }

    fn free(&self, pick: &mut dyn FnMut(u64) -> u64) -> Result<Choice, ClaimError> {
        let mut subnets = Subnets::NONE;
        let mut place = None;
        for (family, pool) in self.config.pools.iter() {
            let nets = || self.taken.iter().filter_map(|taken| taken.subnets.get(family));
            let space = Space::new(pool, nets());
            let previous = self.previous.get(family).copied().filter(|net| space.is_free(net));
            let beside = || place.and_then(|index| pool.nth(index)).filter(|net| space.is_free(net));
            let subnet = previous.or_else(beside).or_else(|| space.random(pick)).ok_or_else(|| {
                let taken = nets().filter(|net| pool.overlapped(net).is_some()).count();
                ClaimError::Exhausted { taken, size: pool.size() }
            })?;
            place = pool.overlapped(&subnet).map(|(index, _)| index);
            subnets.set(family, Some(subnet));
        }
        Ok(Choice::Create(subnets))
    }

    /// The best of the readable leases that qualify.
    fn best(&self, qualifies: impl Fn(&Taken, &Lease) -> bool) -> Option<&'a Taken> {
        let fitting = |taken: &&Taken| taken.lease.as_ref().is_some_and(|lease| qualifies(taken, lease));
        self.taken
            .iter()
            .filter(|taken| self.eligible(taken))
            .filter(fitting)
            .min_by_key(|taken| self.rank(taken))
    }

    /// Of several, the one whose subnets pods may use, then one that was held, then one that fits.
    fn rank<'t>(&self, taken: &'t Taken) -> (bool, bool, bool, &'t LeaseKey) {
        (taken.subnets != self.previous, taken.permanent, !self.fits(taken), &taken.key)
    }

    fn eligible(&self, taken: &Taken) -> bool {
        !self.is_pinned() || taken.subnets == self.previous
    }

    fn fits(&self, taken: &Taken) -> bool {
        fits(&taken.subnets, self.config)
    }

    /// The address of ours that a lease announces.
    fn our_address(&self, lease: &Lease) -> Option<String> {
        Family::ALL.into_iter().find_map(|family| {
            let ours = self.claim.attrs.public(family)?;
            (lease.attrs.public(family) == Some(ours)).then(|| ours.to_string())
        })
    }

    /// Any sign that a lease is ours outweighs any that it is not: flanneld changes a device without saying so.
    fn verdict(&self, taken: &Taken) -> Verdict {
        let evidence = &self.claim.evidence;
        let mut verdict = Verdict::Silent;
        for family in Family::ALL {
            let vtep = taken.lease.as_ref().and_then(|lease| vtep(lease.attrs.data(family)?));
            let mac = vtep.zip(evidence.macs.get(family).copied()).map(|(theirs, ours)| theirs == ours);
            let net = taken.subnets.get(family).zip(evidence.carried.get(family));
            let net = net.map(|(theirs, ours)| *theirs == ours.trunc());
            match (mac, net) {
                (Some(true), _) | (_, Some(true)) => return Verdict::Ours,
                (Some(false), _) | (_, Some(false)) => verdict = Verdict::Contrary,
                (None, None) => {}
            }
        }
        verdict
    }
}

fn node(taken: &Taken) -> Option<&String> {
    taken.lease.as_ref()?.attrs.node_id.as_ref()
}

/// The Ethernet address of the tunnel device, in what the vxlan backend publishes.
fn vtep(data: &Value) -> Option<Mac> {
    let (_, mac) = data.as_object()?.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("VtepMAC"))?;
    mac.as_str()?.parse().ok()
}

fn announced_twice(taken: &Taken, address: &str) -> ClaimError {
    ClaimError::DuplicateAddress {
        key: taken.key.clone(),
        address: address.to_owned(),
        node: node(taken).cloned().unwrap_or_else(|| "without id (flanneld)".to_owned()),
    }
}

fn owner(taken: &Taken) -> String {
    let Some(lease) = &taken.lease else { return "somebody whose value does not decode".to_owned() };
    let address = Family::ALL.into_iter().find_map(|family| lease.attrs.public(family));
    match (&lease.attrs.node_id, address) {
        (Some(node), Some(address)) => format!("node {node} at {address}"),
        (Some(node), None) => format!("node {node}"),
        (None, Some(address)) => format!("the host at {address}"),
        (None, None) => "a host that names no address".to_owned(),
    }
}
