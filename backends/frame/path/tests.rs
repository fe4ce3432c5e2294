use super::*;
use crate::frame::answer;
use crate::frame::bytes::put16;
use crate::frame::samples::{PEER, Sample, US};
use crate::mac::Mac;

const NET: Vxlan = Vxlan::new(7, false);

fn peer() -> Peer {
    Peer {
        mac: Some(Mac(PEER)),
        addr: [192, 0, 2, 1].into(),
        subnet: "10.5.1.0/24".parse().unwrap(),
        mtu: 1450,
    }
}

fn table() -> Table {
    let v6 = Peer { subnet: "fd00:5:0:1::/64".parse().unwrap(), mac: Some(Mac([2; 6])), ..peer() };
    Table::new([peer(), v6])
}

fn datagram(frame: &[u8]) -> Vec<u8> {
    [&NET.header()[..], frame].concat()
}

/// Why `frame` from `from` is not let in.
fn refusal(check: bool, from: &str, datagram: &[u8]) -> Option<Dropped> {
    admit(&table(), NET, check, from.parse().unwrap(), datagram).err()
}

#[test]
fn a_frame_of_a_peer_is_let_in() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = Sample::of(v6, udp, 100).frame();
        let table = table();
        let datagram = datagram(&frame);
        let (from, inner, layout) = admit(&table, NET, true, peer().addr, &datagram).unwrap();
        assert_eq!((from.addr, inner, layout), (peer().addr, &frame[..], Layout::of(&frame).unwrap()));
    }
}

#[test]
fn spoofed_frames_are_refused_by_reason() {
    let frame = Sample::of(false, false, 10).frame();
    let good = datagram(&frame);
    let mut foreign = good.clone();
    foreign[8 + 14 + 12] = 11;
    let mut vni = good.clone();
    vni[6] = 8;
    let mut flags = good.clone();
    flags[0] = 0;
    let arp = datagram(&[&PEER[..], &US, &[8, 6], &[0; 28]].concat());
    let mut version = good.clone();
    version[8 + 14] = 0x65;
    for (what, check, from, bytes, want) in [
        ("good", true, "192.0.2.1", &good, None),
        ("unknown host", true, "192.0.2.2", &good, Some(Dropped::NoLease)),
        ("unknown host, no check", false, "192.0.2.2", &good, Some(Dropped::NoLease)),
        ("unknown host, not IP", true, "192.0.2.2", &arp, Some(Dropped::NoLease)),
        ("foreign source", true, "192.0.2.1", &foreign, Some(Dropped::ForeignSource)),
        ("foreign source, no check", false, "192.0.2.1", &foreign, None),
        ("other VNI", false, "192.0.2.1", &vni, Some(Dropped::OtherVni)),
        ("no VNI", false, "192.0.2.1", &flags, Some(Dropped::BadVxlan)),
        ("not IP", true, "192.0.2.1", &arp, Some(Dropped::NotIp)),
        ("not IP, no check", false, "192.0.2.1", &arp, None),
        ("not the version", true, "192.0.2.1", &version, Some(Dropped::BadInner)),
    ] {
        assert_eq!(refusal(check, from, bytes), want, "{what}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for v6 in [false, true] {
        let good = datagram(&Sample::of(v6, false, 10).frame());
        for len in 0..good.len() {
            assert_eq!(refusal(true, "192.0.2.1", &good[..len]), Some(Dropped::Truncated), "{len} bytes");
        }
    }
}

#[test]
fn a_source_of_one_family_is_not_permitted_by_the_subnet_of_another() {
    let table = Table::new([peer()]);
    let datagram = datagram(&Sample::of(true, false, 10).frame());
    let refused = admit(&table, NET, true, peer().addr, &datagram).err();
    assert_eq!(refused, Some(Dropped::ForeignSource));
}

#[test]
fn frames_find_their_way_by_their_destination() {
    let table = table();
    let sample = Sample::of(false, false, 10);
    let frame = sample.frame();
    assert_eq!(way(&table, &frame), Ok(Way::To(&peer(), Layout::of(&frame).unwrap())));
    for (mac, want) in [
        (US, Dropped::NoPeer),
        ([0xff; 6], Dropped::Broadcast),
        ([1, 0, 0x5e, 0, 0, 0xfb], Dropped::Multicast),
        ([0x33, 0x33, 0, 0, 0, 2], Dropped::Multicast),
    ] {
        assert_eq!(way(&table, &Sample { mac, ..sample.clone() }.frame()), Err(want));
    }
    assert_eq!(way(&table, &frame[..13]), Err(Dropped::Truncated));
}

#[test]
fn fragments_and_unknown_types_go_their_way_untouched() {
    let table = table();
    let mut fragment = Sample::of(false, true, 10).frame();
    put16(&mut fragment, 20, 0x2001);
    let unknown = [&PEER[..], &US, &[0x88, 0xcc], &[1, 2, 3]].concat();
    for (frame, kind) in [(fragment, Kind::Fragment), (unknown, Kind::Foreign)] {
        let Ok(Way::To(_, layout)) = way(&table, &frame) else { panic!("{kind:?} has a way") };
        assert_eq!(layout.kind, kind);
    }
}

#[test]
fn questions_for_neighbours_are_not_sent() {
    let arp = [&PEER[..], &US, &[8, 6], &[0; 28]].concat();
    let Ok(Way::Ask(layout)) = way(&table(), &arp) else { panic!("a question") };
    let mut out = [0; answer::MAX_LEN];
    assert_eq!(answer::neighbour(&table(), &arp, &layout, &mut out), Err(Dropped::BadInner));
}
