//! Consecutive segments of a flow become one large frame, as the kernel's GRO does it, so that the host's stack is
//! entered once for many packets. Nothing is copied: the result is a list of ranges for `writev`.
//!
//! ```text
//! slab  | … | Ethernet, IP, TCP | payload 0 | … | Ethernet, IP, TCP | payload 1 | … | Ethernet, IP, TCP | payload 2 |
//!             ╰──────────── head ──────────╯                        ╰─ tail 0 ──╯                       ╰─ tail 1 ──╯
//! writev  virtio header, head, tail 0, tail 1
//! ```
//!
//! # What is joined
//!
//! TCP segments whose headers differ in nothing but sequence number, IPv4 identification, checksums and the flags FIN
//! and PSH; whose sequence numbers follow each other; whose payloads are of one size, but for a shorter last one.
//! UDP datagrams likewise. The identification counts up with each packet, or stands still where fragmenting is
//! forbidden (RFC 6864). Everything else is left alone: fragments, IP options, VLAN tags, extension headers, SYN, RST,
//! URG, CWR behind the first segment, different ECN marks, UDP without a checksum.
//!
//! # Why the order holds
//!
//! Frames are only ever joined to the last one of their flow. Everything of a flow that cannot be joined ends what
//! could be joined to, and units are given out in the order of their first frames: so no packet overtakes another of
//! its flow.
//!
//! # Checksums
//!
//! A large frame goes to the kernel with a partial checksum, which the kernel believes. So the checksum of each packet
//! is verified before it is joined; one that fails is left alone, for the kernel to count and drop.

use std::ops::Range;

use super::checksum::{Sum, pseudo};
use super::flow;
use super::parse::{Kind, Layout, TCP, UDP};
use super::virtio;

mod join;
mod write;

use join::Join;

/// Flows of one batch that can be joined to at the same time, a power of two. More only means less joining.
const FLOWS: usize = 64;
/// The largest IP packet.
const MAX_PACKET: usize = 65_535;
/// The most ranges of one large frame: its `writev` has two more, and the kernel takes 1,024.
const MAX_TCP: u16 = 1000;
/// The kernel refuses a frame of more UDP datagrams.
const MAX_UDP: u16 = 64;
/// No range.
const NONE: u32 = u32::MAX;

/// Joins the frames of one batch, all of them in one buffer, the slab.
#[derive(Debug)]
pub struct Coalescer {
    units: Vec<Unit>,
    pieces: Vec<Piece>,
    flows: Box<[Open; FLOWS]>,
    /// Marks the entries of `flows` that belong to this batch.
    batch: u32,
    udp: bool,
}

/// One frame to write: as it came, or joined from several.
#[derive(Debug, Clone)]
pub struct Unit {
    head: Range<usize>,
    layout: Layout,
    virtio: [u8; virtio::LEN_MERGEABLE],
    /// First and last of the payloads behind that of the head.
    first: u32,
    last: u32,
    count: u16,
    /// Payload of each segment but the last.
    size: u16,
    /// The IP packet as it stands, in bytes.
    packet_len: usize,
    /// The sequence number that would follow.
    next_seq: u32,
    /// FIN and PSH of the last segment.
    flags: u8,
    /// Whether the identification stands still; undecided before the second segment.
    fixed_id: Option<bool>,
    /// Whether more may be joined.
    open: bool,
    /// Whether the checksums of the head were verified.
    verified: bool,
}

/// The payload of one joined frame.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u32,
    end: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Open {
    batch: u32,
    hash: u32,
    unit: u32,
}

impl Coalescer {
    /// A coalescer with room for batches of `frames`; it grows if there are more. With `udp`, datagrams are joined
    /// too, which the TAP must understand (`TUN_F_USO4`, `TUN_F_USO6`).
    #[must_use]
    pub fn new(frames: usize, udp: bool) -> Self {
        Self {
            units: Vec::with_capacity(frames),
            pieces: Vec::with_capacity(frames),
            flows: Box::new([Open::default(); FLOWS]),
            batch: 1,
            udp,
        }
    }

    /// Adds the frame at `range` of the slab, which has this layout. Ranges do not overlap.
    #[inline]
    pub fn push(&mut self, slab: &[u8], range: Range<usize>, layout: &Layout) {
        let Some(frame) = slab.get(range.clone()) else { return };
        if !matches!(layout.kind, Kind::Tcp | Kind::Udp) {
            self.units.push(Unit::new(range, *layout));
            return;
        }
        let hash = flow::hash(frame, layout);
        let slot = hash as usize % FLOWS;
        let entry = self.flows[slot];
        let join = Join::of(frame, layout).filter(|join| !join.is_udp() || self.udp);
        let there = (entry.batch == self.batch && entry.hash == hash)
            .then(|| self.units.get_mut(entry.unit as usize))
            .flatten();
        if let Some(unit) = there {
            if unit.open && join.as_ref().is_some_and(|join| unit.take(slab, frame, join)) {
                self.append(entry.unit as usize, range.start, layout);
                return;
            }
            unit.open = false;
        }
        let mut unit = Unit::new(range, *layout);
        if let Some(join) = join {
            unit.begin(&join);
        }
        self.flows[slot] = Open { batch: self.batch, hash, unit: self.units.len() as u32 };
        self.units.push(unit);
    }

    /// Writes the headers of the joined frames into the slab. After the last frame of a batch, before
    /// [`Coalescer::units`].
    pub fn finish(&mut self, slab: &mut [u8]) {
        for unit in self.units.iter_mut().filter(|unit| unit.count > 1) {
            unit.write(slab);
        }
    }

    /// The frames to write, in order.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The ranges of the slab that follow the head of a unit.
    pub fn tail(&self, unit: &Unit) -> impl Iterator<Item = Range<usize>> {
        let mut next = unit.first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some(piece.start as usize..piece.end as usize)
        })
    }

    /// Forgets the batch.
    pub fn clear(&mut self) {
        self.units.clear();
        self.pieces.clear();
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.flows.fill(Open::default());
            self.batch = 1;
        }
    }

    #[inline]
    fn append(&mut self, unit: usize, start: usize, layout: &Layout) {
        let at = self.pieces.len() as u32;
        let payload = layout.payload();
        let (start, end) = ((start + payload.start) as u32, (start + payload.end) as u32);
        self.pieces.push(Piece { start, end, next: NONE });
        let Some(unit) = self.units.get_mut(unit) else { return };
        if let Some(last) = self.pieces.get_mut(unit.last as usize) {
            last.next = at;
        } else {
            unit.first = at;
        }
        unit.last = at;
    }
}

impl Unit {
    fn new(head: Range<usize>, layout: Layout) -> Self {
        Self {
            head,
            layout,
            virtio: [0; virtio::LEN_MERGEABLE],
            first: NONE,
            last: NONE,
            count: 1,
            size: 0,
            packet_len: layout.packet_len(),
            next_seq: 0,
            flags: 0,
            fixed_id: None,
            open: false,
            verified: false,
        }
    }

    /// The virtio header, of which the TAP wants the first [`virtio::LEN`] or all bytes.
    #[must_use]
    pub const fn virtio(&self) -> &[u8; virtio::LEN_MERGEABLE] {
        &self.virtio
    }

    /// Where the headers and the first payload are in the slab.
    #[must_use]
    pub fn head(&self) -> Range<usize> {
        self.head.clone()
    }

    /// How many frames it is made of. The tail has one range less.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// The length of the whole frame in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.count > 1 { usize::from(self.layout.l3) + self.packet_len } else { self.head.len() }
    }

    /// Whether it is empty, which no parsed frame is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
