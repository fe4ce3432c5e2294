//! Where the headers of an inner Ethernet frame are. Nothing is copied, nothing is believed: every offset that a
//! [`Layout`] gives lies inside the frame it was made from.

use super::Dropped;
use super::bytes::be16;

/// The length of an Ethernet header without tags, in bytes.
pub const ETHERNET: usize = 14;
pub(super) const ETHERTYPE_V4: u16 = 0x0800;
pub(super) const ETHERTYPE_V6: u16 = 0x86dd;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
/// IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const MAX_TAGS: usize = 2;
/// More IPv6 extension headers than anybody sends; the packet passes as one of an unknown transport.
const MAX_EXTENSIONS: usize = 8;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not IP.
    Foreign,
    /// An IP fragment, of whatever transport. The IPv6 atomic fragment is one too.
    Fragment,
    /// IP with another transport, or a transport header that is cut off or makes no sense.
    Other,
    /// TCP with its whole header.
    Tcp,
    /// UDP with its whole header, whose length field agrees with that of IP.
    Udp,
}

/// The offsets of a frame's headers, in bytes from its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What the frame carries.
    pub kind: Kind,
    /// Whether it is IPv6; of no meaning for [`Kind::Foreign`].
    pub v6: bool,
    /// The transport protocol: the last next-header of IPv6; 0 for [`Kind::Foreign`].
    pub protocol: u8,
    /// The type behind the Ethernet header and its tags.
    pub ethertype: u16,
    /// The IP header, or what follows the Ethernet header and its tags.
    pub l3: u16,
    /// The transport header, or what follows the IP headers.
    pub l4: u16,
    /// What follows a TCP or UDP header; else the same as `l4`.
    pub payload: u16,
    /// The end of the IP packet: short frames carry padding behind it.
    pub end: u32,
}

impl Layout {
    /// Reads the headers of a frame.
    ///
    /// # Errors
    /// [`Dropped::Truncated`] if the frame is shorter than its Ethernet or IP header says, [`Dropped::BadInner`] if
    /// its IP header contradicts itself.
    #[inline]
    pub fn of(frame: &[u8]) -> Result<Self, Dropped> {
        let (mut l3, mut ethertype) = (ETHERNET, be16(frame, 12).ok_or(Dropped::Truncated)?);
        for _ in 0..MAX_TAGS {
            if !TAGS.contains(&ethertype) {
                break;
            }
            ethertype = be16(frame, l3 + 2).ok_or(Dropped::Truncated)?;
            l3 += 4;
        }
        match ethertype {
            ETHERTYPE_V4 => v4(frame, l3),
            ETHERTYPE_V6 => v6(frame, l3),
            _ => Ok(Self {
                kind: Kind::Foreign,
                v6: false,
                protocol: 0,
                ethertype,
                l3: l3 as u16,
                l4: l3 as u16,
                payload: l3 as u16,
                end: frame.len() as u32,
            }),
        }
    }

    /// The length of the IP packet in bytes.
    #[must_use]
    pub const fn packet_len(&self) -> usize {
        self.end as usize - self.l3 as usize
    }

    /// The range of the payload of TCP or UDP.
    #[must_use]
    pub const fn payload(&self) -> std::ops::Range<usize> {
        self.payload as usize..self.end as usize
    }
}

#[inline]
fn v4(frame: &[u8], l3: usize) -> Result<Layout, Dropped> {
    let header = frame.get(l3..).and_then(|ip| ip.first_chunk::<20>()).ok_or(Dropped::Truncated)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < 20 || total < header_len {
        return Err(Dropped::BadInner);
    }
    if frame.len() < l3 + total {
        return Err(Dropped::Truncated);
    }
    // More fragments, or an offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let layout = Layout {
        kind: if fragment { Kind::Fragment } else { Kind::Other },
        v6: false,
        protocol: header[9],
        ethertype: ETHERTYPE_V4,
        l3: l3 as u16,
        l4: (l3 + header_len) as u16,
        payload: (l3 + header_len) as u16,
        end: (l3 + total) as u32,
    };
    Ok(transport(frame, layout))
}

#[inline]
fn v6(frame: &[u8], l3: usize) -> Result<Layout, Dropped> {
    let header = frame.get(l3..).and_then(|ip| ip.first_chunk::<40>()).ok_or(Dropped::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Dropped::BadInner);
    }
    let end = l3 + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = frame.get(..end).ok_or(Dropped::Truncated)?;
    let (mut kind, mut protocol, mut l4) = (Kind::Other, header[6], l3 + 40);
    let mut rerouted = false;
    for left in (0..=MAX_EXTENSIONS).rev() {
        // Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200, section 4).
        if !matches!(protocol, 0 | 43 | 44 | 51 | 60) {
            break;
        }
        let Some([next, len]) =
            packet.get(l4..).and_then(|rest| rest.first_chunk::<2>()).filter(|_| left > 0)
        else {
            // Neither a transport nor an address can be found behind this; it travels as it is.
            protocol = 59;
            break;
        };
        if protocol == 44 {
            kind = Kind::Fragment;
            break;
        }
        // With stops left, the checksum is over the last of them, not over the destination (RFC 8200, section 8.1).
        rerouted |= protocol == 43 && packet.get(l4 + 3) != Some(&0);
        let words = usize::from(*len);
        l4 += if protocol == 51 { (words + 2) * 4 } else { (words + 1) * 8 };
        protocol = *next;
    }
    let l4 = l4.min(end);
    let layout = Layout {
        kind,
        v6: true,
        protocol,
        ethertype: ETHERTYPE_V6,
        l3: l3 as u16,
        l4: l4 as u16,
        payload: l4 as u16,
        end: end as u32,
    };
    Ok(if rerouted { layout } else { transport(frame, layout) })
}

