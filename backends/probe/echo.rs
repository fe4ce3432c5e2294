//! One probe on the wire: what it says, less the tag that proves who sent it.
//!
//! ```text
//!  0  "twpr"          8  from      the sender's id, by which the receiver finds the key
//!  4  version        16  seq       of the request; its answer repeats it
//!  5  flags          20  mtu       the largest packet the sender knows to arrive, 0 while unknown
//!  6  length         22  failing   how many of the sender's peers fail
//!                    24  seen      per way: the highest of the receiver's numbers that came, and which of 32 before
//!                    40  row       8 × (name 4, state 1, round trip 1): what the sender says of other hosts
//!                    88  tag
//!                   104  padding up to `length`, which counts all of this
//! ```
//!
//! Numbers are in network order. An answer is as long as its request, so that a size that is answered passes in both
//! directions. What is said of other hosts is in [`super::row`].

use super::Way;
use super::row::{ENTRIES, ENTRY};

/// Bytes before the tag.
pub const HEADER: usize = 40 + ENTRIES * ENTRY;
/// Bytes of the tag.
pub const TAG: usize = 16;
/// The shortest probe.
pub const SHORTEST: usize = HEADER + TAG;

const MAGIC: [u8; 4] = *b"twpr";
const VERSION: u8 = 1;
const ANSWER: u8 = 1;
const UNDERLAY: u8 = 2;
const SETTLED: u8 = 4;

/// Which of a sender's requests came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The highest number; 0 while none came.
    pub high: u32,
    /// Bit `n`: whether `high - n` came.
    pub mask: u32,
}

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Whether it answers a request.
    pub answer: bool,
    /// The way it takes.
    pub way: Way,
    /// Whether the sender's kernel is as the sender wants it.
    pub settled: bool,
    /// The number of the request.
    pub seq: u32,
    /// The largest packet in bytes that the sender knows to arrive on this way.
    pub mtu: Option<u16>,
    /// What came from the receiver over the overlay and over the underlay.
    pub seen: [Seen; 2],
}

/// How far apart the numbers of one process can be; more is another process, which began elsewhere.
const FAR: u32 = 1 << 16;

/// How far apart two lines of one process begin, so that its numbers for one peer are another process's to that peer
/// when it is met anew.
pub(super) const STRIDE: u32 = FAR << 4;

impl Seen {
    /// Takes note of a number. Returns whether it is a new one.
    pub fn note(&mut self, seq: u32) -> bool {
        let ahead = seq.wrapping_sub(self.high);
        let behind = self.high.wrapping_sub(seq);
        if self.mask == 0 || (ahead > FAR && behind > FAR) {
            *self = Self { high: seq, mask: 1 };
            return true;
        }
        if ahead <= FAR && ahead > 0 {
            self.mask = self.mask.checked_shl(ahead).unwrap_or(0) | 1;
            self.high = seq;
            return true;
        }
        let bit = 1_u32.checked_shl(behind).unwrap_or(0);
        let new = bit != 0 && self.mask & bit == 0;
        self.mask |= bit;
        new
    }

    /// Whether the request of this number came, as far as is remembered.
    #[must_use]
    pub fn has(&self, seq: u32) -> bool {
        self.mask.checked_shr(self.high.wrapping_sub(seq)).is_some_and(|mask| mask & 1 == 1)
    }

    /// Whether a request of this number, or one after it, came.
    #[must_use]
    pub fn reaches(&self, seq: u32) -> bool {
        self.mask != 0 && self.high.wrapping_sub(seq) <= FAR
    }
}

