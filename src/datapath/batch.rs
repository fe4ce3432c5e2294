//! Frames in batches: what one side gives, and what the other is to take.
//!
//! One buffer holds both: received bytes in front (the slab), headers made on the way behind (the arena). Everything
//! that is to be sent is ranges of that buffer, so payload is never copied here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Free bytes before each frame that a TAP gives: its virtio header, over which the VXLAN header is written later.
pub const HEADROOM: usize = twill_backends::frame::virtio::LEN;
/// The most that one receive takes, in bytes: a datagram, or a virtio header and a frame.
pub const SLOT: usize = 66 * 1024;

/// One side of the datapath: a TAP queue, a UDP socket, or a channel of a test.
pub trait FrameIo: Send {
    /// Receives what is there and fits, without waiting.
    ///
    /// # Errors
    /// This side is gone for good. Whatever passes is no error.
    fn recv(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Sends all messages, in order.
    fn send(&mut self, batch: &Batch) -> Refused;

    /// The messages, or parts of them, that the last send refused, in their order; where a side tells that at all.
    fn refused(&self) -> &[(Message, Refused)] {
        &[]
    }
}

/// What could not be sent, in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Larger than the underlay carries.
    pub too_big: u64,
    /// No room in the kernel's queues.
    pub full: u64,
    /// Anything else: no route, the device is down.
    pub other: u64,
}

/// What one receive gave: one frame of a TAP, or one or more datagrams of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its first byte in the buffer. A TAP's frame has [`HEADROOM`] before it.
    pub start: usize,
    /// The end.
    pub end: usize,
    /// Who sent it; unspecified for a TAP.
    pub from: IpAddr,
    /// The length of each datagram but the last; 0 if there is only one.
    pub segment: usize,
    /// Whether it was longer than a slot, and is cut off.
    pub cut: bool,
}

/// One thing to send: for a socket a datagram or several of one length, for a TAP a virtio header and a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where it goes; of no meaning to a TAP.
    pub to: SocketAddr,
    /// The place of the peer that it goes to; of no meaning to those who send it.
    pub peer: u32,
    /// The length of each datagram but the last; 0 if there is only one.
    pub segment: u16,
    /// How many pieces make one datagram, where there are several.
    pub pieces_each: u16,
    /// The first of its pieces, and the end of them.
    pub first: u32,
    /// The end.
    pub last: u32,
}

/// Consecutive bytes of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first byte.
    pub start: u32,
    /// The end.
    pub end: u32,
}

/// A batch and its buffer, used again and again.
#[derive(Debug)]
pub struct Batch {
    /// Slab and arena.
    pub bytes: Box<[u8]>,
    /// Where the arena begins.
    arena: usize,
    /// Where its free part begins.
    free: usize,
    /// What was received.
    pub received: Vec<Received>,
    /// What is to be sent.
    pub messages: Vec<Message>,
    /// The parts of the messages.
    pub pieces: Vec<Piece>,
}

impl Batch {
    /// An empty batch with so many bytes for what is received and for what is made.
    #[must_use]
    pub fn new(slab: usize, arena: usize) -> Self {
        Self {
            bytes: vec![0; slab + arena].into_boxed_slice(),
            arena: slab,
            free: slab,
            received: Vec::with_capacity(64),
            messages: Vec::with_capacity(256),
            pieces: Vec::with_capacity(4096),
        }
    }

