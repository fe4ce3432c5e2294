//! What holds for any traffic between many peers: of what leaves, each datagram is one that its peer can read, and is
//! addressed to it; of what comes, nothing is lost, changed or counted twice.

use std::collections::BTreeMap;

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, NetHeaders, PacketHeaders, TransportHeader};
use proptest::prelude::*;
use twill_backends::frame::checksum::Sum;
use twill_backends::frame::parse::{Kind, Layout};
use twill_backends::frame::segment::{MAX_BYTES, MAX_SEGMENTS, Segments};
use twill_backends::frame::virtio::{Gso, Header, Partial};

use super::*;

const PEERS: u8 = 5;
/// Payload of each packet that a large frame is cut into.
const SIZE: usize = 300;

/// A frame between the pods of this host and those of a peer.
#[derive(Debug, Clone)]
struct Packet {
    peer: u8,
    v6: bool,
    udp: bool,
    /// UDP without a checksum, which is for IPv4 alone.
    unsummed: bool,
    len: usize,
}

fn any_packet(longest: usize) -> impl Strategy<Value = Packet> {
    let len = prop_oneof![0..40_usize, Just(SIZE), Just(SIZE), 0..longest];
    let kind = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1));
    (0..PEERS, kind, len).prop_map(|(peer, (v6, udp, unsummed), len)| Packet {
        peer,
        v6,
        udp,
        unsummed: unsummed && udp && !v6,
        len,
    })
}

/// Each peer has one tunnel device for each family, behind one address.
fn peers() -> impl Iterator<Item = Peer> {
    (0..PEERS).flat_map(|n| {
        let peer = |v6: bool| Peer {
            mac: Some(mac(n, v6)),
            addr: addr(n),
            subnet: if v6 { format!("fd00:{n}::/64") } else { format!("10.5.{n}.0/24") }.parse().unwrap(),
            mtu: 1450,
        };
        [peer(false), peer(true)]
    })
}

fn mac(peer: u8, v6: bool) -> Mac {
    Mac([2, 0, 0, 1, u8::from(v6), peer])
}

fn addr(peer: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, 100 + peer])
}

impl Packet {
    /// Number `n` of the traffic, to the peer or from it. TCP is one flow for each peer and family, `seq` its position.
    fn frame(&self, out: bool, n: usize, seq: u32) -> Vec<u8> {
        let number = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        let net = if out { 99 } else { self.peer };
        let (source, target) = if out { (net, self.peer) } else { (net, 99) };
        let ip = if self.v6 {
            let end = |net: u8| [0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
            let header = Ipv6Header {
                next_header: number,
                hop_limit: 64,
                source: end(source),
                destination: end(target),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        } else {
            let mut header = Ipv4Header::new(0, 64, number, [10, 5, source, 7], [10, 5, target, 7]).unwrap();
            header.dont_fragment = true;
            header.identification = n as u16;
            IpHeaders::Ipv4(header, Default::default())
        };
        let theirs = mac(self.peer, self.v6).0;
        let (from, to) = if out { (OURS.0, theirs) } else { (theirs, OURS.0) };
        let builder = PacketBuilder::ethernet2(from, to).ip(ip);
        let (mut frame, payload) = (Vec::new(), vec![n as u8; self.len]);
        if self.udp {
            builder.udp(4000, 53).write(&mut frame, &payload).unwrap();
        } else {
            builder.tcp(4000, 80, seq, 500).ack(1).write(&mut frame, &payload).unwrap();
        }
        if self.unsummed {
            frame[40..42].fill(0);
        }
        frame
    }

    /// As the stack of this host leaves it: what is large is to be cut.
    fn virtio(&self) -> Header {
        if self.len <= SIZE || self.unsummed {
            return Header::PLAIN;
        }
        let gso = match (self.udp, self.v6) {
            (true, _) => Gso::Udp,
            (false, false) => Gso::TcpV4 { ecn: false },
            (false, true) => Gso::TcpV6 { ecn: false },
        };
        let start = if self.v6 { 54 } else { 34 };
        let partial = Partial { start, offset: if self.udp { 6 } else { 16 } };
        Header { partial: Some(partial), gso: Some((gso, SIZE as u16)), ..Header::PLAIN }
    }
}

/// The packets that a frame becomes, one by one.
fn cut(frame: &[u8], virtio: &Header) -> Vec<Vec<u8>> {
    let mut frame = frame.to_vec();
    let layout = Layout::of(&frame).unwrap();
    let mut segments = Segments::new(&mut frame, &layout, virtio, [0; 8]).unwrap();
    let (mut arena, mut packets) = (vec![0; 64 * 1024], Vec::new());
    while let Some(chunk) = segments.next_chunk(&frame, &mut arena) {
        packets.extend((0..chunk.count).map(|segment| {
            [&arena[chunk.headers(segment)], &frame[chunk.payload(segment)]].concat()[8..].to_vec()
        }));
    }
    packets
}

/// Etherparse reads it, and finds its checksums right; an absent one is left absent.
fn assert_sound(frame: &[u8]) {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = packet.payload.slice();
    let transport = packet.transport.unwrap();
    let mut again = transport.clone();
    match packet.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            again.update_checksum_ipv4(&ip, payload).unwrap();
        }
        NetHeaders::Ipv6(ip, _) => again.update_checksum_ipv6(&ip, payload).unwrap(),
        NetHeaders::Arp(_) => panic!("no ARP was sent"),
    }
    let absent = matches!(&transport, TransportHeader::Udp(udp) if udp.checksum == 0);
    assert!(absent || transport == again, "{transport:?} should be {again:?}");
}

