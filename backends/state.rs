//! The state a host's network stack should be in, or is in: plain values that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::filter::Filter;
use crate::guard::GuardRules;
pub use crate::link_name::{BadLinkName, LinkName};
use crate::mac::Mac;

/// The protocol number on every route of ours (`rtm_protocol`).
pub const ROUTE_PROTOCOL: u8 = 70;

/// A VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vxlan {
    /// The VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// The UDP destination port.
    pub port: u16,
    /// The outer source address; its family is the family of the underlay.
    pub local: IpAddr,
    /// Whether the device learns FDB entries from what it receives.
    pub learning: bool,
    /// Whether the group policy extension is on.
    pub gbp: bool,
    /// Who finishes the checksums of what it sends.
    pub checksums: Checksums,
}

/// Who finishes the checksums of what a VXLAN device sends, see [`crate::checksums`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checksums {
    /// Whether those of the packets inside are left to the underlay's device (`tx-checksum-ip-generic`), and cutting
    /// large ones with them.
    pub offload: bool,
    /// Whether there is one outside, in the UDP header (`udpcsum`; over IPv6 `noudp6zerocsumtx`).
    pub udp: bool,
}

impl Default for Checksums {
    /// As the kernel makes a device.
    fn default() -> Self {
        Self { offload: true, udp: true }
    }
}

/// What a link of ours is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The kernel carries the fabric.
    Vxlan(Vxlan),
    /// The userspace datapath does: frames leave and enter through a TAP device.
    Tap,
    /// The name is ours, the kind is not. Only in an observed state.
    #[default]
    Other,
}

/// Which program moves frames between a tunnel device and the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// The kernel's VXLAN device.
    #[default]
    Kernel,
    /// This program, on a TAP device. On the wire there is no difference.
    Userspace,
}

/// One tunnel device that the userspace datapath serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// The TAP device.
    pub dev: LinkName,
    /// What the VXLAN device in its place would be.
    pub vxlan: Vxlan,
    /// The MTU of the device in bytes.
    pub mtu: u32,
    /// The largest packet in bytes that pods take, which is less where another family's device carries less.
    pub pods: u32,
}

/// A link of ours, with the addresses and settings that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is.
    #[serde(flatten)]
    pub kind: LinkKind,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// `IFLA_IFALIAS`, which marks the instance.
    pub alias: String,
    /// Its addresses, without link-local ones.
    pub addrs: BTreeSet<IpNet>,
}

/// One FDB entry (`AF_BRIDGE`, `NTF_SELF`, permanent): which VTEP has an inner Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fdb {
    /// The VXLAN device.
    pub dev: LinkName,
    /// The inner destination address.
    pub mac: Mac,
    /// The outer destination address.
    pub dst: IpAddr,
}

/// Which permanent neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NeighKey {
    /// The device.
    pub dev: LinkName,
    /// The neighbour's address: the base address of a peer's subnet.
    pub ip: IpAddr,
}

/// Which route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RouteKey {
    /// The destination.
    pub dst: IpNet,
    /// The metric: 0 for IPv4 and 1024 for IPv6 unless somebody asked for another.
    pub metric: u32,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum RouteKind {
    /// Forwards.
    Unicast,
    /// Drops silently.
    Blackhole,
}

/// A route, less its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// What it does.
    pub kind: RouteKind,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The device. `None` for a blackhole.
    pub dev: Option<LinkName>,
    /// Whether the gateway is taken to be on the link (`RTNH_F_ONLINK`).
    pub onlink: bool,
    /// The route's own MTU (`RTAX_MTU`), in bytes.
    pub mtu: Option<u32>,
    /// Who installed it: [`ROUTE_PROTOCOL`] when we did, `boot` (3) when flanneld did.
    pub protocol: u8,
}

/// A host's network stack, as far as one instance owns it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetState {
    /// Links by name.
    pub links: BTreeMap<LinkName, Link>,
    /// Settings below `/proc/sys`, by path, such as `net/ipv4/ip_forward`.
    pub sysctls: BTreeMap<String, String>,
    /// Permanent neighbours.
    pub neighs: BTreeMap<NeighKey, Mac>,
    /// FDB entries.
    pub fdb: BTreeSet<Fdb>,
    /// Routes of the main table.
    pub routes: BTreeMap<RouteKey, Route>,
}

/// What one peer adds to a host's state, for one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerState {
    /// Which VTEP carries the peer's frames. `None` where packets need no tunnel.
    pub fdb: Option<Fdb>,
    /// The Ethernet address of the peer's tunnel device.
    pub neigh: Option<(NeighKey, Mac)>,
    /// The way to the peer's subnet.
    pub route: (RouteKey, Route),
}

/// Everything this host must be, and what could not be planned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// The network stack.
    pub net: NetState,
    /// The firewall.
    pub filter: Filter,
    /// Who may send to the tunnel's port; `None` if there is none or everybody may.
    pub guard: Option<GuardRules>,
    /// What the userspace datapath has to serve.
    pub tunnels: Vec<Tunnel>,
    /// Complaints about leases that are left out.
    pub faults: Vec<Fault>,
}

impl Link {
    /// Whether making `have` into this link means deleting it and creating it again: the kernel cannot change the
    /// VNI, the port, the group policy flag, the outer checksum, nor the address family of a VXLAN device, nor the kind
    /// of any.
    #[must_use]
    pub fn replaces(&self, have: &Self) -> bool {
        match (&self.kind, &have.kind) {
            (LinkKind::Vxlan(want), LinkKind::Vxlan(have)) => {
                (want.vni, want.port, want.gbp, want.checksums.udp)
                    != (have.vni, have.port, have.gbp, have.checksums.udp)
                    || want.local.is_ipv4() != have.local.is_ipv4()
            }
            (want, have) => want != have,
        }
    }

    /// The VXLAN device, if it is one.
    #[must_use]
    pub const fn vxlan(&self) -> Option<&Vxlan> {
        if let LinkKind::Vxlan(vxlan) = &self.kind { Some(vxlan) } else { None }
    }

    /// The VXLAN device, if it is one, to be changed.
    pub const fn vxlan_mut(&mut self) -> Option<&mut Vxlan> {
        if let LinkKind::Vxlan(vxlan) = &mut self.kind { Some(vxlan) } else { None }
    }
}

impl NetState {
    /// Adds what one peer needs. An entry that is there already stays as it is. A TAP device has no FDB: where its
    /// frames go is in the table that the userspace datapath has.
    pub fn add_peer(&mut self, peer: &PeerState) {
        let links = &self.links;
        let is_tap = |entry: &Fdb| links.get(&entry.dev).is_some_and(|link| link.kind == LinkKind::Tap);
        self.fdb.extend(peer.fdb.filter(|entry| !is_tap(entry)));
        if let Some((key, mac)) = peer.neigh {
            self.neighs.entry(key).or_insert(mac);
        }
        self.routes.entry(peer.route.0).or_insert(peer.route.1);
    }

    /// Takes away what [`NetState::add_peer`] added.
    pub fn remove_peer(&mut self, peer: &PeerState) {
        if let Some(entry) = &peer.fdb {
            self.fdb.remove(entry);
        }
        if let Some((key, _)) = &peer.neigh {
            self.neighs.remove(key);
        }
        self.routes.remove(&peer.route.0);
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len() + self.sysctls.len() + self.neighs.len() + self.fdb.len() + self.routes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
