//! Has the peers probed, and takes what that shows: facts for the plan, complaints, and what `status` tells of each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::{Code, Fault};
use twill_backends::host::Fact;
use twill_backends::lease::{LeaseKey, Listener};
use twill_backends::leases::Leases;
use twill_backends::plan::Plan;
use twill_backends::probe::{Course, Finding, LineId, Verdict};
use twill_backends::state::{Datapath, LinkName, PeerState};
use twill_backends::vxlan;

use super::status::{ProbeStatus, WayStatus};
use super::{Agent, World};
use crate::probe::{News, Order, Peer, Probes};

/// How many complaints of one kind are made one by one.
const TOLD: usize = 5;

/// The largest packet to each peer, in bytes, where it is less than what the devices take.
pub(super) type Limits = BTreeMap<LineId, u32>;

/// Has the peers probed.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// Where this host answers; `None` if peers are not to be probed.
    listener: Option<Listener>,
    probes: Option<Probes>,
    limits: Limits,
    trouble: Option<String>,
    /// How packets to each peer go.
    paths: BTreeMap<LineId, &'static str>,
    /// What was written up last.
    shown: Arc<BTreeMap<LineId, Finding>>,
}

impl Probing {
    /// Peers are to be probed, and answered at `listener`.
    pub(super) fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// What peers are told.
    pub(super) fn listener(&self) -> Option<Listener> {
        self.listener.clone()
    }

