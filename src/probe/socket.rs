//! UDP sockets that send whole packets or none, and hear what the peers' kernels say.

use std::io;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A socket at this address. Its packets are never fragmented on this host or on the way, and what the kernel believes of
/// the path is not asked: that is to be found out.
pub(super) fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv4() {
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        socket.set_only_v6(true)?;
        set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends a packet at once. The runtime would first have to find out that a new socket is ready to send.
pub(super) fn send(socket: &UdpSocket, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(packet, &to.into()).map(drop)
}

/// Takes what went wrong with packets that were sent: the addresses whose kernels say that nobody listens.
pub(super) fn refusals(socket: &UdpSocket) -> Vec<IpAddr> {
    // Each turn takes one from the kernel's queue; the one that finds it empty says so to the runtime.
    let turns = std::iter::repeat_with(|| socket.try_io(Interest::ERROR, || next_error(socket.as_raw_fd())));
    turns.map_while(Result::ok).flatten().collect()
}

/// The next error: the address of the kernel that says that nobody listens, if that is what it is.
fn next_error(fd: RawFd) -> io::Result<Option<IpAddr>> {
    let mut space = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let mut buffer = [0; 64];
    let mut chunks = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(fd, &mut chunks, Some(&mut space), flags)?;
    let errno = message.cmsgs()?.find_map(|control| errno(&control));
    Ok(message.address.filter(|_| errno == Some(libc::ECONNREFUSED)).and_then(|addr| address(&addr)))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "no other kind was asked for")]
fn errno(control: &ControlMessageOwned) -> Option<i32> {
    match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            i32::try_from(error.ee_errno).ok()
        }
        _ => None,
    }
}

fn address(addr: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
}
