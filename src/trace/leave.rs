//! From this host to a peer: the entries that a packet meets, in the order in which they decide.
//!
//! The device comes first, since all other entries go with it.

use twill_backends::diff::Op;
use twill_backends::family::Family;
use twill_backends::guard::Sender;
use twill_backends::host::Fact;
use twill_backends::lease::Lease;
use twill_backends::mac::Mac;
use twill_backends::state::{Fdb, Link, LinkKind, LinkName, NeighKey, PeerState, Route, RouteKey};
use twill_backends::vxlan;

use super::{Hop, Walk, Way};
use crate::verify::words;

/// What an agent that runs does about a difference, and where it says why it cannot.
const AGENT: &str = "or see why the agent does not (twill status)";

impl<'a> Walk<'a> {
    /// To a peer's pod.
    pub(super) fn reach_peer(&mut self, lease: &'a Lease) {
        let Some(state) = self.peer(lease) else { return };
        if let Some(fdb) = state.fdb {
            self.device(fdb.dev);
        }
        self.route(&state.route.0, &state.route.1);
        if let Some((key, mac)) = state.neigh {
            self.neighbour(key, mac);
        }
        let overhead = match state.fdb {
            Some(fdb) => {
                self.fdb(fdb);
                vxlan::overhead(Family::of(&fdb.dst))
            }
            None => 0,
        };
        let (Some(to), device) = (Sender::of(&state).map(|peer| peer.addr), state.fdb.map(|fdb| fdb.dev))
        else {
            return;
        };
        self.underlay(to, overhead, device);
        self.guard(&state);
        self.taken_by(lease, super::place::Side::Pod);
    }

    /// What the peer adds to this host; if nothing, why.
    pub(super) fn peer(&mut self, lease: &Lease) -> Option<PeerState> {
        let plan = self.scene.plan;
        let family = Family::of(&self.dst);
        let hop = Hop::here(format!("lease {}", lease.key));
        let Some(end) = lease.endpoints().find(|end| end.family == family) else {
            let cause = format!("it has no public {family} address, so that no host knows a way to it");
            self.hops.push(hop.stops(cause, "restart the agent of that host with an address of this family"));
            return None;
        };
        let state = match plan.backend().peer(plan.host(), plan.own(), end, &Fact::default()) {
            Ok(state) => state,
            Err(fault) => {
                let (cause, next) = fault.cause_and_next();
                self.hops.push(hop.stops(cause, next));
                return None;
            }
        };
        let Some(route) = plan.want().routes.get(&state.route.0) else {
            let fault = plan.faults().find(|fault| fault.subject == lease.key.as_str());
            let (cause, next) =
                fault.map_or(("it is left out", "see twill status"), |fault| fault.cause_and_next());
            self.hops.push(hop.stops(cause, next));
            return None;
        };
        Some(PeerState { route: (state.route.0, *route), ..state })
    }

    /// A tunnel device.
    pub(super) fn device(&mut self, name: LinkName) {
        let Some(want) = self.scene.plan.want().links.get(&name) else { return };
        let hop = Hop::here(format!("device {name}"));
        let fix = Op::SetLink(name, want.clone()).to_string();
        self.hops.push(match self.scene.observed.net.links.get(&name) {
            None => hop.wants(words::device(want)).finds("nothing").stops(
                "the device is missing, and with it all entries on it",
                "start the agent, which makes it: twill agent",
            ),
            Some(have) if have == want => hop.finds(kind(have)).carries(Some(have.mtu)),
            Some(have) => {
                let (wanted, found) = words::differing(want, have);
                let cause = format!("{name} has {found}, and {wanted} is wanted");
                let hop = hop.wants(wanted).finds(found).carries(Some(have.mtu));
                let next = format!("{fix}, {AGENT}");
                if deaf(want, have) { hop.stops(cause, next) } else { hop.differs(cause, next) }
            }
        });
        if want.kind == LinkKind::Tap {
            self.served(name);
        }
    }

    /// Whether somebody carries the frames of a TAP device.
    fn served(&mut self, name: LinkName) {
        let hop = Hop::here("datapath").wants(format!("the agent carries the frames of {name}"));
        let next = "start it (twill agent), or see twill status";
        self.hops.push(match self.scene.agents.get(&self.scene.plan.own().key) {
            None => hop
                .finds("it does not answer")
                .stops("the agent carries the frames, and does not answer", next),
            Some(agent) if agent.serves.contains(name.as_str()) => hop.finds("it does"),
            Some(_) => {
                hop.finds("it does not").stops(format!("the agent does not carry the frames of {name}"), next)
            }
        });
    }

