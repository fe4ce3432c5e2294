//! The underlay, and what is on other hosts, told from their leases.

use std::net::IpAddr;

use twill_backends::family::Family;
use twill_backends::fault::Code;
use twill_backends::lease::Lease;
use twill_backends::state::LinkName;

use super::place::Side;
use super::{Hitch, Hop, Walk, Way};
use crate::doctor::sign::Sign;

impl<'a> Walk<'a> {
    /// How this host's packets reach an address outside of the fabric. `overhead`: what the tunnel `device` adds to each.
    pub(super) fn underlay(&mut self, to: IpAddr, overhead: u32, device: Option<LinkName>) {
        let hop = Hop::here(format!("underlay to {to}"));
        let (dev, via, known) = match self.way(to) {
            Way::Through { dev, via, mtu } => (*dev, *via, *mtu),
            Way::Nowhere(why) => {
                let (entry, cause) = (Hitch::NoWay.entry(), format!("this host has no way to {to}: {why}"));
                self.hops.push(hop.stops(entry, cause, entry.next));
                return;
            }
        };
        let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
        let link = self.scene.facts.link(dev);
        let mtu = known.or(link.map(|link| link.mtu)).map(|mtu| mtu.saturating_sub(overhead));
        let hop = hop.finds(format!("dev {dev}{via}")).carries(mtu);
        if link.is_some_and(|link| !link.running) {
            let (cause, next) = (format!("{dev} is down or has no carrier"), format!("ip link set {dev} up"));
            self.hops.push(hop.stops(Hitch::NoWay.entry(), cause, next));
            return;
        }
        let tunnel = device.and_then(|device| self.scene.plan.want().links.get(&device)).map(|link| link.mtu);
        self.hops.push(match (mtu, tunnel) {
            (Some(mtu), Some(tunnel)) if mtu < tunnel => {
                let cause = format!(
                    "{dev} carries packets of {mtu} bytes inside the tunnel, whose device takes {tunnel}"
                );
                let next = "set the MTU of the underlay back, or Backend.MTU to what it carries";
                hop.differs(Code::PathMtu.entry(), cause, next)
            }
            _ => hop,
        });
    }

    /// What a peer does with what this host or another one sends it.
    pub(super) fn taken_by(&mut self, lease: &'a Lease, side: Side) {
        if side == Side::Pod {
            let kind = lease.attrs.backend_type.as_deref().unwrap_or("its backend");
            let public = lease.attrs.public(Family::of(&self.dst));
            let at = public.map(|addr| format!(" at {addr}")).unwrap_or_default();
            self.hops.push(
                Hop::at(&lease.key, format!("pod {}", self.dst))
                    .told(format!("taken from {kind}{at}, to the bridge")),
            );
        }
        self.said(lease);
    }

    /// What another host does with what is sent from it.
    pub(super) fn sent_by(&mut self, lease: &'a Lease, side: Side) {
        let what = if side == Side::Pod { "pod" } else { "address" };
        self.hops.push(Hop::at(&lease.key, format!("{what} {}", self.src)).told("on this host"));
        let kind = lease.attrs.backend_type.as_deref().unwrap_or("its backend");
        self.hops
            .push(Hop::at(&lease.key, format!("way to {}", self.dst)).told(format!("a route of {kind}")));
        self.said(lease);
    }

    /// What a peer sent through the tunnel comes to this host.
    pub(super) fn arrive(&mut self, lease: &'a Lease) {
        self.known_to_peers();
        // The way of replies tells by which device the packets come.
        let back = Walk { scene: self.scene, src: self.dst, dst: self.src, hops: Vec::new() }.peer_of(lease);
        match back {
            Ok(state) => {
                self.guard(&state);
                if let Some(fdb) = state.fdb {
                    self.device(fdb.dev);
                }
            }
            Err(hops) => self.hops.extend(hops),
        }
    }

    fn peer_of(mut self, lease: &Lease) -> Result<twill_backends::state::PeerState, Vec<Hop>> {
        self.peer(lease).ok_or(self.hops)
    }

    /// Whether peers know this host as it is.
    pub(super) fn known_to_peers(&mut self) {
        let plan = self.scene.plan;
        let family = Family::of(&self.dst);
        let Some(address) = plan.host().addrs.get(family) else { return };
        let hop = Hop::here("own lease").wants(format!("peers know this host at {}", address.public));
        let outdated = Hitch::LeaseOutdated.entry();
        let next = outdated.next;
        let own = self.scene.leases.iter().find(|lease| lease.key == plan.own().key);
        let wanted = plan.backend().attrs(plan.host());
        self.hops.push(match own {
            None => {
                let cause = "the store has no lease of this host, so that peers know no way back";
                hop.finds("no lease").stops(Sign::NoLease.entry(), cause, next)
            }
            Some(own) if own.attrs.public(family) != Some(address.public) => {
                let found = own.attrs.public(family).map_or("no address".to_owned(), |addr| addr.to_string());
                let cause = format!("its lease says {found}, and packets come from {}", address.public);
                hop.finds(found).stops(outdated, cause, next)
            }
            Some(own) if wanted.data(family).is_some_and(|wanted| own.attrs.data(family) != Some(wanted)) => {
                let text =
                    |data: Option<&serde_json::Value>| data.map(ToString::to_string).unwrap_or_default();
                let (found, wanted) = (text(own.attrs.data(family)), text(wanted.data(family)));
                let cause = format!("its lease says {found}, and the device has {wanted}");
                hop.finds(found).differs(outdated, cause, next)
            }
            Some(_) => hop.finds(format!("they do, at {}", address.public)),
        });
    }
}
