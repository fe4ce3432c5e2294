//! One frame from the TAP becomes datagrams of wire size, as a plan for one scatter-gather `sendmsg`: the headers of
//! each packet are written into an arena of the caller, its payload stays where it is in the frame.
//!
//! ```text
//! frame   | Ethernet, IP, TCP |  payload 0  |  payload 1  | payload 2 |
//! arena   | VXLAN, Ethernet, IP, TCP | VXLAN, Ethernet, IP, TCP | VXLAN, Ethernet, IP, TCP |
//! sendmsg   headers 0, payload 0,      headers 1, payload 1,      headers 2, payload 2      UDP_SEGMENT = segment_len
//! ```
//!
//! A frame that needs no cutting takes the same way: its only segment has the VXLAN header as headers and the whole
//! frame as payload.
//!
//! What each packet gets is what the kernel's `inet_gso_segment`, `tcp_gso_segment` and `__udp_gso_segment` give it:
//! ascending IPv4 identification, sequence numbers, CWR on the first alone, FIN and PSH on the last alone, a UDP
//! checksum of zero left at zero.

use std::ops::Range;

use super::Dropped;
use super::bytes::{be16, be32, put, put16};
use super::checksum::{Sum, pseudo};
use super::parse::{Kind, Layout};
use super::virtio::{Gso, Header, Partial};
use super::vxlan;

mod chunk;

pub use chunk::Chunk;

/// The most segments of one `sendmsg` that every kernel with `UDP_SEGMENT` takes.
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes of one `sendmsg`: what an IPv4 packet holds besides its headers.
pub const MAX_BYTES: usize = 65_535 - 20 - 8;

const FIN_PSH: u16 = 0x09;
const CWR: u16 = 0x80;
/// The flags in the 16 bits that begin with the TCP header's length.
const TCP_FLAGS: u16 = 0x0fff;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// The work of sending one frame. Made once for a frame, then asked for chunks until there are none.
#[derive(Debug, Clone)]
pub struct Segments {
    vxlan: [u8; vxlan::LEN],
    shape: Shape,
    /// Of each segment, without the VXLAN header: 0 for a whole frame.
    header_len: usize,
    payload: Range<usize>,
    /// Payload of each segment but the last, in bytes.
    size: usize,
    count: usize,
    done: usize,
}

#[derive(Debug, Clone)]
enum Shape {
    Whole,
    Cut { l3: usize, l4: usize, ip: Ip, transport: Transport },
}

/// Sums are of the header without the fields that differ between segments.
#[derive(Debug, Clone, Copy)]
enum Ip {
    V4 { id: u16, sum: Sum },
    V6,
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp { seq: u32, flags: u16, sum: Sum },
    Udp { sum: Option<Sum> },
}

impl Segments {
    /// Prepares a frame for the wire, behind the VXLAN header `vxlan`. A partial checksum of a frame that is not cut
    /// is completed in place.
    ///
    /// # Errors
    /// [`Dropped::BadOffload`] if the frame is not what its virtio header says.
    #[inline]
    pub fn new(
        frame: &mut [u8],
        layout: &Layout,
        virtio: &Header,
        vxlan: [u8; vxlan::LEN],
    ) -> Result<Self, Dropped> {
        if let Some((gso, size)) = virtio.gso {
            return Self::cut(frame, layout, (gso, size), virtio.partial)
                .map(|segments| Self { vxlan, ..segments })
                .ok_or(Dropped::BadOffload);
        }
        if let Some(partial) = virtio.partial {
            complete(frame, partial).ok_or(Dropped::BadOffload)?;
        }
        let payload = 0..frame.len();
        let size = payload.len();
        Ok(Self { vxlan, shape: Shape::Whole, header_len: 0, payload, size, count: 1, done: 0 })
    }

    fn cut(frame: &[u8], layout: &Layout, gso: (Gso, u16), partial: Option<Partial>) -> Option<Self> {
        let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
        let (kind, size) = gso;
        let (transport, at) = match (kind, layout.kind, layout.v6) {
            (Gso::TcpV4 { .. }, Kind::Tcp, false) | (Gso::TcpV6 { .. }, Kind::Tcp, true) => {
                (tcp(frame, layout)?, TCP_CHECKSUM)
            }
            (Gso::Udp, Kind::Udp, _) => (udp(frame, layout, partial)?, UDP_CHECKSUM),
            _ => return None,
        };
        if partial.is_some_and(|p| usize::from(p.start) != l4 || usize::from(p.offset) != at) {
            return None;
        }
        let ip = if layout.v6 {
            Ip::V6
        } else {
            // Without length, identification and checksum.
            let sum = Sum::ZERO
                .bytes(frame.get(l3..l3 + 2)?)
                .bytes(frame.get(l3 + 6..l3 + 10)?)
                .bytes(frame.get(l3 + 12..l4)?);
            Ip::V4 { id: be16(frame, l3 + 4)?, sum }
        };
        let (payload, size) = (layout.payload(), usize::from(size));
        Some(Self {
            vxlan: [0; vxlan::LEN],
            shape: Shape::Cut { l3, l4, ip, transport },
            header_len: payload.start,
            count: payload.len().div_ceil(size).max(1),
            size: size.min(payload.len()),
            payload,
            done: 0,
        })
    }

