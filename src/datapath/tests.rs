//! The pump between channels, against what etherparse reads.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use twill_backends::frame::Dropped;
use twill_backends::frame::table::{Peer, Table};
use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, Tunnel, Vxlan};

use super::Settings;
use super::batch::{Batch, FrameIo, HEADROOM, Message, Received, Refused, SLOT};
use super::counters::{Count, Counters};
use super::peers::{Amount, Peers, Traffic};
use super::pump::{Offers, Pump};

mod laws;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PEER: &str = "192.0.2.2";

/// What waits to be received, and what was sent: where to, how long each datagram, and the bytes.
#[derive(Debug, Default)]
struct Queues {
    waiting: VecDeque<(IpAddr, usize, Vec<u8>)>,
    sent: Vec<(SocketAddr, usize, Vec<u8>)>,
    /// How much of the first message of each send is refused.
    refuse: Refused,
}

#[derive(Debug, Clone)]
struct Channel {
    queues: Arc<Mutex<Queues>>,
    tap: bool,
    /// Whether large TCP frames are taken, and large UDP frames.
    offers: (bool, bool),
    refused: Vec<(Message, Refused)>,
}

impl FrameIo for Channel {
    fn recv(&mut self, batch: &mut Batch) -> io::Result<()> {
        let mut queues = self.queues.lock().unwrap();
        for slot in 0..16 {
            let Some((from, segment, bytes)) = queues.waiting.pop_front() else { break };
            let start = slot * SLOT + if self.tap { HEADROOM } else { 0 };
            let end = slot * SLOT + bytes.len();
            batch.slab()[slot * SLOT..end].copy_from_slice(&bytes);
            batch.received.push(Received { start, end, from, segment, cut: false });
        }
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Refused {
        let mut queues = self.queues.lock().unwrap();
        for message in &batch.messages {
            let bytes = batch.pieces_of(message).iter().flat_map(|piece| batch.bytes_of(*piece)).copied();
            queues.sent.push((message.to, message.segment.into(), bytes.collect()));
        }
        let first = batch.messages.first().filter(|_| queues.refuse.total() > 0);
        self.refused = first.map(|first| (*first, queues.refuse)).into_iter().collect();
        queues.refuse
    }

    fn refused(&self) -> &[(Message, Refused)] {
        &self.refused
    }
}

impl Offers for Channel {
    fn offers(&self) -> (bool, bool) {
        self.offers
    }
}

struct Bench {
    pump: Pump<Channel, Channel>,
    tap: Arc<Mutex<Queues>>,
    wire: Arc<Mutex<Queues>>,
    peers: Arc<ArcSwap<Peers>>,
    counters: Arc<Counters>,
}

fn bench(offload: bool) -> Bench {
    let peer = Peer {
        mac: Some(THEIRS),
        addr: PEER.parse().unwrap(),
        subnet: "10.5.2.0/24".parse().unwrap(),
        mtu: 1450,
    };
    bench_with((offload, offload), true, [peer])
}

fn bench_with(offers: (bool, bool), check_source: bool, peers: impl IntoIterator<Item = Peer>) -> Bench {
    let (tap, wire) = (Arc::default(), Arc::default());
    let counters = Arc::new(Counters::default());
    let peers = Arc::new(ArcSwap::from_pointee(Peers::after(&Peers::default(), Table::new(peers), 1450)));
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: "192.0.2.1".parse().unwrap(),
        learning: false,
        gbp: false,
        checksums: Checksums::default(),
    };
    let tunnel = Tunnel { dev: "flannel.1".try_into().unwrap(), vxlan, mtu: 1450, pods: 1450 };
    let pump = Pump::new(
        (
            Channel { queues: Arc::clone(&tap), tap: true, offers, refused: Vec::new() },
            Channel { queues: Arc::clone(&wire), tap: false, offers, refused: Vec::new() },
        ),
        &tunnel,
        Settings { offload: offers.0, check_source, queues: 1 },
        Arc::clone(&peers),
        Arc::clone(&counters),
    );
    Bench { pump, tap, wire, peers, counters }
}

impl Bench {
    /// The stack sends a frame, or has it cut by us.
    fn leave(&self, virtio: [u8; HEADROOM], frame: &[u8]) {
        let bytes = [&virtio[..], frame].concat();
        self.tap.lock().unwrap().waiting.push_back((PEER.parse().unwrap(), 0, bytes));
    }

    fn arrive(&self, from: &str, segment: usize, bytes: Vec<u8>) {
        self.wire.lock().unwrap().waiting.push_back((from.parse().unwrap(), segment, bytes));
    }

    fn turn(&mut self) {
        assert!(self.pump.turn().unwrap());
    }

    fn on_wire(&self) -> Vec<(SocketAddr, usize, Vec<u8>)> {
        std::mem::take(&mut self.wire.lock().unwrap().sent)
    }

