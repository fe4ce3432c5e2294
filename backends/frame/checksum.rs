//! The Internet checksum (RFC 1071): ones-complement sums of 16-bit words.

use super::bytes::array;

/// A running sum. Bytes are added in the order of memory and swapped once, when the sum is folded (RFC 1071, 2B).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds bytes. Only the last bytes added may be of odd number; they count as if a zero byte followed.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let (blocks, words) = words.as_chunks::<4>();
        let mut lanes = [0_u128; 4];
        for [a, b, c, d] in blocks {
            lanes[0] += u128::from(u64::from_ne_bytes(*a));
            lanes[1] += u128::from(u64::from_ne_bytes(*b));
            lanes[2] += u128::from(u64::from_ne_bytes(*c));
            lanes[3] += u128::from(u64::from_ne_bytes(*d));
        }
        for word in words {
            lanes[0] += u128::from(u64::from_ne_bytes(*word));
        }
        let wide = lanes[0] + lanes[1] + lanes[2] + lanes[3];
        // 2^64 is 1 in ones-complement arithmetic, and so is 2^32.
        let mut sum = (wide >> 64) as u64 + (wide as u64 >> 32) + (wide as u64 & 0xffff_ffff);
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        if let Some((last, _)) = rest.split_first_chunk::<2>() {
            sum += u64::from(u16::from_ne_bytes(*last));
        }
        if let (Some(odd), 1) = (rest.last(), rest.len() & 1) {
            sum += u64::from(u16::from_ne_bytes([*odd, 0]));
        }
        self.plus(sum)
    }

    /// Adds a 16-bit number.
    #[inline]
    #[must_use]
    pub const fn word(self, value: u16) -> Self {
        self.plus(value.to_be() as u64)
    }

    /// Adds a 32-bit number that stands at an even offset.
    #[inline]
    #[must_use]
    pub const fn double(self, value: u32) -> Self {
        self.plus(value.to_be() as u64)
    }

    /// Adds another sum.
    #[inline]
    #[must_use]
    pub const fn sum(self, other: Self) -> Self {
        self.plus(other.0)
    }

    /// The sum in 16 bits, not complemented: what stands in the checksum field of a packet whose checksum is partial.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum where zero means that there is none, as in UDP (RFC 768).
    #[inline]
    #[must_use]
    pub const fn nonzero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// Whether bytes that contain their own checksum are undamaged.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    #[inline]
    const fn plus(self, value: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(value);
        Self(sum + carry as u64)
    }
}

/// The checksum after one 16-bit word of what it covers changed (RFC 1624, equation 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO.word(!checksum).word(!old).word(new).checksum()
}

/// The pseudo-header of TCP, UDP and ICMPv6 without the length: both addresses of the IP header at `l3`, and the
/// protocol. `None` if the header is cut off.
#[inline]
pub(super) fn pseudo(frame: &[u8], l3: usize, v6: bool, protocol: u8) -> Option<Sum> {
    let addresses = if v6 {
        Sum::ZERO.bytes(&array::<32>(frame, l3 + 8)?)
    } else {
        Sum::ZERO.bytes(&array::<8>(frame, l3 + 12)?)
    };
    Some(addresses.word(u16::from(protocol)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::ZERO.bytes(&bytes).checksum(), 0x220d);
    }

    #[test]
    fn the_largest_packet_of_ones_does_not_overflow() {
        assert_eq!(Sum::ZERO.bytes(&[0xff; 65_535]).fold(), 0xff00);
        assert!(Sum(u64::MAX).bytes(&[0xff; 64]).is_valid());
    }

    #[test]
    fn zero_is_never_written_where_it_means_absent() {
        let sum = Sum::ZERO.word(0xffff);
        assert_eq!((sum.checksum(), sum.nonzero()), (0, 0xffff));
    }

    proptest! {
        #[test]
        fn equals_the_sum_word_by_word(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), reference(&bytes));
        }

        #[test]
        fn numbers_add_like_their_bytes(word: u16, double: u32) {
            let bytes = [&word.to_be_bytes()[..], &double.to_be_bytes()].concat();
            prop_assert_eq!(Sum::ZERO.word(word).double(double).fold(), reference(&bytes));
        }

        #[test]
        fn parts_of_even_length_add_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0_usize..150,
        ) {
            let (a, b) = bytes.split_at((cut * 2).min(bytes.len()));
            prop_assert_eq!(Sum::ZERO.bytes(a).sum(Sum::ZERO.bytes(b)).fold(), reference(&bytes));
        }

        #[test]
        fn an_update_keeps_a_packet_valid(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..60),
            new: u16,
            word in 1_usize..9,
        ) {
            bytes.truncate(bytes.len() & !1);
            bytes[..2].fill(0);
            let sum = Sum::ZERO.bytes(&bytes).checksum();
            let at = word * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            bytes[..2].copy_from_slice(&update(sum, old, new).to_be_bytes());
            prop_assert!(Sum::ZERO.bytes(&bytes).is_valid() || bytes.iter().all(|b| *b == 0));
        }
    }
}
