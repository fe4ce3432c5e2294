//! The UDP socket of one tunnel, in batches: `sendmmsg` with `UDP_SEGMENT`, `recvmmsg` with `UDP_GRO`.
#![allow(
    unsafe_code,
    reason = "messages with control data in batches, without allocation, have no safe form"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockAddr;

use super::arrays::{Arrays, Control};
use super::batch::{Batch, FrameIo, Message, Received, Refused, SLOT};
use super::bind;

/// How many receives make a batch. Each may be many datagrams.
const RECEIVES: usize = 16;
/// How many messages make one `sendmmsg`.
const SENDS: usize = 64;
/// How long to wait for room in the send buffer before a message is given up, in milliseconds.
const PATIENCE: u8 = 2;

/// The socket.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    /// What it sends from, if that is another.
    sender: Option<socket2::Socket>,
    /// Whether `UDP_SEGMENT` works; found out by trying.
    gso: bool,
    parts: Vec<Message>,
    split: Vec<Message>,
    /// What the last send could not send.
    refused: Vec<(Message, Refused)>,
    sending: Arrays,
    receiving: Arrays,
}

impl Socket {
    /// Binds the socket. One of several of a tunnel has `company`: it shares the port with the others, and sends from a
    /// port of its own.
    ///
    /// # Errors
    /// The kernel's, with a hint at the next step.
    pub fn open(addr: SocketAddr, company: bool) -> io::Result<Self> {
        let socket = bind::receiver(addr, company)?;
        let sender = company.then(|| bind::sender(addr.ip())).transpose()?;
        Ok(Self::new(socket, sender))
    }

    /// Takes a socket that another process serves, or served, and the one that it sends from, if that is another.
    ///
    /// # Errors
    /// It is bound to another address.
    pub fn adopt(socket: OwnedFd, sender: Option<OwnedFd>, addr: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        match socket.local_addr()?.as_socket() {
            Some(bound) if bound == addr => Ok(Self::new(socket, sender.map(socket2::Socket::from))),
            bound => Err(io::Error::other(format!("the socket is bound to {bound:?}"))),
        }
    }

    fn new(socket: socket2::Socket, sender: Option<socket2::Socket>) -> Self {
        Self {
            socket,
            sender,
            gso: true,
            parts: Vec::with_capacity(256),
            split: Vec::with_capacity(256),
            refused: Vec::new(),
            sending: Arrays::new(SENDS),
            receiving: Arrays::new(RECEIVES),
        }
    }

    /// What it receives at, and what it sends from, if that is another.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.socket).chain(&self.sender).map(AsFd::as_fd)
    }

    /// One call of the kernel for the parts from `next` on: how many it took.
    fn send_some(&mut self, batch: &Batch, next: usize) -> io::Result<usize> {
        let Self { socket, sender, parts, sending, .. } = self;
        let socket = sender.as_ref().unwrap_or(socket);
        sending.vectors.clear();
        let count = (parts.len() - next).min(SENDS);
        let parts = &parts[next..next + count];
        for part in parts {
            let bytes = batch.pieces_of(part).iter().map(|piece| batch.bytes_of(*piece));
            sending.vectors.extend(bytes.map(|bytes| libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }));
        }
        let mut vector = 0;
        for (i, part) in parts.iter().enumerate() {
            sending.peers[i] = SockAddr::from(part.to);
            let control = &mut sending.controls[i];
            let control_len = if part.segment == 0 { 0 } else { control.segment(part.segment) };
            let header = &mut sending.headers[i].msg_hdr;
            header.msg_name = sending.peers[i].as_ptr().cast_mut().cast();
            header.msg_namelen = sending.peers[i].len();
            header.msg_iov = sending.vectors[vector..].as_mut_ptr();
            let pieces = (part.last - part.first) as usize;
            // These fields, and the flags of the call, have other types with musl than with glibc.
            header.msg_iovlen = pieces as _;
            header.msg_control =
                if control_len == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
            header.msg_controllen = control_len as _;
            header.msg_flags = 0;
            vector += pieces;
        }
        // SAFETY: `count` headers were filled above; names, vectors, control data and the batch's bytes that they point
        // to live through the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                sending.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Sends datagrams one by one from here on: makes the parts from `next` on such.
    fn give_up_segmenting(&mut self, next: usize) {
        tracing::info!("the kernel does not cut datagrams here; sending one by one");
        self.gso = false;
        self.split.clear();
        self.split.extend(self.parts[next..].iter().flat_map(datagrams));
        std::mem::swap(&mut self.parts, &mut self.split);
    }

    /// Waits for room in the send buffer, for moments. Whether there is some, the next try shows.
    fn wait_for_room(&self) {
        let mut fds = [PollFd::new(self.sender.as_ref().unwrap_or(&self.socket).as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(PATIENCE)).ok();
    }
}

