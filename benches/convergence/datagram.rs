//! Datagrams to and from any of a namespace's addresses, by one socket.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

/// A socket at all addresses, which says to which of them a datagram was sent.
pub(crate) fn open(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
    socket
}

/// The next datagram's length and where it was sent to; `None` if there is none.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, Ipv4Addr)> {
    let mut space = nix::cmsg_space!(libc::in_pktinfo);
    let mut chunks = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut chunks, Some(&mut space), flags).ok()?;
    let to = message.cmsgs().ok()?.find_map(|control| {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = control { Some(info.ipi_addr) } else { None }
    })?;
    Some((message.bytes, Ipv4Addr::from_bits(u32::from_be(to.s_addr))))
}

/// Sends a datagram in the name of one of the hosts.
pub(crate) fn transmit(socket: &UdpSocket, datagram: &[u8], from: Ipv4Addr, to: SocketAddrV4) {
    let from = libc::in_addr { s_addr: from.to_bits().to_be() };
    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: libc::in_addr { s_addr: 0 } };
    let (control, chunks) = ([ControlMessage::Ipv4PacketInfo(&info)], [IoSlice::new(datagram)]);
    sendmsg(socket.as_raw_fd(), &chunks, &control, MsgFlags::empty(), Some(&SockaddrIn::from(to))).unwrap();
}
