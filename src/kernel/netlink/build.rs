//! Operations as netlink messages.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use twill_backends::diff::Op;
use twill_backends::mac::Mac;
use twill_backends::state::{Fdb, Link, LinkName, Route, RouteKey, RouteKind, Vxlan};

/// A message and its flags, beyond those of every request.
pub(super) type Built = (RouteNetlinkMessage, u16);

const SET: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The one message that does `op` on the link of this index. `None` for what takes more than one.
pub(super) fn message(op: &Op, index: u32) -> Option<Built> {
    Some(match op {
        Op::SetNeigh(key, mac) => (RouteNetlinkMessage::NewNeighbour(neigh(index, key.ip, Some(*mac))), SET),
        Op::DelNeigh(key) => (RouteNetlinkMessage::DelNeighbour(neigh(index, key.ip, None)), 0),
        Op::SetFdb(entry) => (RouteNetlinkMessage::NewNeighbour(fdb(index, entry)), SET),
        Op::DelFdb(entry) => (RouteNetlinkMessage::DelNeighbour(fdb(index, entry)), 0),
        Op::SetRoute(key, via) => (RouteNetlinkMessage::NewRoute(route(index, key, via)), SET),
        Op::DelRoute(key, via) => {
            let mut message = route(index, key, via);
            // Of any scope: it follows from the gateway.
            message.header.scope = RouteScope::NoWhere;
            (RouteNetlinkMessage::DelRoute(message), 0)
        }
        Op::DelLink(_) => (RouteNetlinkMessage::DelLink(link(index)), 0),
        Op::SetLink(..) | Op::SetSysctl(..) => return None,
    })
}

/// The link an operation needs to exist.
pub(super) const fn device(op: &Op) -> Option<LinkName> {
    match op {
        Op::SetNeigh(key, _) | Op::DelNeigh(key) => Some(key.dev),
        Op::SetFdb(entry) | Op::DelFdb(entry) => Some(entry.dev),
        Op::SetRoute(_, route) | Op::DelRoute(_, route) => route.dev,
        Op::SetLink(name, _) | Op::DelLink(name) => Some(*name),
        Op::SetSysctl(..) => None,
    }
}

pub(super) fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Creates a VXLAN device: without a parent link, so that it outlives the underlay interface, and without a queue, as
/// flanneld has it. The kernel ignores an alias at creation.
pub(super) fn create(name: LinkName, link: &Link, vxlan: &Vxlan) -> LinkMessage {
    let mut data = vec![InfoVxlan::Id(vxlan.vni), InfoVxlan::Ttl(0), InfoVxlan::Port(vxlan.port)];
    data.extend(changeable(vxlan));
    data.push(match vxlan.local {
        IpAddr::V4(_) => InfoVxlan::UDPCsum(vxlan.checksums.udp),
        IpAddr::V6(_) => InfoVxlan::UDPZeroCsumTX(!vxlan.checksums.udp),
    });
    if vxlan.gbp {
        data.push(InfoVxlan::Gbp);
    }
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.as_str().to_owned()),
        LinkAttribute::Address(link.mac.0.to_vec()),
        LinkAttribute::Mtu(link.mtu),
        LinkAttribute::TxQueueLen(0),
        info(data),
    ];
    message
}

/// What can be changed about a VXLAN device: where it sends from, and whether it learns.
pub(super) fn change(index: u32, vxlan: &Vxlan) -> LinkMessage {
    let mut message = link(index);
    message.attributes.push(info(changeable(vxlan).into()));
    message
}

fn changeable(vxlan: &Vxlan) -> [InfoVxlan; 2] {
    let local = match vxlan.local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    };
    [local, InfoVxlan::Learning(vxlan.learning)]
}

fn info(data: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))])
}

/// An address. Duplicate address detection is off: an overlay has no duplicates, and it takes over a second.
pub(super) fn addr(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    if net.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        message.attributes.push(AddressAttribute::Address(net.addr()));
    }
    message
}

fn neigh(index: u32, ip: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

pub(super) fn fdb(index: u32, entry: &Fdb) -> NeighbourMessage {
    let mut message = neigh(index, entry.dst, Some(entry.mac));
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message
}

fn route(index: u32, key: &RouteKey, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let blackhole = route.kind == RouteKind::Blackhole;
    // Without a gateway, IPv4 has to know that the destination is on the link.
    let on_link = route.via.is_none() && !blackhole && matches!(key.dst, IpNet::V4(_));
    message.header = RouteHeader {
        address_family: family(key.dst.addr()),
        destination_prefix_length: key.dst.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: route.protocol.into(),
        scope: if on_link { RouteScope::Link } else { RouteScope::Universe },
        kind: if blackhole { RouteType::BlackHole } else { RouteType::Unicast },
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(key.dst.network().into()));
    attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    attributes.extend(route.dev.map(|_| RouteAttribute::Oif(index)));
    attributes.extend((key.metric != 0).then_some(RouteAttribute::Priority(key.metric)));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

const fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
