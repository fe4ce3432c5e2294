//! A packet was larger than the way to its peer carries.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Frame;
use crate::frame::Dropped;
use crate::frame::bytes::{array, be16};
use crate::frame::parse::{ICMPV6, Kind, Layout};

const DONT_FRAGMENT: u16 = 0x4000;
const OFFSET: u16 = 0x1fff;
const ICMP: u8 = 1;
/// The most that an error is long: RFC 1812, section 4.3.2.3, and RFC 4443, section 2.4 (c).
const MAX_V4: usize = 576;
const MAX_V6: usize = 1280;
/// IP header of the error and its own eight bytes.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// Tells the sender of `frame`, which is on its way to a peer, that packets may have `mtu` bytes: ICMP "fragmentation
/// needed" (RFC 1191) or ICMPv6 "packet too big" (RFC 4443), in the name of the packet's destination, as the kernel's
/// tunnels do. Returns the length of the answer in `out`, which has room for [`super::MAX_LEN`].
///
/// # Errors
/// [`Dropped::Oversize`] if the sender must not be told: no IP, fragmenting is not forbidden, a fragment other than
/// the first, an ICMP error, or a source or destination that is not one host.
pub fn too_big(frame: &[u8], layout: &Layout, mtu: u32, out: &mut [u8]) -> Result<usize, Dropped> {
    let mut answer = Frame::new(out);
    let written = match (layout.kind, layout.v6) {
        (Kind::Foreign, _) => None,
        (_, false) => v4(frame, layout, mtu, &mut answer),
        (_, true) => v6(frame, layout, mtu, &mut answer),
    };
    written.and_then(|()| answer.finish()).ok_or(Dropped::Oversize)
}

fn v4(frame: &[u8], layout: &Layout, mtu: u32, answer: &mut Frame<'_>) -> Option<()> {
    let l3 = usize::from(layout.l3);
    let (from, to) = (array::<4>(frame, l3 + 12)?, array::<4>(frame, l3 + 16)?);
    let fragment = be16(frame, l3 + 6)?;
    let source = Ipv4Addr::from(from);
    let target = Ipv4Addr::from(to);
    let nobody = source.is_unspecified() || source.is_loopback();
    let many = [source, target].iter().any(|end| end.is_multicast() || end.is_broadcast());
    if fragment & DONT_FRAGMENT == 0 || fragment & OFFSET != 0 || nobody || many {
        return None;
    }
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    let is_error = |kind: &u8| matches!(kind, 3 | 4 | 5 | 11 | 12);
    if layout.protocol == ICMP && frame.get(usize::from(layout.l4)).is_none_or(is_error) {
        return None;
    }
    let quote = quote(frame, layout, MAX_V4 - HEADERS_V4)?;
    let [a, b] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    answer.ethernet(array(frame, 6)?, array(frame, 0)?, frame, l3);
    answer.ipv4(to, from, 8 + quote.len());
    let icmp = answer.len();
    answer.push(&[3, 4, 0, 0, 0, 0, a, b]);
    answer.push(quote);
    answer.icmp_checksum(icmp);
    Some(())
}

fn v6(frame: &[u8], layout: &Layout, mtu: u32, answer: &mut Frame<'_>) -> Option<()> {
    let l3 = usize::from(layout.l3);
    let (from, to) = (array::<16>(frame, l3 + 8)?, array::<16>(frame, l3 + 24)?);
    let source = Ipv6Addr::from(from);
    let many = source.is_multicast() || Ipv6Addr::from(to).is_multicast();
    if source.is_unspecified() || source.is_loopback() || many {
        return None;
    }
    // Errors, and redirects.
    let is_error = |kind: &u8| *kind < 128 || *kind == 137;
    if layout.protocol == ICMPV6 && frame.get(usize::from(layout.l4)).is_none_or(is_error) {
        return None;
    }
    let quote = quote(frame, layout, MAX_V6 - HEADERS_V6)?;
    answer.ethernet(array(frame, 6)?, array(frame, 0)?, frame, l3);
    answer.ipv6(to, from, 8 + quote.len());
    let icmp = answer.len();
    answer.push(&[2, 0, 0, 0]);
    answer.push(&mtu.max(1280).to_be_bytes());
    answer.push(quote);
    answer.icmpv6_checksum(icmp);
    Some(())
}

/// The beginning of the packet.
fn quote<'f>(frame: &'f [u8], layout: &Layout, most: usize) -> Option<&'f [u8]> {
    let begin = usize::from(layout.l3);
    frame.get(begin..(begin + most).min(layout.end as usize))
}