/// The frames of each peer's tunnel device and transport, in their order.
fn flows(frames: impl IntoIterator<Item = Vec<u8>>, mac_at: usize) -> BTreeMap<([u8; 6], u8), Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for frame in frames {
        let layout = Layout::of(&frame).unwrap();
        let key = (frame[mac_at..mac_at + 6].try_into().unwrap(), layout.protocol);
        flows.entry(key).or_default().push(frame);
    }
    flows
}

/// Counts a datagram as a peer's, with its headers of UDP and IPv4.
fn count(counted: &mut BTreeMap<Mac, Amount>, peer: Mac, datagram: &[u8]) {
    *counted.entry(peer).or_default() += Amount { packets: 1, bytes: 28 + datagram.len() as u64 };
}

/// What the pump counted of each peer of which it counted anything.
fn by_peer(bench: &Bench, of: fn(&Traffic) -> Amount) -> BTreeMap<Mac, Amount> {
    let peers = bench.peers.load();
    let amounts = peers.traffic().map(|(peer, traffic)| (peer.mac.unwrap(), of(&traffic)));
    amounts.filter(|(_, amount)| amount.packets > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn batches_never_mix_destinations_or_sizes(packets in prop::collection::vec(any_packet(9000), 1..48)) {
        let mut bench = bench_with((true, true), true, peers());
        let mut wanted = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let (frame, virtio) = (packet.frame(true, n, n as u32), packet.virtio());
            // What is not to be cut is of wire size.
            prop_assume!(virtio.gso.is_some() || frame.len() <= 1464);
            bench.leave(virtio.encode()[..HEADROOM].try_into().unwrap(), &frame);
            wanted.extend(cut(&frame, &virtio));
        }
        while bench.pump.turn().unwrap() {}
        let (mut came, mut counted) = (Vec::new(), BTreeMap::new());
        for (to, segment, bytes) in bench.on_wire() {
            prop_assert!(bytes.len() <= MAX_BYTES && to.port() == 8472);
            // As the kernel cuts it.
            let datagrams: Vec<&[u8]> = if segment == 0 { vec![&bytes] } else { bytes.chunks(segment).collect() };
            prop_assert!(datagrams.len() <= MAX_SEGMENTS && (segment == 0 || datagrams.len() > 1));
            for datagram in datagrams {
                let (header, frame) = datagram.split_at(8);
                prop_assert_eq!(header, [8, 0, 0, 0, 0, 0, 1, 0]);
                assert_sound(frame);
                let mac: [u8; 6] = frame[..6].try_into().unwrap();
                prop_assert_eq!(addr(mac[5]), to.ip());
                count(&mut counted, Mac(mac), datagram);
                came.push(frame.to_vec());
            }
        }
        prop_assert_eq!(bench.counters.count(Count::Sent), came.len() as u64);
        prop_assert_eq!(flows(came, 0), flows(wanted, 0));
        prop_assert_eq!(by_peer(&bench, |traffic| traffic.sent), counted);
    }

    #[test]
    fn what_comes_is_delivered_once_in_order_or_counted(
        packets in prop::collection::vec((any_packet(1300), 0_u8..12), 1..60),
        offers in prop_oneof![Just((true, true)), Just((true, false)), Just((false, false))],
    ) {
        let mut bench = bench_with(offers, true, peers());
        let (mut wanted, mut refused) = (Vec::new(), BTreeMap::<&str, u64>::new());
        let mut counted = BTreeMap::new();
        let mut seqs = BTreeMap::<(u8, bool), u32>::new();
        for (n, (packet, fate)) in packets.iter().enumerate() {
            let seq = seqs.entry((packet.peer, packet.v6)).or_insert(0);
            let frame = packet.frame(false, n, *seq);
            let stranger = addr((packet.peer + 1) % PEERS);
            let (from, bytes, reason) = match fate {
                0 => (addr(77), wrap(1, &frame), Some("no_lease")),
                1 => (stranger, wrap(1, &frame), Some("foreign_source")),
                2 => (addr(packet.peer), wrap(2, &frame), Some("other_vni")),
                3 => (addr(packet.peer), wrap(1, &frame)[..40].to_vec(), Some("truncated")),
                _ => (addr(packet.peer), wrap(1, &frame), None),
            };
            if let Some(reason) = reason {
                *refused.entry(reason).or_default() += 1;
            } else {
                *seq += if packet.udp { 0 } else { packet.len as u32 };
                count(&mut counted, mac(packet.peer, packet.v6), &bytes);
                wanted.push(frame);
            }
            bench.arrive(&from.to_string(), 0, bytes);
        }
        while bench.pump.turn().unwrap() {}
        let mut came = Vec::new();
        for (_, _, bytes) in std::mem::take(&mut bench.tap.lock().unwrap().sent) {
            let header = Header::decode(&bytes).unwrap();
            prop_assert!(offers.0 || header == Header::PLAIN);
            prop_assert!(offers.1 || !matches!(header.gso, Some((Gso::Udp, _))));
            came.extend(cut(&bytes[HEADROOM..], &header));
        }
        came.iter().for_each(|frame| assert_sound(frame));
        for reason in Dropped::ALL {
            let want = refused.get(reason.as_str()).copied().unwrap_or(0);
            prop_assert_eq!(bench.counters.dropped(reason), want, "{}", reason);
        }
        prop_assert_eq!(bench.counters.count(Count::Received), wanted.len() as u64);
        prop_assert_eq!(flows(came, 6), flows(wanted, 6));
        prop_assert_eq!(by_peer(&bench, |traffic| traffic.received), counted);
    }
}

