//! The traps of joining, each by its name.

use proptest::prelude::*;

use super::*;
use crate::frame::bytes::{be16, put16};
use crate::frame::samples::{
    ACK, CWR, ECE, FIN, PEER, PSH, RST, SYN, Sample, URG, US, any_sample, coalesce, payload, segment,
};
use crate::frame::virtio::{Gso, Header};

fn join(frames: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
    coalesce(&mut Coalescer::new(4, true), frames)
}

/// How many frames each unit is made of.
fn counts(frames: &[Vec<u8>]) -> Vec<usize> {
    let again = |(header, frame): (Header, Vec<u8>)| segment(&frame, &header, 99_999).unwrap().len();
    join(frames).into_iter().map(again).collect()
}

/// A packet and the one that follows it.
fn pair(sample: &Sample) -> [Sample; 2] {
    let (len, mut next) = (sample.payload.len() as u32, sample.clone());
    next.seq = next.seq.wrapping_add(len);
    next.id = next.id.wrapping_add(1);
    [sample.clone(), next]
}

#[test]
fn two_segments_become_one_frame_with_a_partial_checksum() {
    let sample = Sample::of(false, false, 2000);
    let [(header, frame)] = &join(&sample.cut(1000))[..] else { panic!("one frame") };
    assert_eq!(header, &Header { hdr_len: 66, ..sample.virtio(1000) });
    assert_eq!(be16(frame, 16), Some(2052));
    assert_eq!(frame[66..], sample.payload);
    assert!(Sum::ZERO.bytes(&frame[14..34]).is_valid());
    let pseudo = pseudo(frame, 14, false, 6).unwrap().word(2032).fold();
    assert_eq!(be16(frame, 34 + 16), Some(pseudo));
}

#[test]
fn headers_that_differ_are_not_joined() {
    type Change = fn(&mut Sample);
    let changes: [(&str, bool, Change); 18] = [
        ("TTL", false, |s| s.ttl += 1),
        ("type of service", false, |s| s.tos ^= 0x10),
        ("congestion experienced", false, |s| s.tos ^= 3),
        ("don't fragment", false, |s| s.df = false),
        ("identification ahead", false, |s| s.id += 1),
        ("identification behind", false, |s| s.id -= 2),
        ("destination address of Ethernet", false, |s| s.mac = US),
        ("acknowledgement", true, |s| s.ack += 1),
        ("window", true, |s| s.window += 1),
        ("timestamp option", true, |s| s.options[7] += 1),
        ("fewer options", true, |s| s.options.clear()),
        ("gap in the sequence", true, |s| s.seq += 1),
        ("repeated sequence", true, |s| s.seq -= 1000),
        ("SYN", true, |s| s.flags |= SYN),
        ("RST", true, |s| s.flags |= RST),
        ("URG", true, |s| s.flags |= URG),
        ("ECE", true, |s| s.flags |= ECE),
        ("CWR behind the first", true, |s| s.flags |= CWR),
    ];
    for (what, tcp_only, change) in changes {
        for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
            let ipv4_only = what.contains("identification") || what.contains("fragment");
            if (udp && tcp_only) || (v6 && ipv4_only) {
                continue;
            }
            let [first, mut second] = pair(&Sample { tos: 2, ..Sample::of(v6, udp, 1000) });
            assert_eq!(counts(&[first.frame(), second.frame()]), [2], "without {what}");
            change(&mut second);
            let frames = [first.frame(), second.frame()];
            assert_eq!(join(&frames), frames.map(|frame| (Header::PLAIN, frame)), "{what}");
        }
    }
}

#[test]
fn first_segments_that_begin_or_end_something_stay_alone() {
    for flags in [ACK | SYN, ACK | RST, ACK | URG, ACK | FIN, ACK | PSH, 0] {
        let [first, second] = pair(&Sample { flags, ..Sample::of(false, false, 1000) });
        let second = Sample { flags: ACK, ..second };
        assert_eq!(counts(&[first.frame(), second.frame()]), [1, 1], "flags {flags:#x}");
    }
}

#[test]
fn cwr_on_the_first_is_kept_and_told() {
    for v6 in [false, true] {
        let sample = Sample { flags: ACK | CWR, ..Sample::of(v6, false, 3000) };
        let [(header, frame)] = &join(&sample.cut(1000))[..] else { panic!("one frame") };
        assert_eq!(header.gso, Some((sample.gso(), 1000)));
        assert!(matches!(header.gso, Some((Gso::TcpV4 { ecn: true } | Gso::TcpV6 { ecn: true }, _))));
        assert_eq!(frame[sample.l4() + 13], ACK | CWR);
    }
}

