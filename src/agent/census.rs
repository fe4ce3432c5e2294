//! What is told and counted of all leases: once when they change, not whenever the loop writes up what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use twill_backends::family::{Family, PerFamily};
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::network::Pool;
use twill_backends::plan::Plan;
use twill_backends::probe::{Finding, Verdict};

use super::status::{FamilyStatus, PeerStatus, ProbeStatus, WayStatus};
use super::{Agent, World};
use crate::kernel::preflight::Use;
use crate::probe::Findings;

/// What is told and counted of all leases.
#[derive(Debug)]
pub(super) struct Census {
    /// The other hosts.
    pub(super) peers: Arc<Vec<Peer>>,
    /// How much of each pool is leased.
    pub(super) pools: PerFamily<Use>,
    /// How many peers are neighbours on the underlay.
    pub(super) on_link: PerFamily<usize>,
}

/// The other hosts, and beside them what was measured: to put that together takes long where they are many.
#[derive(Debug, Clone, Default)]
pub struct Roll {
    pub(super) known: Arc<Vec<Peer>>,
    /// Nothing if nobody is probed.
    pub(super) probed: Option<Findings>,
}

/// Another host.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its lease.
    lease: LeaseKey,
    /// What it leases.
    pub(super) subnets: Vec<IpNet>,
    /// Where its packets come from.
    pub(super) public: Vec<IpAddr>,
    /// Whether it answers probes.
    answers: bool,
    /// How packets to its pods go.
    path: &'static str,
    /// What does not change by itself.
    known: PeerStatus,
}

/// What is told of the peers: put together once, however many look.
#[derive(Debug, Clone, Default)]
pub(super) struct Joined(Arc<Mutex<Last>>);

/// What was put together last, and of what.
#[derive(Debug, Default)]
struct Last {
    roll: Roll,
    peers: Arc<Vec<PeerStatus>>,
}

impl Joined {
    pub(super) fn peers(&self, roll: &Roll) -> Arc<Vec<PeerStatus>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.roll.is(roll) {
            *last = Last { roll: roll.clone(), peers: Arc::new(roll.told(|_| true)) };
        }
        Arc::clone(&last.peers)
    }
}

impl Roll {
    /// Whether nothing is told of the peers but what this tells.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let measured = match (&self.probed, &other.probed) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        measured && Arc::ptr_eq(&self.known, &other.known)
    }

    /// What is told of some of the peers, chosen by their keys.
    pub fn told(&self, which: impl Fn(&str) -> bool) -> Vec<PeerStatus> {
        self.known.iter().filter(|peer| which(&peer.known.key)).map(|peer| self.status(peer)).collect()
    }

    /// The keys of the peers of which something else is told than `before`. Round trips change all the time, and are no
    /// news.
    #[must_use]
    pub fn moved<'r>(&'r self, before: &'r Self) -> BTreeSet<&'r str> {
        if self.is(before) {
            return BTreeSet::new();
        }
        let (had, has): (BTreeMap<_, _>, BTreeMap<_, _>) = (before.gists().collect(), self.gists().collect());
        let differs = |key: &&str| had.get(*key) != has.get(*key);
        had.keys().chain(has.keys()).copied().filter(differs).collect()
    }

    /// Of each peer, what changes only when something happens.
    fn gists(&self) -> impl Iterator<Item = (&str, (Option<Verdict>, bool, &[String]))> {
        self.known.iter().map(|peer| {
            let PeerStatus { key, held, public, .. } = &peer.known;
            (key.as_str(), (self.verdict(peer), *held, public.as_slice()))
        })
    }

    fn verdict(&self, peer: &Peer) -> Option<Verdict> {
        match &self.probed {
            Some(_) if !peer.answers => Some(Verdict::Unknown),
            Some(findings) => peer.lines(findings).map(|(_, finding)| finding.verdict).max(),
            None => peer.known.probe.as_ref().map(|probe| probe.verdict),
        }
    }

    fn status(&self, peer: &Peer) -> PeerStatus {
        let (measured, known) = (self.measured(peer), peer.known.clone());
        PeerStatus { probe: measured.or(known.probe), ..known }
    }

    /// What was measured of a peer, for `status`.
    fn measured(&self, peer: &Peer) -> Option<ProbeStatus> {
        let findings = self.probed.as_ref()?;
        if !peer.answers {
            return Some(silent());
        }
        let lines: Vec<(Family, &Finding)> = peer.lines(findings).collect();
        let (_, worst) = lines.iter().max_by_key(|(_, finding)| finding.verdict)?;
        Some(ProbeStatus {
            verdict: worst.verdict,
            cause: worst.cause.to_owned(),
            since_s: Some(worst.since.as_secs()),
            path: peer.path.to_owned(),
            mtu: lines.iter().map(|(_, finding)| finding.limit.unwrap_or(finding.mtu)).min()?,
            mtu_wanted: lines.iter().map(|(_, finding)| finding.mtu).min()?,
            ways: lines
                .iter()
                .flat_map(|(family, finding)| finding.ways.iter().map(|way| WayStatus::of(*family, way)))
                .collect(),
            families: lines.iter().map(|(family, finding)| FamilyStatus::of(*family, finding)).collect(),
        })
    }
}

