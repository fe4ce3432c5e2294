//! UDP sockets as the datapath needs them.
#![allow(unsafe_code, reason = "some socket options have no safe form")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Type};

use crate::buffers::widen;

/// Both buffers of the kernel, in bytes.
const BUFFER: usize = 8 << 20;
/// `IP_PMTUDISC_DO` and `IPV6_PMTUDISC_DO`: never fragment.
const NEVER_FRAGMENT: libc::c_int = 2;

/// What to do about an error of opening a socket.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; find who has the port with `ss -ulpn` and stop it, or choose another Port"
        }
        Some(libc::EADDRNOTAVAIL) => "; the address is not on this host",
        _ => "",
    }
}

/// A socket that receives at this address, and can send from it. Of several with `company` at one address, the kernel
/// gives each address and port that sends to one of them.
pub(super) fn receiver(addr: SocketAddr, company: bool) -> io::Result<socket2::Socket> {
    let socket = unbound(addr)?;
    socket.set_reuse_port(company)?;
    if addr.is_ipv6() {
        // A tunnel endpoint may send without a checksum, and is to be understood (RFC 7348, section 5); what it is
        // needed for, the addresses, is checked by the forwarding table (RFC 6936, section 4).
        set(&socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
    }
    widen(&socket, BUFFER)?;
    if let Err(error) = set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1) {
        tracing::debug!(%error, "datagrams are received one by one");
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A socket that sends from this address and a port of its own. What it is sent is of no interest.
pub(super) fn sender(ip: IpAddr) -> io::Result<socket2::Socket> {
    let addr = SocketAddr::new(ip, 0);
    let socket = unbound(addr)?;
    setsockopt(&socket, sockopt::RcvBuf, &0)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn unbound(addr: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The underlay may get its address only later, or lose it for a while.
    let (level, option) = match addr {
        SocketAddr::V4(_) => {
            socket.set_freebind_v4(true)?;
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        }
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        }
    };
    set(&socket, level, option, NEVER_FRAGMENT)?;
    // Beyond the host's limit where we may, up to it where we may not.
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER))?;
    Ok(socket)
}

pub(super) fn set(
    socket: &socket2::Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives through the call and is as long as said.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
