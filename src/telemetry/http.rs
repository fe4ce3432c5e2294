//! `/healthz` and `/readyz`, with flanneld's bodies: probes and scripts compare them.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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

/// Answers until `stop` is called, and then those who have asked. Ready is what `ready` says at the time of asking.
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
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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