impl Echo {
    /// The bytes before the tag of a probe of `length` bytes, sent by `from`. Nothing is said of other hosts there.
    #[must_use]
    pub fn encode(&self, from: u64, length: u16) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(self.answer, ANSWER)
            | flag(self.way == Way::Underlay, UNDERLAY)
            | flag(self.settled, SETTLED);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&[VERSION, flags]);
        bytes[6..8].copy_from_slice(&length.to_be_bytes());
        bytes[8..16].copy_from_slice(&from.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.seq.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.mtu.unwrap_or(0).to_be_bytes());
        let [over, under] = self.seen;
        for (place, number) in [over.high, over.mask, under.high, under.mask].into_iter().enumerate() {
            bytes[24 + 4 * place..28 + 4 * place].copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads a whole probe: who says that it sent it, and what it says. `None` if it is none, or not of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        if bytes.len() < SHORTEST || bytes[..4] != MAGIC || bytes[4] != VERSION {
            return None;
        }
        let flags = bytes[5];
        let (length, mtu) = (half(bytes, 6), half(bytes, 20));
        if usize::from(length) != bytes.len() || flags & !(ANSWER | UNDERLAY | SETTLED) != 0 {
            return None;
        }
        let from = u64::from(word(bytes, 8)) << 32 | u64::from(word(bytes, 12));
        let seen = |at| Seen { high: word(bytes, at), mask: word(bytes, at + 4) };
        let echo = Self {
            answer: flags & ANSWER != 0,
            way: if flags & UNDERLAY != 0 { Way::Underlay } else { Way::Overlay },
            settled: flags & SETTLED != 0,
            seq: word(bytes, 16),
            mtu: Some(mtu).filter(|mtu| *mtu != 0),
            seen: [seen(24), seen(32)],
        };
        Some((from, echo))
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn echo()(answer: bool, under: bool, settled: bool, seq: u32, mtu in prop::option::of(1_u16..),
                  seen: [u32; 4]) -> Echo {
            let [a, b, c, d] = seen;
            Echo {
                answer, settled, seq, mtu,
                way: if under { Way::Underlay } else { Way::Overlay },
                seen: [Seen { high: a, mask: b }, Seen { high: c, mask: d }],
            }
        }
    }

    fn whole(echo: &Echo, from: u64, length: usize) -> Vec<u8> {
        let mut bytes = echo.encode(from, u16::try_from(length).unwrap()).to_vec();
        bytes.resize(length, 0);
        bytes
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(echo in echo(), from: u64, length in SHORTEST..9000) {
            prop_assert_eq!(Echo::decode(&whole(&echo, from, length)), Some((from, echo)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Echo::decode(&bytes).is_none() || bytes.starts_with(&MAGIC));
        }

        #[test]
        fn what_was_damaged_says_something_else_or_nothing(
            echo in echo(), from: u64, at in (0..HEADER).prop_filter("other hosts", |at| !(22..24).contains(at) && *at < 40),
            flip in 1_u8..,
        ) {
            let mut bytes = whole(&echo, from, SHORTEST);
            bytes[at] ^= flip;
            prop_assert_ne!(Echo::decode(&bytes), Some((from, echo)));
        }

        #[test]
        fn a_cut_probe_is_none(echo in echo(), length in SHORTEST..200, cut in 1_usize..200) {
            let bytes = whole(&echo, 7, length);
            prop_assert_eq!(Echo::decode(&bytes[..length.saturating_sub(cut)]), None);
        }

        /// Whatever order 32 numbers come in, and wherever they begin, each counts once.
        #[test]
        fn each_number_counts_once(
            first: u32, order in Just((0_u32..32).collect::<Vec<_>>()).prop_shuffle(), lost in 0_usize..32,
        ) {
            let mut seen = Seen::default();
            for n in &order[lost..] {
                prop_assert!(seen.note(first.wrapping_add(*n)));
                prop_assert!(!seen.note(first.wrapping_add(*n)));
            }
            prop_assert_eq!(seen.mask.count_ones() as usize, 32 - lost);
            let last = first.wrapping_add(*order[lost..].iter().max().unwrap());
            prop_assert_eq!(seen.high, last);
            prop_assert!((0..32).all(|n| seen.has(first.wrapping_add(n)) == order[lost..].contains(&n)));
            prop_assert!(seen.reaches(last) && !seen.reaches(last.wrapping_add(1)));
        }
    }

    #[test]
    fn another_process_begins_anew() {
        let mut seen = Seen::default();
        assert!(!seen.reaches(5) && seen.note(u32::MAX) && seen.note(3));
        assert_eq!(seen, Seen { high: 3, mask: 0b1_0001 });
        assert!(seen.note(1 << 30));
        assert_eq!(seen, Seen { high: 1 << 30, mask: 1 });
        assert!(!seen.note((1 << 30) - 40), "too long ago to be told from one that came");
    }
}
