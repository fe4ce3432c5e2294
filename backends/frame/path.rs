//! The two decisions about a frame: where one from the TAP goes, and whether one from the wire is let in.

use std::net::IpAddr;

use super::Dropped;
use super::bytes::{array, be32};
use super::parse::{ETHERTYPE_ARP, ICMPV6, Kind, Layout};
use super::table::{Peer, Permit, Table, mapped};
use super::vxlan::Vxlan;

/// ICMPv6 neighbour solicitation (RFC 4861, section 4.3).
pub(super) const SOLICITATION: u8 = 135;

/// Where a frame from the TAP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'t> {
    /// To this peer.
    To(&'t Peer, Layout),
    /// Nowhere: it asks for a neighbour, and [`super::answer::neighbour`] answers.
    Ask(Layout),
}

/// Finds the way of a frame from the TAP by its destination address.
///
/// # Errors
/// It has none: [`Dropped::Broadcast`], [`Dropped::Multicast`], [`Dropped::NoPeer`], or its headers are broken.
#[inline]
pub fn way<'t>(table: &'t Table, frame: &[u8]) -> Result<Way<'t>, Dropped> {
    let layout = Layout::of(frame)?;
    let mac = array::<6>(frame, 0).ok_or(Dropped::Truncated)?;
    if asks(frame, &layout) {
        return Ok(Way::Ask(layout));
    }
    match table.at(mac) {
        Some(peer) => Ok(Way::To(peer, layout)),
        None if mac == [0xff; 6] => Err(Dropped::Broadcast),
        None if mac[0] & 1 != 0 => Err(Dropped::Multicast),
        None => Err(Dropped::NoPeer),
    }
}

#[inline]
fn asks(frame: &[u8], layout: &Layout) -> bool {
    match layout.kind {
        Kind::Foreign => layout.ethertype == ETHERTYPE_ARP,
        Kind::Other => {
            layout.v6 && layout.protocol == ICMPV6 && frame.get(usize::from(layout.l4)) == Some(&SOLICITATION)
        }
        Kind::Fragment | Kind::Tcp | Kind::Udp => false,
    }
}

/// Lets a datagram in: it comes from the public address of a peer, names our network, and the packet inside has a
/// source of that peer. `check_source` is off for fabrics that carry foreign sources, and other protocols than IP,
/// on purpose. Returns the peer, and the inner frame with its layout.
///
/// # Errors
/// Why it is not let in.
#[inline]
pub fn admit<'t, 'd>(
    table: &'t Table,
    vxlan: Vxlan,
    check_source: bool,
    from: IpAddr,
    datagram: &'d [u8],
) -> Result<(&'t Peer, &'d [u8], Layout), Dropped> {
    let frame = vxlan.open(datagram)?;
    let layout = Layout::of(frame)?;
    let source = if check_source { Some(source(frame, &layout)) } else { None };
    match (table.permits(from, source.map(Option::unwrap_or_default)), source) {
        (Permit::Peer(peer), None | Some(Some(_))) => Ok((peer, frame, layout)),
        (Permit::Unknown, _) => Err(Dropped::NoLease),
        (_, Some(None)) => Err(Dropped::NotIp),
        (Permit::Foreign, _) => Err(Dropped::ForeignSource),
    }
}

/// The source of the packet as a number, see [`super::table::number`].
#[inline]
fn source(frame: &[u8], layout: &Layout) -> Option<u128> {
    let l3 = usize::from(layout.l3);
    match (layout.kind, layout.v6) {
        (Kind::Foreign, _) => None,
        (_, false) => be32(frame, l3 + 12).map(mapped),
        (_, true) => array(frame, l3 + 8).map(u128::from_be_bytes),
    }
}

#[cfg(test)]
mod tests;
