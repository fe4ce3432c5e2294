//! Which flow a frame belongs to, in 32 bits. All frames of one flow and direction have the same hash; fragments are
//! told apart by their addresses alone, since only the first has ports.

use super::bytes::array;
use super::parse::{Kind, Layout};

/// Odd numbers without structure: the digits of pi.
const KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1];

/// The hash of the flow of `frame`, whose layout this is.
#[inline]
#[must_use]
pub fn hash(frame: &[u8], layout: &Layout) -> u32 {
    let l3 = usize::from(layout.l3);
    let ports = match layout.kind {
        Kind::Tcp | Kind::Udp => word4(frame, usize::from(layout.l4)),
        Kind::Foreign | Kind::Fragment | Kind::Other => 0,
    };
    let ends = ports << 8 | u64::from(layout.protocol);
    let mixed = match (layout.kind, layout.v6) {
        // Both Ethernet addresses and the type.
        (Kind::Foreign, _) => mix(word8(frame, 0) ^ KEYS[0], word8(frame, 6) ^ KEYS[1]),
        (_, false) => mix(word8(frame, l3 + 12) ^ KEYS[0], ends ^ KEYS[1]),
        (_, true) => {
            let source = mix(word8(frame, l3 + 8) ^ KEYS[0], word8(frame, l3 + 16) ^ KEYS[1]);
            let target = mix(word8(frame, l3 + 24) ^ KEYS[1], word8(frame, l3 + 32) ^ KEYS[2]);
            mix(source ^ ends, target.rotate_left(23) ^ KEYS[2])
        }
    };
    (mixed ^ mixed >> 32) as u32
}

/// Spreads each bit of both numbers over the result.
#[inline]
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
fn word8(frame: &[u8], at: usize) -> u64 {
    array(frame, at).map_or(0, u64::from_le_bytes)
}

#[inline]
fn word4(frame: &[u8], at: usize) -> u64 {
    array(frame, at).map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::frame::bytes::put16;
    use crate::frame::samples::{PEER, Sample, US};

    fn of(frame: &[u8]) -> u32 {
        hash(frame, &Layout::of(frame).unwrap())
    }

    #[test]
    fn all_packets_of_a_flow_have_one_hash() {
        for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
            let first = Sample::of(v6, udp, 10);
            let later = Sample { id: 99, seq: 12, ack: 13, flags: 0x18, ttl: 3, ..Sample::of(v6, udp, 900) };
            assert_eq!(of(&first.frame()), of(&later.frame()));
        }
    }

    #[test]
    fn flows_spread_over_a_large_table_and_over_a_small_one() {
        for v6 in [false, true] {
            let hashes =
                (0..4096).map(|n| of(&Sample { port: 32_768 + n, ..Sample::of(v6, false, 1) }.frame()));
            let places: BTreeSet<u32> = hashes.clone().map(|hash| hash >> 18).collect();
            assert!(places.len() > 3400, "16384 places, {} taken by 4096 flows", places.len());
            let mut slots = [0; 64];
            hashes.for_each(|hash| slots[hash as usize % 64] += 1);
            assert!(slots.iter().all(|n| (32..=110).contains(n)), "{slots:?}");
        }
    }

    #[test]
    fn all_fragments_of_a_datagram_have_one_hash() {
        let mut first = Sample::of(false, true, 100).frame();
        put16(&mut first, 20, 0x2000);
        let mut last = Sample { port: 1, ..Sample::of(false, true, 50) }.frame();
        put16(&mut last, 20, 0x0010);
        assert_eq!(of(&first), of(&last));
        let fragment6 = |port, offset: u8| {
            let mut frame = Sample { port, ..Sample::of(true, true, 100) }.frame();
            frame[20] = 44;
            frame.splice(54..54, [17, 0, 0, offset, 0, 0, 0, 9]);
            let len = frame.len() as u16 - 54;
            put16(&mut frame, 18, len);
            frame
        };
        assert_eq!(of(&fragment6(1, 1)), of(&fragment6(2, 8)));
    }

    #[test]
    fn frames_without_ip_are_told_apart_by_their_addresses() {
        let frame = |to: [u8; 6]| [&to[..], &US, &[0x88, 0xcc], &[0; 20]].concat();
        assert_eq!(of(&frame(PEER)), of(&frame(PEER)));
        assert_ne!(of(&frame(PEER)), of(&frame(US)));
    }
}
