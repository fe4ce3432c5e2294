//! UDP datagrams as fast as they can be sent. No segmentation offload: each datagram is a packet of its own from the
//! socket on, so what is measured is packets.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use super::load::Flow;
use super::stream;

/// How long the sender waits for room before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// How many datagrams one system call receives.
const TAKEN: usize = 32;

/// The sending socket.
pub(super) fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = stream::open(stream::any(server.ip()))?;
    socket.set_write_timeout(Some(LOOK))?;
    socket.connect(server)?;
    Ok(socket)
}

/// Sends until told to end. What the kernel has no room for at a moment does not count as sent.
pub(super) fn send(socket: &UdpSocket, size: usize, batch: usize, flow: &Flow) -> io::Result<()> {
    let payload = vec![0x55_u8; size];
    let slices = vec![[IoSlice::new(&payload)]; batch];
    let (nobody, control) = (vec![None::<()>; batch], [] as [ControlMessage<'_>; 0]);
    let mut headers = MultiHeaders::preallocate(batch, None);
    while !flow.stop.load(Ordering::Relaxed) {
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &nobody, control, MsgFlags::empty());
        match sent.map(Iterator::count) {
            Ok(count) => flow.sent.fetch_add(count as u64, Ordering::Relaxed),
            // At the end the receiver may be gone first.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR | Errno::ECONNREFUSED) => continue,
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(())
}

/// Counts until told to end.
pub(super) fn receive(socket: &UdpSocket, size: usize, flow: &Flow) -> io::Result<()> {
    let mut buffers = vec![0_u8; TAKEN * size];
    let mut headers = MultiHeaders::<()>::preallocate(TAKEN, None);
    while !flow.stop.load(Ordering::Relaxed) {
        let mut slices: Vec<_> = buffers.chunks_mut(size).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None);
        match received.map(Iterator::count) {
            Ok(count) => flow.received.fetch_add(count as u64, Ordering::Relaxed),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(())
}