    /// The bytes for what is received.
    pub fn slab(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.arena]
    }

    /// The bytes for what is received, and those of the arena that are free.
    pub fn parts(&mut self) -> (&mut [u8], &mut [u8]) {
        let (slab, arena) = self.bytes.split_at_mut(self.arena);
        (slab, &mut arena[self.free - self.arena..])
    }

    /// Takes bytes of the arena, written through [`Batch::parts`], as a piece.
    pub fn take(&mut self, len: usize) -> Piece {
        let start = self.free;
        self.free = (start + len).min(self.bytes.len());
        Piece::new(start, self.free)
    }

    /// How many bytes of the arena are free.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.bytes.len() - self.free
    }

    /// Copies a few bytes into the arena. `None` if it is full.
    pub fn put(&mut self, bytes: &[u8]) -> Option<Piece> {
        let (_, arena) = self.parts();
        arena.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(self.take(bytes.len()))
    }

    /// Adds a message of pieces for a TAP.
    pub fn frame(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        let first = self.pieces.len() as u32;
        self.pieces.extend(pieces);
        let last = self.pieces.len() as u32;
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.messages.push(Message { to, peer: 0, segment: 0, pieces_each: 1, first, last });
    }

    /// The pieces of a message.
    #[must_use]
    pub fn pieces_of(&self, message: &Message) -> &[Piece] {
        self.pieces.get(message.first as usize..message.last as usize).unwrap_or_default()
    }

    /// The bytes of all datagrams of a message.
    #[must_use]
    pub fn len_of(&self, message: &Message) -> u64 {
        let pieces = self.pieces_of(message);
        let full = message.count().saturating_sub(1);
        let last = pieces.get(full as usize * usize::from(message.pieces_each)..).unwrap_or_default();
        full * u64::from(message.segment) + last.iter().map(|piece| piece.len() as u64).sum::<u64>()
    }

    /// The bytes of a piece.
    #[must_use]
    pub fn bytes_of(&self, piece: Piece) -> &[u8] {
        self.bytes.get(piece.start as usize..piece.end as usize).unwrap_or_default()
    }

    /// Forgets what was to be sent.
    pub fn sent(&mut self) {
        self.free = self.arena;
        self.messages.clear();
        self.pieces.clear();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sent();
        self.received.clear();
    }
}

impl Piece {
    /// The bytes from `start` to `end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl Message {
    /// How many datagrams it is.
    #[must_use]
    pub const fn count(&self) -> u64 {
        let pieces = self.last - self.first;
        if self.segment == 0 { 1 } else { pieces.div_ceil(self.pieces_each as u32) as u64 }
    }
}

impl std::ops::AddAssign for Refused {
    fn add_assign(&mut self, other: Self) {
        self.too_big += other.too_big;
        self.full += other.full;
        self.other += other.other;
    }
}

impl Refused {
    /// All of it.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.too_big + self.full + self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_a_piece_until_the_arena_is_full() {
        let mut batch = Batch::new(10, 4);
        let piece = batch.put(&[1, 2, 3]).unwrap();
        assert_eq!((batch.bytes_of(piece), batch.room()), (&[1, 2, 3][..], 1));
        assert_eq!(batch.put(&[4, 5]), None);
        batch.frame([piece]);
        assert_eq!(batch.pieces_of(&batch.messages[0]), [Piece::new(10, 13)]);
        batch.clear();
        assert_eq!((batch.room(), batch.messages.len()), (4, 0));
    }

    #[test]
    fn datagrams_of_a_message_are_counted_by_their_pieces() {
        let to = "127.0.0.1:1".parse().unwrap();
        let one = Message { to, peer: 0, segment: 0, pieces_each: 1, first: 3, last: 9 };
        assert_eq!(one.count(), 1);
        let many = Message { segment: 100, pieces_each: 2, ..one };
        assert_eq!(many.count(), 3);
        // Two of 100 bytes and one of 80, each of a piece of headers and one of payload, after three others.
        let mut batch = Batch::new(500, 0);
        let lens = [60, 40, 60, 40, 60, 20];
        batch.pieces = [1, 2, 3].iter().chain(&lens).map(|len| Piece::new(0, *len)).collect();
        assert_eq!(batch.len_of(&many), 100 + 100 + 80);
        assert_eq!(batch.len_of(&Message { first: 3, last: 5, ..one }), 100);
        assert_eq!(batch.len_of(&Message { first: 9, last: 9, ..one }), 0);
    }
}