/// The datagrams of a message as messages of their own.
fn datagrams(message: &Message) -> impl Iterator<Item = Message> + use<> {
    let message = *message;
    let each = if message.segment == 0 { message.last - message.first } else { message.pieces_each.into() };
    (message.first..message.last).step_by(each.max(1) as usize).map(move |first| Message {
        segment: 0,
        first,
        last: (first + each).min(message.last),
        ..message
    })
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl FrameIo for Socket {
    fn recv(&mut self, batch: &mut Batch) -> io::Result<()> {
        let arrays = &mut self.receiving;
        arrays.vectors.clear();
        for slot in batch.slab().chunks_exact_mut(SLOT).take(RECEIVES) {
            arrays.vectors.push(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
        }
        let count = arrays.vectors.len();
        for i in 0..count {
            let header = &mut arrays.headers[i].msg_hdr;
            header.msg_name = (&raw mut arrays.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut arrays.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = arrays.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: `count` headers were filled above; names, vectors, control data and the slots of the batch that they
        // point to live through the call, and nothing else refers to them.
        let got = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                arrays.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        // Errors of earlier sends are reported here too, and pass.
        for i in 0..usize::try_from(got).unwrap_or(0) {
            let header = &arrays.headers[i];
            let (start, len) = (i * SLOT, (header.msg_len as usize).min(SLOT));
            batch.received.push(Received {
                start,
                end: start + len,
                from: arrays.sender(i),
                segment: arrays.segment(i),
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Refused {
        let mut refused = Refused::default();
        self.refused.clear();
        self.parts.clear();
        if self.gso {
            self.parts.extend_from_slice(&batch.messages);
        } else {
            self.parts.extend(batch.messages.iter().flat_map(datagrams));
        }
        let (mut next, mut waited) = (0, false);
        // Until where datagrams stand alone because their message was refused.
        let mut doubt = 0;
        while let Some(part) = self.parts.get(next).copied() {
            let error = match self.send_some(batch, next) {
                Ok(sent) => {
                    if next < doubt {
                        self.give_up_segmenting(next + sent);
                        (next, doubt) = (0, 0);
                    } else {
                        next += sent;
                    }
                    waited = false;
                    continue;
                }
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            let lost = match error {
                libc::EINTR => continue,
                libc::EAGAIN if !waited => {
                    self.wait_for_room();
                    waited = true;
                    continue;
                }
                // A device without checksums, or a kernel without the option; or, before Linux 6.14, datagrams that are too
                // large for the path. Which of them, the datagrams show when they are sent one by one.
                libc::EIO | libc::EINVAL | libc::EOPNOTSUPP if part.segment != 0 => {
                    tracing::debug!(errno = error, "several datagrams at once were refused");
                    drop(self.parts.splice(next..=next, datagrams(&part)));
                    doubt = next + part.count() as usize;
                    continue;
                }
                // The last of several may be one that is not too large.
                libc::EMSGSIZE if part.segment != 0 => {
                    drop(self.parts.splice(next..=next, datagrams(&part)));
                    doubt = 0;
                    continue;
                }
                libc::EMSGSIZE => {
                    doubt = 0;
                    Refused { too_big: part.count(), ..Refused::default() }
                }
                libc::EAGAIN | libc::ENOBUFS => Refused { full: part.count(), ..Refused::default() },
                _ => Refused { other: part.count(), ..Refused::default() },
            };
            self.refused.push((part, lost));
            refused += lost;
            // Who waited in vain once does not for the rest of the batch: the other direction waits too.
            next += 1;
        }
        refused
    }

    fn refused(&self) -> &[(Message, Refused)] {
        &self.refused
    }
}

#[cfg(test)]
mod tests;
