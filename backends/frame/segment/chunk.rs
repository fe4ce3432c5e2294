//! What one `sendmsg` sends of a frame.

use std::ops::Range;

/// The part of a frame that goes into one `sendmsg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// How many segments, at least one, at most [`super::MAX_SEGMENTS`].
    pub count: usize,
    /// Bytes of headers of each segment; those of segment 0 begin the arena, the others follow without a gap.
    pub header_len: usize,
    /// Payload of each segment but the last.
    pub(super) size: usize,
    /// Its payload in the frame.
    pub(super) begin: usize,
    pub(super) end: usize,
}

impl Chunk {
    /// Where the headers of segment `index` are in the arena.
    #[must_use]
    pub const fn headers(&self, index: usize) -> Range<usize> {
        index * self.header_len..(index + 1) * self.header_len
    }

    /// Where the payload of segment `index` is in the frame.
    #[must_use]
    pub fn payload(&self, index: usize) -> Range<usize> {
        let begin = (self.begin + index * self.size).min(self.end);
        begin..(begin + self.size).min(self.end)
    }

    /// The length of each datagram but the last, which may be shorter: the value of `UDP_SEGMENT`.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.header_len + self.size.min(self.end - self.begin)
    }

    /// The length of the last datagram.
    #[must_use]
    pub fn last_len(&self) -> usize {
        self.header_len + self.payload(self.count - 1).len()
    }

    /// The bytes of all datagrams.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.count * self.header_len + self.end - self.begin
    }

    /// The length of the arena that is in use.
    #[must_use]
    pub const fn arena_len(&self) -> usize {
        self.count * self.header_len
    }
}
