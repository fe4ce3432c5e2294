//! The HTTP endpoints, on a TCP port and on a unix socket: what they answer is in `routes`.
//!
//! # Why a thread of its own
//! An agent whose loop holds its thread up has to be found out by those who ask, and however much they ask, the loop
//! does not wait for it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::page::{Caller, Feed};
use super::routes::{self, routes};
use crate::agent::board::View;

/// How long one who has connected may take to ask, once the server is told to stop.
const ASKING: Duration = Duration::from_millis(50);
/// How long those who have asked may take to read their answer.
const CLOSING: Duration = Duration::from_secs(1);

/// A listener that lets nobody in once the server is told to stop: another process may hold it too.
pub(super) struct Door<L> {
    listener: L,
    stop: CancellationToken,
}

impl<L: Listener> Listener for Door<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (L::Io, L::Addr) {
        match self.stop.run_until_cancelled(self.listener.accept()).await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// Binds the TCP listener for health.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind_health(addr: SocketAddr) -> io::Result<TcpListener> {
    bind(addr, "health", "--healthz-ip and --healthz-port")
}

/// Binds the TCP listener for those who may only look at the page.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind_page(addr: SocketAddr) -> io::Result<TcpListener> {
    bind(addr, "the page", "--ui-listen")
}

fn bind(addr: SocketAddr, what: &str, flags: &str) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(addr);
    let listener = bound.map_err(|error| {
        let text = format!("cannot serve {what} on {addr}: {error}; next: choose another with {flags}");
        io::Error::new(error.kind(), text)
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where the endpoints are; the listeners do not block.
#[derive(Debug)]
pub struct Listeners {
    /// `--healthz-ip` and `--healthz-port`.
    pub tcp: Option<TcpListener>,
    /// `--ui-listen`.
    pub page: Option<TcpListener>,
    /// The socket beside the agent's.
    pub unix: UnixListener,
}

/// The thread that answers.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    closed: oneshot::Receiver<()>,
}

impl Server {
    /// Answers from here on.
    ///
    /// # Errors
    /// There can be no thread, or the listeners are none.
    pub fn start(listeners: Listeners, view: View) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (_close, closed) = oneshot::channel();
        let mut servers = JoinSet::new();
        {
            let _entered = runtime.enter();
            let (page, story) = Feed::new(view.clone(), stop.clone());
            servers.spawn(story);
            let unix = tokio::net::UnixListener::from_std(listeners.unix)?;
            servers.spawn(serve(unix, routes(view.clone()).merge(page.for_this_host()), stop.clone()));
            if let Some(tcp) = listeners.tcp {
                let tcp = tokio::net::TcpListener::from_std(tcp)?;
                servers.spawn(serve(tcp, routes(view.clone()).merge(page.for_this_host()), stop.clone()));
            }
            if let Some(tcp) = listeners.page {
                let tcp = tokio::net::TcpListener::from_std(tcp)?;
                servers.spawn(serve(tcp, routes::for_others(view).merge(page.for_others()), stop.clone()));
            }
        }
        thread::Builder::new().name("http".to_owned()).spawn(move || {
            // Dropped when nobody is answered any more.
            let _close = _close;
            for ended in runtime.block_on(servers.join_all()) {
                if let Err(error) = ended {
                    tracing::warn!(%error, "the HTTP endpoints are gone");
                }
            }
        })?;
        Ok(Self { stop, closed })
    }

    /// Answers those who have come, and nobody any more.
    pub async fn close(self) {
        self.stop.cancel();
        drop(tokio::time::timeout(CLOSING, self.closed).await);
    }
}

async fn serve<L>(listener: L, routes: Router, stop: CancellationToken) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    Caller: for<'a> Connected<IncomingStream<'a, Door<L>>>,
{
    let door = Door { listener, stop: stop.clone() };
    let closed = async move {
        stop.cancelled().await;
        tokio::time::sleep(ASKING).await;
    };
    let routes = routes.into_make_service_with_connect_info::<Caller>();
    axum::serve(door, routes).with_graceful_shutdown(closed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = bind_health("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = taken.local_addr().unwrap();
        for (bind, flag) in [(bind_health as fn(_) -> _, "--healthz-port"), (bind_page, "--ui-listen")] {
            let error = bind(addr).unwrap_err().to_string();
            assert!(error.contains(&addr.to_string()) && error.contains(flag), "{error}");
        }
    }
}
