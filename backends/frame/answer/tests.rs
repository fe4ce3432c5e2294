use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpOperation, Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, icmpv4,
};

use super::*;
use crate::frame::bytes::{be16, put16};
use crate::frame::path::{Way, way};
use crate::frame::samples::{PEER, Sample, US, payload, verify};
use crate::frame::table::Peer;
use crate::mac::Mac;

const ASKER: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 0);
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 5, 2, 0);
const ASKER6: &str = "fd00:5:0:1::";
const TARGET6: &str = "fd00:5:0:2::";

fn table() -> Table {
    let peer = |subnet: &str| Peer {
        mac: Some(Mac(PEER)),
        addr: [192, 0, 2, 1].into(),
        subnet: subnet.parse().unwrap(),
        mtu: 1450,
    };
    Table::new([peer("10.5.2.0/24"), peer("fd00:5:0:2::/64")])
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn arp_request(target: Ipv4Addr) -> Vec<u8> {
    let parts =
        [&[0xff; 6][..], &US, &[8, 6], &ARP_IPV4, &REQUEST, &US, &ASKER.octets(), &[0; 6], &target.octets()];
    parts.concat()
}

fn solicitation_of(asker: &str, target: &str, hop_limit: u8) -> Vec<u8> {
    let body = [&v6(target)[..], &[1, 1], &US].concat();
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11..13].copy_from_slice(&[1, 0xff]);
    let mut out = Vec::new();
    PacketBuilder::ethernet2(US, [0x33, 0x33, 0xff, 0, 0, 0])
        .ipv6(v6(asker), group, hop_limit)
        .icmpv6_raw(SOLICITATION, 0, [0; 4])
        .write(&mut out, &body)
        .unwrap();
    out
}

fn ask(frame: &[u8]) -> Result<Vec<u8>, Dropped> {
    let mut out = [0; MAX_LEN];
    let table = table();
    let Way::Ask(layout) = way(&table, frame)? else { panic!("not a question") };
    neighbour(&table, frame, &layout, &mut out).map(|len| out[..len].to_vec())
}

#[test]
fn an_arp_request_is_answered_in_the_peers_place() {
    let reply = ask(&arp_request(TARGET)).unwrap();
    let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
    let Some(NetHeaders::Arp(arp)) = headers.net else { panic!("ARP") };
    assert_eq!((&reply[..6], &reply[6..12], reply.len()), (&US[..], &PEER[..], 42));
    assert_eq!(arp.operation, ArpOperation::REPLY);
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&PEER[..], &TARGET.octets()[..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&US[..], &ASKER.octets()[..]));
}

#[test]
fn arp_for_nobody_and_arp_that_is_no_request_are_dropped() {
    assert_eq!(ask(&arp_request(Ipv4Addr::new(10, 5, 2, 1))), Err(Dropped::NoNeighbour));
    let mut reply = arp_request(TARGET);
    reply[21] = 2;
    assert_eq!(ask(&reply), Err(Dropped::BadInner));
    let mut hardware = arp_request(TARGET);
    hardware[15] = 6;
    assert_eq!(ask(&hardware), Err(Dropped::BadInner));
    let whole = arp_request(TARGET);
    for len in 14..whole.len() {
        assert_eq!(ask(&whole[..len]), Err(Dropped::BadInner), "{len} bytes");
    }
}

#[test]
fn a_solicitation_is_answered_by_an_advertisement() {
    let reply = ask(&solicitation_of(ASKER6, TARGET6, 255)).unwrap();
    verify(&reply);
    let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
    let Some(NetHeaders::Ipv6(ip, _)) = headers.net else { panic!("IPv6") };
    assert_eq!((ip.source, ip.destination, ip.hop_limit), (v6(TARGET6), v6(ASKER6), 255));
    let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("ICMPv6") };
    let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type else { panic!("an advertisement") };
    assert!(flags.solicited && flags.r#override && !flags.router);
    assert_eq!(reply[62..78], v6(TARGET6));
    assert_eq!(reply[78..], [&TARGET_ADDRESS[..], &PEER].concat());
    assert_eq!((&reply[..6], &reply[6..12]), (&US[..], &PEER[..]));
}

#[test]
fn solicitations_that_prove_nothing_are_dropped() {
    assert_eq!(ask(&solicitation_of(ASKER6, "fd00:5:0:2::1", 255)), Err(Dropped::NoNeighbour));
    assert_eq!(ask(&solicitation_of("::", TARGET6, 255)), Err(Dropped::NoNeighbour), "looks for a duplicate");
    assert_eq!(ask(&solicitation_of(ASKER6, TARGET6, 254)), Err(Dropped::BadInner), "came over a router");
    let mut damaged = solicitation_of(ASKER6, TARGET6, 255);
    damaged[57] ^= 1;
    assert_eq!(ask(&damaged), Err(Dropped::BadInner));
    let mut code = solicitation_of(ASKER6, TARGET6, 255);
    code[55] = 1;
    let sum = be16(&code, 56).unwrap() - 1;
    put16(&mut code, 56, sum);
    assert_eq!(ask(&code), Err(Dropped::BadInner));
}

fn oversize(frame: &[u8], mtu: u32) -> Result<Vec<u8>, Dropped> {
    let mut out = [0; MAX_LEN];
    let layout = Layout::of(frame)?;
    too_big(frame, &layout, mtu, &mut out).map(|len| out[..len].to_vec())
}

