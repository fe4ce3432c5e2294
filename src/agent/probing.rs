//! Has the peers probed, and takes what that shows: facts for the plan, complaints, and what `status` tells of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::{Code, Fault};
use twill_backends::host::Fact;
use twill_backends::lease::{Lease, LeaseKey, Listener};
use twill_backends::leases::Leases;
use twill_backends::plan::Plan;
use twill_backends::probe::{ALIKE, Course, Finding, LineId, Verdict};
use twill_backends::state::{Datapath, LinkName, PeerState};
use twill_backends::vxlan;

use super::{Agent, World};
use crate::probe::secret::Party;
use crate::probe::{Findings, News, Order, Outlook, Peer, Peers, Probes};

/// How many complaints of one kind are made one by one.
const TOLD: usize = 5;

/// What is wrong with each peer, over each family.
type Causes<'l> = BTreeMap<&'l LeaseKey, Vec<String>>;

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
    /// How many of the peers packets reach, of how many that is known, and by which findings.
    reach: (usize, usize),
    lost: BTreeSet<LeaseKey>,
    counted: Findings,
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

    /// Everything is planned anew.
    pub(super) fn want(&mut self, plan: &Plan, leases: &Leases, node: &str) {
        let Some(listener) = &self.listener else { return };
        let (party, port) = (Party { node: node.to_owned(), secret: listener.secret.clone() }, listener.port);
        let host = plan.host();
        let links = plan.backend().links();
        let tunnel = |family| links.get(family).and(plan.own().subnets.get(family)).map(|net| net.network());
        let order = Order {
            port,
            overlay: PerFamily { v4: tunnel(Family::V4), v6: tunnel(Family::V6) },
            underlay: host.addrs.map(|_, addr| addr.local),
            settled: false,
        };
        if self.probes.is_none() {
            match Probes::start(party) {
                Ok(probes) => self.probes = Some(probes),
                Err(error) => self.trouble = Some(format!("no thread for probes: {error}")),
            }
        }
        let change = |have: &mut Order| {
            let wanted = Order { settled: have.settled, ..order };
            std::mem::replace(have, wanted) != *have
        };
        self.probes.iter().for_each(|probes| probes.order(change));
        let known: BTreeSet<LeaseKey> = self.paths.keys().map(|(lease, _)| lease.clone()).collect();
        self.follow(plan, leases, known.into_iter().chain(plan.keys().cloned()).collect());
    }

    /// Of these peers something else may be planned.
    pub(super) fn follow(&mut self, plan: &Plan, leases: &Leases, changed: BTreeSet<LeaseKey>) {
        let Some(probes) = &self.probes else { return };
        let mut peers = Peers::new();
        for lease in changed {
            for family in Family::ALL {
                self.paths.remove(&(lease.clone(), family));
            }
            let peer = leases.get(&lease).and_then(|lease| peer(plan, lease, &self.limits));
            for (family, state) in peer.iter().flat_map(|_| plan.ways_to(&lease)) {
                self.paths.insert((lease.clone(), family), path(state, plan.host().datapath));
            }
            peers.insert(lease, peer);
        }
        probes.meet(peers);
    }

    /// Whether this host's kernel is as it should be.
    pub(super) fn settled(&self, settled: bool) {
        let change = |order: &mut Order| std::mem::replace(&mut order.settled, settled) != settled;
        self.probes.iter().for_each(|probes| probes.order(change));
    }

    /// Frames were sent to these peers, as was found out at `looked`.
    pub(super) fn carried(&self, used: BTreeMap<LineId, Instant>, looked: Instant) {
        if let Some(probes) = &self.probes {
            probes.carried(used, looked);
        }
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

    /// What was found out of peers; nothing if nobody is probed.
    pub(super) fn findings(&self) -> Option<Findings> {
        self.probes.as_ref().map(Probes::findings)
    }

    /// Whether so many peers are probed that they have to take turns.
    pub(super) fn is_crowded(&self) -> bool {
        self.paths.len() > ALIKE
    }

    /// Where to look at what all hosts found out; `None` if nobody is probed.
    pub(super) fn outlook(&self) -> Option<Outlook> {
        self.probes.as_ref().map(Probes::outlook)
    }

    /// How packets to a peer's pods go; `None` if it answers no probes.
    pub(super) fn path(&self, lease: &LeaseKey) -> Option<&'static str> {
        Family::ALL.into_iter().find_map(|family| self.paths.get(&(lease.clone(), family))).copied()
    }

    /// How many of the peers packets reach, and of how many that is known. Asked in every turn.
    pub(super) fn reach(&mut self) -> (usize, usize) {
        let Some(findings) = self.findings() else { return (0, 0) };
        if !Arc::ptr_eq(&self.counted, &findings) {
            let mut worst: BTreeMap<&LeaseKey, Verdict> = BTreeMap::new();
            for ((lease, _), finding) in self.current(&findings) {
                let verdict = worst.entry(lease).or_insert(finding.verdict);
                *verdict = finding.verdict.max(*verdict);
            }
            let through = |verdict: &Verdict| !matches!(verdict, Verdict::OverlayDown | Verdict::PortEaten);
            let lost =
                worst.iter().filter(|(_, verdict)| !through(verdict)).map(|(lease, _)| (*lease).clone());
            self.lost = lost.collect();
            let known = worst.into_values().filter_map(Verdict::passes);
            self.reach =
                known.fold((0, 0), |(reached, known), passes| (reached + usize::from(passes), known + 1));
            self.counted = findings;
        }
        self.reach
    }

    /// The peers that packets reach beside the tunnel, and not through it, as of when [`Probing::reach`] was last asked.
    pub(super) const fn lost(&self) -> &BTreeSet<LeaseKey> {
        &self.lost
    }

    /// What was found out of those who are peers still.
    fn current<'f>(&self, findings: &'f Findings) -> impl Iterator<Item = (&'f LineId, &'f Finding)> {
        findings.iter().filter(|(line, _)| self.paths.contains_key(*line))
    }

    /// What is wrong.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut found: BTreeMap<Code, Causes<'_>> = BTreeMap::new();
        let mut note = |code, lease, cause| {
            found.entry(code).or_default().entry(lease).or_default().push(cause);
        };
        let findings = self.findings().unwrap_or_default();
        for ((lease, family), finding) in self.current(&findings) {
            if let Some(code) = finding.verdict.code() {
                note(code, lease, format!("over {family}, {}", finding.cause));
            }
            if let Some(mtu) = finding.limit {
                let cause = format!(
                    "over {family}, packets of at most {mtu} bytes arrive, where its devices take {}; routes say so to those \
                     who send",
                    finding.mtu
                );
                note(Code::PathMtu, lease, cause);
            }
        }
        let trouble = self.trouble.iter().map(|cause| Fault::new(Code::ProbeFailed, "probes", cause));
        trouble.chain(found.into_iter().flat_map(|(code, causes)| summary(code, &causes))).collect()
    }
}

