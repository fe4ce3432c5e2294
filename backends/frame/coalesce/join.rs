//! Whether one frame continues another.

use super::{MAX_PACKET, MAX_TCP, MAX_UDP, Sum, TCP, UDP, Unit, pseudo};
use crate::frame::bytes::{be16, be32, same};
use crate::frame::parse::{ETHERNET, Kind, Layout};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
const DONT_FRAGMENT: u16 = 0x4000;

/// What matters of a frame that may be joined to others.
#[derive(Debug)]
pub(super) struct Join<'l> {
    layout: &'l Layout,
    transport: Transport,
    /// Payload in bytes, at least one.
    len: u16,
}

#[derive(Debug)]
enum Transport {
    Tcp { seq: u32, flags: u8 },
    Udp,
}

impl<'l> Join<'l> {
    /// Looks whether the frame is of a kind that is joined at all.
    #[inline]
    pub(super) fn of(frame: &[u8], layout: &'l Layout) -> Option<Self> {
        let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
        let ip_len = if layout.v6 { 40 } else { 20 };
        let len = layout.payload().len() as u16;
        if l3 != ETHERNET || l4 - l3 != ip_len || len == 0 {
            return None;
        }
        let transport = match layout.kind {
            Kind::Tcp => {
                let word = be16(frame, l4 + 12)?;
                let flags = word as u8;
                // ACK must be, SYN, RST and URG must not be, nor any flag that is not defined.
                if word & 0x0f00 != 0 || flags & !(FIN | PSH | ECE | CWR) != ACK {
                    return None;
                }
                Transport::Tcp { seq: be32(frame, l4 + 4)?, flags }
            }
            Kind::Udp if be16(frame, l4 + 6)? != 0 => Transport::Udp,
            Kind::Udp | Kind::Foreign | Kind::Fragment | Kind::Other => return None,
        };
        Some(Self { layout, transport, len })
    }

    pub(super) const fn is_udp(&self) -> bool {
        matches!(self.transport, Transport::Udp)
    }
}

impl Unit {
    /// Lets other frames be joined to this one.
    #[inline]
    pub(super) fn begin(&mut self, join: &Join<'_>) {
        self.size = join.len;
        self.open = true;
        if let Transport::Tcp { seq, flags } = join.transport {
            self.next_seq = seq.wrapping_add(u32::from(join.len));
            self.flags = flags & (FIN | PSH);
            self.open = self.flags == 0;
        }
    }

    /// Joins `frame` if it continues this unit: then the caller appends its payload.
    #[inline]
    pub(super) fn take(&mut self, slab: &[u8], frame: &[u8], join: &Join<'_>) -> bool {
        let Some(head) = slab.get(self.head.clone()) else { return false };
        let most = if join.is_udp() { MAX_UDP } else { MAX_TCP };
        let fits = join.len <= self.size
            && self.count < most
            && self.packet_len + usize::from(join.len) <= MAX_PACKET
            && self.continues(head, frame, join);
        let Some(fixed_id) = self.identification(head, frame).filter(|_| fits) else { return false };
        self.verified = self.verified || verify(head, &self.layout);
        if !self.verified || !verify(frame, join.layout) {
            return false;
        }
        self.fixed_id = Some(fixed_id);
        self.count += 1;
        self.packet_len += usize::from(join.len);
        self.open = join.len == self.size;
        if let Transport::Tcp { flags, .. } = join.transport {
            self.next_seq = self.next_seq.wrapping_add(u32::from(join.len));
            self.flags |= flags & (FIN | PSH);
            self.open &= self.flags == 0;
        }
        true
    }

    /// Whether the headers are those of the next packet.
    #[inline]
    fn continues(&self, head: &[u8], frame: &[u8], join: &Join<'_>) -> bool {
        let (l3, l4) = (usize::from(self.layout.l3), usize::from(self.layout.l4));
        if self.layout.v6 != join.layout.v6 || self.layout.payload != join.layout.payload {
            return false;
        }
        let ip = if self.layout.v6 {
            // All but the length.
            same(head, frame, 0..l3 + 4) && same(head, frame, l3 + 6..l4)
        } else {
            // All but length, identification and checksum.
            same(head, frame, 0..l3 + 2)
                && same(head, frame, l3 + 6..l3 + 10)
                && same(head, frame, l3 + 12..l4)
        };
        if !ip || !same(head, frame, l4..l4 + 4) {
            return false;
        }
        let Transport::Tcp { seq, flags } = join.transport else { return true };
        let ece = |frame: &[u8]| frame.get(l4 + 13).map(|flags| flags & (ACK | ECE));
        seq == self.next_seq
            && flags & CWR == 0
            && ece(head) == ece(frame)
            // Acknowledgement, window, urgent pointer and options.
            && same(head, frame, l4 + 8..l4 + 12)
            && same(head, frame, l4 + 14..l4 + 16)
            && same(head, frame, l4 + 18..usize::from(self.layout.payload))
    }

    /// Whether the IPv4 identification of this unit stands still, if that of `frame` continues it.
    #[inline]
    fn identification(&self, head: &[u8], frame: &[u8]) -> Option<bool> {
        if self.layout.v6 {
            return Some(true);
        }
        let l3 = usize::from(self.layout.l3);
        let (first, id) = (be16(head, l3 + 4)?, be16(frame, l3 + 4)?);
        let atomic = be16(head, l3 + 6)? & DONT_FRAGMENT != 0;
        if id == first.wrapping_add(self.count) {
            self.fixed_id.is_none_or(|fixed| !fixed).then_some(false)
        } else {
            (id == first && atomic && self.fixed_id.unwrap_or(true)).then_some(true)
        }
    }
}

/// Whether the IPv4 header and the transport are undamaged.
#[inline]
fn verify(frame: &[u8], layout: &Layout) -> bool {
    let (l3, l4, end) = (usize::from(layout.l3), usize::from(layout.l4), layout.end as usize);
    let (Some(ip), Some(transport)) = (frame.get(l3..l4), frame.get(l4..end)) else { return false };
    let protocol = if layout.kind == Kind::Tcp { TCP } else { UDP };
    let Some(sum) = pseudo(frame, l3, layout.v6, protocol) else { return false };
    (layout.v6 || Sum::ZERO.bytes(ip).is_valid())
        && sum.word(transport.len() as u16).bytes(transport).is_valid()
}
