//! Frames for tests, made and judged by etherparse.

use etherparse::{
    Ethernet2Header, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, NetHeaders, PacketBuilder, PacketHeaders,
    TcpHeader, TransportHeader,
};
use proptest::prelude::*;

use super::Dropped;
use super::coalesce::Coalescer;
use super::parse::Layout;
use super::segment::Segments;
use super::virtio::{Gso, Header, Partial};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

pub(super) const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Not what any test expects by chance.
pub(super) const VXLAN: [u8; 8] = [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0];

/// A TCP or UDP packet in an Ethernet frame.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) v6: bool,
    pub(super) udp: bool,
    pub(super) mac: [u8; 6],
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) id: u16,
    pub(super) df: bool,
    pub(super) port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            v6: false,
            udp: false,
            mac: PEER,
            tos: 0,
            ttl: 64,
            id: 7,
            df: true,
            port: 5000,
            seq: 1000,
            ack: 77,
            flags: ACK,
            window: 502,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: Vec::new(),
        }
    }
}

/// Bytes that tell where they were.
pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8) as u8).collect()
}

impl Sample {
    pub(super) fn of(v6: bool, udp: bool, len: usize) -> Self {
        Self { v6, udp, payload: payload(len), ..Self::default() }
    }

    pub(super) fn ip(&self) -> IpHeaders {
        let number = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.tos,
                hop_limit: self.ttl,
                next_header: number,
                source: "fd00:5:0:1::2".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                destination: "fd00:5:0:2::3".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                ..Ipv6Header::default()
            };
            return IpHeaders::Ipv6(header, Default::default());
        }
        let mut header = Ipv4Header::new(0, self.ttl, number, [10, 5, 1, 2], [10, 5, 2, 3]).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.df;
        header.dscp = (self.tos >> 2).try_into().unwrap();
        header.ecn = (self.tos & 3).try_into().unwrap();
        IpHeaders::Ipv4(header, Default::default())
    }

    pub(super) fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.port, 80, self.seq, self.window);
        let has = |flag| self.flags & flag != 0;
        (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (has(FIN), has(SYN), has(RST), has(PSH));
        (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (has(ACK), has(URG), has(ECE), has(CWR));
        tcp.acknowledgment_number = self.ack;
        tcp.set_options_raw(&self.options).unwrap();
        tcp
    }

    /// The frame with all its checksums.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let builder = PacketBuilder::ethernet2(US, self.mac).ip(self.ip());
        if self.udp {
            builder.udp(self.port, 53).write(&mut out, &self.payload).unwrap();
        } else {
            builder.tcp_header(self.tcp()).write(&mut out, &self.payload).unwrap();
        }
        out
    }

    /// The offset of the transport header.
    pub(super) fn l4(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    pub(super) fn gso(&self) -> Gso {
        let ecn = self.flags & CWR != 0;
        match (self.udp, self.v6) {
            (true, _) => Gso::Udp,
            (false, false) => Gso::TcpV4 { ecn },
            (false, true) => Gso::TcpV6 { ecn },
        }
    }

    pub(super) fn partial(&self) -> Partial {
        Partial { start: self.l4() as u16, offset: if self.udp { 6 } else { 16 } }
    }

    /// The virtio header that the kernel would put before it.
    pub(super) fn virtio(&self, size: u16) -> Header {
        Header { partial: Some(self.partial()), gso: Some((self.gso(), size)), ..Header::PLAIN }
    }

    /// The packets that the kernel would make of it.
    pub(super) fn cut(&self, size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(size);
        let chunk = |(index, payload): (usize, &[u8])| {
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if index + 1 < count {
                flags &= !(FIN | PSH);
            }
            let id = self.id.wrapping_add(index as u16);
            let seq = self.seq.wrapping_add((index * size) as u32);
            Self { id, seq, flags, payload: payload.to_vec(), ..self.clone() }.frame()
        };
        self.payload.chunks(size).enumerate().map(chunk).collect()
    }
}

