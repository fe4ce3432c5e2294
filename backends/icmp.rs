//! ICMP echoes, as raw sockets send and receive them.

use std::net::IpAddr;

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
    Ipv4HeaderSlice,
};

/// The types of echo replies (RFC 792, RFC 4443).
pub const REPLIES: [u8; 2] = [0, 129];

/// The ICMP bytes of an echo request. The kernel fills in the checksum of ICMPv6 (RFC 3542, section 3.1).
#[must_use]
pub fn request(target: IpAddr, header: IcmpEchoHeader, payload: &[u8]) -> Vec<u8> {
    let mut packet = match target {
        IpAddr::V4(_) => {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), payload).to_bytes().to_vec()
        }
        IpAddr::V6(_) => Icmpv6Header::new(Icmpv6Type::EchoRequest(header)).to_bytes().to_vec(),
    };
    packet.extend_from_slice(payload);
    packet
}

/// The echo header and the payload if `packet` is an echo reply. Raw IPv4 sockets deliver the IP header, raw IPv6
/// sockets do not.
#[must_use]
pub fn reply(target: IpAddr, packet: &[u8]) -> Option<(IcmpEchoHeader, &[u8])> {
    match target {
        IpAddr::V4(_) => {
            let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
            let icmp = Icmpv4Slice::from_slice(packet.get(ip.slice().len()..)?).ok()?;
            let Icmpv4Type::EchoReply(header) = icmp.icmp_type() else { return None };
            Some((header, icmp.payload()))
        }
        IpAddr::V6(_) => {
            let icmp = Icmpv6Slice::from_slice(packet).ok()?;
            let Icmpv6Type::EchoReply(header) = icmp.icmp_type() else { return None };
            Some((header, icmp.payload()))
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const HEADER: IcmpEchoHeader = IcmpEchoHeader { id: 7, seq: 1 };

    #[test]
    fn a_request_is_an_echo_request_and_no_reply() {
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let packet = request(v6, HEADER, b"abc");
        assert_eq!((packet[0], &packet[8..]), (128, &b"abc"[..]));
        assert_eq!(reply(v6, &packet), None);
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let packet = request(v4, HEADER, b"abc");
        let icmp = Icmpv4Slice::from_slice(&packet).unwrap();
        assert_eq!((icmp.icmp_type(), icmp.payload()), (Icmpv4Type::EchoRequest(HEADER), &b"abc"[..]));
    }

    #[test]
    fn a_reply_is_read_with_and_without_the_ip_header() {
        let mut packet = Vec::new();
        let v4 = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).icmpv4(Icmpv4Type::EchoReply(HEADER));
        v4.write(&mut packet, b"abc").unwrap();
        let target: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(reply(target, &packet), Some((HEADER, &b"abc"[..])));
        assert_eq!(packet[20], REPLIES[0]);
        assert_eq!(reply(target, &packet[..22]), None);
        let mut packet = Icmpv6Header::new(Icmpv6Type::EchoReply(HEADER)).to_bytes().to_vec();
        packet.extend_from_slice(b"abc");
        assert_eq!(reply("fd00::1".parse().unwrap(), &packet), Some((HEADER, &b"abc"[..])));
        assert_eq!(packet[0], REPLIES[1]);
    }
}
