//! From all leases to the state this host must be in, one lease at a time.
//!
//! The law: any history of updates gives the state and the faults that [`Plan::reset`] on the final leases gives.
//!
//! # Leases that contradict each other
//!
//! Two peers cannot have overlapping subnets, nor one tunnel address. The lower key wins, so that all hosts decide
//! alike, and the other lease is left out with a fault, in the families concerned. A lease that lost comes back as
//! soon as the winner goes. So each change is followed to the leases that share a claim with the one changed, to those
//! that share one with these, and so on; the leases found are decided again in the order of their keys. Hardly ever is
//! there more than one.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::Backend;
use crate::diff::Key;
use crate::family::{Family, PerFamily};
use crate::fault::Fault;
use crate::filter::Filter;
use crate::guard::Guard;
use crate::host::{Fact, Host, Own};
use crate::index::{Index, Mark};
use crate::lease::{Lease, LeaseKey};
use crate::leases::Leases;
use crate::state::{Desired, NetState, PeerState};

mod claim;
mod peers;

use claim::{Claim, conflict, keys};
pub use peers::Replanned;

/// What this host must be, kept up to date lease by lease.
#[derive(Debug)]
pub struct Plan {
    backend: Box<dyn Backend>,
    host: Host,
    own: Own,
    /// What is needed whoever else exists. Its filter is the wanted one.
    base: Desired,
    /// `base` and all peers.
    want: NetState,
    /// Who may send: all peers, with or without a tunnel.
    guard: Option<Guard>,
    /// See [`Plan::replanned`].
    replanned: Replanned,
    peers: BTreeMap<LeaseKey, Peer>,
    /// How many of them are in `want`.
    wanted: usize,
    /// What the peers claim.
    index: Index,
    faults: BTreeMap<LeaseKey, Vec<Fault>>,
    /// What was measured of peers. Of others nothing is known.
    facts: BTreeMap<LeaseKey, PerFamily<Fact>>,
    /// The node id in our own lease: other leases that carry it are ours too.
    node: Option<String>,
}

#[derive(Debug)]
struct Peer {
    claim: Claim,
    /// What of the claim is in `want`.
    programmed: PerFamily<PeerState>,
}

