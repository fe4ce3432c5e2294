//! The headers of a large frame.

use super::{Kind, Sum, Unit, pseudo};
use crate::frame::bytes::{be16, put, put16};
use crate::frame::virtio::{Gso, Header, Partial};

const CWR: u16 = 0x80;

impl Unit {
    /// Makes the headers those of the whole, with a partial checksum, and writes the virtio header.
    pub(super) fn write(&mut self, slab: &mut [u8]) -> Option<()> {
        let layout = self.layout;
        // Padding behind the first packet is not followed by the second payload.
        self.head.end = self.head.start + layout.end as usize;
        let frame = slab.get_mut(self.head.clone())?;
        let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
        if layout.v6 {
            put16(frame, l3 + 4, (self.packet_len - 40) as u16);
        } else {
            put16(frame, l3 + 2, self.packet_len as u16);
            put16(frame, l3 + 10, 0);
            let sum = Sum::ZERO.bytes(frame.get(l3..l4)?).checksum();
            put16(frame, l3 + 10, sum);
        }
        let len = (self.packet_len - (l4 - l3)) as u16;
        let partial = pseudo(frame, l3, layout.v6, layout.protocol)?.word(len).fold();
        let (gso, offset) = if layout.kind == Kind::Tcp {
            let word = be16(frame, l4 + 12)? | u16::from(self.flags);
            put16(frame, l4 + 12, word);
            let ecn = word & CWR != 0;
            (if layout.v6 { Gso::TcpV6 { ecn } } else { Gso::TcpV4 { ecn } }, 16)
        } else {
            put16(frame, l4 + 4, len);
            (Gso::Udp, 6)
        };
        put(frame, l4 + usize::from(offset), partial.to_be_bytes());
        let header = Header {
            partial: Some(Partial { start: layout.l4, offset }),
            data_valid: false,
            gso: Some((gso, self.size)),
            hdr_len: layout.payload,
        };
        self.virtio = header.encode();
        Some(())
    }
}