prop_compose! {
    /// Any packet that may be cut, with up to `most` bytes of payload.
    pub(super) fn any_sample(most: usize)(
        (v6, udp, df) in any::<(bool, bool, bool)>(),
        (tos, ttl, id, port) in (any::<u8>(), 1_u8.., any::<u16>(), 1_u16..),
        (seq, ack, window) in any::<(u32, u32, u16)>(),
        flags in any::<u8>(),
        options in 0_usize..=10,
        payload in proptest::collection::vec(any::<u8>(), 1..most),
    ) -> Sample {
        let flags = flags & (FIN | PSH | ECE | CWR) | ACK;
        let options = [1_u8, 8, 10, 0, 1, 2, 3, 4, 5, 6].repeat(4)[..options * 4].to_vec();
        Sample { v6, udp, df, tos, ttl, id, port, seq, ack, window, flags, options, payload, mac: PEER }
    }
}

/// Asserts that a frame parses, to its last byte, and that all its checksums are right.
pub(super) fn verify(frame: &[u8]) {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = headers.payload.slice();
    match (headers.net.as_ref().unwrap(), headers.transport.as_ref()) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), frame.len() - Ethernet2Header::LEN);
            match transport {
                Some(TransportHeader::Tcp(tcp)) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap());
                }
                Some(TransportHeader::Udp(udp)) if udp.checksum != 0 => {
                    assert_eq!(udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap());
                }
                Some(TransportHeader::Icmpv4(icmp)) => {
                    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
                }
                _ => {}
            }
        }
        (NetHeaders::Ipv6(ip, _), transport) => {
            assert_eq!(usize::from(ip.payload_length), frame.len() - Ethernet2Header::LEN - 40);
            match transport {
                Some(TransportHeader::Tcp(tcp)) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap());
                }
                Some(TransportHeader::Udp(udp)) if udp.checksum != 0 => {
                    assert_eq!(udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap());
                }
                Some(TransportHeader::Icmpv6(icmp)) => {
                    let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload);
                    assert_eq!(icmp.checksum, sum.unwrap());
                }
                _ => {}
            }
        }
        (NetHeaders::Arp(_), _) => {}
    }
}

/// The inner frames that [`Segments`] makes, with an arena of so many bytes a chunk.
pub(super) fn segment(frame: &[u8], virtio: &Header, arena: usize) -> Result<Vec<Vec<u8>>, Dropped> {
    let mut frame = frame.to_vec();
    let layout = Layout::of(&frame)?;
    let mut segments = Segments::new(&mut frame, &layout, virtio, VXLAN)?;
    let (mut arena, mut frames) = (vec![0; arena], Vec::new());
    while let Some(chunk) = segments.next_chunk(&frame, &mut arena) {
        for index in 0..chunk.count {
            let datagram = [&arena[chunk.headers(index)], &frame[chunk.payload(index)]].concat();
            assert!(datagram.len() == chunk.segment_len() || index + 1 == chunk.count);
            assert_eq!(datagram[..8], VXLAN);
            frames.push(datagram[8..].to_vec());
        }
        let last: Vec<u8> = frames.last().cloned().unwrap_or_default();
        assert_eq!(chunk.last_len(), last.len() + 8);
    }
    assert!(segments.is_done() && segments.count() == frames.len());
    Ok(frames)
}

/// The frames that a [`Coalescer`] makes of one batch, with their virtio headers.
pub(super) fn coalesce(coalescer: &mut Coalescer, frames: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
    // Each datagram has its VXLAN header before it, and something behind it.
    let mut slab: Vec<u8> = frames.iter().flat_map(|frame| [&VXLAN[..], frame, &[0xaa]].concat()).collect();
    let before = slab.clone();
    let mut at = 0;
    for frame in frames {
        let range = at + 8..at + 8 + frame.len();
        let layout = Layout::of(&slab[range.clone()]).unwrap();
        coalescer.push(&slab, range.clone(), &layout);
        at = range.end + 1;
    }
    coalescer.finish(&mut slab);
    let read = |unit: &super::coalesce::Unit| {
        if unit.count() == 1 {
            assert_eq!(slab[unit.head()], before[unit.head()], "a frame left alone is not touched");
        }
        let mut frame = slab[unit.head()].to_vec();
        coalescer.tail(unit).for_each(|range| frame.extend_from_slice(&slab[range]));
        assert_eq!((frame.len(), coalescer.tail(unit).count() + 1), (unit.len(), unit.count()));
        (Header::decode(unit.virtio()).unwrap(), frame)
    };
    let out = coalescer.units().iter().map(read).collect();
    coalescer.clear();
    out
}
