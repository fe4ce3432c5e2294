//! Frames that go back into the TAP: answers about neighbours, and news that a packet was too large.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Dropped;
use super::bytes::array;
use super::checksum::{Sum, pseudo};
use super::parse::{ETHERNET, ETHERTYPE_ARP, ICMPV6, Kind, Layout};
use super::path::SOLICITATION;
use super::table::Table;

mod too_big;
mod write;

pub use too_big::too_big;

use write::Frame;

/// The room that any answer fits into, in bytes: Ethernet with two tags, and an IPv6 packet of 1,280.
pub const MAX_LEN: usize = ETHERNET + 8 + 1280;

/// Ethernet and IPv4 with addresses of six and four bytes (RFC 826).
const ARP_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const ADVERTISEMENT: u8 = 136;
/// The flags solicited and override (RFC 4861, section 4.4).
const SOLICITED: [u8; 4] = [0x60, 0, 0, 0];
/// The option with the Ethernet address of the target, of one unit of eight bytes.
const TARGET_ADDRESS: [u8; 2] = [2, 1];
/// Type, code, checksum, reserved bits and target of a solicitation.
const SOLICITATION_LEN: usize = 24;

/// Answers a question for a neighbour ([`super::path::Way::Ask`]) in place of the peer whose tunnel has the address.
/// Returns the length of the answer in `out`, which has room for [`MAX_LEN`].
///
/// # Errors
/// [`Dropped::NoNeighbour`] if the address is no peer's; [`Dropped::BadInner`] if it is no question at all.
pub fn neighbour(table: &Table, frame: &[u8], layout: &Layout, out: &mut [u8]) -> Result<usize, Dropped> {
    let mut answer = Frame::new(out);
    if layout.kind == Kind::Foreign && layout.ethertype == ETHERTYPE_ARP {
        arp(table, frame, usize::from(layout.l3), &mut answer)?;
    } else {
        solicitation(table, frame, layout, &mut answer)?;
    }
    answer.finish().ok_or(Dropped::Truncated)
}

fn arp(table: &Table, frame: &[u8], l3: usize, answer: &mut Frame<'_>) -> Result<(), Dropped> {
    let field = |at: usize| array::<4>(frame, l3 + at).ok_or(Dropped::BadInner);
    let asker = array::<6>(frame, l3 + 8).ok_or(Dropped::BadInner)?;
    if array(frame, l3) != Some(ARP_IPV4) || array(frame, l3 + 6) != Some(REQUEST) {
        return Err(Dropped::BadInner);
    }
    let (source, target) = (field(14)?, field(24)?);
    let peer = table.tunnel(IpAddr::V4(Ipv4Addr::from(target)));
    let mac = peer.and_then(|peer| peer.mac).ok_or(Dropped::NoNeighbour)?;
    answer.ethernet(asker, mac.0, frame, l3);
    for part in [&ARP_IPV4[..], &REPLY, &mac.0, &target, &asker, &source] {
        answer.push(part);
    }
    Ok(())
}

fn solicitation(table: &Table, frame: &[u8], layout: &Layout, answer: &mut Frame<'_>) -> Result<(), Dropped> {
    let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
    let question = frame.get(l4..layout.end as usize).unwrap_or_default();
    let asker = array::<16>(frame, l3 + 8).ok_or(Dropped::BadInner)?;
    let target = array::<16>(question, 8).ok_or(Dropped::BadInner)?;
    let sum = pseudo(frame, l3, true, ICMPV6).unwrap_or(Sum::ZERO);
    // The checks of RFC 4861, section 7.1.1; a hop limit of 255 proves that no router passed it on.
    if question.len() < SOLICITATION_LEN
        || question[..2] != [SOLICITATION, 0]
        || frame.get(l3 + 7) != Some(&255)
        || !sum.word(question.len() as u16).bytes(question).is_valid()
    {
        return Err(Dropped::BadInner);
    }
    // Whoever asks without an address looks for another owner of the one it wants.
    let peer = table.tunnel(IpAddr::V6(Ipv6Addr::from(target))).filter(|_| asker != [0; 16]);
    let mac = peer.and_then(|peer| peer.mac).ok_or(Dropped::NoNeighbour)?;
    answer.ethernet(array(frame, 6).unwrap_or_default(), mac.0, frame, l3);
    answer.ipv6(target, asker, SOLICITATION_LEN + 8);
    let icmp = answer.len();
    for part in [&[ADVERTISEMENT, 0, 0, 0][..], &SOLICITED, &target, &TARGET_ADDRESS, &mac.0] {
        answer.push(part);
    }
    answer.icmpv6_checksum(icmp);
    Ok(())
}

#[cfg(test)]
mod tests;
