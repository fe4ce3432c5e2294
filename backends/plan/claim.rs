//! What one lease asks of a host, looked at by itself.

use crate::backend::Backend;
use crate::diff::Key;
use crate::family::{Family, PerFamily};
use crate::fault::{Code, Fault};
use crate::host::{Fact, Host, Own};
use crate::index::Mark;
use crate::lease::{Endpoint, Lease, LeaseKey};
use crate::state::PeerState;

/// What one lease asks of a host.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim {
    /// What could be programmed for each family, if no other lease is in the way.
    pub(super) ends: PerFamily<End>,
    /// Why the rest cannot.
    pub(super) faults: Vec<Fault>,
}

/// One family of a claim.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// What it adds to the host's state.
    pub(super) state: PeerState,
    /// What no other lease may claim too: its subnet first, then the address of its tunnel.
    pub(super) exclusive: Vec<Mark>,
    /// Its public address, which another lease may claim too, though it should not.
    pub(super) address: Mark,
}

impl Claim {
    /// Looks at one lease that is not our own.
    pub(super) fn of(
        lease: &Lease,
        facts: PerFamily<Fact>,
        backend: &dyn Backend,
        host: &Host,
        own: &Own,
    ) -> Self {
        let mut claim = Self::default();
        if lease.vacant {
            return claim;
        }
        let key = lease.key.as_str();
        let other = match lease.attrs.backend_type.as_deref() {
            Some(kind) if kind == backend.kind() => None,
            Some(kind) => Some(format!("its host runs the backend `{kind}`, this host `{}`", backend.kind())),
            None => Some(format!("its host names no backend, this host runs `{}`", backend.kind())),
        };
        if let Some(cause) = other {
            claim.faults.push(Fault::new(Code::OtherBackend, key, cause));
            return claim;
        }
        let used = |family| own.subnets.get(family).and(own.network.pools.get(family)).is_some();
        for (family, subnet) in lease.unreachable().filter(|(family, _)| used(*family)) {
            let cause = format!("it has the subnet {subnet}, but no public {family} address");
            claim.faults.push(Fault::new(Code::IncompleteLease, key, cause));
        }
        for peer in lease.endpoints().filter(|peer| used(peer.family)) {
            let fact = facts.get(peer.family).copied().unwrap_or_default();
            match End::of(peer, &fact, backend, host, own) {
                Ok(end) => claim.ends.set(peer.family, Some(end)),
                Err(fault) => claim.faults.push(fault),
            }
        }
        claim
    }

    /// Everything claimed, for both families.
    pub(super) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.ends.iter().flat_map(|(_, end)| end.exclusive.iter().chain([&end.address]))
    }
}

impl End {
    fn of(
        peer: Endpoint<'_>,
        fact: &Fact,
        backend: &dyn Backend,
        host: &Host,
        own: &Own,
    ) -> Result<Self, Fault> {
        if let Some((code, cause)) = objection(&peer, host, own) {
            return Err(Fault::new(code, peer.lease.key.as_str(), cause));
        }
        let state = backend.peer(host, own, peer, fact)?;
        let mut exclusive = vec![Mark::Net(peer.subnet.trunc())];
        exclusive.extend(state.fdb.map(|fdb| Mark::Vtep(fdb.dev, fdb.mac)));
        Ok(Self { state, exclusive, address: Mark::Address(peer.public) })
    }
}

/// What speaks against a peer, whatever the backend.
fn objection(peer: &Endpoint<'_>, host: &Host, own: &Own) -> Option<(Code, String)> {
    let Endpoint { family, subnet, public, .. } = peer;
    let ours = own.subnets.get(*family)?;
    if ours.contains(subnet) || subnet.contains(ours) {
        let cause = format!("its subnet {subnet} overlaps this host's own, {ours}");
        return Some((Code::OverlapsOwnSubnet, cause));
    }
    let pool = own.network.pools.get(*family).map(|pool| pool.network);
    if !pool.iter().chain(&own.former).any(|network| network.contains(subnet)) {
        let network = pool.map(|network| network.to_string()).unwrap_or_default();
        return Some((Code::OutsideNetwork, format!("its subnet {subnet} is outside the network {network}")));
    }
    if host.addrs.get(*family).is_some_and(|addr| [addr.local, addr.public].contains(public)) {
        let cause = format!("its host announces {public}, which is this host's own address");
        return Some((Code::DuplicateAddress, cause));
    }
    if public.is_unspecified() || public.is_multicast() || public.is_loopback() || is_broadcast(peer) {
        let cause = format!("its public address {public} is not the address of one host");
        return Some((Code::IncompleteLease, cause));
    }
    if subnet.contains(public) {
        let cause = format!(
            "its public address {public} is inside its own subnet {subnet}, so that no packet could leave"
        );
        return Some((Code::IncompleteLease, cause));
    }
    None
}

fn is_broadcast(peer: &Endpoint<'_>) -> bool {
    peer.family == Family::V4 && peer.public == std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

/// The complaint about a lease that lost a claim to another one.
pub(super) fn conflict(key: &LeaseKey, winner: &LeaseKey, mark: &Mark, family: Family) -> Fault {
    let (code, cause) = match mark {
        Mark::Net(net) => (Code::OverlappingLease, format!("its subnet {net} overlaps the lease {winner}")),
        Mark::Vtep(dev, mac) => (
            Code::DuplicateVtep,
            format!("its {family} tunnel address {mac} on {dev} is also that of the lease {winner}"),
        ),
        Mark::Address(address) => (
            Code::DuplicateAddress,
            format!("its host announces {address}, as that of the lease {winner} does"),
        ),
        Mark::Node(node) => {
            (Code::DuplicateIdentity, format!("its node {node} also wrote the lease {winner}"))
        }
    };
    Fault::new(code, key.as_str(), cause)
}

/// The objects that a peer's state consists of.
pub(super) fn keys(state: &PeerState) -> impl Iterator<Item = Key> + use<> {
    let neigh = state.neigh.map(|(key, _)| Key::Neigh(key));
    neigh.into_iter().chain(state.fdb.map(Key::Fdb)).chain([Key::Route(state.route.0)])
}
