//! What the kernel says of a bridge, and how an address or a port is taken from it: four messages of rtnetlink.
//!
//! # Why not the crate for routes
//!
//! It knows every message of the kernel, and with it the plugin was twice as large as it may be. Numbers are those of
//! linux/rtnetlink.h, linux/if_addr.h and linux/if_link.h.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use twill_backends::family::Family;

const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_MASTER: u16 = 10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// The length of `struct ifaddrmsg`: family, prefix length, flags, scope, and the index in four bytes.
const IFADDR: usize = 8;

/// The addresses of a device, but link-local ones.
pub(super) fn addresses(index: u32) -> io::Result<Vec<IpNet>> {
    let answers = request(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDR])?;
    let one = |answer: &Vec<u8>| {
        let (message, attributes) = answer.split_at_checked(IFADDR)?;
        (number(&message[4..]) == Some(index)).then_some(())?;
        let found = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
        IpNet::new(address(found)?, message[1]).ok().filter(|net| !is_link_local(&net.addr()))
    };
    Ok(answers.iter().filter_map(one).collect())
}

/// The devices in a bridge.
pub(super) fn ports(index: u32) -> io::Result<Vec<u32>> {
    let answers = request(RTM_GETLINK, NLM_F_DUMP, &[0; IFINFO])?;
    let inside = |answer: &Vec<u8>| {
        let (message, attributes) = answer.split_at_checked(IFINFO)?;
        (attribute(attributes, IFLA_MASTER).and_then(number) == Some(index)).then_some(())?;
        number(&message[4..])
    };
    Ok(answers.iter().filter_map(inside).collect())
}

/// Deletes a device, and with a veth its other end.
pub(super) fn delete(index: u32) -> io::Result<()> {
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    request(RTM_DELLINK, NLM_F_ACK, &body).map(drop)
}

/// Takes an address from a device.
pub(super) fn remove(index: u32, addr: &IpNet) -> io::Result<()> {
    let (family, octets) = match addr.addr() {
        IpAddr::V4(addr) => (AF_INET, addr.octets().to_vec()),
        IpAddr::V6(addr) => (AF_INET6, addr.octets().to_vec()),
    };
    let mut body = vec![family, addr.prefix_len(), 0, 0];
    body.extend(index.to_ne_bytes());
    // The four bytes before an attribute's value are its length, their own included, and its kind.
    let length = 4 + u16::from(Family::of_net(addr).bits() / 8);
    body.extend(length.to_ne_bytes());
    body.extend(IFA_LOCAL.to_ne_bytes());
    body.extend(octets);
    request(RTM_DELADDR, NLM_F_ACK, &body).map(drop)
}

const fn is_link_local(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(attributes).map_while(Result::ok).find(|nla| nla.kind() == kind)?;
    found.into_inner().get(4..usize::from(found.length()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Sends one message and gathers the bodies of the answers.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut bytes = vec![0; HEADER];
    bytes.extend(body);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut packet = NetlinkBuffer::new(&mut bytes);
    packet.set_length(length);
    packet.set_message_type(kind);
    packet.set_flags(NLM_F_REQUEST | flags);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _from) = socket.recv_from_full()?;
        if gather(&bytes, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Takes the answers of one datagram; returns whether it was the last.
fn gather(mut bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let packet = NetlinkBuffer::new_checked(bytes).map_err(io::Error::other)?;
        let length = packet.length() as usize;
        let body = bytes.get(HEADER..length).unwrap_or_default();
        match packet.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(body).map_or(0, u32::cast_signed);
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(code.saturating_neg()))
                };
            }
            _ => answers.push(body.to_vec()),
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use nix::net::if_::if_nametoindex;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernel_is_asked() {
        let index = if_nametoindex("lo").unwrap();
        let lo = addresses(index).unwrap();
        assert!(lo.is_empty() || lo.contains(&"127.0.0.1/8".parse().unwrap()), "{lo:?}");
        assert!(ports(index).unwrap().is_empty());
        assert!(delete(u32::MAX >> 1).is_err(), "a device that is not there was deleted");
        let addr = "192.0.2.77/32".parse().unwrap();
        assert!(remove(index, &addr).is_err(), "an address that is not there was removed");
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut answers = Vec::new();
            drop(gather(&bytes, &mut answers));
            prop_assert!(attribute(&bytes, IFLA_MASTER).is_none_or(|value| value.len() < bytes.len()));
        }
    }
}