#[test]
fn psh_and_fin_are_joined_and_end_the_frame() {
    for flag in [PSH, FIN, PSH | FIN] {
        let mut stream = Sample { flags: ACK | flag, ..Sample::of(false, false, 2000) };
        let mut frames = stream.cut(1000);
        stream.seq += 2000;
        stream.id += 2;
        frames.extend(stream.cut(1000));
        let joined = join(&frames);
        assert_eq!(joined.len(), 2, "flag {flag:#x}");
        assert!(joined.iter().all(|(_, frame)| frame[34 + 13] == ACK | flag));
    }
}

#[test]
fn a_shorter_segment_ends_the_frame_and_a_larger_one_begins_another() {
    for udp in [false, true] {
        let mut stream = Sample::of(false, udp, 0);
        let frames: Vec<Vec<u8>> = [500, 500, 400, 400, 500, 500]
            .into_iter()
            .map(|len| {
                stream.payload = payload(len);
                let frame = stream.frame();
                stream.seq += len as u32;
                stream.id += 1;
                frame
            })
            .collect();
        assert_eq!(counts(&frames), [3, 1, 2], "500 500 400, 400, 500 500");
    }
}

#[test]
fn flows_between_each_other_are_all_joined() {
    let flows: Vec<Vec<Vec<u8>>> = (0..8)
        .map(|flow| {
            let (v6, udp) = (flow & 1 != 0, flow & 2 != 0);
            Sample { port: 6000 + flow, ..Sample::of(v6, udp, 5000) }.cut(1000)
        })
        .collect();
    let frames: Vec<Vec<u8>> = (0..5).flat_map(|at| flows.iter().map(move |flow| flow[at].clone())).collect();
    assert_eq!(counts(&frames), [5; 8]);
}

#[test]
fn out_of_order_segments_are_left_alone_in_the_order_in_which_they_came() {
    let cut = Sample::of(false, false, 4000).cut(1000);
    let frames: Vec<Vec<u8>> = [0, 2, 1, 3].map(|at| cut[at].clone()).to_vec();
    let joined = join(&frames);
    assert_eq!(joined, frames.iter().map(|frame| (Header::PLAIN, frame.clone())).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_joined_ends_the_frames_of_its_flow() {
    let stream = Sample::of(false, false, 4000);
    let mut frames = stream.cut(1000);
    frames.insert(2, Sample { seq: stream.seq + 2000, payload: Vec::new(), ..stream.clone() }.frame());
    assert_eq!(counts(&frames), [2, 1, 2], "an acknowledgement between");
}

#[test]
fn damaged_packets_are_not_vouched_for() {
    for v6 in [false, true] {
        for udp in [false, true] {
            let sample = Sample::of(v6, udp, 3000);
            for bad in 0..3 {
                for at in [sample.l4() + 40, 1000] {
                    let mut frames = sample.cut(1000);
                    frames[bad][at] ^= 0x10;
                    let damaged = frames[bad].clone();
                    let joined = join(&frames);
                    let alone =
                        joined.iter().filter(|(header, frame)| *header == Header::PLAIN && *frame == damaged);
                    assert_eq!(alone.count(), 1, "frame {bad}, byte {at}");
                    let vouched = joined.iter().filter(|(header, _)| header.gso.is_some()).count();
                    assert_eq!(vouched, usize::from(bad != 1), "the other two, if they follow each other");
                }
            }
        }
    }
}

#[test]
fn a_damaged_ipv4_header_is_not_rewritten() {
    let mut frames = Sample::of(false, false, 2000).cut(1000);
    frames[1][14 + 10] ^= 1;
    assert_eq!(join(&frames), frames.iter().map(|f| (Header::PLAIN, f.clone())).collect::<Vec<_>>());
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut frames = Sample::of(false, true, 2000).cut(1000);
    frames.iter_mut().for_each(|frame| put16(frame, 40, 0));
    assert_eq!(join(&frames), frames.iter().map(|f| (Header::PLAIN, f.clone())).collect::<Vec<_>>());
}

#[test]
fn udp_is_joined_only_where_the_tap_takes_it() {
    let frames = Sample::of(false, true, 2000).cut(1000);
    assert_eq!(coalesce(&mut Coalescer::new(4, false), &frames).len(), 2);
    let [(header, frame)] = &join(&frames)[..] else { panic!("one frame") };
    assert_eq!(header.gso, Some((Gso::Udp, 1000)));
    assert_eq!((be16(frame, 16), be16(frame, 38)), (Some(2028), Some(2008)));
}

#[test]
fn no_frame_exceeds_what_the_kernel_takes() {
    assert_eq!(counts(&Sample::of(false, true, 70 * 100).cut(100)), [64, 6]);
    for v6 in [false, true] {
        let stream = Sample::of(v6, false, 100_000);
        let joined = join(&stream.cut(1000));
        assert_eq!(joined.len(), 2);
        assert!(joined.iter().all(|(_, frame)| frame.len() <= 14 + MAX_PACKET));
        assert!(joined[0].1.len() > 14 + MAX_PACKET - 1000);
    }
    let most = usize::from(MAX_TCP);
    assert_eq!(counts(&Sample::of(false, false, most + 3).cut(1)), [most, 3]);
}

#[test]
fn padding_behind_a_packet_is_not_payload() {
    let mut frames = Sample::of(false, true, 8).cut(4);
    frames.iter_mut().for_each(|frame| frame.resize(60, 0xee));
    let [(_, frame)] = &join(&frames)[..] else { panic!("one frame") };
    assert_eq!(frame[42..], payload(8));
}

#[test]
fn a_standing_identification_is_joined_only_where_fragmenting_is_forbidden() {
    for (df, want) in [(true, vec![3]), (false, vec![1, 1, 1])] {
        let mut stream = Sample { id: 0, df, ..Sample::of(false, true, 100) };
        let frames: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                stream.seq += 100;
                stream.frame()
            })
            .collect();
        assert_eq!(counts(&frames), want);
    }
    let [first, second] = pair(&Sample::of(false, true, 100));
    let standing = Sample { id: first.id, ..second.clone() };
    assert_eq!(counts(&[first.frame(), second.frame(), standing.frame()]), [2, 1], "first this, then that");
    assert_eq!(counts(&[first.frame(), standing.frame(), second.frame()]), [2, 1], "and the other way");
}

