//! A question that the kernel of any host answers: a TCP segment that asks for a connection at a port where nobody
//! listens. The answer (RST) names the end of the segment, so that each piece of a large one is told from the others;
//! and it comes only if the checksum was right. The checksum is left to the device that the segment is sent through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};

use super::bytes::put16;
use super::checksum::pseudo;
use super::parse::ETHERNET;
use super::virtio::{Gso, Header, LEN, Partial};
use crate::mac::Mac;

/// The TCP header, and where the checksum is in it.
const TCP: usize = 20;
const CHECKSUM: usize = 16;
/// The number of the protocol.
const PROTOCOL: u8 = 6;
/// Hops: as many as hosts use.
const HOPS: u8 = 64;
/// The window that is offered. Nothing is ever sent.
const WINDOW: u16 = 1024;

/// Between which hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The Ethernet addresses of sender and receiver.
    pub macs: [Mac; 2],
    /// The sender's address.
    pub from: IpAddr,
    /// The receiver's.
    pub to: IpAddr,
    /// The ports, likewise.
    pub ports: [u16; 2],
}

/// The segment of `len` bytes from the sequence number `seq` on, behind a virtio header of [`LEN`] bytes. It is to be cut
/// into pieces of `piece` bytes, if it is longer. `None` if both addresses are not of one family, or it is too long.
#[must_use]
pub fn segment(ends: &Ends, seq: u32, len: u16, piece: u16) -> Option<Vec<u8>> {
    let [source, destination] = ends.macs;
    let ethernet = PacketBuilder::ethernet2(source.0, destination.0);
    let ip = match (ends.from, ends.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOPS),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let v6 = ends.from.is_ipv6();
    let tcp = ip.tcp(ends.ports[0], ends.ports[1], seq, WINDOW).syn();
    let mut bytes = vec![0; LEN];
    tcp.write(&mut bytes, &vec![0; len.into()]).ok()?;
    let frame = &mut bytes[LEN..];
    let l4 = ETHERNET + if v6 { 40 } else { 20 };
    let partial = pseudo(frame, ETHERNET, v6, PROTOCOL)?.word(u16::try_from(frame.len() - l4).ok()?).fold();
    put16(frame, l4 + CHECKSUM, partial);
    let kind = if v6 { Gso::TcpV6 { ecn: false } } else { Gso::TcpV4 { ecn: false } };
    let header = Header {
        partial: Some(Partial { start: u16::try_from(l4).ok()?, offset: CHECKSUM as u16 }),
        data_valid: false,
        gso: (len > piece).then_some((kind, piece)),
        hdr_len: u16::try_from(l4 + TCP).ok()?,
    };
    bytes[..LEN].copy_from_slice(&header.encode()[..LEN]);
    Some(bytes)
}

/// The answers that a segment brings if all of it arrives: the end of each piece.
pub fn answers(seq: u32, len: u16, piece: u16) -> impl Iterator<Item = u32> {
    let pieces = len.div_ceil(piece).max(1);
    (1..=u32::from(pieces)).map(move |number| {
        let end = (number * u32::from(piece)).min(len.into());
        // The request itself counts as one byte.
        seq.wrapping_add(end).wrapping_add(1)
    })
}

/// What a frame answers, if it is an answer to `port`: who sent it, and which end it names.
#[must_use]
pub fn answered(frame: &[u8], port: u16) -> Option<(IpAddr, u32)> {
    let headers = PacketHeaders::from_ethernet_slice(frame).ok()?;
    let from = match headers.net? {
        NetHeaders::Ipv4(ip, _) => Ipv4Addr::from(ip.source).into(),
        NetHeaders::Ipv6(ip, _) => Ipv6Addr::from(ip.source).into(),
        NetHeaders::Arp(_) => return None,
    };
    let TransportHeader::Tcp(tcp) = headers.transport? else { return None };
    (tcp.rst && tcp.ack && tcp.destination_port == port).then_some((from, tcp.acknowledgment_number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::samples::{segment as cut, verify};

    fn ends(v6: bool) -> Ends {
        let addr = |v4: &str, v6_addr: &str| if v6 { v6_addr } else { v4 }.parse().unwrap();
        Ends {
            macs: [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])],
            from: addr("10.5.1.0", "fd00:5:1::"),
            to: addr("10.5.2.0", "fd00:5:2::"),
            ports: [50_000, 8475],
        }
    }

    /// Whoever finishes the checksum, and cuts, makes packets that are whole, and end where the answers say.
    #[test]
    fn the_pieces_are_whole_and_end_where_the_answers_say() {
        for (v6, len) in [(false, 32), (false, 4000), (true, 32), (true, 3500), (false, 0)] {
            let seq = u32::MAX - 1500;
            let bytes = segment(&ends(v6), seq, len, 1000).unwrap();
            let header = Header::decode(&bytes).unwrap();
            assert_eq!(header.gso.is_some(), len > 1000);
            let packets = cut(&bytes[LEN..], &header, 1 << 14).unwrap();
            let found: Vec<u32> = packets
                .iter()
                .map(|packet| {
                    verify(packet);
                    let Some(TransportHeader::Tcp(tcp)) =
                        PacketHeaders::from_ethernet_slice(packet).unwrap().transport
                    else {
                        panic!("not TCP")
                    };
                    assert!(tcp.syn && !tcp.ack && tcp.destination_port == 8475);
                    let payload = packet.len() - ETHERNET - if v6 { 40 } else { 20 } - TCP;
                    tcp.sequence_number.wrapping_add(u32::try_from(payload).unwrap()).wrapping_add(1)
                })
                .collect();
            assert_eq!(found, answers(seq, len, 1000).collect::<Vec<_>>(), "{v6} {len}");
        }
        let mixed = Ends { to: ends(true).to, ..ends(false) };
        assert_eq!(segment(&mixed, 1, 1, 1000), None);
        assert_eq!(segment(&ends(false), 1, u16::MAX, 1000), None);
    }

    #[test]
    fn only_a_refusal_is_an_answer() {
        let answer = |reset: bool| {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 5, 2, 0], [10, 5, 1, 0], 64);
            let tcp = builder.tcp(8475, 50_000, 0, 0).ack(77);
            let mut frame = Vec::new();
            if reset { tcp.rst() } else { tcp }.write(&mut frame, &[]).unwrap();
            frame
        };
        assert_eq!(answered(&answer(true), 50_000), Some((ends(false).to, 77)));
        assert_eq!(answered(&answer(false), 50_000), None);
        assert_eq!(answered(&answer(true), 50_001), None);
        assert_eq!(answered(&answer(true)[..40], 50_000), None);
        assert_eq!(answered(&segment(&ends(false), 1, 32, 1000).unwrap()[LEN..], 8475), None);
    }
}
