//! Netlink messages as plain values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
};
use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, Link, LinkKind, LinkName, Vxlan};

use crate::datapath::ethtool;
use crate::kernel::facts::{AddrFact, RouteFact};

/// A link and what only the kernel knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenLink {
    pub(super) index: u32,
    pub(super) name: LinkName,
    /// Without its addresses, which come in messages of their own, and as if checksums were left to it, of which
    /// messages say nothing, see [`SeenLink::asked`].
    pub(super) link: Link,
    /// `IFF_RUNNING`: it has a carrier.
    pub(super) running: bool,
    /// Whether it has an Ethernet address.
    pub(super) ethernet: bool,
}

impl SeenLink {
    /// With what has to be asked for by other means.
    pub(super) fn asked(mut self) -> Self {
        let name = self.name;
        if let Some(vxlan) = self.link.vxlan_mut() {
            match ethtool::tx_checksum(name) {
                Ok(on) => vxlan.checksums.offload = on,
                Err(error) => tracing::debug!(%name, %error, "cannot read the offloads of a link"),
            }
        }
        self
    }

    /// What makes another underlay of it, beside its addresses.
    pub(super) const fn identity(&self) -> (u32, LinkName, u32) {
        (self.index, self.name, self.link.mtu)
    }
}

/// The unit in which the kernel tells ages (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A neighbour, or an FDB entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenNeigh {
    pub(super) index: u32,
    /// Whether it is an FDB entry of the device itself (`AF_BRIDGE`, `NTF_SELF`).
    pub(super) fdb: bool,
    pub(super) ip: IpAddr,
    /// Its Ethernet address, if the entry is permanent.
    pub(super) mac: Option<Mac>,
    pub(super) permanent: bool,
    /// How long ago it was last used, to a hundredth of a second.
    pub(super) idle: Option<Duration>,
}

pub(super) fn link(message: &LinkMessage) -> Option<SeenLink> {
    let flags = message.header.flags;
    let mut name = None;
    let mut ethernet = None;
    let mut link = Link {
        kind: LinkKind::Other,
        mac: Mac([0; 6]),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        alias: String::new(),
        addrs: [].into(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = LinkName::try_from(text.as_str()).ok(),
            LinkAttribute::Address(bytes) => ethernet = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::LinkInfo(info) => link.kind = kind(info),
            _ => {}
        }
    }
    link.mac = ethernet.unwrap_or(link.mac);
    let running = flags.contains(LinkFlags::Running);
    Some(SeenLink { index: message.header.index, name: name?, link, running, ethernet: ethernet.is_some() })
}

fn kind(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|part| if let LinkInfo::Kind(kind) = part { Some(kind) } else { None });
    match kind {
        Some(InfoKind::Vxlan) => LinkKind::Vxlan(vxlan(info)),
        // A TUN device, of the same kind, has no Ethernet address, so that it never reads back as wanted.
        Some(InfoKind::Tun) => LinkKind::Tap,
        _ => LinkKind::Other,
    }
}

fn vxlan(info: &[LinkInfo]) -> Vxlan {
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut vxlan = Vxlan {
        vni: 0,
        port: 0,
        local: unspecified,
        learning: false,
        gbp: false,
        checksums: Checksums::default(),
    };
    let attributes = info.iter().find_map(|part| match part {
        LinkInfo::Data(InfoData::Vxlan(attributes)) => Some(attributes),
        _ => None,
    });
    let (mut summed, mut unsummed_v6) = (true, false);
    for attribute in attributes.into_iter().flatten() {
        match attribute {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(local) => vxlan.local = (*local).into(),
            InfoVxlan::Local6(local) => vxlan.local = (*local).into(),
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            InfoVxlan::Gbp => vxlan.gbp = true,
            InfoVxlan::UDPCsum(on) => summed = *on,
            InfoVxlan::UDPZeroCsumTX(off) => unsummed_v6 = *off,
            _ => {}
        }
    }
    vxlan.checksums.udp = if vxlan.local.is_ipv4() { summed } else { !unsummed_v6 };
    vxlan
}

pub(super) fn addr(message: &AddressMessage) -> Option<AddrFact> {
    let header = &message.header;
    let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link `IFA_ADDRESS` is the other end.
    let net = IpNet::new(local.or(address)?, header.prefix_len).ok()?;
    Some(AddrFact {
        index: header.index,
        net,
        permanent: flags.contains(AddressFlags::Permanent),
        temporary: net.addr().is_ipv6() && flags.contains(AddressFlags::Secondary),
        deprecated: flags.intersects(AddressFlags::Deprecated | AddressFlags::Dadfailed),
        tentative: flags.contains(AddressFlags::Tentative),
    })
}

/// Whether an address is link-local: such addresses are the kernel's own affair.
pub(super) const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

pub(super) fn neigh(message: &NeighbourMessage) -> Option<SeenNeigh> {
    let header = &message.header;
    let fdb = header.family == AddressFamily::Bridge;
    if fdb && !header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    // An FDB entry may be static (no ageing) as well as permanent.
    let state = u16::from(header.state);
    let permanent = state & u16::from(NeighbourState::Permanent) != 0;
    let (mut ip, mut address, mut idle) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(to) => ip = destination(to),
            NeighbourAttribute::LinkLayerAddress(bytes) => address = mac(bytes),
            NeighbourAttribute::CacheInfo(info) => idle = Some(TICK * info.used),
            _ => {}
        }
    }
    Some(SeenNeigh {
        index: header.ifindex,
        fdb,
        ip: ip?,
        mac: address.filter(|_| permanent || fdb),
        permanent,
        idle,
    })
}

/// The address of a neighbour; an FDB entry's has its family told by its length alone.
fn destination(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|octets| Ipv4Addr::from(octets).into());
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|o| Ipv6Addr::from(o).into())).ok()
        }
        _ => None,
    }
}

/// A route of the main table.
pub(super) fn route(message: &RouteMessage, name_of: impl Fn(u32) -> Option<LinkName>) -> Option<RouteFact> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut fact = RouteFact {
        dst: IpNet::new(any, header.destination_prefix_length).ok()?,
        metric: 0,
        kind: header.kind.into(),
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        via: None,
        dev: None,
        source: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        mtu: None,
        multipath: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                fact.dst = IpNet::new(ip(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(to) => fact.via = ip(to),
            RouteAttribute::PrefSource(from) => fact.source = ip(from),
            RouteAttribute::Oif(index) => fact.dev = name_of(*index),
            RouteAttribute::Priority(metric) => fact.metric = *metric,
            RouteAttribute::MultiPath(_) => fact.multipath = true,
            RouteAttribute::Metrics(metrics) => fact.mtu = metrics.iter().find_map(mtu),
            _ => {}
        }
    }
    Some(fact)
}

pub(super) const fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

pub(super) const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
