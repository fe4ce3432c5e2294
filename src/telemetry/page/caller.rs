//! Who asks for the page.

use std::net::IpAddr;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};

use crate::catalogue::unserved::Unserved;
use crate::telemetry::http::Door;

/// Where a caller is; `None` for one on the unix socket.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) struct Caller(Option<IpAddr>);

impl Connected<IncomingStream<'_, Door<TcpListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Door<TcpListener>>) -> Self {
        Self(Some(stream.remote_addr().ip()))
    }
}

impl Connected<IncomingStream<'_, Door<UnixListener>>> for Caller {
    fn connect_info(_: IncomingStream<'_, Door<UnixListener>>) -> Self {
        Self(None)
    }
}

/// Lets callers on this host in, and nobody who got here by another name than this host's own.
pub(super) async fn of_this_host(
    ConnectInfo(Caller(from)): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(from, request.headers()) {
        None => next.run(request).await,
        Some((code, why)) => (StatusCode::FORBIDDEN, format!("403 {}", code.line(why))).into_response(),
    }
}

/// Why a caller may not look.
fn refusal(from: Option<IpAddr>, headers: &HeaderMap) -> Option<(Unserved, String)> {
    let elsewhere = from.is_some_and(|from| !from.to_canonical().is_loopback());
    if elsewhere {
        let why = "this page shows to its own host only; next: open it there at 127.0.0.1, or through ssh -L, or start the \
                   agent with --ui-listen ADDR:PORT, which shows it to everybody who reaches that port";
        return Some((Unserved::Elsewhere, why.to_owned()));
    }
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.filter(|host| !is_local(host))?;
    let why = format!("this page does not show as {host}; next: open it at 127.0.0.1 or localhost");
    Some((Unserved::AnotherName, why))
}

/// Whether a `Host` is an address or `localhost`: what a name leads to is up to whoever owns the name.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_looks_and_only_by_its_own_name() {
        for (from, host, allowed) in [
            (None, "localhost", true),
            (None, "evil.example", false),
            (Some("127.0.0.1"), "127.0.0.1:10254", true),
            (Some("127.3.2.1"), "LOCALHOST:8080", true),
            (Some("::1"), "[::1]:10254", true),
            (Some("::ffff:127.0.0.1"), "10.0.0.7", true),
            (Some("127.0.0.1"), "evil.example:10254", false),
            (Some("127.0.0.1"), "localhost.evil.example", false),
            (Some("127.0.0.1"), "", false),
            (Some("192.0.2.9"), "192.0.2.1:10254", false),
            (Some("2001:db8::1"), "localhost", false),
            (Some("::ffff:192.0.2.9"), "127.0.0.1", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            let from = from.map(|from| from.parse().unwrap());
            assert_eq!(refusal(from, &headers).is_none(), allowed, "{from:?} {host}");
        }
        let local = Some("127.0.0.1".parse().unwrap());
        assert_eq!(refusal(local, &HeaderMap::new()), None, "a caller of HTTP/1.0");
        let other = refusal(Some("192.0.2.9".parse().unwrap()), &HeaderMap::new());
        let (code, why) = other.unwrap();
        assert!(why.contains("--ui-listen ADDR:PORT") && code == Unserved::Elsewhere, "{why}");
        let headers = HeaderMap::from_iter([(header::HOST, "evil.example".parse().unwrap())]);
        assert_eq!(refusal(local, &headers).map(|(code, _)| code), Some(Unserved::AnotherName));
    }
}