#[test]
fn fragmentation_needed_names_the_mtu_and_quotes_the_packet() {
    for (len, quoted) in [(1460, 548), (100, 152)] {
        let frame = Sample::of(false, false, len).frame();
        let reply = oversize(&frame, 1400).unwrap();
        verify(&reply);
        let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
        let Some(TransportHeader::Icmpv4(icmp)) = headers.transport else { panic!("ICMP") };
        let Icmpv4Type::DestinationUnreachable(header) = icmp.icmp_type else { panic!("unreachable") };
        let icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu } = header else {
            panic!("fragmentation needed")
        };
        assert_eq!(next_hop_mtu, 1400);
        assert_eq!(&reply[42..], &frame[14..14 + quoted]);
        assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &frame[..6]));
        assert_eq!((&reply[26..30], &reply[30..34]), (&frame[30..34], &frame[26..30]));
    }
}

#[test]
fn packet_too_big_names_the_mtu_and_quotes_the_packet() {
    for (len, mtu, named) in [(1460, 1400, 1400), (1300, 900, 1280)] {
        let frame = Sample::of(true, true, len).frame();
        let reply = oversize(&frame, mtu).unwrap();
        verify(&reply);
        assert_eq!(reply.len(), 14 + 1280);
        let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
        let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("ICMPv6") };
        assert_eq!(icmp.icmp_type, Icmpv6Type::PacketTooBig { mtu: named });
        assert_eq!(reply[62..], frame[14..14 + 1232]);
        assert_eq!((&reply[22..38], &reply[38..54]), (&frame[38..54], &frame[22..38]));
    }
}

#[test]
fn the_tags_of_a_frame_are_on_its_answer() {
    let mut frame = Sample::of(true, true, 1400).frame();
    frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
    let reply = oversize(&frame, 1400).unwrap();
    assert_eq!((reply.len(), &reply[12..22]), (MAX_LEN, &frame[12..22]));
}

#[test]
fn nobody_is_told_who_must_not_be() {
    let no_df = Sample { df: false, ..Sample::of(false, true, 100) }.frame();
    let later = {
        let mut frame = Sample::of(false, true, 100).frame();
        put16(&mut frame, 20, 0x4001);
        frame
    };
    let from = |source: [u8; 4]| {
        let mut frame = Sample::of(false, true, 100).frame();
        frame[26..30].copy_from_slice(&source);
        frame
    };
    let from6 = |source: &str| {
        let mut frame = Sample::of(true, true, 100).frame();
        frame[22..38].copy_from_slice(&v6(source));
        frame
    };
    let mut group = Sample::of(false, true, 100).frame();
    group[30..34].copy_from_slice(&[239, 1, 1, 1]);
    let mut group6 = Sample::of(true, true, 100).frame();
    group6[38..54].copy_from_slice(&v6("ff0e::1"));
    let foreign = [&PEER[..], &US, &[0x88, 0xcc], &payload(60)].concat();
    let (error, _) = (oversize(&Sample::of(false, true, 100).frame(), 1400).unwrap(), ());
    let mut error_with_df = error;
    error_with_df[20] = 0x40;
    let error6 = oversize(&Sample::of(true, true, 100).frame(), 1400).unwrap();
    for (what, frame) in [
        ("fragmenting is allowed", no_df),
        ("not the first fragment", later),
        ("no source", from([0, 0, 0, 0])),
        ("a group as source", from([224, 0, 0, 1])),
        ("all as source", from([255, 255, 255, 255])),
        ("loopback as source", from([127, 0, 0, 1])),
        ("no IPv6 source", from6("::")),
        ("an IPv6 group as source", from6("ff02::1")),
        ("a group as destination", group),
        ("an IPv6 group as destination", group6),
        ("not IP", foreign),
        ("an ICMP error", error_with_df),
        ("an ICMPv6 error", error6),
    ] {
        assert_eq!(oversize(&frame, 1400), Err(Dropped::Oversize), "{what}");
    }
}

#[test]
fn echoes_are_told() {
    let mut v4 = Vec::new();
    PacketBuilder::ethernet2(US, PEER)
        .ipv4(ASKER.octets(), TARGET.octets(), 64)
        .icmpv4_echo_request(1, 2)
        .write(&mut v4, &payload(1500))
        .unwrap();
    let mut v6_echo = Vec::new();
    PacketBuilder::ethernet2(US, PEER)
        .ipv6(v6(ASKER6), v6(TARGET6), 64)
        .icmpv6_echo_request(1, 2)
        .write(&mut v6_echo, &payload(1500))
        .unwrap();
    put16(&mut v4, 20, 0x4000);
    for frame in [v4, v6_echo] {
        verify(&oversize(&frame, 1400).unwrap());
    }
}

#[test]
fn an_answer_that_does_not_fit_is_none() {
    let frame = Sample::of(false, false, 1460).frame();
    let layout = Layout::of(&frame).unwrap();
    assert_eq!(too_big(&frame, &layout, 1400, &mut [0; 100]), Err(Dropped::Oversize));
    let question = arp_request(TARGET);
    let layout = Layout::of(&question).unwrap();
    assert_eq!(neighbour(&table(), &question, &layout, &mut [0; 41]), Err(Dropped::Truncated));
}