    /// The way to the peer's subnet, and whether it is the one the kernel takes.
    fn route(&mut self, key: &RouteKey, want: &Route) {
        let have = self.scene.observed.net.routes.get(key);
        let taken = match self.way(self.dst) {
            Way::Through { dev, via, .. } => Some((Some(*dev), *via)),
            Way::Nowhere(_) => None,
        };
        let as_wanted = taken == Some((want.dev, want.via));
        let would = match self.way(self.dst) {
            Way::Through { dev, via: Some(via), .. } => format!("packets leave through {dev} via {via}"),
            Way::Through { dev, via: None, .. } => format!("packets leave through {dev}"),
            Way::Nowhere(why) => format!("packets are dropped: {why}"),
        };
        let mtu = want.dev.and_then(|dev| self.scene.observed.net.links.get(&dev)).map(|link| link.mtu);
        let mtu = have.and_then(|have| have.mtu).or(mtu);
        let hop = Hop::here(format!("route {}", key.dst)).wants(words::route(want)).carries(mtu);
        let fix = format!("{}, {AGENT}", Op::SetRoute(*key, *want));
        let foreign = self.foreign(key);
        self.hops.push(match have {
            Some(have) if have == want && as_wanted => hop.finds(words::route(have)),
            Some(have) if have == want => {
                let other =
                    foreign.unwrap_or_else(|| "a rule or a route of another table (ip rule)".to_owned());
                let next =
                    format!("delete what goes first; ip route get {} shows what the kernel does", self.dst);
                hop.finds(other.clone()).stops(format!("{would}: {other} goes first"), next)
            }
            Some(have) if as_wanted => {
                let (found, wanted) = (words::route(have), words::route(want));
                hop.finds(&*found).differs(format!("the route reads {found}, and {wanted} is wanted"), fix)
            }
            Some(have) => {
                let found = words::route(have);
                hop.finds(&*found).stops(format!("the route leads elsewhere: {found}"), fix)
            }
            None if as_wanted => {
                let other = foreign.unwrap_or_default();
                let next = format!("ip route del {other}, so that the agent can make its own");
                hop.finds(&*other).differs(format!("the route is somebody else's: {other}"), next)
            }
            None => hop.finds("nothing").carries(None).stops(format!("the route is missing; {would}"), fix),
        });
    }

    /// The route of somebody else that takes packets for the destination.
    fn foreign(&self, key: &RouteKey) -> Option<String> {
        let takes = |net: &ipnet::IpNet| net.contains(&self.dst) && net.prefix_len() >= key.dst.prefix_len();
        let routes = self.scene.observed.foreign.iter().filter(|route| takes(&route.dst));
        routes.max_by_key(|route| route.dst.prefix_len()).map(|route| route.line.clone())
    }

    fn neighbour(&mut self, key: NeighKey, want: Mac) {
        let have = self.scene.observed.net.neighs.get(&key);
        let found = have.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let hop =
            Hop::here(format!("neighbour {} on {}", key.ip, key.dev)).wants(want.to_string()).finds(&*found);
        let fix = format!("{}, {AGENT}", Op::SetNeigh(key, want));
        self.hops.push(match have {
            Some(have) if *have == want => hop,
            Some(_) => hop.stops(format!("frames go to {found}, which is not the peer's device"), fix),
            None => {
                hop.stops("the neighbour is missing: the kernel knows no Ethernet address to send to", fix)
            }
        });
    }

    /// Which host has the Ethernet address. What a TAP device's frames do is in the agent's own table.
    fn fdb(&mut self, want: Fdb) {
        let net = &self.scene.observed.net;
        if self.scene.plan.want().links.get(&want.dev).is_some_and(|link| link.kind == LinkKind::Tap) {
            return;
        }
        let hop =
            Hop::here(format!("FDB entry {} on {}", want.mac, want.dev)).wants(format!("to {}", want.dst));
        let fix = format!("{}, {AGENT}", Op::SetFdb(want));
        let other = net.fdb.iter().find(|entry| (entry.dev, entry.mac) == (want.dev, want.mac));
        self.hops.push(if net.fdb.contains(&want) {
            hop.finds(format!("to {}", want.dst))
        } else if let Some(other) = other {
            let cause = format!("frames go to {}, which is not the peer", other.dst);
            hop.finds(format!("to {}", other.dst)).stops(cause, fix)
        } else {
            hop.finds("nothing").stops("the FDB entry is missing: the device knows no host to send to", fix)
        });
    }

    /// Whether the answers of the peer are let in.
    pub(super) fn guard(&mut self, state: &PeerState) {
        let (Some(guard), Some(_), Some(peer)) = (self.scene.plan.guard(), state.fdb, Sender::of(state))
        else {
            return;
        };
        let hop = Hop::here(format!("guard of UDP {}", guard.rules.port));
        let hop = hop.wants(format!("takes frames from {} with sources in {}", peer.addr, peer.subnet));
        let table = "see whether the agent runs (twill status); twill verify names every difference";
        self.hops.push(if self.scene.firewall.shut_out.iter().any(|one| one.addr() == peer.addr) {
            hop.finds("it does not")
                .stops(format!("frames from {} are dropped: the guard lacks it", peer.addr), table)
        } else {
            hop.finds("it does")
        });
    }
}

/// Whether a device that differs carries nothing, or nothing that peers understand.
fn deaf(want: &Link, have: &Link) -> bool {
    let local = |link: &Link| link.vxlan().map(|vxlan| vxlan.local);
    !have.up || want.replaces(have) || want.mac != have.mac || local(want) != local(have)
}

fn kind(link: &Link) -> String {
    match &link.kind {
        LinkKind::Vxlan(vxlan) => format!("vxlan id {} port {}, up", vxlan.vni, vxlan.port),
        LinkKind::Tap => "tap, up".to_owned(),
        LinkKind::Other => "another".to_owned(),
    }
}
