//! What is told and counted of all leases: once when they change, not whenever the loop writes up what is so.

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

/// What was measured of peers; nothing if nobody is probed.
#[derive(Debug, Clone, Default)]
pub(super) struct Probed(pub(super) Option<Findings>);

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

/// The peers with what was measured of them: put together once, however many look.
#[derive(Debug, Clone, Default)]
pub(super) struct Joined(Arc<Mutex<Last>>);

/// What was put together last, and of what.
#[derive(Debug, Default)]
struct Last {
    known: Arc<Vec<Peer>>,
    probed: Probed,
    peers: Arc<Vec<PeerStatus>>,
}

impl Joined {
    pub(super) fn peers(&self, known: &Arc<Vec<Peer>>, probed: &Probed) -> Arc<Vec<PeerStatus>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&last.known, known) || !last.probed.is(probed) {
            let peers = Arc::new(known.iter().map(|peer| peer.status(probed)).collect());
            *last = Last { known: Arc::clone(known), probed: probed.clone(), peers };
        }
        Arc::clone(&last.peers)
    }
}

impl Peer {
    fn status(&self, probed: &Probed) -> PeerStatus {
        let (measured, known) = (probed.status(self), self.known.clone());
        PeerStatus { probe: measured.or(known.probe), ..known }
    }
}

impl Probed {
    /// Whether this is the same account.
    fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// What was measured of a peer, for `status`.
    fn status(&self, peer: &Peer) -> Option<ProbeStatus> {
        let findings = self.0.as_ref()?;
        if !peer.answers {
            return Some(silent());
        }
        let lines: Vec<(Family, &Finding)> = Family::ALL
            .into_iter()
            .filter_map(|family| Some((family, findings.get(&(peer.lease.clone(), family))?)))
            .collect();
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
            let peers = self.leases.iter().filter(|lease| Some(&lease.key) != own);
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
        let public = |family| self.leases.iter().filter_map(move |lease| lease.attrs.public(family));
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
