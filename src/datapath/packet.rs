//! Packet sockets (packet(7)): frames that are sent through a device with work on them left to it, and frames that come
//! to one.
#![allow(unsafe_code, reason = "the address of a packet socket has no safe form")]

use std::io::{self, Read};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::net::UdpSocket;
use twill_backends::frame::virtio::LEN;

use super::bind::set;

/// Room for what is under way, in bytes.
const BUFFER: usize = 8 << 20;
/// Where the protocol is, behind a virtio header and two Ethernet addresses.
const ETHERTYPE: usize = LEN + 12;
/// As much of a frame as is looked at.
const SNAPSHOT: u32 = 128;

/// A socket that sends frames.
#[derive(Debug)]
pub struct Sender(Socket);

/// A socket that hears some of the frames that come to a device.
#[derive(Debug)]
pub struct Listener(Socket);

impl Sender {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// There is no privilege (`CAP_NET_RAW`), or the kernel has no packet sockets.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER))?;
        Ok(Self(socket))
    }

    /// Sends a frame with a virtio header before it, through the device of this index.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        let v6 = frame.get(ETHERTYPE..ETHERTYPE + 2) == Some(&[0x86, 0xdd]);
        self.0.send_to(frame, &device(index, if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP })).map(drop)
    }
}

impl Listener {
    /// Opens it in the network namespace of the calling thread. It hears nothing yet.
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Hears the TCP segments to this port that come to the device of this index.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn listen(&self, index: u32, v6: bool, port: u16) -> io::Result<()> {
        self.0.attach_filter(&tcp_to(port, v6))?;
        self.0.bind(&device(index, if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP }))
    }

    /// Hears all that come to the device of this index, and nothing that leaves by it.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn listen_to_all(&self, index: u32) -> io::Result<()> {
        set(&self.0, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        self.0.bind(&device(index, libc::ETH_P_ALL))
    }

    /// The next frame, as much of it as there is room for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn next(&self, room: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(room)
    }

    /// The same socket for who waits until a frame comes: to wait it makes no difference that it is none of UDP.
    ///
    /// # Errors
    /// As the kernel answers.
    pub fn awaited(&self) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.0.try_clone()?.into())
    }
}

/// Takes TCP segments to this port, without IP options.
fn tcp_to(port: u16, v6: bool) -> [SockFilter; 6] {
    let (protocol, destination) = if v6 { (14 + 6, 14 + 40 + 2) } else { (14 + 9, 14 + 20 + 2) };
    let load = |size: u32, at: u32| SockFilter::new((libc::BPF_LD | size | libc::BPF_ABS) as u16, 0, 0, at);
    let unless = |value: u32, skip: u8| {
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, skip, value)
    };
    let answer = |bytes: u32| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [
        load(libc::BPF_B, protocol),
        unless(6, 3),
        load(libc::BPF_H, destination),
        unless(port.into(), 1),
        answer(SNAPSHOT),
        answer(0),
    ]
}

fn device(index: u32, protocol: libc::c_int) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough for the address of any family, and all zeros are one of a packet socket.
    let addr = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    addr.sll_family = libc::AF_PACKET as libc::sa_family_t;
    addr.sll_protocol = (protocol as u16).to_be();
    addr.sll_ifindex = index as libc::c_int;
    addr.sll_halen = 6;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds an address of that family and length.
    unsafe { SockAddr::new(storage, len) }
}
