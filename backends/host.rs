//! What is known about this host, before any lease.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::PerFamily;
use crate::filter::Masquerade;
use crate::lease::{LeaseKey, Subnets};
use crate::mac::Mac;
use crate::network::{NetworkConfig, Pool};
use crate::state::{Checksums, Datapath, LinkName};

/// One address family of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address on the interface: the source of tunnel packets.
    pub local: IpAddr,
    /// The address that is published. It differs behind NAT.
    pub public: IpAddr,
}

/// This host's place in the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Marks what belongs to this agent, see [`Host::alias`].
    pub instance: String,
    /// The underlay interface.
    pub iface: LinkName,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addrs: PerFamily<Address>,
    /// The networks it is attached to: a peer inside one of them needs no router.
    pub on_link: Vec<IpNet>,
    /// The Ethernet address of the tunnel device of each family.
    pub macs: PerFamily<Mac>,
    /// Who finishes the checksums of what it sends, where that is not as the kernel has it.
    pub checksums: PerFamily<Checksums>,
    /// Who carries frames between tunnel devices and the underlay.
    pub datapath: Datapath,
}

/// What belongs to this host in the fabric.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// The key of its lease.
    pub key: LeaseKey,
    /// Its subnets.
    pub subnets: Subnets,
    /// The configuration of the network.
    pub network: NetworkConfig,
    /// Networks of an earlier configuration; their leases are still peers.
    pub former: Vec<IpNet>,
    /// What the operator asked for besides.
    pub policy: Policy,
}

/// What the operator asked for on this host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether packets from pods to the outside take the host's address.
    pub masquerade: Option<Masquerade>,
    /// Whether packets from and to pods are accepted in the forward path.
    pub forward: bool,
    /// Whether packets to pods of this host that do not exist are dropped, not routed elsewhere.
    pub blackhole: bool,
    /// Whether frames are taken from the addresses of live leases only.
    pub outer_check: bool,
    /// Whether the packets inside have to come from the subnet of the host that sent them.
    pub inner_check: bool,
}

/// What was measured about one peer. Empty until something measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fact {
    /// The largest inner packet that arrives, in bytes.
    pub mtu: Option<u32>,
    /// Whether packets reach the peer without a tunnel.
    pub direct: Option<bool>,
}

impl Host {
    /// The alias on each link of this instance.
    #[must_use]
    pub fn alias(&self) -> String {
        format!("twill:{}", self.instance)
    }

    /// Whether `addr` is on a network of the underlay interface.
    #[must_use]
    pub fn is_on_link(&self, addr: &IpAddr) -> bool {
        self.on_link.iter().any(|net| net.contains(addr))
    }
}

impl Own {
    /// Its subnet of each family that the configuration enables, with that family's pool; IPv4 first.
    pub fn parts(&self) -> impl Iterator<Item = (IpNet, &Pool)> {
        self.subnets
            .iter()
            .filter_map(|(family, subnet)| self.network.pools.get(family).map(|pool| (subnet.trunc(), pool)))
    }
}
