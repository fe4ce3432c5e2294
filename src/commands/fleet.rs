//! Asks the agents of other hosts how they are, at the port where each serves its status anyway.
//!
//! # Why not another channel
//! Agents talk to the store and not to each other, and a listener in the overlay could be reached from every pod. So
//! nothing is opened for this: an agent that serves HTTP (`--healthz-port`) is asked there, by its public address;
//! others are said to be silent, with how to change that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::net::TcpStream;
use twill_backends::family::Family;
use twill_backends::lease::Lease;

use super::{Failure, http, running};
use crate::config::Site;
use crate::verify::Deviation;
use crate::views::hosts::Said;

/// How long an agent may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are asked at once.
const AT_ONCE: usize = 64;
/// Where the status is.
const PATH: &str = "/v1/status";

/// The port to ask at: as given, else that of this host's agent; `None` if neither says one.
pub(super) fn port(given: Option<u16>, site: &Site) -> Option<u16> {
    given.or_else(|| Some(running::config(site)?.health?.port()))
}

/// Asks the agents of these leases, by key.
pub(super) async fn ask(leases: impl IntoIterator<Item = &Lease>, port: u16) -> BTreeMap<String, Said> {
    let asked = leases.into_iter().filter_map(|lease| {
        let public = Family::ALL.into_iter().find_map(|family| lease.attrs.public(family))?;
        Some((lease.key.to_string(), public))
    });
    let asks = asked.map(|(key, public)| async move { (key, one(public, port).await) });
    futures::stream::iter(asks).buffer_unordered(AT_ONCE).collect().await
}

async fn one(public: IpAddr, port: u16) -> Said {
    let addr = SocketAddr::new(public, port);
    let silent = |cause: String| {
        let next = format!(
            "see whether the agent there runs with --healthz-port {port}, and whether a firewall lets this host in"
        );
        silence(cause, next)
    };
    match tokio::time::timeout(PATIENCE, get(addr)).await {
        Ok(Ok((200, body))) => match serde_json::from_slice::<Value>(&body) {
            Ok(status) if status["state"].is_string() => Said::Status(status),
            Ok(_) | Err(_) => silent(format!("what answers at http://{addr} is no agent")),
        },
        Ok(Ok((code, _))) => {
            let next = "upgrade it, and give --healthz-port if another program answers there".to_owned();
            silence(format!("http://{addr}{PATH} answers with status {code}"), next)
        }
        Ok(Err(error)) => silent(format!("not reachable at http://{addr}: {}", crate::chain(&*error))),
        Err(_) => silent(format!("not reachable at http://{addr}: no answer in time")),
    }
}

const fn silence(cause: String, next: String) -> Said {
    Said::Silent(Deviation::HostSilent.entry().code, cause, next)
}

async fn get(addr: SocketAddr) -> Result<(u16, Bytes), Failure> {
    http::get(TcpStream::connect(addr).await?, &addr.to_string(), PATH).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn lease(n: u8) -> Lease {
        let value = format!(r#"{{"PublicIP":"127.0.0.{n}"}}"#);
        Lease::decode(&format!("10.5.{n}.0-24"), value.as_bytes()).unwrap()
    }

    /// Answers once, as told.
    async fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /v1/status HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    async fn said(answer: &'static str) -> Said {
        let port = server(answer).await;
        ask([&lease(1)], port).await.remove("10.5.1.0-24").unwrap()
    }

    #[tokio::test]
    async fn a_status_is_read_and_everything_else_has_a_reason() {
        let body = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"state\":\"ok\"}";
        let Said::Status(status) = said(body).await else { panic!() };
        assert_eq!(status["state"], "ok");
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answers with status 404"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "is no agent"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "not reachable"),
            ("rubbish\r\n\r\n", "not reachable"),
        ] {
            let Said::Silent(_, cause, next) = said(answer).await else { panic!("{answer}") };
            assert!(cause.contains(why) && !next.is_empty(), "{answer}: {cause}");
        }
    }

    #[tokio::test]
    async fn many_are_asked_and_who_does_not_listen_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let leases: Vec<Lease> = (1..=200).map(lease).collect();
        let said = ask(&leases, port).await;
        assert_eq!(said.len(), 200);
        let Said::Silent(_, cause, next) = &said["10.5.7.0-24"] else { panic!() };
        assert!(
            cause.contains(&format!("127.0.0.7:{port}")) && next.contains("--healthz-port"),
            "{cause} {next}"
        );
    }
}
