//! What a program in user space could carry at best: frames go through TAP and UDP socket in the same batches and with
//! the same offloads as Twill's, but nobody looks at a byte of them. No table, no VXLAN, no checksum, no cutting and no
//! joining: what is left is the kernel's price for taking packets out of it and back in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use twill_backends::state::LinkName;

use crate::datapath::batch::{Batch, FrameIo, HEADROOM, Message, Piece, SLOT};
use crate::datapath::pump::Spin;
use crate::datapath::socket::Socket;
use crate::datapath::tap::Tap;
use crate::lab::{Host, LabError, Pod, Tunnel, TunnelPeer, pod};

/// How many slots a batch has, as Twill's.
const SLOTS: usize = 16;
/// How often a thread looks whether it is to end.
const LOOK: u16 = 50;
/// What of a message one datagram carries: as many bytes of a 1500 byte packet as VXLAN leaves to an inner packet.
const SEGMENT: u16 = 1450;
/// The largest packet: as a frame with its virtio header it fits the 64 KiB of one message.
const LARGEST: u32 = 63_000;

/// One end, which carries until it is dropped.
#[derive(Debug)]
pub(super) struct Ceiling {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Both sides, and where everything goes.
struct Carrier {
    tap: Tap,
    socket: Socket,
    to: SocketAddr,
}

impl Ceiling {
    /// Makes the device of `own` on a host, leads the peer's subnet into it, and starts to carry.
    pub(super) fn start(host: &Host, own: &Tunnel, peer: &TunnelPeer) -> Result<Self, LabError> {
        let attempt = || format!("{}: open {}", host.name, own.name);
        let dev: LinkName = LinkName::try_from(own.name.as_str())
            .map_err(|_name| LabError::NoDevice { namespace: host.name.clone(), device: own.name.clone() })?;
        let here = SocketAddr::new(own.local, own.port);
        let sides = host.net.run(|| Ok((Tap::open(dev, true, 1)?.remove(0), Socket::open(here, false)?)))?;
        let (tap, socket) = sides.map_err(LabError::io(attempt))?;
        host.net.set_mac(&own.name, own.mac)?;
        host.net.set_mtu(&own.name, own.mtu)?;
        host.net.set_largest(&own.name, LARGEST)?;
        host.net.add_address(&own.name, own.address.into())?;
        host.net.link_up(&own.name)?;
        host.net.add_tunnel_route(&own.name, peer)?;
        let carrier = Carrier { tap, socket, to: SocketAddr::new(peer.public, own.port) };
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name(own.name.clone()).spawn(move || carrier.run(&told));
        Ok(Self { stop, thread: Some(thread.map_err(LabError::io(attempt))?) })
    }

    /// Keeps a pod from sending what is larger.
    pub(super) fn limit(pod: &Pod) -> Result<(), LabError> {
        pod.net.set_largest(pod::DEVICE, LARGEST)
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("a thread of the bench had panicked");
        }
    }
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut batches = [Batch::new(SLOTS * SLOT, 0), Batch::new(SLOTS * SLOT, 0)];
        let mut spin = Spin::default();
        while !stop.load(Ordering::Acquire) {
            if spin.again(self.turn(&mut batches)?) {
                continue;
            }
            let mut fds =
                [self.tap.as_fd(), self.socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, LOOK) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// One batch in each direction. Returns whether there was anything.
    fn turn(&mut self, [out, back]: &mut [Batch; 2]) -> io::Result<bool> {
        out.clear();
        self.tap.recv(out)?;
        for received in &out.received {
            let first = out.pieces.len() as u32;
            out.pieces.push(Piece::new(received.start - HEADROOM, received.end));
            let several = received.end - received.start + HEADROOM > usize::from(SEGMENT);
            let segment = if several { SEGMENT } else { 0 };
            out.messages.push(Message {
                to: self.to,
                peer: 0,
                segment,
                pieces_each: 1,
                first,
                last: first + 1,
            });
        }
        back.clear();
        self.socket.send(out);
        self.socket.recv(back)?;
        for i in 0..back.received.len() {
            let received = back.received[i];
            if received.end - received.start > HEADROOM {
                let header = Piece::new(received.start, received.start + HEADROOM);
                back.frame([header, Piece::new(header.end as usize, received.end)]);
            }
        }
        self.tap.send(back);
        Ok(!out.received.is_empty() || !back.received.is_empty())
    }
}
