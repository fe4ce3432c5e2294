//! What is between a host's pods and its routes.

use std::net::IpAddr;

use twill_backends::family::Family;
use twill_backends::fault::Code;
use twill_backends::state::LinkName;

use super::place::Side;
use super::{Hitch, Hop, Walk, Way};
use crate::doctor::sign::Sign;
use crate::filter::GUARD_TABLE;
use crate::verify::Deviation;

impl Walk<'_> {
    /// Both ends are on this host.
    pub(super) fn within(&mut self, from: Side, to: Side) {
        for (side, addr) in [(from, self.src), (to, self.dst)] {
            if side == Side::Pod {
                self.attached(addr);
            } else {
                self.hops.push(Hop::here("address").finds(format!("{addr} is this host's own")));
            }
        }
    }

    /// What a packet meets before it is routed.
    pub(super) fn depart(&mut self, side: Side) {
        match side {
            Side::Host => {
                self.hops.push(Hop::here("address").finds(format!("{} is this host's own", self.src)))
            }
            Side::Pod => {
                self.attached(self.src);
                self.forwarded();
            }
        }
    }

    /// What a packet meets that came to this host.
    pub(super) fn enter(&mut self, side: Side) {
        match side {
            Side::Host => {
                self.hops.push(Hop::here("address").finds(format!("{} is this host's own", self.dst)))
            }
            Side::Pod => {
                self.forwarded();
                self.attached(self.dst);
            }
        }
    }

    /// The device that a pod is behind.
    fn attached(&mut self, pod: IpAddr) {
        let subnet =
            self.scene.plan.own().subnets.iter().map(|(_, net)| net.trunc()).find(|net| net.contains(&pod));
        let subnet = subnet.map(|net| net.to_string()).unwrap_or_default();
        let hop = Hop::here(format!("pod {pod}")).wants(format!("behind a device with {subnet}"));
        let entry = Hitch::PodUnattached.entry();
        self.hops.push(match self.way(pod) {
            Way::Through { dev, .. } if self.is_a_way_out(*dev) => {
                let cause = format!("no device of this host's pods has {subnet}, so that packets for it would leave through {dev}");
                hop.finds(format!("dev {dev}")).stops(entry, cause, entry.next)
            }
            Way::Through { dev, .. } => {
                let link = self.scene.facts.link(*dev);
                let hop = hop.finds(format!("dev {dev}")).carries(link.map(|link| link.mtu));
                match link {
                    Some(link) if !link.running => {
                        let cause = format!("{dev} is down, or nothing is attached to it");
                        hop.stops(entry, cause, entry.next)
                    }
                    Some(_) | None => hop,
                }
            }
            Way::Nowhere(why) => {
                hop.stops(entry, format!("this host has no way to it: {why}"), entry.next)
            }
        });
    }

    /// Whether packets leave the host through this device.
    fn is_a_way_out(&self, dev: LinkName) -> bool {
        let plan = self.scene.plan;
        dev == plan.host().iface || plan.backend().links().iter().any(|(_, link)| *link == dev)
    }

    /// The kernel's forwarding and the firewall.
    fn forwarded(&mut self) {
        let path = Family::of(&self.src).forwarding();
        let found = self.scene.observed.net.sysctls.get(path).map_or("nothing", String::as_str);
        let name = path.replace('/', ".");
        let hop = Hop::here(format!("setting {name}")).wants("1").finds(found);
        self.hops.push(if found == "1" {
            hop
        } else {
            let next = format!("sysctl -w {name}=1, and find out what sets it");
            hop.stops(Sign::ForwardingOff.entry(), "the kernel does not forward packets", next)
        });
        self.filtered();
    }

    fn filtered(&mut self) {
        let firewall = &self.scene.firewall;
        let wanted = [self.accepted(), self.masqueraded()].join("; ");
        let hop = Hop::here("firewall").wants(wanted.clone());
        let v6 = self.src.is_ipv6();
        let drop = firewall.drops.iter().find(|drop| drop.v6 == v6 || drop.chain.starts_with("inet "));
        // A packet meets the guard elsewhere.
        let amiss = firewall.rules.iter().find(|line| !line.contains(GUARD_TABLE) && !line.starts_with('#'));
        self.hops.push(match (drop, amiss) {
            (Some(drop), _) => {
                let cause = format!(
                    "the chain `{}` drops what is forwarded, whatever a table of ours accepts",
                    drop.chain
                );
                let next =
                    drop.to_string().rsplit_once(": ").map_or_else(String::new, |(_, next)| next.to_owned());
                let hop = hop.finds(format!("policy DROP in {}", drop.chain));
                hop.stops(Code::ForwardDropped.entry(), cause, next)
            }
            (None, Some(line)) => {
                let cause = format!("the rules are not as wanted: {line}");
                let next = "see whether the agent runs (twill status); twill verify names every difference";
                hop.finds(line.clone()).differs(Deviation::FirewallDiffers.entry(), cause, next)
            }
            (None, None) => hop.finds(wanted),
        });
    }

    fn accepted(&self) -> String {
        let filter = self.scene.plan.filter();
        let ours = |addr: IpAddr| filter.nets.iter().any(|net| net.network.contains(&addr));
        if filter.forward && (ours(self.src) || ours(self.dst)) { "accepted" } else { "no rule of ours" }
            .to_owned()
    }

    fn masqueraded(&self) -> String {
        let filter = self.scene.plan.filter();
        let leaves = |net: &twill_backends::filter::FilterNet| {
            net.network.contains(&self.src) && !net.network.contains(&self.dst) && !self.dst.is_multicast()
        };
        let masqueraded = filter.masquerade.is_some() && filter.nets.iter().any(leaves);
        if masqueraded { "source becomes this host's" } else { "source is kept" }.to_owned()
    }

    /// How the kernel sends to an address.
    pub(super) fn way(&self, addr: IpAddr) -> &Way {
        static UNASKED: Way = Way::Nowhere(String::new());
        self.scene.ways.get(&addr).unwrap_or(&UNASKED)
    }
}