/// Frames that are neither TCP nor UDP in their plain form, between this host and peer 1.
fn oddities(out: bool) -> Vec<(&'static str, Vec<u8>)> {
    let packet = |v6, udp| Packet { peer: 1, v6, udp, unsummed: false, len: 100 };
    let tcp4 = packet(false, false).frame(out, 1, 1);
    let mut unsummed = packet(false, true);
    unsummed.unsummed = true;
    let mut tagged = tcp4.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut fragment = tcp4.clone();
    fragment[20..22].copy_from_slice(&[0x20, 0x10]);
    let mut extended = packet(true, true).frame(out, 1, 1);
    extended[20] = 60;
    extended[19] += 8;
    extended.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    let mut short = tcp4.clone();
    short.extend([0; 6]);
    let mut esp = tcp4.clone();
    esp[23] = 50;
    vec![
        ("a UDP datagram without checksum", unsummed.frame(out, 1, 1)),
        ("a tag", tagged),
        ("a fragment", fragment),
        ("an extension header", extended),
        ("padding", short),
        ("another transport", esp),
    ]
}

#[test]
fn what_is_odd_passes_as_it_is() {
    for offers in [(true, true), (false, false)] {
        for (what, frame) in oddities(true) {
            let mut bench = bench_with(offers, true, peers());
            bench.leave([0; HEADROOM], &frame);
            bench.turn();
            assert_eq!(bench.on_wire(), [(SocketAddr::new(addr(1), 8472), 0, wrap(1, &frame))], "{what}");
        }
        for (what, frame) in oddities(false) {
            let mut bench = bench_with(offers, true, peers());
            bench.arrive(&addr(1).to_string(), 0, wrap(1, &frame));
            bench.turn();
            assert_eq!(bench.in_tap(), [frame], "{what}");
        }
    }
}

#[test]
fn what_is_not_ip_passes_where_sources_are_not_checked() {
    let frame = [&OURS.0[..], &mac(1, false).0, &[0x88, 0xcc], &[9; 50]].concat();
    for check in [true, false] {
        let mut bench = bench_with((true, true), check, peers());
        bench.arrive(&addr(1).to_string(), 0, wrap(1, &frame));
        bench.turn();
        let want: &[Vec<u8>] = if check { &[] } else { std::slice::from_ref(&frame) };
        assert_eq!(bench.in_tap(), want);
        assert_eq!(bench.counters.dropped(Dropped::NotIp), u64::from(check));
    }
}

