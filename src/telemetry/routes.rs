//! What each path answers.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 with flanneld's body while the loop makes progress; else 503, and what it is busy with |
//! | `/readyz` | 200 with flanneld's body once containers can be started; else 503, and why not |
//! | `/metrics` | [`metrics`](super::metrics) for Prometheus |
//! | `/v1/status` | [`Status`](crate::agent::status::Status) as JSON |
//! | `/`, `/v1/events` | [the page](super::page), for this host only |
//!
//! On `--ui-listen` others may look, too: at the page and the status, and nothing else is there.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use super::metrics::{CONTENT_TYPE, Figures, Scrape, render};
use crate::agent::board::View;
use crate::catalogue::unserved::Unserved;

/// Scripts and probes compare these.
const RUNNING: &str = "flanneld is running";
const READY: &str = "flanneld is ready";
const NOT_READY: &str = "flanneld is not ready yet";

/// All paths, answered from `view`.
pub(super) fn routes(view: View) -> Router {
    Router::new()
        .route("/healthz", any(healthz))
        .route("/readyz", any(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .fallback(nothing)
        .with_state(view)
}

/// What is served beside the page where others than this host may look: nothing that does anything.
pub(super) fn for_others(view: View) -> Router {
    Router::new().route("/v1/status", get(status)).fallback(nothing).with_state(view)
}

async fn nothing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn healthz(State(view): State<View>) -> (StatusCode, String) {
    match view.stuck() {
        None => (StatusCode::OK, RUNNING.to_owned()),
        Some(stuck) => (StatusCode::SERVICE_UNAVAILABLE, Unserved::Stuck.line(stuck)),
    }
}

async fn readyz(State(view): State<View>) -> (StatusCode, String) {
    let because = view.unready();
    if because.is_empty() {
        return (StatusCode::OK, READY.to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{NOT_READY}\n{}\n", because.join("\n")))
}

async fn metrics(State(view): State<View>) -> Response {
    let turned_s = view.turned().as_secs_f64();
    match view.status().await {
        Some(status) => {
            let scrape = Scrape::new(status, turned_s, Figures::read());
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], render(&scrape)).into_response()
        }
        None => ending(),
    }
}

async fn status(State(view): State<View>) -> Response {
    match view.status().await.as_ref().map(serde_json::to_string) {
        Some(Ok(json)) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        None => ending(),
    }
}

/// The agent ends before its first turn.
fn ending() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Unserved::Ending.line("the agent is ending")).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use super::*;
    use crate::agent::status::tests::status as sample;
    use crate::agent::status::{Readiness, Status};
    use crate::telemetry::http::{Listeners, Server, bind_health};

    fn exchange(mut stream: impl Read + Write, request: &str) -> String {
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ask(addr: SocketAddr, request: &str) -> String {
        exchange(TcpStream::connect(addr).unwrap(), request)
    }

    fn listeners(dir: &tempfile::TempDir) -> (Listeners, SocketAddr) {
        let tcp = bind_health("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(dir.path().join("http.sock")).unwrap();
        unix.set_nonblocking(true).unwrap();
        (Listeners { tcp: Some(tcp), page: None, unix }, addr)
    }

    /// The thread of this runtime is held up by the questions, as the loop's thread may be by anything.
    #[tokio::test]
    async fn bodies_are_flannels_and_the_status_is_whole_on_both_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, addr) = listeners(&dir);
        let server = Server::start(listeners, View::of(sample())).unwrap();
        let health = ask(addr, "POST /healthz");
        let whole = health.starts_with("HTTP/1.1 200 ") && health.ends_with("\r\n\r\nflanneld is running");
        assert!(whole && health.contains("content-type: text/plain; charset=utf-8"), "{health}");
        assert!(ask(addr, "GET /readyz").ends_with("\r\n\r\nflanneld is ready"));
        assert!(ask(addr, "GET /x").ends_with("\r\n\r\n404 page not found\n"));
        for answer in [
            ask(addr, "GET /v1/status"),
            exchange(UnixStream::connect(dir.path().join("http.sock")).unwrap(), "GET /v1/status"),
        ] {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("content-type: application/json"), "{head}");
            let status: Status = serde_json::from_str(body).unwrap();
            assert_eq!(Status { age_ms: 0, ..status }, sample());
        }
        server.close().await;
        TcpStream::connect(addr).unwrap_err();
    }

    #[tokio::test]
    async fn what_is_not_ready_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, addr) = listeners(&dir);
        let because = vec!["this host lost its lease: store: gone".to_owned()];
        let status = Status { readiness: Readiness { because, ..Readiness::default() }, ..sample() };
        let server = Server::start(listeners, View::of(status)).unwrap();
        let answer = ask(addr, "GET /readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let body = "\r\n\r\nflanneld is not ready yet\nthis host lost its lease: store: gone\n";
        assert!(answer.ends_with(body), "{answer}");
        server.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_come_back_is_not_healthy_and_not_ready() {
        let view = View::of(sample());
        assert_eq!(healthz(State(view.clone())).await.0, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(31)).await;
        let (code, body) = healthz(State(view.clone())).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("busy with a test for 31 s") && body.ends_with(" [agent-stuck]\n"), "{body}");
        let (code, body) = readyz(State(view)).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.starts_with(NOT_READY) && body.contains("31 s"), "{body}");
    }
}
