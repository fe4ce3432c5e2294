//! The userspace datapath: VXLAN (RFC 7348) by this program, where the kernel has no VXLAN device or the operator wants
//! it so.
//!
//! ```text
//! stack ─▶ TAP ─▶ egress: forwarding table ─▶ segment ─▶ sendmmsg ─▶ UDP socket ─▶ underlay
//! stack ◀─ TAP ◀─ ingress: coalesce ◀─ admit ◀───────── recvmmsg ◀─ UDP socket ◀─ underlay
//! ```
//!
//! Each queue of a tunnel device has one thread, which serves both directions in batches: it spins for moments, then
//! sleeps until either side has something. What it decides by is an immutable table of [`Peers`], swapped as a whole when
//! leases change; it takes no lock and, once warm, allocates nothing. The decisions themselves are `twill_backends::frame`.
//!
//! # Why one thread for both directions
//! Waking threads costs more than copying bytes: in sketches on two cores, one thread for each direction carried less
//! than one for both.
//!
//! # Queues, sockets and source ports
//! The stack chooses the queue of a frame by its flow. RFC 7348, section 4.1 recommends a source port by inner flow, so
//! that networks and receivers spread flows: with several queues, each sends from a socket and port of its own, and
//! receives at one of as many sockets on the tunnel's port, among which the peer's kernel or ours spreads by source
//! port. With one queue there is one socket, and its datagrams leave with the tunnel's port as source: a port for each
//! flow would take a socket for each, and a message for what several flows share in one.

mod arrays;
pub mod batch;
mod bind;
mod books;
pub mod counters;
mod egress;
pub mod ethtool;
mod ingress;
mod moment;
pub mod packet;
pub mod parts;
pub mod peers;
pub mod pump;
pub mod socket;
pub mod tap;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use twill_backends::mac::Mac;
use twill_backends::state::Tunnel;

use self::counters::Counters;
use self::parts::{Part, Parts};
use self::peers::Peers;
use self::pump::{Pump, Stop};
use self::socket::Socket;
use self::tap::Tap;

/// What the operator wants of the datapath, besides what the network's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether large frames may be cut and joined here rather than in the stack, where the kernel offers it.
    pub offload: bool,
    /// Whether inner sources must lie in the subnet of the host that sends them.
    pub check_source: bool,
    /// How many threads serve a tunnel device, each a queue of it.
    pub queues: usize,
}

/// Why a tunnel device is not served.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The TAP device could not be had.
    #[error("TAP device {dev}: {cause}{}", tap::hint(.cause))]
    Tap {
        /// The device.
        dev: String,
        /// The kernel's error.
        cause: io::Error,
    },
    /// The socket could not be had.
    #[error("UDP {addr}: {cause}{}", bind::hint(.cause))]
    Socket {
        /// Where it was to be bound.
        addr: SocketAddr,
        /// The kernel's error.
        cause: io::Error,
    },
    /// The thread could not be started.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

