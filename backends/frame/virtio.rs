//! The header in front of each frame of a TAP device opened with `IFF_VNET_HDR`: `struct virtio_net_hdr` of
//! `include/uapi/linux/virtio_net.h`. It says which work on the frame was left undone: one checksum, and cutting the
//! frame into packets of wire size.
//!
//! Numbers are in the order of the host, as the kernel has them unless `TUNSETVNETLE` or `TUNSETVNETBE` says otherwise.

/// The length that the kernel uses unless `TUNSETVNETHDRSZ` says otherwise.
pub const LEN: usize = 10;
/// The length with `num_buffers` at its end, which a TAP ignores.
pub const LEN_MERGEABLE: usize = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of packets a frame is to be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// TCP over IPv4. `ecn`: the CWR flag is set, and belongs to the first packet alone.
    TcpV4 {
        /// Whether CWR is set.
        ecn: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// Whether CWR is set.
        ecn: bool,
    },
    /// UDP datagrams over either (USO).
    Udp,
}

/// A checksum that is not complete: the field holds the sum of the pseudo-header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Where the bytes that it covers begin, in the frame.
    pub start: u16,
    /// Where the field is, from `start`.
    pub offset: u16,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The checksum left undone.
    pub partial: Option<Partial>,
    /// Whether the sender of the header has verified the checksums.
    pub data_valid: bool,
    /// How the frame is to be cut, and the payload of each packet in bytes, not 0.
    pub gso: Option<(Gso, u16)>,
    /// The length of all headers: a hint, that a reader must not believe.
    pub hdr_len: u16,
}

/// A header that makes no sense: shorter than [`LEN`], or segmentation of an unknown kind or into empty packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHeader;

impl Header {
    /// Nothing was left undone.
    pub const PLAIN: Self = Self { partial: None, data_valid: false, gso: None, hdr_len: 0 };

    /// Reads a header of either length.
    ///
    /// # Errors
    /// [`BadHeader`].
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.first_chunk::<LEN>().ok_or(BadHeader)?;
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let ecn = bytes[1] & GSO_ECN != 0;
        let gso = match bytes[1] & !GSO_ECN {
            0 if !ecn => None,
            GSO_TCPV4 => Some(Gso::TcpV4 { ecn }),
            GSO_TCPV6 => Some(Gso::TcpV6 { ecn }),
            GSO_UDP_L4 if !ecn => Some(Gso::Udp),
            _ => return Err(BadHeader),
        };
        let size = number(4);
        if gso.is_some() && size == 0 {
            return Err(BadHeader);
        }
        Ok(Self {
            partial: (bytes[0] & F_NEEDS_CSUM != 0).then(|| Partial { start: number(6), offset: number(8) }),
            data_valid: bytes[0] & F_DATA_VALID != 0,
            gso: gso.map(|gso| (gso, size)),
            hdr_len: number(2),
        })
    }

    /// The header in bytes: the first [`LEN`] of them, or all.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; LEN_MERGEABLE] {
        let mut flags = if self.data_valid { F_DATA_VALID } else { 0 };
        let mut partial = Partial { start: 0, offset: 0 };
        if let Some(left) = self.partial {
            flags |= F_NEEDS_CSUM;
            partial = left;
        }
        let ecn = |ecn: bool| if ecn { GSO_ECN } else { 0 };
        let (kind, size) = match self.gso {
            None => (0, 0),
            Some((Gso::TcpV4 { ecn: cwr }, size)) => (GSO_TCPV4 | ecn(cwr), size),
            Some((Gso::TcpV6 { ecn: cwr }, size)) => (GSO_TCPV6 | ecn(cwr), size),
            Some((Gso::Udp, size)) => (GSO_UDP_L4, size),
        };
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = size.to_ne_bytes();
        let [e, f] = partial.start.to_ne_bytes();
        let [g, h] = partial.offset.to_ne_bytes();
        [flags, kind, a, b, c, d, e, f, g, h, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_as_the_kernel_writes_it() {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(&[1, 0x81]);
        for (at, value) in [(2, 66_u16), (4, 1398), (6, 34), (8, 16)] {
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        let header = Header {
            partial: Some(Partial { start: 34, offset: 16 }),
            data_valid: false,
            gso: Some((Gso::TcpV4 { ecn: true }, 1398)),
            hdr_len: 66,
        };
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(header.encode()[..LEN], bytes);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(Header::decode(&[0; LEN - 1]), Err(BadHeader));
        for (kind, size) in [(1, 0), (4, 0), (5, 0), (3, 9), (2, 9), (0x80, 9), (0x85, 9), (6, 9)] {
            let bytes = [0, kind, 0, 0, size, size, 0, 0, 0, 0];
            assert_eq!(Header::decode(&bytes), Err(BadHeader), "kind {kind} size {size}");
        }
        assert_eq!(Header::decode(&[0; LEN_MERGEABLE]), Ok(Header::PLAIN));
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same(bytes: [u8; LEN]) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }
}