    /// Whether the frame is sent as it is, with nothing but the VXLAN header before it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.shape, Shape::Whole)
    }

    /// How many packets the frame becomes.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The length of the largest datagram that the frame becomes, from the VXLAN header on.
    #[must_use]
    pub const fn segment_len(&self) -> usize {
        self.headers_len() + self.size
    }

    /// The bytes of headers of each segment, the VXLAN header among them.
    #[must_use]
    pub const fn headers_len(&self) -> usize {
        vxlan::LEN + self.header_len
    }

    /// The length of the largest IP packet inside: what must not exceed the MTU of the way to the peer.
    #[must_use]
    pub const fn packet_len(&self, layout: &Layout) -> usize {
        match &self.shape {
            Shape::Whole => layout.packet_len(),
            Shape::Cut { l3, .. } => self.header_len + self.size - *l3,
        }
    }

    /// Writes the headers of the next segments into `arena`, as many as fit into it and into one `sendmsg`. `None`
    /// when all are done, or when `arena` has not room for one: [`Segments::is_done`] tells. A room of
    /// [`Segments::arena_len`] takes any chunk.
    #[inline]
    pub fn next_chunk(&mut self, frame: &[u8], arena: &mut [u8]) -> Option<Chunk> {
        let header_len = self.headers_len();
        let most = (MAX_BYTES / self.segment_len()).min(arena.len() / header_len).min(MAX_SEGMENTS);
        // A single datagram may be too large for the path, which is for the socket to say.
        let most = if most == 0 && arena.len() >= header_len { 1 } else { most };
        let count = (self.count - self.done).min(most);
        if count == 0 {
            return None;
        }
        let (first, begin) = (self.done, self.payload.start + self.done * self.size);
        let end = (begin + count * self.size).min(self.payload.end);
        for (i, headers) in arena.chunks_exact_mut(header_len).take(count).enumerate() {
            self.write_headers(first + i, frame, headers)?;
        }
        self.done += count;
        Some(Chunk { count, header_len, size: self.size, begin, end })
    }

    /// Whether no segment is left.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done == self.count
    }

    /// The room that the next chunk needs at most.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.headers_len() * (self.count - self.done).min(MAX_SEGMENTS)
    }

    /// Writes the headers of segment `index`: `headers` is as long as they are.
    #[inline]
    fn write_headers(&self, index: usize, frame: &[u8], headers: &mut [u8]) -> Option<()> {
        let (outer, inner) = headers.split_first_chunk_mut::<{ vxlan::LEN }>()?;
        *outer = self.vxlan;
        let Shape::Cut { l3, l4, ip, transport } = &self.shape else { return Some(()) };
        inner.copy_from_slice(frame.get(..self.header_len)?);
        let begin = self.payload.start + index * self.size;
        let payload = frame.get(begin..(begin + self.size).min(self.payload.end))?;
        let end = inner.len() + payload.len();
        match ip {
            Ip::V4 { id, sum } => {
                let (len, id) = ((end - l3) as u16, id.wrapping_add(index as u16));
                put16(inner, l3 + 2, len);
                put16(inner, l3 + 4, id);
                put16(inner, l3 + 10, sum.word(len).word(id).checksum());
            }
            Ip::V6 => put16(inner, l3 + 4, (end - l3 - 40) as u16),
        }
        let len = (end - l4) as u16;
        match transport {
            Transport::Tcp { seq, flags, sum } => {
                let seq = seq.wrapping_add((index * self.size) as u32);
                let flags = flags_of(*flags, index, self.count);
                put(inner, l4 + 4, seq.to_be_bytes());
                put16(inner, l4 + 12, flags);
                let sum = sum.double(seq).word(flags).word(len).bytes(payload);
                put16(inner, l4 + TCP_CHECKSUM, sum.checksum());
            }
            Transport::Udp { sum } => {
                put16(inner, l4 + 4, len);
                // The length counts twice: in the header and in the pseudo-header.
                let sum = sum.map_or(0, |sum| sum.word(len).word(len).bytes(payload).nonzero());
                put16(inner, l4 + UDP_CHECKSUM, sum);
            }
        }
        Some(())
    }
}

fn tcp(frame: &[u8], layout: &Layout) -> Option<Transport> {
    let l4 = usize::from(layout.l4);
    // Without sequence number, flags and checksum.
    let sum = pseudo(frame, usize::from(layout.l3), layout.v6, layout.protocol)?
        .bytes(frame.get(l4..l4 + 4)?)
        .bytes(frame.get(l4 + 8..l4 + 12)?)
        .bytes(frame.get(l4 + 14..l4 + 16)?)
        .bytes(frame.get(l4 + 18..usize::from(layout.payload))?);
    Some(Transport::Tcp { seq: be32(frame, l4 + 4)?, flags: be16(frame, l4 + 12)?, sum })
}

fn udp(frame: &[u8], layout: &Layout, partial: Option<Partial>) -> Option<Transport> {
    let l4 = usize::from(layout.l4);
    if partial.is_none() && be16(frame, l4 + UDP_CHECKSUM)? == 0 {
        return Some(Transport::Udp { sum: None });
    }
    let sum = pseudo(frame, usize::from(layout.l3), layout.v6, layout.protocol)?;
    Some(Transport::Udp { sum: Some(sum.bytes(frame.get(l4..l4 + 4)?)) })
}

/// The flags of segment `index` of `count`, with the header length they share 16 bits with.
const fn flags_of(flags: u16, index: usize, count: usize) -> u16 {
    let mut mask = 0;
    if index > 0 {
        mask |= CWR;
    }
    if index + 1 < count {
        mask |= FIN_PSH;
    }
    flags & !(mask & TCP_FLAGS)
}

/// Completes a partial checksum as the kernel's `skb_checksum_help` does: never with zero, whatever the protocol.
fn complete(frame: &mut [u8], partial: Partial) -> Option<()> {
    let (start, at) = (usize::from(partial.start), usize::from(partial.start) + usize::from(partial.offset));
    frame.get(at..at + 2)?;
    let sum = Sum::ZERO.bytes(frame.get(start..)?).nonzero();
    put16(frame, at, sum);
    Some(())
}

#[cfg(test)]
mod tests;