/// The frame with but the sum of its pseudo-header (addresses, protocol, length) as checksum, and where that is.
fn left_undone(frame: &[u8]) -> (Vec<u8>, Partial) {
    let layout = Layout::of(frame).unwrap();
    let l4 = usize::from(layout.l4);
    let addresses = if layout.v6 { &frame[22..54] } else { &frame[26..34] };
    let sum = Sum::ZERO.bytes(addresses).word(layout.protocol.into()).word((frame.len() - l4) as u16);
    let partial = Partial { start: layout.l4, offset: if layout.kind == Kind::Udp { 6 } else { 16 } };
    let (at, mut left) = (l4 + usize::from(partial.offset), frame.to_vec());
    left[at..at + 2].copy_from_slice(&sum.fold().to_be_bytes());
    (left, partial)
}

const KINDS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn a_partial_checksum_without_cutting_is_completed_on_the_way() {
    for (v6, udp) in KINDS {
        let packet = Packet { peer: 1, v6, udp, unsummed: false, len: 100 };
        let good = packet.frame(true, 1, 1);
        let (left, partial) = left_undone(&good);
        let virtio = Header { partial: Some(partial), ..Header::PLAIN }.encode();
        let mut bench = bench_with((true, true), true, peers());
        bench.leave(virtio[..HEADROOM].try_into().unwrap(), &left);
        bench.turn();
        assert_eq!(bench.on_wire()[0].2, wrap(1, &good), "IPv6 {v6}, UDP {udp}");
    }
}

#[test]
fn a_checksum_that_the_peer_left_undone_is_finished() {
    for ((v6, udp), offers) in
        KINDS.into_iter().flat_map(|kind| [(kind, (true, true)), (kind, (false, false))])
    {
        let packet = Packet { peer: 1, v6, udp, unsummed: false, len: 100 };
        let good = packet.frame(false, 1, 1);
        let mut bench = bench_with(offers, true, peers());
        bench.arrive(&addr(1).to_string(), 0, wrap(1, &left_undone(&good).0));
        bench.turn();
        assert_eq!(bench.in_tap(), [good], "IPv6 {v6}, UDP {udp}");
    }
}

#[test]
fn a_frame_that_its_sender_never_cut_is_cut_here_or_by_the_stack() {
    // With an MTU of 80, its headers fill the arena more than once.
    for (mtu, v6, offers) in [1450, 80].into_iter().flat_map(|mtu| {
        [(mtu, false, (true, true)), (mtu, false, (false, false)), (mtu, true, (false, false))]
    }) {
        let packet = Packet { peer: 1, v6, udp: false, unsummed: false, len: 60_000 };
        let good = packet.frame(false, 1, 1);
        let mut bench = bench_with(offers, true, peers().map(|peer| Peer { mtu, ..peer }));
        bench.arrive(&addr(1).to_string(), 0, wrap(1, &left_undone(&good).0));
        bench.turn();
        let sent = std::mem::take(&mut bench.tap.lock().unwrap().sent);
        assert!(offers.0 == (sent.len() == 1) && sent.iter().all(|(_, _, bytes)| bytes.len() >= HEADROOM));
        let packets: Vec<Vec<u8>> = sent
            .iter()
            .flat_map(|(_, _, bytes)| cut(&bytes[HEADROOM..], &Header::decode(bytes).unwrap()))
            .collect();
        packets.iter().for_each(|frame| assert_sound(frame));
        let headers = if v6 { 74 } else { 54 };
        assert!(packets.iter().all(|frame| frame.len() <= 14 + mtu as usize));
        let payload: Vec<u8> = packets.iter().flat_map(|frame| &frame[headers..]).copied().collect();
        assert_eq!(payload, good[headers..]);
        assert_eq!(bench.counters.count(Count::Received), 1);
    }
}

#[test]
fn datagrams_that_cannot_be_told_apart_any_more_are_counted_once() {
    let packet = Packet { peer: 1, v6: false, udp: true, unsummed: false, len: 9000 };
    let mut bench = bench_with((true, true), true, peers());
    bench.arrive(&addr(1).to_string(), 0, wrap(1, &left_undone(&packet.frame(false, 1, 1)).0));
    bench.turn();
    let counters = &bench.counters;
    assert_eq!((counters.dropped(Dropped::BadOffload), counters.count(Count::Received)), (1, 0));
    assert!(bench.in_tap().is_empty());
}
