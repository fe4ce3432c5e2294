//! Which datagrams of different frames go into one `sendmsg` with `UDP_SEGMENT`: the kernel cuts it every so many
//! bytes, so all must be of one length, but for a shorter last one, and for one destination.

use super::segment::{Chunk, MAX_BYTES, MAX_SEGMENTS};

/// A `sendmsg` under construction for one destination and source port, of which the caller keeps track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    count: usize,
    size: usize,
    bytes: usize,
    /// A shorter datagram was the last.
    closed: bool,
}

impl Group {
    /// A group that begins with one chunk.
    #[must_use]
    pub fn new(chunk: &Chunk) -> Self {
        let size = chunk.segment_len();
        Self { count: chunk.count, size, bytes: chunk.bytes(), closed: chunk.last_len() < size }
    }

    /// Takes another chunk for the same destination, if it fits behind what is there. If not, nothing changes.
    #[inline]
    pub fn add(&mut self, chunk: &Chunk) -> bool {
        let len = chunk.segment_len();
        let fits = !self.closed
            && (len == self.size || (chunk.count == 1 && len < self.size))
            && self.count + chunk.count <= MAX_SEGMENTS
            && self.bytes + chunk.bytes() <= MAX_BYTES;
        if fits {
            self.count += chunk.count;
            self.bytes += chunk.bytes();
            self.closed = chunk.last_len() < self.size;
        }
        fits
    }

    /// How many more datagrams of this length it takes.
    #[inline]
    #[must_use]
    pub fn room(&self, len: usize) -> usize {
        if self.closed || len != self.size {
            return 0;
        }
        (MAX_SEGMENTS - self.count).min(MAX_BYTES.saturating_sub(self.bytes) / len)
    }

    /// How many datagrams there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The value of `UDP_SEGMENT`.
    #[must_use]
    pub const fn segment_len(&self) -> usize {
        self.size
    }

    /// The bytes of all datagrams.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}
