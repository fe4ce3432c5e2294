//! Hearing that the firewall changed: netlink's nftables group, and a clock where nothing is announced.
//!
//! Only messages about what is ours count: kube-proxy rewrites its own chains of the same tables all day.

use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Heard;
use super::generation::{Generations, PROTOCOL};
use super::guard::GuardTable;
use super::news::{Watch, concerns};
use crate::buffers::widen;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `ENOBUFS`: messages were lost.
const NO_BUFFERS: i32 = 105;
/// How often to look where every change is announced.
pub(super) const BACKSTOP: Duration = Duration::from_secs(60);
/// How often the guard is looked at though each change was heard of: to read it with 10,000 peers takes half a second.
const RARELY: Duration = Duration::from_secs(3600);
/// How long a burst is waited out.
const BURST: Duration = Duration::from_millis(10);
/// Room for what the kernel announces while the agent is busy: all elements of 10,000 peers.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Larger than any batch of notifications the kernel builds.
const DATAGRAM: usize = 64 * 1024;

type Listen = fn() -> io::Result<TokioSocket>;

/// The ear.
#[derive(Debug)]
pub(super) struct Monitor {
    watches: Vec<Watch>,
    period: Duration,
    listen: Listen,
    state: Mutex<State>,
}

struct State {
    /// `None` where the kernel does not let this program listen: the clock remains, and it is tried again.
    socket: Option<TokioSocket>,
    buffer: Vec<u8>,
    /// What was heard, and when it is reported. It outlives the caller: one that comes back often is not kept waiting.
    heard: Heard,
    pending: Option<Instant>,
    due: Instant,
    generations: Generations,
    /// When the guard is looked at without having been heard of, in case a change was missed, and in any case: its changes
    /// are announced everywhere.
    guard_due: [Instant; 2],
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("pending", &self.pending)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// Listens from here on; `period` is how often to look without having heard anything.
    pub(super) fn open(watches: Vec<Watch>, period: Duration) -> Self {
        Self::with(listen, watches, period)
    }

    fn with(listen: Listen, watches: Vec<Watch>, period: Duration) -> Self {
        let socket = listen()
            .inspect_err(|error| tracing::warn!(%error, "nftables changes are not announced here: polling"))
            .ok();
        let now = Instant::now();
        let state = State {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            heard: Heard::default(),
            pending: None,
            due: now + period,
            generations: Generations::begin(),
            guard_due: [now + BACKSTOP, now + RARELY],
        };
        Self { watches, period, listen, state: Mutex::new(state) }
    }

    /// Resolves on a change of what is watched, or when the period is over. Elements that are as `guard` believes them
    /// to be are no change.
    pub(super) async fn changed(&self, guard: &GuardTable) -> Heard {
        let mut state = self.state.lock().await;
        loop {
            let until = state.pending.unwrap_or(state.due);
            if until <= Instant::now() {
                break;
            }
            let heard = tokio::time::timeout_at(until, state.hear(&self.watches, guard)).await;
            if let Ok(heard) = heard.map_err(drop)
                && heard != Heard::default()
            {
                state.heard |= heard;
                state.pending = state.pending.or_else(|| Some(Instant::now() + BURST));
            }
        }
        let now = Instant::now();
        if state.socket.is_none() && state.guard_due[0] <= now {
            state.listen_again(self.listen);
        }
        state.heard.rules |= state.due <= now;
        state.heard.guard |= state.guard_is_due(now);
        state.pending = None;
        state.due = now + self.period;
        std::mem::take(&mut state.heard)
    }
}

impl State {
    /// What happened meanwhile was not heard of.
    fn listen_again(&mut self, listen: Listen) {
        match listen() {
            Ok(socket) => {
                tracing::info!("nftables changes are announced again");
                (self.socket, self.generations) = (Some(socket), Generations::begin());
                self.heard = Heard::ALL;
            }
            Err(error) => tracing::debug!(%error, "nftables changes are still not announced"),
        }
    }

    /// Whether the guard is to be looked at though nothing was heard of it.
    fn guard_is_due(&mut self, now: Instant) -> bool {
        let [missed, anyway] = self.guard_due.map(|at| at <= now);
        if missed {
            self.guard_due[0] = now + BACKSTOP;
        }
        let look = anyway || (missed && !(self.socket.is_some() && self.generations.are_all()));
        if look {
            self.guard_due[1] = now + RARELY;
        }
        look
    }

    /// One datagram: what of ours it concerns. Losing messages concerns everything.
    async fn hear(&mut self, watches: &[Watch], guard: &GuardTable) -> Heard {
        let Some(socket) = &mut self.socket else {
            return std::future::pending().await;
        };
        self.buffer.clear();
        match socket.recv(&mut self.buffer).await {
            Ok(()) if self.generations.hear(&self.buffer) => Heard::ALL,
            Ok(()) => concerns(&self.buffer, watches, guard),
            Err(e) if e.raw_os_error() == Some(NO_BUFFERS) => {
                self.generations = Generations::begin();
                Heard::ALL
            }
            Err(error) => {
                tracing::warn!(%error, "lost the nftables announcements: polling");
                self.socket = None;
                Heard::ALL
            }
        }
    }
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(PROTOCOL)?;
    widen(socket.socket_ref(), RECEIVE_BUFFER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(GROUP)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::guard::GuardTable;
    use super::super::nft::Nft;
    use super::super::tools::Tools;
    use super::*;

    fn guard() -> GuardTable {
        GuardTable::new(Nft::new(Tools::new(None), "x"), "x")
    }

    fn refused() -> io::Result<TokioSocket> {
        Err(io::Error::other("asked to fail"))
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_socket_the_clock_remains() {
        let (guard, monitor) = (guard(), Monitor::with(refused, Vec::new(), Duration::from_secs(5)));
        monitor.changed(&guard).await;
        let start = Instant::now();
        monitor.changed(&guard).await;
        assert!((5.0..5.1).contains(&start.elapsed().as_secs_f64()));
        // What was heard is not lost with the caller.
        monitor.state.lock().await.pending = Some(Instant::now() + BURST);
        let start = Instant::now();
        let impatient = || tokio::time::timeout(Duration::from_millis(3), monitor.changed(&guard));
        while impatient().await.is_err() {}
        assert!(start.elapsed() < Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn it_listens_again_as_soon_as_it_may() {
        static ALLOWED: AtomicBool = AtomicBool::new(false);
        // A socket that needs no privilege, and hears nothing.
        let listen = || if ALLOWED.load(Ordering::Relaxed) { TokioSocket::new(0) } else { refused() };
        let (guard, monitor) = (guard(), Monitor::with(listen, Vec::new(), BACKSTOP));
        for allowed in [false, true] {
            ALLOWED.store(allowed, Ordering::Relaxed);
            assert_eq!(monitor.changed(&guard).await, Heard::ALL);
            assert_eq!(monitor.state.lock().await.socket.is_some(), allowed);
        }
    }
}
