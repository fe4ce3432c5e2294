//! The traps of cutting, each by its name.

use super::*;
use crate::frame::group::Group;
use crate::frame::samples::{ACK, CWR as CWR_FLAG, ECE, FIN, PSH, Sample, VXLAN, payload, segment, verify};

fn fields(frames: &[Vec<u8>], at: usize) -> Vec<u16> {
    frames.iter().map(|frame| be16(frame, at).unwrap()).collect()
}

#[test]
fn the_ipv4_identification_counts_up_and_wraps() {
    let sample = Sample { id: 65_534, ..Sample::of(false, false, 4000) };
    let cut = segment(&sample.frame(), &sample.virtio(1000), 9999).unwrap();
    assert_eq!(fields(&cut, 14 + 4), [65_534, 65_535, 0, 1]);
    cut.iter().for_each(|frame| verify(frame));
}

#[test]
fn sequence_numbers_wrap() {
    let sample = Sample { seq: u32::MAX - 500, ..Sample::of(true, false, 3000) };
    let cut = segment(&sample.frame(), &sample.virtio(1000), 9999).unwrap();
    let seqs: Vec<u32> = cut.iter().map(|frame| be32(frame, 54 + 4).unwrap()).collect();
    assert_eq!(seqs, [u32::MAX - 500, 499, 1499]);
}

#[test]
fn cwr_is_on_the_first_alone_fin_and_psh_on_the_last_alone() {
    for v6 in [false, true] {
        let flags = ACK | ECE | CWR_FLAG | FIN | PSH;
        let sample = Sample { flags, ..Sample::of(v6, false, 3000) };
        let cut = segment(&sample.frame(), &sample.virtio(1000), 9999).unwrap();
        let flags: Vec<u8> = cut.iter().map(|frame| frame[sample.l4() + 13]).collect();
        assert_eq!(flags, [ACK | ECE | CWR_FLAG, ACK | ECE, ACK | ECE | FIN | PSH]);
    }
}

#[test]
fn a_frame_of_one_segment_keeps_all_flags() {
    let sample = Sample { flags: ACK | CWR_FLAG | PSH, ..Sample::of(false, false, 900) };
    assert_eq!(segment(&sample.frame(), &sample.virtio(1000), 999).unwrap(), [sample.frame()]);
}

#[test]
fn the_last_segment_may_be_shorter_and_is_never_empty() {
    for udp in [false, true] {
        for (len, lens) in [(2500, vec![1000, 1000, 500]), (2000, vec![1000, 1000]), (1001, vec![1000, 1])] {
            let sample = Sample::of(false, udp, len);
            let large = sample.frame();
            let headers = large.len() - len;
            let cut = segment(&large, &sample.virtio(1000), 9999).unwrap();
            assert_eq!(cut.iter().map(|frame| frame.len() - headers).collect::<Vec<_>>(), lens);
        }
    }
}

#[test]
fn headers_without_payload_are_one_segment() {
    let sample = Sample::of(false, false, 0);
    assert_eq!(segment(&sample.frame(), &sample.virtio(1000), 999).unwrap(), [sample.frame()]);
}

#[test]
fn a_partial_checksum_without_segmentation_is_completed_in_place() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let sample = Sample::of(v6, udp, 501);
        let whole = sample.frame();
        let mut partial = whole.clone();
        let at = usize::from(sample.partial().start + sample.partial().offset);
        let len = (whole.len() - sample.l4()) as u16;
        let pseudo = pseudo(&whole, 14, v6, if udp { 17 } else { 6 }).unwrap();
        put16(&mut partial, at, pseudo.word(len).fold());
        assert_ne!(partial, whole);
        let virtio = Header { partial: Some(sample.partial()), ..Header::PLAIN };
        assert_eq!(segment(&partial, &virtio, 8).unwrap(), [whole]);
    }
}