impl Plan {
    /// The plan of a host that has no peers.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, host: Host, own: Own) -> Self {
        let base = backend.base(&host, &own);
        let want = base.net.clone();
        let guard = base.guard.clone().map(|rules| Guard { rules, senders: BTreeSet::new() });
        Self {
            backend,
            host,
            own,
            base,
            want,
            guard,
            replanned: Replanned::default(),
            peers: BTreeMap::new(),
            wanted: 0,
            index: Index::new(),
            faults: BTreeMap::new(),
            facts: BTreeMap::new(),
            node: None,
        }
    }

    /// Plans everything again, from these leases. Nobody is asked then what changed.
    pub fn reset(&mut self, leases: &Leases) {
        self.plan_all(leases);
        self.replanned = Replanned::default();
    }

    fn plan_all(&mut self, leases: &Leases) {
        self.want.clone_from(&self.base.net);
        if let Some(guard) = &mut self.guard {
            self.replanned.senders.extend(guard.senders.iter().map(|sender| sender.addr));
            guard.senders.clear();
        }
        self.replanned.peers.extend(std::mem::take(&mut self.peers).into_keys());
        self.faults.clear();
        self.wanted = 0;
        self.index = Index::new();
        self.node = self.node_of(leases);
        for lease in leases.iter() {
            self.learn(&lease.key, leases);
        }
        self.settle(self.peers.keys().cloned().collect());
    }

    /// Plans the leases `changed` again, which may be there or gone. Returns the objects whose wanted state may have
    /// changed.
    pub fn update(&mut self, leases: &Leases, changed: &BTreeSet<LeaseKey>) -> Vec<Key> {
        if changed.contains(&self.own.key) && self.node_of(leases) != self.node {
            let before: Vec<PeerState> = self.programmed().copied().collect();
            self.plan_all(leases);
            let touched: BTreeSet<Key> = before.iter().chain(self.programmed()).flat_map(keys).collect();
            return touched.into_iter().collect();
        }
        let mut given_up = BTreeSet::new();
        for key in changed {
            self.forget(key, &mut given_up);
            self.learn(key, leases);
        }
        let mut affected = changed.clone();
        affected.extend(given_up.iter().flat_map(|mark| self.index.sharing(mark)).cloned());
        let touched: BTreeSet<Key> = self.settle(affected).iter().flat_map(keys).collect();
        touched.into_iter().collect()
    }

    /// The network stack wanted.
    #[must_use]
    pub const fn want(&self) -> &NetState {
        &self.want
    }

    /// The firewall wanted.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.base.filter
    }

    /// Who may send to the tunnel's port; `None` if everybody may.
    #[must_use]
    pub const fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The host planned for.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// What belongs to it.
    #[must_use]
    pub const fn own(&self) -> &Own {
        &self.own
    }

    fn node_of(&self, leases: &Leases) -> Option<String> {
        leases.get(&self.own.key).and_then(|lease| lease.attrs.node_id.clone())
    }

    fn is_own(&self, lease: &Lease) -> bool {
        lease.key == self.own.key || (self.node.is_some() && lease.attrs.node_id == self.node)
    }

    /// Drops what a lease claims. What it programmed stays in `want` until [`Plan::settle`].
    fn forget(&mut self, key: &LeaseKey, given_up: &mut BTreeSet<Mark>) {
        self.faults.remove(key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        for mark in std::mem::take(&mut peer.claim).marks() {
            self.index.remove(mark.clone(), key.clone());
            given_up.insert(mark.clone());
        }
    }

    fn learn(&mut self, key: &LeaseKey, leases: &Leases) {
        let Some(lease) = leases.get(key).filter(|lease| !self.is_own(lease)) else { return };
        let facts = self.facts.get(key).copied().unwrap_or_default();
        let claim = Claim::of(lease, facts, &*self.backend, &self.host, &self.own);
        for mark in claim.marks() {
            self.index.insert(mark.clone(), key.clone());
        }
        let peer = self.peers.entry(key.clone());
        peer.or_insert_with(|| Peer { claim: Claim::default(), programmed: PerFamily::NONE }).claim = claim;
    }

    /// Decides again which of the leases `affected`, and of those they compete with, are programmed. Returns what was
    /// or is in `want` and does not stay as it was.
    fn settle(&mut self, mut affected: BTreeSet<LeaseKey>) -> Vec<PeerState> {
        let contested = self.compete(&mut affected);
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let mut winners = Index::new();
        for key in &affected {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            let mut faults = peer.claim.faults.clone();
            let winners = contested.contains(key).then_some(&mut winners);
            let programmed = decide(key, &peer.claim, winners, &mut faults);
            for family in Family::ALL {
                let (before, after) = (peer.programmed.get(family), programmed.get(family));
                if before != after {
                    old.extend(before);
                    new.extend(after);
                }
            }
            self.wanted += usize::from(!programmed.is_empty());
            self.wanted -= usize::from(!peer.programmed.is_empty());
            peer.programmed = programmed;
            if peer.claim.ends.is_empty() {
                self.peers.remove(key);
            }
            if faults.is_empty() {
                self.faults.remove(key);
            } else {
                self.faults.insert(key.clone(), faults);
            }
        }
        // All of the old goes before any of the new comes: a key may pass from one peer to another.
        old.iter().for_each(|state| self.want.remove_peer(state));
        new.iter().for_each(|state| self.want.add_peer(state));
        if let Some(guard) = &mut self.guard {
            self.replanned.senders.extend(guard.exchange(&old, &new));
        }
        self.replanned.peers.append(&mut affected);
        old.append(&mut new);
        old
    }

    /// Adds to `affected` all leases that compete with one of them, directly or through others. Returns those that do
    /// compete.
    fn compete(&self, affected: &mut BTreeSet<LeaseKey>) -> BTreeSet<LeaseKey> {
        let mut contested = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = affected.iter().filter_map(|key| self.peers.get_key_value(key)).collect();
        while let Some((key, peer)) = open.pop() {
            for mark in peer.claim.marks() {
                let mut rivals = self.index.sharing(mark).filter(|rival| *rival != key).peekable();
                // What shares a claim that was seen is known already.
                if rivals.peek().is_none() || !seen.insert(mark) {
                    continue;
                }
                contested.insert(key.clone());
                for rival in rivals {
                    contested.insert(rival.clone());
                    if affected.insert(rival.clone()) {
                        open.extend(self.peers.get_key_value(rival));
                    }
                }
            }
        }
        contested
    }
}

