//! The userspace datapath: VXLAN (RFC 7348) by this program, where the kernel has no VXLAN device or the operator wants
//! it so.
//!
//! ```text
//! stack ─▶ TAP ─▶ egress: forwarding table ─▶ segment ─▶ sendmmsg ─▶ UDP socket ─▶ underlay
//! stack ◀─ TAP ◀─ ingress: coalesce ◀─ admit ◀───────── recvmmsg ◀─ UDP socket ◀─ underlay
//! ```
//!
//! Each tunnel device has one thread, which serves both directions in batches: it spins for moments, then sleeps until
//! either side has something. What it decides by is an immutable [`Table`], swapped as a whole when leases change; it
//! takes no lock and, once warm, allocates nothing. The decisions themselves are `twill_backends::frame`.
//!
//! # Why one thread for both directions
//! Waking threads costs more than copying bytes: in sketches on two cores, one thread for each direction carried less
//! than one for both.
//!
//! # Why one source port
//! RFC 7348 recommends a source port by inner flow, so that networks spread flows. That takes a socket for each port.
//! Here datagrams leave from the socket they come in at, with the tunnel's port as source.

mod arrays;
pub mod batch;
pub mod counters;
mod egress;
mod ingress;
pub mod parts;
pub mod pump;
pub mod socket;
pub mod tap;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use twill_backends::frame::table::Table;
use twill_backends::state::Tunnel;

use self::counters::Counters;
use self::parts::Parts;
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
    #[error("UDP {addr}: {cause}{}", socket::hint(.cause))]
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

/// One tunnel device that is served. Dropping it ends the thread and leaves the device.
#[derive(Debug)]
pub struct Datapath {
    tunnel: Tunnel,
    offload: bool,
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
    /// What another process needs to take over.
    parts: Parts,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Datapath {
    /// Attaches to the TAP device of a tunnel and starts its thread, in the network namespace of the calling thread.
    /// The device is made if it is not there, and outlives this.
    ///
    /// # Errors
    /// [`DatapathError`] says what could not be had.
    pub fn open(tunnel: &Tunnel, settings: Settings, table: Table) -> Result<Self, DatapathError> {
        let tap = Tap::open(tunnel.dev, settings.offload).map_err(|cause| no_tap(tunnel, cause))?;
        let socket = Socket::open(addr(tunnel)).map_err(|cause| no_socket(tunnel, cause))?;
        Self::start(tunnel, settings, table, (tap, socket))
    }

    /// Serves a tunnel through what another process serves it through, which may go on doing so meanwhile.
    ///
    /// # Errors
    /// [`DatapathError`] says what does not fit the tunnel or the settings.
    pub fn adopt(
        tunnel: &Tunnel,
        settings: Settings,
        table: Table,
        parts: Parts,
    ) -> Result<Self, DatapathError> {
        let (tap, socket) = parts.pair().map_err(|cause| no_tap(tunnel, cause))?;
        let tap = Tap::adopt(tap, tunnel.dev, settings.offload).map_err(|cause| no_tap(tunnel, cause))?;
        let socket = Socket::adopt(socket, addr(tunnel)).map_err(|cause| no_socket(tunnel, cause))?;
        Self::start(tunnel, settings, table, (tap, socket))
    }

    fn start(
        tunnel: &Tunnel,
        settings: Settings,
        table: Table,
        (tap, socket): (Tap, Socket),
    ) -> Result<Self, DatapathError> {
        let parts = Parts::of(&[&tap], &[&socket]).map_err(|cause| no_tap(tunnel, cause))?;
        let stop = Arc::new(Stop::new().map_err(DatapathError::Thread)?);
        let table = Arc::new(ArcSwap::from_pointee(table));
        let counters = Arc::new(Counters::default());
        let offload = tap.offload();
        let mut pump = Pump::new((tap, socket), tunnel, settings, Arc::clone(&table), Arc::clone(&counters));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(tunnel.dev.to_string())
            .spawn(move || pump.run(&told))
            .map_err(DatapathError::Thread)?;
        Ok(Self { tunnel: tunnel.clone(), offload, table, counters, parts, stop, thread: Some(thread) })
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

    /// Frames go by this table from the next batch on.
    pub fn set_table(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// What was carried and dropped since it was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(match thread.join() {
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
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!(dev = %self.tunnel.dev, "the datapath's thread had panicked");
        }
    }
}

#[cfg(test)]
mod tests;
