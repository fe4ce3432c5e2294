//! `/healthz` and `/readyz`, with flanneld's bodies: probes and scripts compare them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long one who has connected may take to ask, once the server is told to stop.
const ASKING: Duration = Duration::from_millis(50);

/// A listener that lets nobody in once the server is told to stop: another process may hold it too.
struct Door {
    listener: TcpListener,
    stop: CancellationToken,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = Listener::accept(&mut self.listener);
        match self.stop.run_until_cancelled(accepted).await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Binds the listener.
///
/// # Errors
/// The address is in use, or not ours.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        let next = "choose another with --healthz-ip and --healthz-port";
        io::Error::new(error.kind(), format!("cannot serve health on {addr}: {error}; next: {next}"))
    })
}

/// Answers until `stop` is called, and then those who have come by then. Ready is what `ready` says at the time of
/// asking.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
) -> io::Result<()> {
    let readyz = move || {
        let ready = *ready.borrow();
        async move {
            if ready {
                (StatusCode::OK, "flanneld is ready")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "flanneld is not ready yet")
            }
        }
    };
    let routes = Router::new()
        .route("/healthz", any(|| async { "flanneld is running" }))
        .route("/readyz", any(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") });
    let door = Door { listener, stop: stop.clone() };
    let closed = async move {
        stop.cancelled().await;
        tokio::time::sleep(ASKING).await;
    };
    axum::serve(door, routes).with_graceful_shutdown(closed).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn bodies_are_flannels() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (say, ready) = watch::channel(false);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, ready, stop.clone()));
        let health = ask(addr, "POST /healthz").await;
        assert!(
            health.starts_with("HTTP/1.1 200 ") && health.ends_with("\r\n\r\nflanneld is running"),
            "{health}"
        );
        assert!(health.contains("content-type: text/plain; charset=utf-8"), "{health}");
        assert!(ask(addr, "GET /readyz").await.starts_with("HTTP/1.1 503 "));
        say.send(true).unwrap();
        assert!(ask(addr, "GET /readyz").await.ends_with("\r\n\r\nflanneld is ready"));
        assert!(ask(addr, "GET /x").await.ends_with("\r\n\r\n404 page not found\n"));
        stop.cancel();
        server.await.unwrap().unwrap();
        TcpStream::connect(addr).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bind(addr).await.unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("--healthz-port"), "{error}");
    }
}
