//! A socket at each of this host's addresses, open or not.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::select_all;
use nix::libc;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use twill_backends::family::Family;
use twill_backends::probe::Way;

use super::{Order, socket};

/// How long after a socket could not be opened it is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// For how long that is nothing to complain of: the device may be on its way, or the agent before this one may not have
/// ended yet.
const INDULGENCE: Duration = Duration::from_secs(5);
/// The sockets, by the way and the family of what they send and receive.
pub(super) type Sockets = BTreeMap<(Way, Family), Socket>;

/// A socket that is open, or that could not be opened.
pub(super) enum Socket {
    Open(SocketAddr, UdpSocket),
    Failed { addr: SocketAddr, cause: io::Error, since: Instant, again: Instant },
}

/// Has a socket at each address of this host.
pub(super) fn keep(sockets: &mut Sockets, order: &Order, now: Instant) {
    sockets.retain(|place, socket| {
        wanted(order).any(|(wanted, addr)| (wanted, addr) == (*place, socket.addr()))
    });
    for (place, addr) in wanted(order) {
        let since = match sockets.get(&place) {
            Some(Socket::Open(..)) => continue,
            Some(Socket::Failed { again, .. }) if *again > now => continue,
            Some(Socket::Failed { since, .. }) => *since,
            None => now,
        };
        let socket = match socket::open(addr) {
            Ok(socket) => Socket::Open(addr, socket),
            Err(cause) => Socket::Failed { addr, cause, since, again: now + AGAIN },
        };
        sockets.insert(place, socket);
    }
}

/// The addresses of this host. Asked in every turn.
fn wanted(order: &Order) -> impl Iterator<Item = ((Way, Family), SocketAddr)> {
    let ways = [(Way::Overlay, &order.overlay), (Way::Underlay, &order.underlay)];
    let port = order.port;
    ways.into_iter().flat_map(move |(way, addrs)| {
        addrs.iter().map(move |(family, ip)| ((way, family), SocketAddr::new(*ip, port)))
    })
}

impl Socket {
    pub(super) fn addr(&self) -> SocketAddr {
        match self {
            Self::Open(addr, _) | Self::Failed { addr, .. } => *addr,
        }
    }

    /// Why it is not open, once that takes too long.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        match self {
            Self::Failed { addr, cause, since, .. } if *since + INDULGENCE <= now => {
                let next = match cause.raw_os_error() {
                    Some(libc::EADDRINUSE) => {
                        "; next: find who has the port with `ss -ulpn`, or choose another with --probe-port"
                    }
                    _ => "",
                };
                Some(format!("cannot listen for probes at {addr}: {cause}{next}"))
            }
            Self::Failed { .. } | Self::Open(..) => None,
        }
    }
}

/// The sockets that are open.
pub(super) fn open(sockets: &Sockets) -> impl Iterator<Item = ((Way, Family), &UdpSocket)> {
    sockets.iter().filter_map(|(place, socket)| match socket {
        Socket::Open(_, socket) => Some((*place, socket)),
        Socket::Failed { .. } => None,
    })
}

/// Waits until something comes to one of these, and says whether that is an error.
pub(super) async fn heard<'s>(
    sockets: impl Iterator<Item = ((Way, Family), &'s UdpSocket)>,
) -> ((Way, Family), bool) {
    let ready = sockets.map(|(place, socket)| {
        Box::pin(async move {
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await;
            (place, ready.is_ok_and(|ready| ready.is_error()))
        })
    });
    let ready: Vec<_> = ready.collect();
    if ready.is_empty() {
        return std::future::pending().await;
    }
    select_all(ready).await.0
}
