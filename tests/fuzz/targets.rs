//! What is fuzzed, as plain functions of bytes. Each asserts laws that hold for any bytes; that nothing panics, loops
//! or reads out of bounds is the first of them.

use std::net::IpAddr;

use twill_backends::frame::Dropped;
use twill_backends::frame::answer;
use twill_backends::frame::checksum::Sum;
use twill_backends::frame::coalesce::Coalescer;
use twill_backends::frame::flow;
use twill_backends::frame::parse::{Kind, Layout};
use twill_backends::frame::path::{Way, admit, way};
use twill_backends::frame::segment::{MAX_BYTES, MAX_SEGMENTS, Segments};
use twill_backends::frame::table::{Peer, Table};
use twill_backends::frame::virtio::{self, Header};
use twill_backends::frame::vxlan::{self, Vxlan};
use twill_backends::mac::Mac;

const NET: Vxlan = Vxlan::new(1, false);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn table() -> Table {
    let peer = |subnet: &str, last| {
        let subnet = subnet.parse().ok()?;
        Some(Peer { mac: Some(Mac([2, 0, 0, 0, 0, last])), addr: PEER, subnet, mtu: 1450 })
    };
    Table::new([peer("10.5.1.0/24", 2), peer("fd00:5:0:1::/64", 3)].into_iter().flatten())
}

/// A datagram from the wire, with its VXLAN header; and the inner frame as one from the TAP.
pub(super) fn decapsulate(datagram: &[u8]) {
    let table = table();
    let checked = admit(&table, NET, true, PEER, datagram);
    let unchecked = admit(&table, NET, false, PEER, datagram);
    if let Ok((_, frame, layout)) = checked {
        assert_eq!(unchecked.map(|(_, frame, layout)| (frame, layout)), Ok((frame, layout)));
        assert_eq!(frame.len(), datagram.len() - vxlan::LEN);
        assert_ne!(layout.kind, Kind::Foreign);
    }
    assert!(admit(&table, NET, false, IpAddr::from([192, 0, 2, 2]), datagram).is_err());
    let frame = datagram.get(vxlan::LEN..).unwrap_or_default();
    let Ok(layout) = Layout::of(frame) else { return };
    assert!(layout.l3 <= layout.l4 && layout.l4 <= layout.payload);
    assert!(u32::from(layout.payload) <= layout.end && layout.end as usize <= frame.len());
    assert_eq!(flow::hash(frame, &layout), flow::hash(&[frame, &[0]].concat(), &layout));
    let mut out = [0; answer::MAX_LEN];
    let answers = [
        answer::too_big(frame, &layout, 1400, &mut out),
        match way(&table, frame) {
            Ok(Way::Ask(layout)) => answer::neighbour(&table, frame, &layout, &mut out),
            Ok(Way::To(..)) | Err(_) => Err(Dropped::NoNeighbour),
        },
    ];
    assert!(answers.into_iter().flatten().all(|len| len <= out.len()));
}

/// A frame from the TAP, with its virtio header. What is cut off it comes out once, in order, in valid packets.
pub(super) fn segment(bytes: &[u8]) {
    let Some((header, frame)) = bytes.split_at_checked(virtio::LEN) else { return };
    let (Ok(header), Ok(layout)) = (Header::decode(header), Layout::of(frame)) else { return };
    let mut frame = frame.to_vec();
    let Ok(mut segments) = Segments::new(&mut frame, &layout, &header, NET.header()) else { return };
    let whole = segments.is_whole();
    let mut arena = vec![0; segments.arena_len()];
    let (mut count, mut payload) = (0, Vec::new());
    while let Some(chunk) = segments.next_chunk(&frame, &mut arena) {
        assert!(chunk.count <= MAX_SEGMENTS && (chunk.bytes() <= MAX_BYTES || chunk.count == 1));
        count += chunk.count;
        for index in 0..chunk.count {
            let (headers, range) = (&arena[chunk.headers(index)], chunk.payload(index));
            let packet = [headers, &frame[range.clone()]].concat();
            payload.extend_from_slice(&frame[range]);
            assert_eq!(packet[..vxlan::LEN], NET.header());
            if !whole {
                valid(&packet[vxlan::LEN..], &layout);
            }
        }
    }
    assert!(segments.is_done() && count == segments.count());
    assert_eq!(payload, if whole { &frame[..] } else { &frame[layout.payload()] });
}

/// Asserts that a packet is one of a frame with this layout, and that its checksums are right.
fn valid(packet: &[u8], of: &Layout) {
    let layout = Layout::of(packet);
    let Ok(layout) = layout else { panic!("{layout:?}") };
    assert_eq!((layout.kind, layout.l3, layout.l4), (of.kind, of.l3, of.l4));
    let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
    let transport = &packet[l4..layout.end as usize];
    let addresses = if layout.v6 { &packet[l3 + 8..l3 + 40] } else { &packet[l3 + 12..l3 + 20] };
    assert!(layout.v6 || Sum::ZERO.bytes(&packet[l3..l4]).is_valid());
    let sum = Sum::ZERO.bytes(addresses).word(layout.protocol.into()).word(transport.len() as u16);
    let absent = layout.kind == Kind::Udp && transport[6..8] == [0, 0];
    assert!(absent || sum.bytes(transport).is_valid());
}

/// Frames from the wire, each behind two bytes of its length. Cut again, what was joined is as long as before.
pub(super) fn coalesce(bytes: &[u8]) {
    let (mut slab, mut ranges, mut at) = (bytes.to_vec(), Vec::new(), 0);
    while let Some(len) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
        let end = (at + 2 + usize::from(u16::from_be_bytes(*len))).min(bytes.len());
        ranges.push(at + 2..end);
        at = end;
    }
    let mut coalescer = Coalescer::new(4, true);
    let (mut count, mut payload) = (0, 0);
    for range in ranges {
        if let Ok(layout) = Layout::of(&slab[range.clone()]) {
            coalescer.push(&slab, range, &layout);
            (count, payload) = (count + 1, payload + layout.payload().len());
        }
    }
    coalescer.finish(&mut slab);
    for unit in coalescer.units() {
        let mut frame = slab[unit.head()].to_vec();
        coalescer.tail(unit).for_each(|range| frame.extend_from_slice(&slab[range]));
        assert_eq!(frame.len(), unit.len());
        let (layout, header) = (Layout::of(&frame), Header::decode(unit.virtio()));
        let (Ok(layout), Ok(header)) = (layout, header) else { panic!("{layout:?} {header:?}") };
        assert!(unit.count() == 1 || header.gso.is_some());
        let Ok(segments) = Segments::new(&mut frame, &layout, &header, NET.header()) else {
            panic!("{header:?} is not that of {layout:?}")
        };
        assert_eq!(segments.count(), unit.count());
        (count, payload) = (count - segments.count(), payload - layout.payload().len());
    }
    assert_eq!((count, payload), (0, 0));
}