#[inline]
fn transport(frame: &[u8], layout: Layout) -> Layout {
    let bytes = frame.get(usize::from(layout.l4)..layout.end as usize).unwrap_or_default();
    match (layout.kind, layout.protocol) {
        (Kind::Other, TCP) if bytes.len() >= 20 => {
            let len = usize::from(bytes[12] >> 4) * 4;
            if len < 20 || len > bytes.len() {
                return layout;
            }
            Layout { kind: Kind::Tcp, payload: layout.l4 + len as u16, ..layout }
        }
        (Kind::Other, UDP) if bytes.len() >= 8 => {
            if usize::from(u16::from_be_bytes([bytes[4], bytes[5]])) != bytes.len() {
                return layout;
            }
            Layout { kind: Kind::Udp, payload: layout.l4 + 8, ..layout }
        }
        _ => layout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::bytes::put16;
    use crate::frame::samples::Sample;

    fn kind(frame: &[u8]) -> Kind {
        Layout::of(frame).unwrap().kind
    }

    /// A UDP packet behind these IPv6 extension headers, the first of which is of type `first`.
    fn extended(first: u8, headers: &[u8]) -> Vec<u8> {
        let mut frame = Sample::of(true, true, 20).frame();
        frame[20] = first;
        frame.splice(54..54, headers.iter().copied());
        let len = frame.len() as u16 - 54;
        put16(&mut frame, 18, len);
        frame
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let authentication = [17, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        for (first, headers) in [
            (0, options(17).to_vec()),
            (60, options(17).to_vec()),
            (43, vec![17, 0, 4, 0, 0, 0, 0, 0]),
            (51, authentication.to_vec()),
            (0, [&options(60)[..], &options(51), &authentication].concat()),
            (60, [17, 1].into_iter().chain([0; 14]).collect()),
        ] {
            let frame = extended(first, &headers);
            let layout = Layout::of(&frame).unwrap();
            assert_eq!((layout.kind, usize::from(layout.l4)), (Kind::Udp, 54 + headers.len()));
            assert_eq!((layout.protocol, layout.payload()), (UDP, frame.len() - 20..frame.len()));
        }
    }

    #[test]
    fn a_route_with_stops_left_hides_the_transport() {
        assert_eq!(kind(&extended(43, &[17, 0, 4, 1, 0, 0, 0, 0])), Kind::Other);
    }

    #[test]
    fn fragments_are_fragments_of_whatever_they_carry() {
        assert_eq!(kind(&extended(44, &[17, 0, 0, 1, 0, 0, 0, 9])), Kind::Fragment);
        assert_eq!(kind(&extended(0, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 8, 0, 0, 0, 9])), Kind::Fragment);
        for (field, want) in
            [(0x2000, Kind::Fragment), (0x0001, Kind::Fragment), (0x4000, Kind::Udp), (0, Kind::Udp)]
        {
            let mut frame = Sample::of(false, true, 10).frame();
            put16(&mut frame, 20, field);
            assert_eq!(kind(&frame), want, "{field:#x}");
        }
    }

    #[test]
    fn chains_of_extension_headers_end() {
        let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(200);
        assert_eq!(kind(&extended(60, &endless)), Kind::Other);
        let mut beyond = extended(60, &[17, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Layout::of(&beyond).map(|l| (l.kind, l.l4 as usize)), Ok((Kind::Other, beyond.len())));
        beyond.truncate(55);
        put16(&mut beyond, 18, 1);
        assert_eq!(kind(&beyond), Kind::Other);
    }

    #[test]
    fn transports_that_make_no_sense_are_others() {
        let mut short_tcp = Sample::of(false, false, 10).frame();
        short_tcp[34 + 12] = 0x40;
        let mut long_tcp = Sample::of(false, false, 10).frame();
        long_tcp[34 + 12] = 0xf0;
        let mut udp_len = Sample::of(false, true, 10).frame();
        udp_len[39] += 1;
        let mut icmp = Sample::of(false, true, 10).frame();
        icmp[23] = 1;
        for frame in [short_tcp, long_tcp, udp_len, icmp] {
            let layout = Layout::of(&frame).unwrap();
            assert_eq!((layout.kind, layout.l4, layout.payload), (Kind::Other, 34, 34));
        }
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        for (at, value) in [(14, 0x44), (14, 0x35), (14, 0x65), (17, 19)] {
            let mut frame = Sample::of(false, true, 10).frame();
            frame[at] = value;
            assert_eq!(Layout::of(&frame), Err(Dropped::BadInner), "byte {at} is {value:#x}");
        }
        let mut frame = Sample::of(true, true, 10).frame();
        frame[14] = 0x45;
        assert_eq!(Layout::of(&frame), Err(Dropped::BadInner));
    }

    #[test]
    fn tags_are_passed_over_up_to_two() {
        let plain = Sample::of(false, false, 10).frame();
        for (tags, want) in [
            (&[0x81, 0, 0, 1][..], Kind::Tcp),
            (&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], Kind::Tcp),
            (&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3], Kind::Foreign),
        ] {
            let mut frame = plain.clone();
            frame.splice(12..12, tags.iter().copied());
            let layout = Layout::of(&frame).unwrap();
            assert_eq!((layout.kind, usize::from(layout.l3)), (want, 14 + tags.len().min(8)));
            assert_eq!(Layout::of(&frame[..14 + tags.len().min(8) - 1]), Err(Dropped::Truncated));
        }
    }
}