/// A payload whose checksum comes out as zero, which would mean that there is none.
#[test]
fn a_udp_checksum_of_zero_is_written_as_ones() {
    let mut sample = Sample { udp: true, payload: vec![0; 4], ..Sample::default() };
    let checksum = |sample: &Sample| be16(&sample.frame(), 34 + 6).unwrap();
    let sum = checksum(&sample);
    sample.payload[..2].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(checksum(&sample), 0xffff, "as etherparse writes it");
    let cut = segment(&sample.frame(), &sample.virtio(4), 99).unwrap();
    assert_eq!(cut, [sample.frame()]);
    let mut partial = sample.frame();
    let pseudo = pseudo(&partial, 14, false, 17).unwrap().word(12).fold();
    put16(&mut partial, 40, pseudo);
    let virtio = Header { partial: Some(sample.partial()), ..Header::PLAIN };
    assert_eq!(segment(&partial, &virtio, 8).unwrap(), [sample.frame()]);
}

#[test]
fn an_absent_udp_checksum_stays_absent() {
    let sample = Sample::of(false, true, 2500);
    let mut large = sample.frame();
    put16(&mut large, 40, 0);
    let virtio = Header { partial: None, ..sample.virtio(1000) };
    let cut = segment(&large, &virtio, 9999).unwrap();
    assert_eq!(fields(&cut, 40), [0, 0, 0]);
    cut.iter().for_each(|frame| verify(frame));
    assert_eq!(segment(&large, &Header::PLAIN, 8).unwrap(), [large]);
}

#[test]
fn udp_lengths_are_those_of_each_datagram() {
    let sample = Sample::of(true, true, 2500);
    let cut = segment(&sample.frame(), &sample.virtio(1000), 9999).unwrap();
    assert_eq!(fields(&cut, 54 + 4), [1008, 1008, 508]);
    assert_eq!(fields(&cut, 14 + 4), [1008, 1008, 508]);
}