/// One tunnel device that is served. Dropping it ends the threads and leaves the device.
#[derive(Debug)]
pub struct Datapath {
    tunnel: Tunnel,
    offload: bool,
    peers: Arc<ArcSwap<Peers>>,
    counters: Arc<Counters>,
    /// What another process needs to take over.
    parts: Parts,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Datapath {
    /// Attaches to the TAP device of a tunnel and starts its threads, in the network namespace of the calling thread.
    /// The device is made if it is not there, and outlives this.
    ///
    /// # Errors
    /// [`DatapathError`] says what could not be had.
    pub fn open(tunnel: &Tunnel, settings: Settings, peers: Arc<Peers>) -> Result<Self, DatapathError> {
        let taps = Tap::open(tunnel.dev, settings.offload, settings.queues);
        let taps = taps.map_err(|cause| no_tap(tunnel, cause))?;
        let company = taps.len() > 1;
        let pair =
            |tap| Ok((tap, Socket::open(addr(tunnel), company).map_err(|cause| no_socket(tunnel, cause))?));
        let pairs = taps.into_iter().map(pair).collect::<Result<_, _>>()?;
        Self::start(tunnel, settings, peers, pairs)
    }

    /// Serves a tunnel through what another process serves it through, which may go on doing so meanwhile: as many
    /// queues as it has, whatever the settings say.
    ///
    /// # Errors
    /// [`DatapathError`] says what does not fit the tunnel or the settings.
    pub fn adopt(
        tunnel: &Tunnel,
        settings: Settings,
        peers: Arc<Peers>,
        parts: Parts,
    ) -> Result<Self, DatapathError> {
        let pair = |Part { tap, socket, sender }| {
            let tap = Tap::adopt(tap, tunnel.dev, settings.offload).map_err(|cause| no_tap(tunnel, cause))?;
            let socket = Socket::adopt(socket, sender, addr(tunnel));
            Ok((tap, socket.map_err(|cause| no_socket(tunnel, cause))?))
        };
        let parts = parts.split().map_err(|cause| no_tap(tunnel, cause))?;
        let pairs = parts.into_iter().map(pair).collect::<Result<_, _>>()?;
        Self::start(tunnel, settings, peers, pairs)
    }

    fn start(
        tunnel: &Tunnel,
        settings: Settings,
        peers: Arc<Peers>,
        pairs: Vec<(Tap, Socket)>,
    ) -> Result<Self, DatapathError> {
        let taps = pairs.iter().map(|(tap, _)| tap.as_fd());
        let parts = Parts::of(taps, pairs.iter().flat_map(|(_, socket)| socket.descriptors()));
        let mut datapath = Self {
            tunnel: tunnel.clone(),
            offload: pairs.iter().all(|(tap, _)| tap.offload()),
            peers: Arc::new(ArcSwap::new(peers)),
            counters: Arc::new(Counters::default()),
            parts: parts.map_err(|cause| no_tap(tunnel, cause))?,
            stop: Arc::new(Stop::new().map_err(DatapathError::Thread)?),
            threads: Vec::with_capacity(pairs.len()),
        };
        for pair in pairs {
            let (peers, counters) = (Arc::clone(&datapath.peers), Arc::clone(&datapath.counters));
            let mut pump = Pump::new(pair, tunnel, settings, peers, counters);
            let told = Arc::clone(&datapath.stop);
            let thread = std::thread::Builder::new().name(tunnel.dev.to_string());
            datapath.threads.push(thread.spawn(move || pump.run(&told)).map_err(DatapathError::Thread)?);
        }
        Ok(datapath)
    }

    /// What another process needs to take over.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What it serves.
    #[must_use]
    pub const fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Whether the kernel leaves cutting and joining to it.
    #[must_use]
    pub const fn offload(&self) -> bool {
        self.offload
    }

    /// Frames go to and come from these from the next batch on.
    pub fn set_peers(&self, peers: Arc<Peers>) {
        self.peers.store(peers);
    }

    /// What was carried and dropped since it was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When frames last went to each peer that any went to.
    #[must_use]
    pub fn used(&self) -> Vec<(Mac, Instant)> {
        self.peers.load().used().filter_map(|(peer, at)| Some((peer.mac?, moment::instant(at)))).collect()
    }

    /// How many threads serve it, each a queue of the device.
    #[must_use]
    pub const fn queues(&self) -> usize {
        self.threads.len()
    }

    /// Why one of its threads ended, if one did.
    pub fn ended(&mut self) -> Option<String> {
        let ended = self.threads.iter().position(JoinHandle::is_finished)?;
        Some(match self.threads.swap_remove(ended).join() {
            Ok(Ok(())) => "told to".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a panic, which is a bug; please report it".to_owned(),
        })
    }
}

fn addr(tunnel: &Tunnel) -> SocketAddr {
    SocketAddr::new(tunnel.vxlan.local, tunnel.vxlan.port)
}

fn no_tap(tunnel: &Tunnel, cause: io::Error) -> DatapathError {
    DatapathError::Tap { dev: tunnel.dev.to_string(), cause }
}

fn no_socket(tunnel: &Tunnel, cause: io::Error) -> DatapathError {
    DatapathError::Socket { addr: addr(tunnel), cause }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!(dev = %self.tunnel.dev, "a thread of the datapath had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
