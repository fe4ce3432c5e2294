//! The first inputs of each target: one of each kind of frame, made by etherparse.

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader};
use twill_backends::frame::virtio::{Gso, Header, LEN, Partial};
use twill_backends::frame::vxlan::Vxlan;

const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SIZE: usize = 60;

fn ip(v6: bool, id: u16, number: IpNumber) -> IpHeaders {
    if v6 {
        let mut header = Ipv6Header { next_header: number, hop_limit: 64, ..Ipv6Header::default() };
        header.source = [0xfd, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        header.destination = [0xfd, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        return IpHeaders::Ipv6(header, Default::default());
    }
    let mut header = Ipv4Header::new(0, 64, number, [10, 5, 1, 2], [10, 5, 2, 3]).unwrap();
    header.identification = id;
    header.dont_fragment = true;
    IpHeaders::Ipv4(header, Default::default())
}

/// Packet `at` of a flow, with so many bytes of payload.
fn packet(v6: bool, udp: bool, at: u16, len: usize) -> Vec<u8> {
    let (mut out, payload) = (Vec::new(), vec![b'a' + at as u8; len]);
    let builder = PacketBuilder::ethernet2(US, PEER);
    if udp {
        builder.ip(ip(v6, at, IpNumber::UDP)).udp(5000, 53).write(&mut out, &payload).unwrap();
        return out;
    }
    let mut tcp = TcpHeader::new(40_000, 5201, u32::from(at) * SIZE as u32, 502);
    tcp.ack = true;
    tcp.psh = len < SIZE;
    tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    builder.ip(ip(v6, at, IpNumber::TCP)).tcp_header(tcp).write(&mut out, &payload).unwrap();
    out
}

fn fragment() -> Vec<u8> {
    let IpHeaders::Ipv4(mut header, _) = ip(false, 9, IpNumber::UDP) else { unreachable!("IPv4") };
    header.dont_fragment = false;
    header.more_fragments = true;
    header.fragment_offset = IpFragOffset::try_new(0).unwrap();
    let mut out = Vec::new();
    PacketBuilder::ethernet2(US, PEER)
        .ip(IpHeaders::Ipv4(header, Default::default()))
        .udp(5000, 53)
        .write(&mut out, &[7; 24])
        .unwrap();
    out
}

fn tagged() -> Vec<u8> {
    let mut frame = packet(false, false, 0, 150);
    frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
    frame
}

/// TCP behind destination options.
fn extended() -> Vec<u8> {
    let mut frame = packet(true, false, 0, 150);
    let len = (frame.len() as u16 - 54 + 8).to_be_bytes();
    frame[20] = 60;
    frame[18..20].copy_from_slice(&len);
    frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    frame
}

fn arp() -> Vec<u8> {
    let parts = [&[0xff; 6][..], &US, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &US, &[10, 5, 2, 0], &[0; 6]];
    [&parts.concat()[..], &[10, 5, 1, 0]].concat()
}

fn solicitation() -> Vec<u8> {
    let (mut out, IpHeaders::Ipv6(ip, _)) = (Vec::new(), ip(true, 0, IpNumber::IPV6_ICMP)) else {
        unreachable!("IPv6")
    };
    let target = [0xfd, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    PacketBuilder::ethernet2(US, [0x33, 0x33, 0xff, 0, 0, 0])
        .ipv6(ip.destination, ip.source, 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut out, &[&target[..], &[1, 1], &US].concat())
        .unwrap();
    out
}

fn echo() -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2(US, PEER)
        .ip(ip(false, 1, IpNumber::ICMP))
        .icmpv4_echo_request(1, 2)
        .write(&mut out, &[1; 30])
        .unwrap();
    out
}

/// The kinds of frames that are neither TCP nor UDP in their plain form.
fn oddities() -> [(&'static str, Vec<u8>); 6] {
    [
        ("fragment", fragment()),
        ("vlan", tagged()),
        ("extension", extended()),
        ("arp", arp()),
        ("solicitation", solicitation()),
        ("echo", echo()),
    ]
}

const FLOWS: [(&str, bool, bool); 4] =
    [("tcp4", false, false), ("tcp6", true, false), ("udp4", false, true), ("udp6", true, true)];

fn virtio(partial: Option<Partial>, gso: Option<Gso>) -> Vec<u8> {
    let header = Header { partial, gso: gso.map(|gso| (gso, SIZE as u16)), ..Header::PLAIN };
    header.encode()[..LEN].to_vec()
}

/// Behind two bytes of their lengths.
fn batch(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u16).to_be_bytes()[..], frame].concat()).collect()
}

/// All seeds: target, name, bytes.
pub(super) fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let outer = Vxlan::new(1, false).header();
    for (name, v6, udp) in FLOWS {
        let frame = packet(v6, udp, 0, 150);
        seeds.push(("decapsulate", name.to_owned(), [&outer[..], &frame].concat()));
        let partial = Partial { start: if v6 { 54 } else { 34 }, offset: if udp { 6 } else { 16 } };
        let gso = match (udp, v6) {
            (true, _) => Gso::Udp,
            (false, false) => Gso::TcpV4 { ecn: true },
            (false, true) => Gso::TcpV6 { ecn: false },
        };
        seeds.push((
            "segment",
            format!("{name}-gso"),
            [virtio(Some(partial), Some(gso)), frame.clone()].concat(),
        ));
        seeds.push(("segment", format!("{name}-partial"), [virtio(Some(partial), None), frame].concat()));
        let flow: Vec<Vec<u8>> =
            [SIZE, SIZE, 30, SIZE].into_iter().zip(0..).map(|(len, at)| packet(v6, udp, at, len)).collect();
        seeds.push(("coalesce", name.to_owned(), batch(&flow)));
    }
    for (name, frame) in oddities() {
        seeds.push(("decapsulate", name.to_owned(), [&outer[..], &frame].concat()));
        seeds.push(("segment", name.to_owned(), [virtio(None, None), frame].concat()));
    }
    let mut mixed: Vec<Vec<u8>> =
        (0..3).flat_map(|at| FLOWS.map(|(_, v6, udp)| packet(v6, udp, at, SIZE))).collect();
    mixed.extend(oddities().map(|(_, frame)| frame));
    seeds.push(("coalesce", "mixed".to_owned(), batch(&mixed)));
    seeds
}