impl<W: World> Agent<W> {
    /// Has the other hosts probed, and answers them at `listener`.
    pub fn probe(&mut self, listener: Listener) {
        self.probing.listen(listener);
        self.probing.recall(self.memory.iter().flat_map(|memory| memory.limits.clone()).collect());
    }
}

/// A peer that answers probes; `None` if it does not, or is not planned.
fn peer(plan: &Plan, lease: &Lease, limits: &Limits) -> Option<Peer> {
    let (probe, node) = (lease.attrs.probe.as_ref()?, lease.attrs.node_id.as_ref()?);
    let mut courses = PerFamily::NONE;
    for (family, state) in plan.ways_to(&lease.key) {
        let Some(public) = lease.attrs.public(family) else { continue };
        let known = limits.get(&(lease.key.clone(), family)).copied();
        let course = course(plan, family, state, public);
        courses.set(family, Some(Course { port: probe.port, known, ..course }));
    }
    let party = Party { node: node.clone(), secret: probe.secret.clone() };
    (!courses.is_empty()).then_some(Peer { party, courses })
}

/// How packets to a peer's pods go.
fn path(state: &PeerState, datapath: Datapath) -> &'static str {
    match (state.fdb, datapath) {
        (None, _) => "direct",
        (Some(_), Datapath::Kernel) => "kernel",
        (Some(_), Datapath::Userspace) => "userspace",
    }
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

/// A complaint for each peer, over whatever family; or one about all of them where they are many.
fn summary(code: Code, causes: &Causes<'_>) -> Vec<Fault> {
    let each = causes.iter().map(|(lease, causes)| (lease.as_str(), causes.join("; ")));
    if causes.len() <= TOLD {
        return each.map(|(lease, cause)| Fault::new(code, lease, cause)).collect();
    }
    let (some, first): (Vec<&str>, Vec<String>) = each.take(TOLD).unzip();
    let cause = format!("{} peers: {}, …: {}", causes.len(), some.join(", "), first[0]);
    vec![Fault::new(code, Fault::MANY_PEERS, cause)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_peers_are_one_complaint_and_two_families_of_one_are_one_too() {
        let keys: Vec<LeaseKey> = (1..=6).map(|n| LeaseKey::new(format!("10.5.{n}.0-24"))).collect();
        let causes = |peers: usize| -> Causes<'_> {
            keys.iter().take(peers).map(|key| (key, vec!["over IPv4".into(), "over IPv6".into()])).collect()
        };
        let told = |peers| summary(Code::PeerUnreachable, &causes(peers));
        let each = told(TOLD);
        assert_eq!(each.len(), TOLD);
        assert_eq!(
            (each[0].subject.as_str(), each[0].cause.as_str()),
            ("10.5.1.0-24", "over IPv4; over IPv6")
        );
        let all = told(TOLD + 1);
        assert_eq!((all.len(), all[0].subject.as_str()), (1, Fault::MANY_PEERS));
        assert!(all[0].cause.starts_with("6 peers: 10.5.1.0-24, "), "{}", all[0].cause);
    }
}
