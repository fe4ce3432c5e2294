//! Work on a packet that its sender left undone and nobody finished on the way: checksums, and cutting.
//!
//! # Why
//! A kernel that encapsulates leaves the inner checksum to the interface that the packet leaves by, if that says it can.
//! A veth pair says so and never does it, since the kernel at the other end is known to trust it. A program that
//! receives there finds the sum of the pseudo-header where the checksum should be. Whatever has just that number in
//! its place gets the right one: a packet that has it by chance as its right checksum keeps it. Likewise a large frame
//! arrives there in one datagram, larger than the MTU of the tunnel.

use super::bytes::{be16, put16};
use super::checksum::{Sum, pseudo};
use super::parse::{Kind, Layout};
use super::virtio::{Gso, Header, Partial};

const CWR: u8 = 0x80;

/// Whether the checksum of a TCP or UDP packet is but the sum of its pseudo-header.
#[inline]
#[must_use]
pub fn is_left(frame: &[u8], layout: &Layout) -> bool {
    let (l3, l4, end) = (usize::from(layout.l3), usize::from(layout.l4), layout.end as usize);
    let left = pseudo(frame, l3, layout.v6, layout.protocol).map(|sum| sum.word((end - l4) as u16).fold());
    field(layout).is_some_and(|at| left.is_some() && be16(frame, at) == left)
}

/// How a TCP frame that was never cut, of a sender that left that to its interface, is to be cut for a way that carries
/// `mtu` bytes. `None` if it is no such frame; the datagrams of a large UDP frame cannot be told apart any more.
#[must_use]
pub fn uncut(frame: &[u8], layout: &Layout, mtu: u32) -> Option<Header> {
    if layout.kind != Kind::Tcp || !is_left(frame, layout) {
        return None;
    }
    let size = u16::try_from(mtu).ok()?.checked_sub(layout.payload - layout.l3).filter(|size| *size > 0)?;
    let ecn = frame.get(usize::from(layout.l4) + 13).is_some_and(|flags| flags & CWR != 0);
    Some(Header {
        partial: Some(Partial { start: layout.l4, offset: 16 }),
        data_valid: false,
        gso: Some((if layout.v6 { Gso::TcpV6 { ecn } } else { Gso::TcpV4 { ecn } }, size)),
        hdr_len: layout.payload,
    })
}

/// Finishes the checksum of a TCP or UDP packet that has but the sum of its pseudo-header. Returns whether it had.
#[inline]
pub fn finish(frame: &mut [u8], layout: &Layout) -> bool {
    let Some(at) = field(layout).filter(|_| is_left(frame, layout)) else { return false };
    let covered = usize::from(layout.l4)..layout.end as usize;
    let Some(sum) = frame.get(covered).map(|bytes| Sum::ZERO.bytes(bytes)) else { return false };
    put16(frame, at, if layout.kind == Kind::Udp { sum.nonzero() } else { sum.checksum() });
    true
}

/// Where the checksum is.
#[inline]
const fn field(layout: &Layout) -> Option<usize> {
    match layout.kind {
        Kind::Tcp => Some(layout.l4 as usize + 16),
        Kind::Udp => Some(layout.l4 as usize + 6),
        Kind::Foreign | Kind::Fragment | Kind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn frames() -> [(Vec<u8>, usize); 3] {
        let v4 = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 5, 1, 2], [10, 5, 2, 3], 9);
        let (mut tcp, mut udp, mut v6) = (Vec::new(), Vec::new(), Vec::new());
        v4().tcp(1, 2, 3, 4).write(&mut tcp, b"odd").unwrap();
        v4().udp(1, 2).write(&mut udp, b"even").unwrap();
        let to = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([3; 16], [5; 16], 9);
        to.tcp(1, 2, 3, 4).write(&mut v6, b"").unwrap();
        [(tcp, 34 + 16), (udp, 34 + 6), (v6, 54 + 16)]
    }

    #[test]
    fn what_was_left_undone_is_finished() {
        for (good, at) in frames() {
            let layout = Layout::of(&good).unwrap();
            let mut frame = good.clone();
            // Padding is not covered.
            frame.extend([9; 5]);
            assert!(!finish(&mut frame, &layout));
            let len = (good.len() - usize::from(layout.l4)) as u16;
            let sum = pseudo(&frame, 14, layout.v6, layout.protocol).unwrap().word(len).fold();
            put16(&mut frame, at, sum);
            assert!(finish(&mut frame, &layout));
            assert_eq!(frame[..good.len()], good);
        }
    }

    #[test]
    fn a_frame_that_was_never_cut_is_known_by_its_checksum() {
        let mut frame = Vec::new();
        let to = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 5, 1, 2], [10, 5, 2, 3], 9);
        to.tcp(1, 2, 3, 4).write(&mut frame, &[7; 3000]).unwrap();
        let layout = Layout::of(&frame).unwrap();
        assert_eq!(uncut(&frame, &layout, 1440), None);
        let sum = pseudo(&frame, 14, false, 6).unwrap().word(3020).fold();
        put16(&mut frame, 50, sum);
        let header = uncut(&frame, &layout, 1440).unwrap();
        assert_eq!(header.gso, Some((Gso::TcpV4 { ecn: false }, 1400)));
        assert_eq!((header.partial, header.hdr_len), (Some(Partial { start: 34, offset: 16 }), 54));
        assert_eq!(uncut(&frame, &layout, 40), None);
    }

    #[test]
    fn what_is_damaged_stays_so() {
        for (mut frame, at) in frames() {
            let layout = Layout::of(&frame).unwrap();
            frame[at] ^= 0x40;
            let damaged = frame.clone();
            assert!(!finish(&mut frame, &layout));
            assert_eq!(frame, damaged);
        }
    }
}
