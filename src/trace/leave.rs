//! From this host to a peer: the entries that a packet meets, in the order in which they decide.
//!
//! The device comes first, since all other entries go with it.

use twill_backends::diff::Op;
use twill_backends::family::Family;
use twill_backends::fault::Code;
use twill_backends::guard::Sender;
use twill_backends::host::Fact;
use twill_backends::lease::Lease;
use twill_backends::mac::Mac;
use twill_backends::state::{Fdb, Link, LinkKind, LinkName, NeighKey, PeerState, Route, RouteKey};
use twill_backends::vxlan;

use super::{Asked, Hitch, Hop, Walk, Way};
use crate::catalogue::refusal::Refusal;
use crate::verify::{self, Deviation, words};

/// What an agent that runs does about a difference, and where it says why it cannot.
const AGENT: &str = "or see why the agent does not (twill status)";

impl<'a> Walk<'a> {
    /// To a peer's pod, as far as the underlay. Returns whether this host knows a way to it.
    pub(super) fn reach_peer(&mut self, lease: &'a Lease) -> bool {
        let Some(state) = self.peer(lease) else { return false };
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
            return false;
        };
        self.underlay(to, overhead, device);
        self.guard(&state);
        true
    }

    /// What the peer adds to this host; if nothing, why.
    pub(super) fn peer(&mut self, lease: &Lease) -> Option<PeerState> {
        let plan = self.scene.plan;
        let family = Family::of(&self.dst);
        let hop = Hop::here(format!("lease {}", lease.key));
        let Some(end) = lease.endpoints().find(|end| end.family == family) else {
            let cause = format!("it has no public {family} address, so that no host knows a way to it");
            let next = "restart the agent of that host with an address of this family";
            self.hops.push(hop.stops(Code::IncompleteLease.entry(), cause, next));
            return None;
        };
        let state = match plan.backend().peer(plan.host(), plan.own(), end, &Fact::default()) {
            Ok(state) => state,
            Err(fault) => {
                let (cause, next) = fault.cause_and_next();
                self.hops.push(hop.stops(fault.code.entry(), cause, next));
                return None;
            }
        };
        let Some(route) = plan.want().routes.get(&state.route.0) else {
            let fault = plan.faults().find(|fault| fault.subject == lease.key.as_str());
            let (cause, next) =
                fault.map_or(("it is left out", "see twill status"), |fault| fault.cause_and_next());
            let code = fault.map_or(Code::IncompleteLease, |fault| fault.code);
            self.hops.push(hop.stops(code.entry(), cause, next));
            return None;
        };
        Some(PeerState { route: (state.route.0, *route), ..state })
    }

    /// A tunnel device.
    pub(super) fn device(&mut self, name: LinkName) {
        let Some(want) = self.scene.plan.want().links.get(&name) else { return };
        let hop = Hop::here(format!("device {name}"));
        let fix = Op::SetLink(name, want.clone()).to_string();
        let have = self.scene.observed.net.links.get(&name);
        let entry = verify::device(want, have);
        self.hops.push(match have {
            None => hop.wants(words::device(want)).finds("nothing").stops(
                entry,
                "the device is missing, and with it all entries on it",
                "start the agent, which makes it: twill agent",
            ),
            Some(have) if have == want => hop.finds(kind(have)).carries(Some(have.mtu)),
            Some(have) => {
                let (wanted, found) = words::differing(want, have);
                let cause = format!("{name} has {found}, and {wanted} is wanted");
                let hop = hop.wants(wanted).finds(found).carries(Some(have.mtu));
                let next = format!("{fix}, {AGENT}");
                if deaf(want, have) { hop.stops(entry, cause, next) } else { hop.differs(entry, cause, next) }
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
            None | Some(Asked::Silent(_)) => {
                let cause = "the agent carries the frames, and does not answer";
                hop.finds("it does not answer").stops(Refusal::NoAgent.entry(), cause, next)
            }
            Some(Asked::Says(agent)) if agent.serves.contains(name.as_str()) => hop.finds("it does"),
            Some(Asked::Says(_)) => {
                let cause = format!("the agent does not carry the frames of {name}");
                hop.finds("it does not").stops(Code::DatapathFailed.entry(), cause, next)
            }
        });
    }

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
                let cause = format!("{would}: {other} goes first");
                hop.finds(other).stops(Code::ForeignRoute.entry(), cause, next)
            }
            Some(have) if as_wanted => {
                let (found, wanted) = (words::route(have), words::route(want));
                let cause = format!("the route reads {found}, and {wanted} is wanted");
                hop.finds(found).differs(Deviation::RouteDiffers.entry(), cause, fix)
            }
            Some(have) => {
                let found = words::route(have);
                let cause = format!("the route leads elsewhere: {found}");
                hop.finds(found).stops(Deviation::RouteDiffers.entry(), cause, fix)
            }
            None if as_wanted => {
                let other = foreign.unwrap_or_default();
                let next = format!("ip route del {other}, so that the agent can make its own");
                let cause = format!("the route is somebody else's: {other}");
                hop.finds(other).differs(Code::ForeignRoute.entry(), cause, next)
            }
            None => {
                let cause = format!("the route is missing; {would}");
                hop.finds("nothing").carries(None).stops(Deviation::RouteMissing.entry(), cause, fix)
            }
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
            Some(_) => {
                let cause = format!("frames go to {found}, which is not the peer's device");
                hop.stops(Deviation::NeighbourDiffers.entry(), cause, fix)
            }
            None => {
                let cause = "the neighbour is missing: the kernel knows no Ethernet address to send to";
                hop.stops(Deviation::NeighbourMissing.entry(), cause, fix)
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
            hop.finds(format!("to {}", other.dst)).stops(Deviation::FdbDiffers.entry(), cause, fix)
        } else {
            let cause = "the FDB entry is missing: the device knows no host to send to";
            hop.finds("nothing").stops(Deviation::FdbMissing.entry(), cause, fix)
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
        let entry = Hitch::PeerShutOut.entry();
        self.hops.push(if self.scene.firewall.shut_out.iter().any(|one| one.addr() == peer.addr) {
            let cause = format!("frames from {} are dropped: the guard lacks it", peer.addr);
            hop.finds("it does not").stops(entry, cause, entry.next)
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