    /// What was carried to and from each peer, in the order of the table.
    fn traffic(&self) -> Vec<Traffic> {
        self.peers.load().traffic().map(|(_, traffic)| traffic).collect()
    }

    /// What was not, to and from the first.
    fn dropped(&self) -> Vec<(String, u64)> {
        self.traffic().swap_remove(0).dropped.into_iter().collect()
    }

    /// Frames without their virtio headers.
    fn in_tap(&self) -> Vec<Vec<u8>> {
        let sent = std::mem::take(&mut self.tap.lock().unwrap().sent);
        sent.into_iter().map(|(_, _, bytes)| bytes[HEADROOM..].to_vec()).collect()
    }
}

/// TCP from host 1's pod to host 2's, or back.
fn tcp(out: bool, seq: u32, payload: &[u8]) -> Vec<u8> {
    let (macs, ips) = (([OURS.0, THEIRS.0]), ([[10, 5, 1, 7], [10, 5, 2, 7]]));
    let (from, to) = if out { (0, 1) } else { (1, 0) };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs[from], macs[to])
        .ipv4(ips[from], ips[to], 64)
        .tcp(1000, 2000, seq, 500)
        .ack(9)
        .write(&mut frame, payload)
        .unwrap();
    // Fragmenting is forbidden, as every TCP has it.
    frame[20] |= 0x40;
    let header: [u8; 20] = frame[14..34].try_into().unwrap();
    let sum = etherparse::Ipv4HeaderSlice::from_slice(&header).unwrap().to_header().calc_header_checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn wrap(vni: u8, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, vni, 0], frame].concat()
}

/// Sequence number and payload, all checksums verified.
fn verified(frame: &[u8]) -> (u32, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("TCP") };
    let sum = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap();
    assert_eq!(tcp.checksum(), sum);
    (tcp.sequence_number(), tcp.payload().to_vec())
}

#[test]
fn a_frame_leaves_for_its_peer_and_one_comes_back() {
    for offload in [false, true] {
        let mut bench = bench(offload);
        let (out, back) = (tcp(true, 1, b"there"), tcp(false, 1, b"back"));
        bench.leave([0; HEADROOM], &out);
        bench.arrive(PEER, 0, wrap(1, &back));
        bench.turn();
        assert_eq!(bench.on_wire(), [(SocketAddr::new(PEER.parse().unwrap(), 8472), 0, wrap(1, &out))]);
        assert_eq!(bench.in_tap(), std::slice::from_ref(&back));
        let peers = bench.peers.load();
        assert_eq!(peers.used().map(|(peer, _)| peer.mac).collect::<Vec<_>>(), [Some(THEIRS)]);
        let counters = &bench.counters;
        assert_eq!((counters.count(Count::Sent), counters.count(Count::Received)), (1, 1));
        // With the headers of VXLAN, UDP and IPv4.
        let one = |frame: &[u8]| Amount { packets: 1, bytes: frame.len() as u64 + 8 + 8 + 20 };
        let traffic = Traffic { sent: one(&out), received: one(&back), ..Traffic::default() };
        assert_eq!(bench.traffic(), [traffic]);
        assert!(!bench.pump.turn().unwrap());
    }
}

#[test]
fn frames_of_one_length_leave_together_and_others_alone() {
    let mut bench = bench(false);
    for len in [100, 100, 100, 40, 100] {
        bench.leave([0; HEADROOM], &tcp(true, 1, &vec![7; len]));
    }
    bench.turn();
    let segments: Vec<(usize, usize)> =
        bench.on_wire().iter().map(|(_, segment, bytes)| (*segment, bytes.len())).collect();
    let (long, short) = (8 + 54 + 100, 8 + 54 + 40);
    assert_eq!(segments, [(long, 3 * long + short), (0, long)]);
}

