//! The VXLAN header (RFC 7348, section 5): eight bytes between the outer UDP header and the inner Ethernet frame.
//!
//! ```text
//! |R|R|R|R|I|R|R|R|          reserved             |
//! |        VNI                    |    reserved   |
//! ```
//!
//! # Why reserved bits are refused
//!
//! The RFC says to ignore them, the kernel's `vxlan_rcv` drops a packet with any of them set, since an extension that
//! it does not know may change what follows. Hosts of one fabric must agree on what they accept, so the kernel's
//! reading counts here too. The Group Based Policy extension owns the flag 0x80 and the 24 bits behind the flags;
//! they are accepted, and not looked at, where the configuration turns it on.

use super::Dropped;

/// The length of the header in bytes.
pub const LEN: usize = 8;

/// The VNI is valid: the only flag that RFC 7348 defines.
const FLAG_VNI: u32 = 0x0800_0000;
/// The flag of the Group Based Policy extension and the 24 bits that belong to it.
const GBP: u32 = 0x80ff_ffff;

/// One virtual network, as the header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The first four bytes that are ignored.
    ignored: u32,
    /// The last four bytes: VNI and a reserved byte.
    network: u32,
}

impl Vxlan {
    /// The network `vni`, of which the lower 24 bits count. With `gbp`, headers with the Group Based Policy extension
    /// are accepted; it is never sent.
    #[must_use]
    pub const fn new(vni: u32, gbp: bool) -> Self {
        Self { ignored: if gbp { GBP } else { 0 }, network: vni << 8 }
    }

    /// The header to send.
    #[must_use]
    pub const fn header(self) -> [u8; LEN] {
        let [a, b, c, d] = FLAG_VNI.to_be_bytes();
        let [e, f, g, h] = self.network.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// The inner frame of a datagram of this network: what follows the header.
    ///
    /// # Errors
    /// [`Dropped::Truncated`], [`Dropped::BadVxlan`] or [`Dropped::OtherVni`].
    #[inline]
    pub fn open(self, datagram: &[u8]) -> Result<&[u8], Dropped> {
        let Some((header, frame)) = datagram.split_first_chunk::<LEN>() else {
            return Err(Dropped::Truncated);
        };
        let header = u64::from_be_bytes(*header);
        let (flags, network) = ((header >> 32) as u32, header as u32);
        if flags & !self.ignored != FLAG_VNI || network & 0xff != 0 {
            Err(Dropped::BadVxlan)
        } else if network != self.network {
            Err(Dropped::OtherVni)
        } else {
            Ok(frame)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: Vxlan = Vxlan::new(0x12_3456, false);

    #[test]
    fn header_as_on_the_wire() {
        assert_eq!(NET.header(), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(NET.open(&[8, 0, 0, 0, 0x12, 0x34, 0x56, 0, 1, 2]), Ok(&[1, 2][..]));
    }

    #[test]
    fn short_datagrams_are_counted_as_truncated() {
        for len in 0..LEN {
            assert_eq!(NET.open(&NET.header()[..len]), Err(Dropped::Truncated));
        }
        assert_eq!(NET.open(&NET.header()), Ok(&[][..]));
    }

    #[test]
    fn every_other_bit_is_refused_as_the_kernel_does() {
        for bit in 0..64 {
            let mut header = u64::from_be_bytes(NET.header());
            header ^= 1 << bit;
            let want = if (8..32).contains(&bit) { Dropped::OtherVni } else { Dropped::BadVxlan };
            assert_eq!(NET.open(&header.to_be_bytes()), Err(want), "bit {bit}");
        }
    }

    #[test]
    fn policy_bits_are_ignored_where_the_extension_is_on() {
        let gbp = Vxlan::new(1, true);
        assert_eq!(gbp.open(&[0x88, 0x48, 0xab, 0xcd, 0, 0, 1, 0]), Ok(&[][..]));
        assert_eq!(gbp.open(&[0x08, 0, 0, 0, 0, 0, 1, 0]), Ok(&[][..]));
        assert_eq!(gbp.open(&[0xc8, 0, 0, 0, 0, 0, 1, 0]), Err(Dropped::BadVxlan));
        assert_eq!(Vxlan::new(1, false).open(&[0x88, 0, 0, 1, 0, 0, 1, 0]), Err(Dropped::BadVxlan));
    }
}