#[test]
fn fragments_options_tags_and_extension_headers_are_left_alone() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, bool, Change); 4] = [
        ("fragment", false, |f| f[20] |= 0x20),
        ("IPv4 option", false, |f| {
            f[14] = 0x46;
            let len = be16(f, 16).unwrap() + 4;
            put16(f, 16, len);
            f.splice(34..34, [1, 1, 1, 1]);
        }),
        ("VLAN tag", false, |f| drop(f.splice(12..12, [0x81, 0, 0, 5]))),
        ("extension header", true, |f| {
            f[20] = 60;
            let len = be16(f, 18).unwrap() + 8;
            put16(f, 18, len);
            f.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
        }),
    ];
    for (what, v6, change) in changes {
        let mut frames = Sample::of(v6, false, 2000).cut(1000);
        for frame in &mut frames {
            change(frame);
            if !v6 {
                // The header is undamaged, so that this is not why it is left alone.
                let l3 = if what == "VLAN tag" { 18 } else { 14 };
                let end = l3 + usize::from(frame[l3] & 15) * 4;
                put16(frame, l3 + 10, 0);
                let sum = Sum::ZERO.bytes(&frame[l3..end]).checksum();
                put16(frame, l3 + 10, sum);
            }
        }
        let alone: Vec<_> = frames.iter().map(|f| (Header::PLAIN, f.clone())).collect();
        assert_eq!(join(&frames), alone, "{what}");
    }
}

#[test]
fn batches_do_not_see_each_other() {
    let frames = Sample::of(false, false, 2000).cut(1000);
    let mut coalescer = Coalescer::new(1, true);
    for batch in [1, u32::MAX - 1, u32::MAX] {
        coalescer.batch = batch;
        for frame in &frames {
            assert_eq!(coalesce(&mut coalescer, std::slice::from_ref(frame)).len(), 1, "batch {batch}");
        }
        assert_eq!(coalesce(&mut coalescer, &frames).len(), 1);
    }
}

#[test]
fn ranges_outside_the_slab_are_ignored() {
    let frame = Sample::of(false, false, 10).frame();
    let mut coalescer = Coalescer::new(1, true);
    coalescer.push(&frame, 1..frame.len() + 1, &Layout::of(&frame).unwrap());
    assert!(coalescer.units().is_empty());
}

proptest! {
    #[test]
    fn any_single_frame_is_left_alone(sample in any_sample(2000)) {
        let frame = sample.frame();
        prop_assert_eq!(join(std::slice::from_ref(&frame)), [(Header::PLAIN, frame)]);
        prop_assert_eq!(sample.mac, PEER);
    }
}
