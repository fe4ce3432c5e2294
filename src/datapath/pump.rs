//! The loop of one thread.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use twill_backends::frame::vxlan::Vxlan;
use twill_backends::state::Tunnel;

use super::Settings;
use super::batch::FrameIo;
use super::books::{Books, Gathered};
use super::counters::{Counters, Tally};
use super::egress::Egress;
use super::ingress::Ingress;
use super::peers::Peers;
use super::tap::Tap;

/// How long to look for more before sleeping: a sleep and a wake-up cost as much as many packets.
const SPIN: Duration = Duration::from_micros(20);

/// What is the same for all frames of a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) vxlan: Vxlan,
    /// The destination port.
    pub(super) port: u16,
    pub(super) check_source: bool,
}

/// Looks for more for moments before sleeping.
#[derive(Debug, Default)]
pub struct Spin(Option<Instant>);

/// Tells the threads of a tunnel to end.
#[derive(Debug)]
pub struct Stop {
    told: AtomicBool,
    wake: EventFd,
}

/// Both sides of a tunnel, and what is between them.
#[derive(Debug)]
pub struct Pump<T, U> {
    tap: T,
    socket: U,
    rules: Rules,
    peers: Cache<Arc<ArcSwap<Peers>>, Arc<Peers>>,
    egress: Egress,
    ingress: Ingress,
    tally: Tally,
    gathered: Gathered,
    counters: Arc<Counters>,
}

impl Spin {
    /// Whether to look again rather than sleep, after a look that found something or not.
    pub fn again(&mut self, found: bool) -> bool {
        if found {
            self.0 = None;
            return true;
        }
        let now = Instant::now();
        let spins = now.duration_since(*self.0.get_or_insert(now)) < SPIN;
        if spins {
            std::hint::spin_loop();
        } else {
            self.0 = None;
        }
        spins
    }
}

impl Stop {
    /// Nobody is told yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { told: AtomicBool::new(false), wake: EventFd::from_flags(flags)? })
    }

    /// Ends each thread at the end of its batch.
    pub fn stop(&self) {
        self.told.store(true, Ordering::Release);
        // Nobody reads it, so that it wakes all. It can only be full, which wakes as well.
        self.wake.write(1).ok();
    }
}

/// What a pump needs to know of its TAP.
pub trait Offers {
    /// Whether it takes large TCP frames, and large UDP frames.
    fn offers(&self) -> (bool, bool);
}

impl Offers for Tap {
    fn offers(&self) -> (bool, bool) {
        (self.offload(), self.datagrams())
    }
}

impl<T: FrameIo + Offers, U: FrameIo> Pump<T, U> {
    /// A pump between two sides.
    pub fn new(
        (tap, socket): (T, U),
        tunnel: &Tunnel,
        settings: Settings,
        peers: Arc<ArcSwap<Peers>>,
        counters: Arc<Counters>,
    ) -> Self {
        let vxlan = &tunnel.vxlan;
        let rules = Rules {
            vxlan: Vxlan::new(vxlan.vni, vxlan.gbp),
            port: vxlan.port,
            check_source: settings.check_source,
        };
        let (offload, datagrams) = tap.offers();
        Self {
            tap,
            socket,
            rules,
            peers: Cache::new(peers),
            egress: Egress::new(),
            ingress: Ingress::new(offload, datagrams),
            tally: Tally::new(),
            gathered: Gathered::default(),
            counters,
        }
    }

    /// One batch in each direction. Returns whether there was anything.
    ///
    /// # Errors
    /// One of the sides is gone for good.
    pub fn turn(&mut self) -> io::Result<bool> {
        let Self { tap, socket, rules, peers, egress, ingress, tally, gathered, counters } = self;
        let mut books = Books { peers: peers.load(), tally, gathered };
        let out = egress.turn((tap, socket), rules, &mut books)?;
        let back = ingress.turn((tap, socket), rules, &mut books)?;
        if out || back {
            books.close();
            counters.publish(tally);
        }
        Ok(out || back)
    }
}

impl<T: FrameIo + Offers + AsFd, U: FrameIo + AsFd> Pump<T, U> {
    /// Pumps until told to end.
    ///
    /// # Errors
    /// One of the sides is gone for good.
    pub fn run(&mut self, stop: &Stop) -> io::Result<()> {
        let mut spin = Spin::default();
        while !stop.told.load(Ordering::Acquire) {
            if !spin.again(self.turn()?) {
                self.sleep(stop)?;
            }
        }
        Ok(())
    }

    fn sleep(&self, stop: &Stop) -> io::Result<()> {
        let fds = [self.tap.as_fd(), self.socket.as_fd(), stop.wake.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let [tap, ..] = &fds;
        match tap.revents() {
            Some(events) if events.intersects(gone) => Err(Errno::EBADFD.into()),
            _ => Ok(()),
        }
    }
}