#[test]
fn extension_headers_and_vlan_tags_are_repeated() {
    let sample = Sample::of(true, false, 2500);
    let mut large = sample.frame();
    // Destination options with nothing but padding, before TCP.
    large.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    large[14 + 6] = 60;
    let len = be16(&large, 18).unwrap() + 8;
    put16(&mut large, 18, len);
    large.splice(12..12, [0x81, 0, 0, 9]);
    let partial = Partial { start: 66, offset: 16 };
    let cut = segment(&large, &Header { partial: Some(partial), ..sample.virtio(1000) }, 9999).unwrap();
    let plain = sample.cut(1000);
    assert_eq!(cut.len(), 3);
    for (frame, plain) in cut.iter().zip(plain) {
        assert_eq!(frame[12..18], [0x81, 0, 0, 9, 0x86, 0xdd]);
        assert_eq!(frame[58..66], [6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(frame[66..], plain[54..], "TCP, its checksum too, is as without them");
        assert_eq!(usize::from(be16(frame, 22).unwrap()), frame.len() - 58);
    }
}

#[test]
fn what_is_not_cut_passes_as_it_is() {
    let mut fragment = Sample::of(false, true, 100).frame();
    fragment[20] = 0x20;
    let foreign = [&[0xff; 12][..], &[0x88, 0xcc], &[1, 2, 3]].concat();
    let mut padded = Sample::of(false, false, 1).frame();
    padded.resize(100, 0xee);
    for frame in [fragment, foreign, padded] {
        assert_eq!(segment(&frame, &Header::PLAIN, 8).unwrap(), [frame]);
    }
}

#[test]
fn a_frame_that_is_not_what_its_header_says_is_refused() {
    let (tcp, udp, v6) =
        (Sample::of(false, false, 99), Sample::of(false, true, 99), Sample::of(true, false, 99));
    let mut fragment = tcp.frame();
    fragment[20] = 0x20;
    let elsewhere = |start, offset| Header { partial: Some(Partial { start, offset }), ..tcp.virtio(50) };
    for (what, frame, virtio) in [
        ("UDP as TCP", udp.frame(), tcp.virtio(50)),
        ("TCP as UDP", tcp.frame(), udp.virtio(50)),
        ("IPv6 as IPv4", v6.frame(), tcp.virtio(50)),
        ("IPv4 as IPv6", tcp.frame(), v6.virtio(50)),
        ("a fragment", fragment, tcp.virtio(50)),
        ("a checksum before TCP", tcp.frame(), elsewhere(30, 16)),
        ("another field than the checksum", tcp.frame(), elsewhere(34, 6)),
        ("a checksum behind the frame", tcp.frame(), Header { gso: None, ..elsewhere(200, 16) }),
        ("half a checksum", tcp.frame(), Header { gso: None, ..elsewhere(164, 0) }),
        ("no numbers at all", tcp.frame(), Header { gso: None, ..elsewhere(65_535, 65_535) }),
    ] {
        assert_eq!(segment(&frame, &virtio, 999), Err(Dropped::BadOffload), "{what}");
    }
}

#[test]
fn a_chunk_holds_what_one_sendmsg_takes() {
    for (size, counts) in [(1348, vec![46, 3]), (100, vec![64; 10]), (9000, vec![7, 1])] {
        let len = if size == 100 { 64_000 } else { 65_000 };
        let sample = Sample::of(false, false, len);
        let mut frame = sample.frame();
        let layout = Layout::of(&frame).unwrap();
        let mut segments = Segments::new(&mut frame, &layout, &sample.virtio(size), VXLAN).unwrap();
        assert_eq!(segments.packet_len(&layout), 52 + usize::from(size));
        let mut arena = vec![0; segments.arena_len()];
        let mut found = Vec::new();
        while let Some(chunk) = segments.next_chunk(&frame, &mut arena) {
            assert!(chunk.count <= MAX_SEGMENTS && chunk.bytes() <= MAX_BYTES);
            assert_eq!(chunk.arena_len(), chunk.count * chunk.header_len);
            found.push(chunk.count);
        }
        assert_eq!(found, counts);
    }
}

#[test]
fn a_small_arena_makes_more_chunks_and_none_makes_none() {
    let sample = Sample::of(false, false, 5000);
    let header_len = 8 + 66;
    assert_eq!(segment(&sample.frame(), &sample.virtio(1000), header_len * 2).unwrap(), sample.cut(1000));
    let mut frame = sample.frame();
    let layout = Layout::of(&frame).unwrap();
    let mut segments = Segments::new(&mut frame, &layout, &sample.virtio(1000), VXLAN).unwrap();
    assert_eq!(segments.next_chunk(&frame, &mut [0; 73]), None);
    assert!(!segments.is_done());
}

/// The kernel cuts a `sendmsg` at equal distances.
#[test]
fn groups_never_mix_sizes() {
    let chunk = |len: usize, size: u16| {
        let sample = Sample::of(false, true, len);
        let mut frame = sample.frame();
        let layout = Layout::of(&frame).unwrap();
        let virtio = if size == 0 { Header::PLAIN } else { sample.virtio(size) };
        let mut segments = Segments::new(&mut frame, &layout, &virtio, VXLAN).unwrap();
        segments.next_chunk(&frame, &mut [0; 9999]).unwrap()
    };
    let mut group = Group::new(&chunk(100, 0));
    assert!(group.add(&chunk(100, 0)));
    assert!(!group.add(&chunk(101, 0)), "larger");
    assert!(group.add(&chunk(300, 100)), "cut to the same size");
    assert_eq!((group.count(), group.segment_len(), group.bytes()), (5, 150, 750));
    assert!(!group.add(&chunk(50, 25)), "cut to another size");
    assert!(group.add(&chunk(99, 0)), "a shorter one at the end");
    assert!(!group.add(&chunk(99, 0)) && !group.add(&chunk(100, 0)), "nothing behind a shorter one");
    assert!(!Group::new(&chunk(250, 100)).add(&chunk(100, 0)), "the last of a cut frame is shorter");

    let mut group = Group::new(&chunk(10, 0));
    assert_eq!((1..).take_while(|_| group.add(&chunk(10, 0))).last(), Some(MAX_SEGMENTS - 1));
    let mut group = Group::new(&chunk(8000, 0));
    while group.add(&chunk(8000, 0)) {}
    assert_eq!((group.count(), group.bytes() <= MAX_BYTES), (8, true));
}

#[test]
fn the_largest_frame_is_cut() {
    for v6 in [false, true] {
        let most = if v6 { 65_535 - 32 } else { 65_535 - 52 };
        let sample = Sample::of(v6, false, most);
        let cut = segment(&sample.frame(), &sample.virtio(1348), 9999).unwrap();
        assert_eq!(cut, sample.cut(1348));
        assert_eq!(
            cut.iter().map(|frame| frame.len() - sample.l4() - 32).sum::<usize>(),
            payload(most).len()
        );
    }
}