/// What of a claim is programmed, given the claims of lower keys that are.
fn decide(
    key: &LeaseKey,
    claim: &Claim,
    winners: Option<&mut Index>,
    faults: &mut Vec<Fault>,
) -> PerFamily<PeerState> {
    let mut programmed = PerFamily::NONE;
    let Some(winners) = winners else {
        claim.ends.iter().for_each(|(family, end)| programmed.set(family, Some(end.state)));
        return programmed;
    };
    for (family, end) in claim.ends.iter() {
        let rival = end.exclusive.iter().find_map(|mark| Some((mark, winners.sharing(mark).min()?)));
        if let Some((mark, winner)) = rival {
            faults.push(conflict(key, winner, mark, family));
            continue;
        }
        if let Some(other) = winners.sharing(&end.address).min() {
            faults.push(conflict(key, other, &end.address, family));
        }
        for mark in end.exclusive.iter().chain([&end.address]) {
            winners.insert(mark.clone(), key.clone());
        }
        programmed.set(family, Some(end.state));
    }
    programmed
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ipnet::IpNet;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::backend::from_config;
    use crate::diff::{diff, diff_keys};
    use crate::fault::Code;
    use crate::leases::LeaseEvent;
    use crate::mac::Mac;
    use crate::samples;

    fn plan(families: samples::Families) -> Plan {
        let config = samples::config(families, json!({"Type": "vxlan"}));
        let mut own = samples::own(config.clone());
        own.former = vec![samples::net("10.9.0.0/16")];
        own.policy.outer_check = true;
        Plan::new(from_config(&config).unwrap(), samples::host(), own)
    }

    fn leases(all: &[Lease]) -> Leases {
        let mut leases = Leases::new(Duration::ZERO);
        leases.apply(LeaseEvent::Snapshot { leases: all.to_vec(), faults: Vec::new() }, Instant::now());
        leases
    }

    fn planned(families: samples::Families, all: &[Lease]) -> Plan {
        let mut plan = plan(families);
        plan.reset(&leases(all));
        plan
    }

    fn codes(plan: &Plan) -> Vec<(String, Code)> {
        plan.faults().map(|fault| (fault.subject.clone(), fault.code)).collect()
    }

    fn dsts(plan: &Plan) -> Vec<String> {
        plan.want().routes.keys().map(|key| key.dst.to_string()).collect()
    }

    fn v4(n: u8) -> Lease {
        samples::lease(samples::V4, n)
    }

    fn v4_net(text: &str, n: u8) -> Lease {
        let subnets = PerFamily { v4: Some(samples::net(text)), v6: None };
        Lease { key: LeaseKey::of(&subnets), subnets, ..v4(n) }
    }

    #[test]
    fn our_own_lease_is_no_peer_nor_is_another_of_our_node() {
        let mut own = v4(1);
        let mut old = v4(7);
        assert_eq!(planned(samples::V4, &[own.clone(), old.clone()]).peers(), 1);
        own.attrs.node_id = Some("n1".to_owned());
        old.attrs.node_id = Some("n1".to_owned());
        let mut plan = planned(samples::V4, &[own.clone(), old.clone()]);
        assert_eq!((plan.peers(), codes(&plan)), (0, vec![]));
        own.attrs.node_id = Some("n2".to_owned());
        let touched = plan.update(&leases(&[own.clone(), old]), &BTreeSet::from([own.key]));
        assert_eq!((plan.peers(), touched.len()), (1, 3));
    }

    #[test]
    fn a_lease_that_cannot_be_a_peer_is_left_out_with_a_fault() {
        let changed = |change: fn(&mut Lease)| {
            let mut lease = v4(7);
            change(&mut lease);
            lease
        };
        let cases = [
            (changed(|l| l.attrs.backend_type = None), Code::OtherBackend),
            (changed(|l| l.attrs.backend_type = Some("host-gw".into())), Code::OtherBackend),
            (changed(|l| l.attrs.public_ip = None), Code::IncompleteLease),
            (changed(|l| l.attrs.backend_data = None), Code::IncompleteLease),
            (changed(|l| l.attrs.public_ip = Some([192, 0, 2, 1].into())), Code::DuplicateAddress),
            (changed(|l| l.attrs.public_ip = Some([224, 0, 0, 1].into())), Code::IncompleteLease),
            (changed(|l| l.attrs.public_ip = Some([255; 4].into())), Code::IncompleteLease),
            (changed(|l| l.attrs.public_ip = Some([10, 5, 7, 1].into())), Code::IncompleteLease),
            (v4_net("10.6.7.0/24", 7), Code::OutsideNetwork),
            (v4_net("10.0.0.0/8", 7), Code::OverlapsOwnSubnet),
            (v4_net("10.5.1.128/25", 7), Code::OverlapsOwnSubnet),
        ];
        for (bad, code) in cases {
            let plan = planned(samples::V4, &[v4(1), bad.clone(), v4(8)]);
            assert_eq!(codes(&plan), [(bad.key.as_str().to_owned(), code)], "{bad:?}");
            assert_eq!(dsts(&plan), ["10.5.8.0/24"]);
        }
    }

    #[test]
    fn a_lease_of_the_former_network_is_still_a_peer() {
        assert_eq!(dsts(&planned(samples::V4, &[v4_net("10.9.7.0/24", 7)])), ["10.9.7.0/24"]);
    }

    #[test]
    fn a_fault_in_one_family_leaves_the_other() {
        let mut lease = samples::lease(samples::DUAL, 7);
        lease.attrs.backend_data = None;
        let plan = planned(samples::DUAL, &[lease.clone()]);
        assert_eq!(dsts(&plan), ["fd00:5:0:7::/64"]);
        assert_eq!(codes(&plan), [(lease.key.as_str().to_owned(), Code::IncompleteLease)]);
    }

    #[test]
    fn a_family_that_this_host_does_not_use_is_no_fault() {
        let plan = planned(samples::V4, &[samples::lease(samples::DUAL, 7), samples::lease(samples::V6, 8)]);
        assert_eq!((dsts(&plan), codes(&plan)), (vec!["10.5.7.0/24".to_owned()], vec![]));
    }

    #[test]
    fn the_loser_of_an_overlap_comes_back_when_the_winner_goes() {
        // The middle one overlaps both others, which do not overlap each other.
        let (first, middle, last) =
            (v4_net("10.5.10.0/24", 7), v4_net("10.5.8.0/21", 8), v4_net("10.5.9.0/24", 9));
        assert!(first.key < middle.key && middle.key < last.key);
        let all = [first.clone(), middle.clone(), last.clone()];
        let mut plan = planned(samples::V4, &all);
        assert_eq!(dsts(&plan), ["10.5.9.0/24", "10.5.10.0/24"]);
        assert_eq!(codes(&plan), [(middle.key.as_str().to_owned(), Code::OverlappingLease)]);
        plan.update(&leases(&all[1..]), &BTreeSet::from([first.key.clone()]));
        assert_eq!(dsts(&plan), ["10.5.8.0/21"]);
        assert_eq!(codes(&plan), [(last.key.as_str().to_owned(), Code::OverlappingLease)]);
    }

    #[test]
    fn one_tunnel_address_belongs_to_one_peer() {
        let mut twin = v4(8);
        twin.attrs.backend_data = v4(7).attrs.backend_data;
        let plan = planned(samples::V4, &[v4(7), twin]);
        assert_eq!(codes(&plan), [("10.5.8.0-24".to_owned(), Code::DuplicateVtep)]);
        assert_eq!(plan.want().fdb.len(), 1);
    }

    #[test]
    fn one_public_address_may_carry_two_peers_but_is_reported() {
        let mut twin = v4(8);
        twin.attrs.public_ip = v4(7).attrs.public_ip;
        let plan = planned(samples::V4, &[v4(7), twin]);
        assert_eq!(codes(&plan), [("10.5.8.0-24".to_owned(), Code::DuplicateAddress)]);
        assert_eq!(plan.peers(), 2);
    }

    #[test]
    fn all_peers_and_nobody_else_may_send() {
        let mut plan = planned(samples::DUAL, &[samples::lease(samples::DUAL, 7), v4(1), v4(8)]);
        let senders = |plan: &Plan| {
            let senders = plan.guard().unwrap().senders.iter();
            senders.map(|sender| format!("{} {}", sender.addr, sender.subnet)).collect::<Vec<_>>()
        };
        let both = ["192.0.2.7 10.5.7.0/24", "192.0.2.8 10.5.8.0/24", "2001:db8:1::7 fd00:5:0:7::/64"];
        assert_eq!(senders(&plan), both);
        plan.update(&leases(&[samples::lease(samples::DUAL, 7)]), &BTreeSet::from([v4(8).key]));
        assert_eq!(senders(&plan), [both[0], both[2]]);
        plan.reset(&leases(&[v4(8)]));
        assert_eq!(senders(&plan), [both[1]]);
    }

    #[test]
    fn a_peer_that_needs_no_tunnel_may_use_one() {
        let config = samples::config(samples::V4, json!({"Type": "vxlan", "DirectRouting": true}));
        let mut own = samples::own(config.clone());
        own.policy.inner_check = true;
        let mut plan = Plan::new(from_config(&config).unwrap(), samples::host(), own);
        plan.reset(&leases(&[v4(7)]));
        assert!(plan.want().fdb.is_empty());
        let guard = plan.guard().unwrap();
        assert_eq!(guard.senders.len(), 1);
        assert!(guard.rules.inner && !guard.rules.outer);

        let userspace = Host { datapath: crate::state::Datapath::Userspace, ..samples::host() };
        let mut plan = Plan::new(from_config(&config).unwrap(), userspace, samples::own(config));
        plan.reset(&leases(&[v4(7)]));
        let served: Vec<_> = plan.tunnels().flat_map(|(_, table)| table.peers().to_vec()).collect();
        assert_eq!(served.len(), 1);
        assert_eq!((served[0].mac, served[0].addr), (None, std::net::IpAddr::from([192, 0, 2, 7])));
    }

    #[test]
    fn a_host_whose_datapath_looks_into_frames_has_the_firewall_check_addresses_only() {
        let config = samples::config(samples::V4, json!({"Type": "vxlan"}));
        let rules = |kind: &str, datapath, outer_check| {
            let config = samples::config(samples::V4, json!({"Type": kind}));
            let mut own = samples::own(config.clone());
            own.policy = crate::host::Policy { outer_check, inner_check: true, ..own.policy };
            let host = Host { datapath, ..samples::host() };
            Plan::new(from_config(&config).unwrap(), host, own).guard().map(|guard| guard.rules.clone())
        };
        let kernel = rules("vxlan", crate::state::Datapath::Kernel, true).unwrap();
        assert_eq!((kernel.port, kernel.vni, kernel.outer, kernel.inner), (8472, 1, true, true));
        let userspace = rules("udp", crate::state::Datapath::Userspace, true).unwrap();
        assert_eq!((userspace.port, userspace.outer, userspace.inner), (8285, true, false));
        assert_eq!(rules("udp", crate::state::Datapath::Userspace, false), None);
        assert_eq!(rules("host-gw", crate::state::Datapath::Kernel, true), None);
        assert_eq!(kernel.networks, [config.pools.v4.as_ref().unwrap().into()]);
    }

    #[test]
    fn an_update_names_what_it_touched_and_nothing_else() {
        let mut plan = planned(samples::V4, &[v4(7), v4(8)]);
        let mut moved = v4(8);
        moved.attrs.backend_data = Some(json!({"VNI": 1, "VtepMAC": "02:00:00:00:00:99"}));
        let before = plan.want().clone();
        let touched = plan.update(&leases(&[v4(7), moved.clone()]), &BTreeSet::from([moved.key.clone()]));
        let ops: Vec<_> = diff_keys(plan.want(), &before, &touched).iter().map(ToString::to_string).collect();
        assert_eq!(
            ops,
            [
                "ip neigh replace 10.5.8.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
                "bridge fdb replace 02:00:00:00:00:99 dev flannel.1 dst 192.0.2.8 self permanent",
                "bridge fdb del 02:00:00:00:00:08 dev flannel.1 dst 192.0.2.8 self",
            ]
        );
        assert!(plan.update(&leases(&[v4(7), moved.clone()]), &BTreeSet::from([moved.key])).is_empty());
    }

    prop_compose! {
        /// Leases that get in each other's way: few subnets, tunnel addresses, public addresses and nodes.
        fn rival()(slot in 0_u8..12, len in 22_u8..=24, v6 in any::<bool>(), mac in 0_u8..8, mac6 in 0_u8..8,
                   public in 0_u8..9, kind in 0_u8..10, node in 0_u8..6) -> Lease {
            let families = if v6 { samples::DUAL } else { samples::V4 };
            let mut lease = samples::lease(families, slot + 1);
            let net = IpNet::new(format!("10.5.{slot}.0").parse().unwrap(), len).unwrap().trunc();
            lease.subnets.v4 = Some(net);
            lease.key = LeaseKey::of(&lease.subnets);
            lease.attrs.public_ip = Some([192, 0, 2, public + 1].into());
            lease.attrs.backend_data = Some(json!({"VNI": 1, "VtepMAC": Mac([2, 0, 0, 0, 0, mac + 1])}));
            lease.attrs.backend_v6_data = Some(json!({"VNI": 1, "VtepMAC": Mac([2, 0, 0, 0, 6, mac6 + 1])}));
            if kind == 0 { lease.attrs.backend_type = None }
            lease.attrs.node_id = Some(format!("n{node}"));
            lease
        }
    }

    /// The rules again, in the plainest way: by key, each against all accepted before it.
    fn accepted(plan: &Plan, leases: &Leases) -> BTreeSet<PeerState> {
        let mut states: Vec<PeerState> = Vec::new();
        for lease in leases.iter().filter(|lease| !plan.is_own(lease)) {
            let facts = plan.facts.get(&lease.key).copied().unwrap_or_default();
            let claim = Claim::of(lease, facts, plan.backend(), plan.host(), plan.own());
            for (_, end) in claim.ends.iter() {
                let clashes = |other: &PeerState| {
                    let (a, b) = (other.route.0.dst, end.state.route.0.dst);
                    a.contains(&b)
                        || b.contains(&a)
                        || other.fdb.map(|f| (f.dev, f.mac)) == end.state.fdb.map(|f| (f.dev, f.mac))
                };
                if !states.iter().any(clashes) {
                    states.push(end.state);
                }
            }
        }
        states.into_iter().collect()
    }

    proptest! {
        #[test]
        fn any_history_gives_what_the_final_leases_give(
            history in proptest::collection::vec((rival(), any::<bool>()), 1..60),
            mtus in proptest::collection::vec((0_u8..12, prop::option::of(1_280_u32..1_500)), 0..20),
        ) {
            let now = Instant::now();
            let mut leases = Leases::new(Duration::ZERO);
            let mut plan = plan(samples::DUAL);
            let mut facts = BTreeMap::new();
            for (step, (lease, put)) in history.into_iter().enumerate() {
                let event = if put { LeaseEvent::Put(lease) } else { LeaseEvent::Delete(lease.key) };
                let mut changed = leases.apply(event, now);
                if let Some((slot, mtu)) = mtus.get(step) {
                    let key = LeaseKey::new(format!("10.5.{slot}.0-24"));
                    facts.insert(key, PerFamily { v4: Some(Fact { mtu: *mtu, direct: None }), v6: None });
                    changed.extend(plan.measured(facts.clone()));
                }
                let mut have = plan.want().clone();
                let touched = plan.update(&leases, &changed);
                for op in diff_keys(plan.want(), &have.clone(), &touched) {
                    have.apply(&op);
                }
                prop_assert_eq!(&have, plan.want());
            }
            let mut fresh = self::plan(samples::DUAL);
            fresh.measured(facts);
            fresh.reset(&leases);
            prop_assert_eq!(diff(plan.want(), fresh.want()), vec![]);
            prop_assert_eq!(plan.want(), fresh.want());
            prop_assert_eq!(plan.guard(), fresh.guard());
            prop_assert!(plan.faults().eq(fresh.faults()));
            prop_assert_eq!(plan.peers(), fresh.peers());
            let reached = |plan: &Plan| plan.keys().filter(|key| plan.ways_to(key).next().is_some()).count();
            prop_assert_eq!(plan.peers(), reached(&plan));
            let mut expected = fresh.base.net.clone();
            accepted(&fresh, &leases).iter().for_each(|state| expected.add_peer(state));
            prop_assert_eq!(fresh.want(), &expected);
        }

        #[test]
        fn many_changes_at_once_are_one_after_the_other(
            history in proptest::collection::vec((rival(), any::<bool>()), 1..40), cut in 0..40_usize,
        ) {
            let now = Instant::now();
            let mut leases = Leases::new(Duration::ZERO);
            let mut plan = plan(samples::DUAL);
            let mut changed = BTreeSet::new();
            for (step, (lease, put)) in history.into_iter().enumerate() {
                let event = if put { LeaseEvent::Put(lease) } else { LeaseEvent::Delete(lease.key) };
                changed.extend(leases.apply(event, now));
                if step == cut {
                    plan.update(&leases, &std::mem::take(&mut changed));
                }
            }
            plan.update(&leases, &changed);
            let mut fresh = self::plan(samples::DUAL);
            fresh.reset(&leases);
            prop_assert_eq!(plan.want(), fresh.want());
            prop_assert_eq!(plan.guard(), fresh.guard());
            prop_assert!(plan.faults().eq(fresh.faults()));
        }
    }
}