/// A checksum to be completed from byte 34 on, 16 bytes further; TCP over IPv4, `size` bytes each.
fn cut_at(size: u16) -> [u8; HEADROOM] {
    let mut virtio = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    virtio[4..6].copy_from_slice(&size.to_ne_bytes());
    virtio[6..8].copy_from_slice(&34_u16.to_ne_bytes());
    virtio[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    virtio
}

#[test]
fn what_one_message_does_not_hold_shares_the_next_with_the_next_frame() {
    let mut bench = bench(true);
    for seq in [1, 1 + 46 * 1396] {
        bench.leave(cut_at(1396), &tcp(true, seq, &[7; 46 * 1396]));
    }
    bench.turn();
    let wire = bench.on_wire();
    let counts: Vec<usize> = wire.iter().map(|(_, segment, bytes)| bytes.len() / segment).collect();
    assert_eq!(counts, [44, 44, 4]);
    let datagrams = wire.iter().flat_map(|(_, segment, bytes)| bytes.chunks(*segment));
    for (n, datagram) in datagrams.enumerate() {
        assert_eq!(verified(&datagram[8..]).0, 1 + n as u32 * 1396);
    }
}

#[test]
fn a_large_frame_is_cut_and_joined_again() {
    let mut bench = bench(true);
    let payload: Vec<u8> = (0..60_000_u32).map(|n| (n / 7) as u8).collect();
    let large = tcp(true, 77, &payload);
    bench.leave(cut_at(1396), &large);
    bench.turn();
    let wire = bench.on_wire();
    assert_eq!(wire.len(), 1);
    let (_, segment, bytes) = &wire[0];
    let mut whole = Vec::new();
    for datagram in bytes.chunks(*segment) {
        let (seq, part) = verified(&datagram[8..]);
        assert_eq!(seq, 77 + whole.len() as u32);
        whole.extend(part);
    }
    assert_eq!(whole, payload);
    assert_eq!(bench.counters.count(Count::Sent), 43);

    let back: Vec<u8> = payload
        .chunks(1396)
        .scan(0, |at, part| {
            let frame = wrap(1, &tcp(false, *at, part));
            *at += part.len() as u32;
            Some(frame)
        })
        .flatten()
        .collect();
    bench.arrive(PEER, 8 + 54 + 1396, back);
    bench.turn();
    let joined = bench.in_tap();
    assert_eq!(joined.len(), 1);
    assert_eq!(&joined[0][54..], payload);
    assert_eq!((bench.counters.count(Count::Received), bench.counters.count(Count::Delivered)), (43, 1));
}

#[test]
fn a_packet_too_large_is_answered_and_a_question_too() {
    let mut bench = bench(false);
    bench.leave([0; HEADROOM], &tcp(true, 1, &[0; 1500]));
    let ask = [
        &[0xff; 6][..],
        &OURS.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &OURS.0,
        &[10, 5, 1, 0, 0, 0, 0, 0, 0, 0, 10, 5, 2, 0],
    ];
    bench.leave([0; HEADROOM], &ask.concat());
    bench.turn();
    assert_eq!(bench.on_wire(), []);
    let answers = bench.in_tap();
    let packet = SlicedPacket::from_ethernet(&answers[0]).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("ICMP") };
    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), (3, 4, [0, 0, 5, 170]));
    assert_eq!(answers[1][20..28], [0, 2, 2, 0, 0, 0, 0, 2]);
    assert_eq!((bench.counters.count(Count::Told), bench.counters.count(Count::Answered)), (1, 1));
    assert_eq!(bench.dropped(), [("told_too_big".to_owned(), 1)]);
}

#[test]
fn what_is_not_carried_is_counted_by_reason() {
    let mut bench = bench(true);
    let back = tcp(false, 1, b"x");
    let mut foreign = back.clone();
    foreign[26..30].copy_from_slice(&[192, 0, 2, 9]);
    for (from, bytes) in [
        ("192.0.2.9", wrap(1, &back)),
        (PEER, wrap(2, &back)),
        (PEER, wrap(1, &foreign)),
        (PEER, vec![8, 0, 0]),
        (PEER, vec![]),
    ] {
        bench.arrive(from, 0, bytes);
    }
    let mut stranger = tcp(true, 1, b"x");
    stranger[5] = 99;
    bench.leave([0; HEADROOM], &stranger);
    bench.leave([0xff; HEADROOM], &stranger);
    bench.turn();
    assert_eq!((bench.on_wire().len(), bench.in_tap().len()), (0, 0));
    for (reason, count) in [
        (Dropped::NoLease, 1),
        (Dropped::OtherVni, 1),
        (Dropped::ForeignSource, 1),
        (Dropped::Truncated, 2),
        (Dropped::NoPeer, 1),
        (Dropped::BadOffload, 1),
    ] {
        assert_eq!(bench.counters.dropped(reason), count, "{reason}");
    }
    let of_peer = [("foreign_source", 1), ("other_vni", 1), ("truncated", 2)];
    assert_eq!(bench.dropped(), of_peer.map(|(reason, count)| (reason.to_owned(), count)));
}

#[test]
fn what_the_sides_refuse_is_counted() {
    let mut bench = bench(false);
    bench.wire.lock().unwrap().refuse = Refused { too_big: 1, full: 2, other: 3 };
    bench.leave([0; HEADROOM], &tcp(true, 1, b"x"));
    bench.turn();
    let count = |what| bench.counters.count(what);
    assert_eq!(
        (count(Count::UnderlayTooBig), count(Count::UnderlayFull), count(Count::UnderlayRefused)),
        (1, 2, 3)
    );
    let of_peer = [("underlay_full", 2), ("underlay_refused", 3), ("underlay_too_big", 1)];
    assert_eq!(bench.dropped(), of_peer.map(|(reason, count)| (reason.to_owned(), count)));
    assert_eq!(bench.traffic()[0].sent, Amount::default());
}
