//! Laws that hold between the parts.

use proptest::prelude::*;

use super::Dropped;
use super::answer;
use super::checksum::Sum;
use super::coalesce::Coalescer;
use super::parse::{Kind, Layout};
use super::path::{Way, admit, way};
use super::samples::{Sample, any_sample, coalesce, payload, segment, verify};
use super::segment::Segments;
use super::table::{Peer, Table};
use super::virtio::Header;
use super::vxlan::Vxlan;
use crate::mac::Mac;

/// The frame as a receiver sees it: with the checksum that a partial one becomes.
fn completed(header: &Header, frame: &[u8]) -> Vec<u8> {
    let plain = Header { gso: None, ..*header };
    segment(frame, &plain, 256).unwrap().remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn cutting_and_joining_again_is_identity(sample in any_sample(40_000), size in 600_u16..9000) {
        let large = sample.frame();
        let cut = segment(&large, &sample.virtio(size), 20_000).unwrap();
        let joined = coalesce(&mut Coalescer::new(8, true), &cut);
        prop_assert_eq!(joined.len(), 1);
        let (header, frame) = &joined[0];
        prop_assert_eq!(completed(header, frame), large);
        if cut.len() > 1 {
            prop_assert_eq!(header.gso, Some((sample.gso(), size)));
            prop_assert_eq!(header.partial, Some(sample.partial()));
        }
    }

    #[test]
    fn joining_and_cutting_again_loses_nothing_and_keeps_the_order_of_each_flow(
        steps in proptest::collection::vec((0_usize..3, 0_u8..12, 1_usize..4), 1..80),
        udp: bool,
        v6: bool,
    ) {
        let mut flows = [0_u16, 1, 2].map(|flow| Sample { port: 4000 + flow, ..Sample::of(v6, udp, 0) });
        let frames: Vec<Vec<u8>> = steps.iter().map(|(flow, change, len)| {
            let flow = &mut flows[*flow];
            flow.payload = payload(len * 100);
            flow.flags = 0x10;
            // Most packets follow the one before; some do not.
            match change {
                0 => flow.seq = flow.seq.wrapping_sub(100),
                1 => flow.ttl ^= 1,
                2 => flow.flags |= 0x08,
                3 => flow.id = flow.id.wrapping_add(5),
                4 => flow.payload.clear(),
                5 => flow.tos ^= 3,
                _ => {}
            }
            let frame = flow.frame();
            flow.seq = flow.seq.wrapping_add(flow.payload.len() as u32);
            flow.id = flow.id.wrapping_add(1);
            frame
        }).collect();
        let joined = coalesce(&mut Coalescer::new(8, true), &frames);
        let cut: Vec<Vec<u8>> =
            joined.iter().flat_map(|(header, frame)| segment(frame, header, 60_000).unwrap()).collect();
        prop_assert_eq!(cut.len(), frames.len());
        let port_at = Sample::of(v6, udp, 0).l4() + 1;
        for flow in 0..3_u8 {
            let of = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
                frames.iter().filter(|f| f[port_at] == (4000_u16 as u8) + flow).cloned().collect()
            };
            prop_assert_eq!(of(&cut), of(&frames));
        }
    }

    #[test]
    fn each_packet_made_is_accepted_by_the_oracle(sample in any_sample(20_000), size in 100_u16..3000) {
        let cut = segment(&sample.frame(), &sample.virtio(size), 64 * 100).unwrap();
        cut.iter().for_each(|frame| verify(frame));
        prop_assert_eq!(cut, sample.cut(size.into()));
    }

    #[test]
    fn layouts_agree_with_the_oracle(sample in any_sample(300), padding in 0_usize..20) {
        let mut frame = sample.frame();
        let end = frame.len();
        frame.resize(end + padding, 0);
        let layout = Layout::of(&frame).unwrap();
        prop_assert_eq!(layout.end as usize, end);
        prop_assert_eq!(layout.payload(), end - sample.payload.len()..end);
        prop_assert_eq!((usize::from(layout.l4), layout.v6), (sample.l4(), sample.v6));
        prop_assert_eq!(layout.kind, if sample.udp { Kind::Udp } else { Kind::Tcp });
    }

    #[test]
    fn a_layout_is_inside_its_frame(frame in mangled()) {
        if let Ok(layout) = Layout::of(&frame) {
            let (l3, l4, payload) = (layout.l3, layout.l4, layout.payload);
            prop_assert!(l3 <= l4 && l4 <= payload && u32::from(payload) <= layout.end);
            prop_assert!(layout.end as usize <= frame.len());
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(frame in mangled(), virtio: [u8; 12], more in mangled()) {
        exercise(&frame, &virtio, &more);
    }
}

/// Frames that were once right, and bytes that never were.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let frame = (any_sample(200), changes, 0_usize..300).prop_map(|(sample, changes, keep)| {
        let mut frame = sample.frame();
        frame.truncate(keep.max(1));
        for (at, value) in changes {
            let at = at.index(frame.len().min(80));
            frame[at] = value;
        }
        frame
    });
    prop_oneof![4 => frame, 1 => proptest::collection::vec(any::<u8>(), 0..120)]
}

fn exercise(frame: &[u8], virtio: &[u8], more: &[u8]) {
    let peer = Peer {
        mac: Some(Mac(super::samples::PEER)),
        addr: [192, 0, 2, 1].into(),
        subnet: "10.5.1.0/24".parse().unwrap(),
        mtu: 1450,
    };
    let table = Table::new([peer]);
    let net = Vxlan::new(1, false);
    for check in [true, false] {
        let datagram = [&net.header()[..], frame].concat();
        let admitted = admit(&table, net, check, peer.addr, &datagram);
        assert!(admitted.is_err() || Layout::of(frame).is_ok());
    }
    let mut out = [0; answer::MAX_LEN];
    if let Ok(Way::Ask(layout)) = way(&table, frame) {
        let answer = answer::neighbour(&table, frame, &layout, &mut out);
        assert!(answer.is_ok_and(|len| len <= out.len()) || answer.is_err());
    }
    let Ok(layout) = Layout::of(frame) else { return };
    if let Ok(len) = answer::too_big(frame, &layout, 1280, &mut out) {
        assert!(len <= out.len());
    }
    if let Ok(header) = Header::decode(virtio) {
        let (mut bytes, mut arena) = (frame.to_vec(), [0; 4096]);
        let mut sent = 0;
        if let Ok(mut segments) = Segments::new(&mut bytes, &layout, &header, [0; 8]) {
            while let Some(chunk) = segments.next_chunk(&bytes, &mut arena) {
                sent += chunk.count;
            }
            assert_eq!(sent, segments.count());
        }
    }
    let frames: Vec<Vec<u8>> =
        [frame, more, frame].into_iter().filter(|f| Layout::of(f).is_ok()).map(<[u8]>::to_vec).collect();
    coalesce(&mut Coalescer::new(1, true), &frames);
}

#[test]
fn sums_of_a_real_packet_are_valid_from_any_part() {
    let frame = Sample::of(false, false, 333).frame();
    assert!(Sum::ZERO.bytes(&frame[14..34]).is_valid());
    assert_eq!(Layout::of(&frame[..60]), Err(Dropped::Truncated));
}
