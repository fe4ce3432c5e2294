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
