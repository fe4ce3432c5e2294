//! Hears what changes in the kernel, and coalesces bursts.

use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use tokio::time::{Instant, sleep, timeout_at};
use twill_backends::diff::Op;

use super::hear::{Heard, News, hear};
use super::known::Known;
use crate::buffers::widen;
use crate::kernel::{Change, Scope};

/// What is heard within this time of the first message is one change.
const BURST: Duration = Duration::from_millis(10);
/// How long to wait before a broken socket is opened again, if that fails at once.
const PAUSE: Duration = Duration::from_secs(1);
/// The receive buffer in bytes: room for tens of thousands of messages.
const RECEIVE_BUFFER: usize = 16 << 20;
/// The largest datagram the kernel makes for a listener.
const DATAGRAM: usize = 64 << 10;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];

/// A socket on which the kernel announces changes. What was heard is kept across cancelled calls.
pub(super) struct Monitor {
    socket: TokioSocket,
    datagram: Vec<u8>,
    pending: Pending,
    /// When what is pending is due.
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Pending {
    ops: Vec<Op>,
    unknown: Option<&'static str>,
    underlay: bool,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Listens from here on, in the network namespace of the calling thread. Needs a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (datagram, pending) = (Vec::with_capacity(DATAGRAM), Pending::default());
        Ok(Self { socket: listen()?, datagram, pending, due: None })
    }

    /// The next change. Nothing is lost if the call is cancelled.
    pub(super) async fn changed(&mut self, scope: &Scope, known: &Mutex<Known>) -> Change {
        if std::mem::take(&mut known.lock().unwrap_or_else(PoisonError::into_inner).overtaken) {
            self.add(News::Underlay);
        }
        loop {
            let received = match self.due {
                Some(due) if due <= Instant::now() => return self.take(),
                Some(due) => match timeout_at(due, self.receive()).await {
                    Ok(received) => received,
                    Err(_) => return self.take(),
                },
                None => self.receive().await,
            };
            match received {
                Ok(()) => self.understand(scope, &mut known.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.add(News::Unknown("messages of the kernel were lost"));
                }
                Err(error) => self.reopen(&error).await,
            }
        }
    }

    /// Reads one datagram. Cancelling loses none: there is no waiting after the read.
    async fn receive(&mut self) -> io::Result<()> {
        self.datagram.clear();
        poll_fn(|cx| self.socket.poll_recv(cx, &mut self.datagram)).await
    }

    fn understand(&mut self, scope: &Scope, known: &mut Known) {
        let mut start = 0;
        while let Some(rest) = self.datagram.get(start..).filter(|rest| !rest.is_empty()) {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                self.add(News::Unknown("a message of the kernel could not be read"));
                return;
            };
            let heard =
                Heard { kind: message.message_type(), flags: message.flags(), payload: message.payload() };
            let news = hear(heard, scope, known);
            start += (message.length() as usize).next_multiple_of(4);
            self.add(news);
        }
    }

    fn add(&mut self, news: News) {
        match news {
            News::Noise => return,
            // Some removals are announced twice.
            News::Did(ops) if self.pending.ops.ends_with(&ops) => {}
            News::Did(ops) => self.pending.ops.extend(ops),
            News::Unknown(reason) => self.pending.unknown = self.pending.unknown.or(Some(reason)),
            News::Underlay => self.pending.underlay = true,
        }
        self.due = self.due.or_else(|| Some(Instant::now() + BURST));
    }

    fn take(&mut self) -> Change {
        self.due = None;
        let Pending { ops, unknown, underlay } = std::mem::take(&mut self.pending);
        match (underlay, unknown) {
            (true, _) => Change::Underlay,
            (false, Some(reason)) => Change::Unknown(reason),
            (false, None) => Change::Did(ops),
        }
    }

    async fn reopen(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the kernel's announcements broke off; listening again");
        self.add(News::Unknown("the kernel's announcements broke off"));
        match listen() {
            Ok(socket) => self.socket = socket,
            Err(error) => {
                tracing::warn!(%error, "cannot listen to the kernel");
                sleep(PAUSE).await;
            }
        }
    }
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    widen(socket.socket_ref(), RECEIVE_BUFFER)?;
    let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}