impl Peer {
    /// What was found out of it, over each family.
    fn lines<'f>(&self, findings: &'f Findings) -> impl Iterator<Item = (Family, &'f Finding)> {
        let of = |family| Some((family, findings.get(&(self.lease.clone(), family))?));
        Family::ALL.into_iter().filter_map(of)
    }
}

impl From<Vec<PeerStatus>> for Roll {
    /// What another agent says of its peers.
    fn from(peers: Vec<PeerStatus>) -> Self {
        Self { known: Arc::new(peers.into_iter().map(Peer::from).collect()), probed: None }
    }
}

impl From<PeerStatus> for Peer {
    /// What another agent says of a peer.
    fn from(known: PeerStatus) -> Self {
        let lease = LeaseKey::new(known.key.clone());
        Self { lease, subnets: Vec::new(), public: Vec::new(), answers: false, path: "", known }
    }
}

impl<W: World> Agent<W> {
    /// What is told and counted of all leases, as of the last change.
    pub(super) fn census(&self) -> &Census {
        self.census.get_or_init(|| {
            let own = self.tenure.lease().map(|lease| &lease.key);
            let peers = self.leases.of_hosts().filter(|lease| Some(&lease.key) != own);
            Census {
                peers: Arc::new(peers.map(|lease| self.peer(lease)).collect()),
                pools: self.plan.as_ref().map_or(PerFamily::NONE, |plan| self.pools(plan)),
                on_link: self.plan.as_ref().map_or(PerFamily::NONE, |plan| self.on_link(plan)),
            }
        })
    }

    fn peer(&self, lease: &Lease) -> Peer {
        let public: Vec<IpAddr> =
            Family::ALL.iter().filter_map(|family| lease.attrs.public(*family)).collect();
        Peer {
            lease: lease.key.clone(),
            subnets: lease.subnets.iter().map(|(_, subnet)| *subnet).collect(),
            answers: lease.attrs.probe.is_some(),
            path: self.probing.path(&lease.key).unwrap_or_default(),
            known: PeerStatus {
                key: lease.key.to_string(),
                node: lease.attrs.node_id.clone(),
                public: public.iter().map(IpAddr::to_string).collect(),
                backend: lease.attrs.backend_type.clone().unwrap_or_default(),
                held: self.leases.is_held(&lease.key),
                probe: None,
                traffic: None,
            },
            public,
        }
    }

    fn pools(&self, plan: &Plan) -> PerFamily<Use> {
        let subnets = |family| self.leases.iter().filter_map(move |lease| lease.subnets.get(family));
        let leased = |family, pool: &Pool| subnets(family).filter(|subnet| pool.holds(subnet)).count();
        plan.own().network.pools.map(|family, pool| Use {
            network: pool.network,
            size: pool.size(),
            leased: leased(family, &pool),
        })
    }

    fn on_link(&self, plan: &Plan) -> PerFamily<usize> {
        let public = |family| self.leases.of_hosts().filter_map(move |lease| lease.attrs.public(family));
        let near = |addr: &_| plan.host().on_link.iter().any(|net| net.contains(addr));
        let count = |family| Some(public(family).filter(near).count());
        PerFamily { v4: count(Family::V4), v6: count(Family::V6) }
    }
}

/// A peer that answers no probes.
fn silent() -> ProbeStatus {
    ProbeStatus {
        verdict: Verdict::Unknown,
        cause: "its agent answers no probes: it is flanneld, an older twill, or was told not to".to_owned(),
        since_s: None,
        path: String::new(),
        mtu: 0,
        mtu_wanted: 0,
        ways: Vec::new(),
        families: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::status::tests::status;

    /// These peers, with what was found out of the first.
    fn roll(known: &Arc<Vec<Peer>>, verdict: Verdict, limit: Option<u32>) -> Roll {
        let finding = Finding { verdict, limit, ..Finding::default() };
        let findings = BTreeMap::from([((known[0].lease.clone(), Family::V4), finding)]);
        Roll { known: Arc::clone(known), probed: Some(Arc::new(findings)) }
    }

    #[test]
    fn a_peer_moved_when_it_has_another_verdict() {
        let mut peers: Vec<Peer> = status().peers.into_iter().map(Peer::from).collect();
        peers[0].answers = true;
        let known = Arc::new(peers);
        let well = roll(&known, Verdict::Ok, None);
        assert!(well.is(&well.clone()) && well.moved(&well.clone()).is_empty());
        let narrow = roll(&known, Verdict::Ok, Some(1_400));
        assert!(!narrow.is(&well) && narrow.moved(&well).is_empty());
        let cut = roll(&known, Verdict::OneWay, None);
        assert_eq!(cut.moved(&well), BTreeSet::from(["10.5.2.0-24"]));
        let told = cut.told(|key| key == "10.5.2.0-24");
        assert_eq!(told[0].probe.as_ref().unwrap().verdict, Verdict::OneWay);
        // Who is no peer any more moved as well.
        let (alone, none) = (Roll::from(vec![status().peers.remove(1)]), Roll::default());
        assert_eq!(alone.moved(&well), BTreeSet::from(["10.5.2.0-24", "10.5.3.0-24"]));
        assert_eq!(none.moved(&alone), BTreeSet::from(["10.5.3.0-24"]));
    }
}