    /// What an earlier process measured, which holds until it is found to be otherwise.
    pub(super) fn recall(&mut self, limits: Limits) {
        if self.listener.is_some() && self.probes.is_none() {
            self.limits = limits;
        }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is known of peers, for a plan.
    pub(super) fn facts(&self) -> BTreeMap<LeaseKey, PerFamily<Fact>> {
        let mut facts: BTreeMap<LeaseKey, PerFamily<Fact>> = BTreeMap::new();
        for ((lease, family), mtu) in &self.limits {
            let fact = Fact { mtu: Some(*mtu), direct: None };
            facts.entry(lease.clone()).or_default().set(*family, Some(fact));
        }
        facts
    }

    /// These peers are planned.
    pub(super) fn want(&mut self, plan: &Plan, leases: &Leases, node: &str) {
        let Some(listener) = &self.listener else { return };
        let (peers, paths) = peers(plan, leases, &self.limits);
        self.paths = paths;
        let host = plan.host();
        let links = plan.backend().links();
        let tunnel = |family| links.get(family).and(plan.own().subnets.get(family)).map(|net| net.network());
        let order = Order {
            node: node.to_owned(),
            secret: listener.secret.clone(),
            port: listener.port,
            overlay: PerFamily { v4: tunnel(Family::V4), v6: tunnel(Family::V6) },
            underlay: host.addrs.map(|_, addr| addr.local),
            peers: Arc::new(peers),
            settled: false,
        };
        match &self.probes {
            Some(probes) => probes.order(|have| {
                let peers = if *have.peers == *order.peers { Arc::clone(&have.peers) } else { order.peers };
                *have = Order { peers, settled: have.settled, ..order };
                true
            }),
            None => match Probes::start(order) {
                Ok(probes) => self.probes = Some(probes),
                Err(error) => self.trouble = Some(format!("no thread for probes: {error}")),
            },
        }
    }

    /// Whether this host's kernel is as it should be.
    pub(super) fn settled(&self, settled: bool) {
        let change = |order: &mut Order| std::mem::replace(&mut order.settled, settled) != settled;
        self.probes.iter().for_each(|probes| probes.order(change));
    }

    /// Waits until there is something to hear.
    pub(super) async fn changed(&self) {
        match &self.probes {
            Some(probes) => probes.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what was found out.
    pub(super) fn hear(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        let News { limits, trouble } = probes.news();
        self.trouble = trouble;
        let Some(limits) = limits else { return };
        for ((lease, family), mtu) in limits.iter().filter(|(line, mtu)| self.limits.get(*line) != Some(*mtu))
        {
            tracing::info!(%lease, %family, mtu, "the path to a peer is narrower than its devices");
        }
        for (lease, family) in self.limits.keys().filter(|line| !limits.contains_key(*line)) {
            tracing::info!(%lease, %family, "the path to a peer carries what its devices do");
        }
        self.limits = limits;
    }

    fn findings(&self) -> Arc<BTreeMap<LineId, Finding>> {
        self.probes.as_ref().map_or_else(|| Arc::clone(&self.shown), Probes::findings)
    }

    /// Whether more was found out since this was last asked.
    pub(super) fn found_more(&mut self) -> bool {
        let findings = self.findings();
        !Arc::ptr_eq(&std::mem::replace(&mut self.shown, Arc::clone(&findings)), &findings)
    }

    /// What is wrong.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut found: BTreeMap<Code, Vec<(&LeaseKey, String)>> = BTreeMap::new();
        let findings = self.findings();
        for ((lease, family), finding) in findings.iter() {
            if let Some(code) = code(finding.verdict) {
                found.entry(code).or_default().push((lease, format!("over {family}, {}", finding.cause)));
            }
            if let Some(mtu) = finding.limit {
                let cause = format!(
                    "over {family}, packets of at most {mtu} bytes arrive, where its devices take {}; routes say so to those \
                     who send",
                    finding.mtu
                );
                found.entry(Code::PathMtu).or_default().push((lease, cause));
            }
        }
        let trouble = self.trouble.iter().map(|cause| Fault::new(Code::ProbeFailed, "probes", cause));
        trouble.chain(found.into_iter().flat_map(|(code, causes)| summary(code, &causes))).collect()
    }

    /// For `status`.
    pub(super) fn status(&self, lease: &LeaseKey, answers: bool) -> Option<ProbeStatus> {
        self.probes.as_ref()?;
        if !answers {
            return Some(silent());
        }
        let findings = self.findings();
        let lines: Vec<(Family, &Finding)> = Family::ALL
            .into_iter()
            .filter_map(|family| Some((family, findings.get(&(lease.clone(), family))?)))
            .collect();
        let (_, worst) = lines.iter().max_by_key(|(_, finding)| finding.verdict)?;
        let path = Family::ALL.into_iter().find_map(|family| self.paths.get(&(lease.clone(), family)));
        Some(ProbeStatus {
            verdict: worst.verdict,
            cause: worst.cause.to_owned(),
            path: path.copied().unwrap_or_default().to_owned(),
            mtu: lines.iter().map(|(_, finding)| finding.limit.unwrap_or(finding.mtu)).min()?,
            mtu_wanted: lines.iter().map(|(_, finding)| finding.mtu).min()?,
            ways: lines
                .iter()
                .flat_map(|(family, finding)| finding.ways.iter().map(|way| WayStatus::of(*family, way)))
                .collect(),
        })
    }
}

impl<W: World> Agent<W> {
    /// Has the other hosts probed, and answers them at `listener`.
    pub fn probe(&mut self, listener: Listener) {
        self.probing.listen(listener);
        self.probing.recall(self.memory.iter().flat_map(|memory| memory.limits.clone()).collect());
    }
}

/// A peer that answers no probes.
fn silent() -> ProbeStatus {
    ProbeStatus {
        verdict: Verdict::Unknown,
        cause: "its agent answers no probes: it is flanneld, an older twill, or was told not to".to_owned(),
        path: String::new(),
        mtu: 0,
        mtu_wanted: 0,
        ways: Vec::new(),
    }
}

/// The peers that answer probes, and how packets to their pods go.
fn peers(
    plan: &Plan,
    leases: &Leases,
    limits: &Limits,
) -> (BTreeMap<LeaseKey, Peer>, BTreeMap<LineId, &'static str>) {
    let (mut peers, mut paths): (BTreeMap<LeaseKey, Peer>, _) = (BTreeMap::new(), BTreeMap::new());
    for (key, family, state) in plan.ways() {
        let Some(attrs) = leases.get(key).map(|lease| &lease.attrs) else { continue };
        let (Some(probe), Some(node)) = (&attrs.probe, &attrs.node_id) else { continue };
        let Some(public) = attrs.public(family) else { continue };
        let line = (key.clone(), family);
        let known = limits.get(&line).copied();
        let course = course(plan, family, state, public);
        let peer = peers.entry(key.clone()).or_insert_with(|| Peer {
            node: node.clone(),
            secret: probe.secret.clone(),
            courses: PerFamily::NONE,
        });
        peer.courses.set(family, Some(Course { port: probe.port, known, ..course }));
        let path = match (state.fdb, plan.host().datapath) {
            (None, _) => "direct",
            (Some(_), Datapath::Kernel) => "kernel",
            (Some(_), Datapath::Userspace) => "userspace",
        };
        paths.insert(line, path);
    }
    (peers, paths)
}

fn course(plan: &Plan, family: Family, state: &PeerState, public: IpAddr) -> Course {
    let mtu_of = |dev: &LinkName| plan.want().links.get(dev).map(|link| link.mtu);
    let tunnel = state.fdb.map(|fdb| fdb.dev);
    Course {
        // The tunnel device, and its address with it, is there even where packets need no tunnel.
        overlay: plan.backend().links().get(family).map(|_| state.route.0.dst.network()),
        underlay: public,
        port: 0,
        mtu: tunnel.as_ref().and_then(mtu_of).unwrap_or(plan.host().mtu),
        overhead: if tunnel.is_some() { vxlan::overhead(family) } else { 0 },
        known: None,
    }
}

const fn code(verdict: Verdict) -> Option<Code> {
    match verdict {
        Verdict::Ok | Verdict::Unknown => None,
        Verdict::UnderlayDown => Some(Code::UnderlayDown),
        Verdict::AgentDown => Some(Code::AgentDown),
        Verdict::OverlayDown => Some(Code::OverlayDown),
        Verdict::PortEaten => Some(Code::PortEaten),
        Verdict::OneWay => Some(Code::OneWay),
        Verdict::PeerDown => Some(Code::PeerUnreachable),
    }
}

/// A complaint for each peer, or one about all of them where they are many.
fn summary(code: Code, causes: &[(&LeaseKey, String)]) -> Vec<Fault> {
    if causes.len() <= TOLD {
        return causes.iter().map(|(lease, cause)| Fault::new(code, lease.as_str(), cause)).collect();
    }
    let some: Vec<&str> = causes.iter().take(TOLD).map(|(lease, _)| lease.as_str()).collect();
    let cause = format!("{}, …: {}", some.join(", "), causes[0].1);
    vec![Fault::new(code, format!("{} peers", causes.len()), cause)]
}
