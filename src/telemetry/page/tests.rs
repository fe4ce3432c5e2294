//! The page and its events, asked for over sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::Value;

use super::*;
use crate::agent::status::tests::status;
use crate::telemetry::http::{Listeners, Server, bind_health, bind_page};

/// A server with the page open to all, where it answers others, and its unix socket's folder.
fn server() -> (Server, SocketAddr, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let (tcp, page) = (bind_health(any).unwrap(), bind_page(any).unwrap());
    let open = page.local_addr().unwrap();
    let unix = UnixListener::bind(dir.path().join("http.sock")).unwrap();
    unix.set_nonblocking(true).unwrap();
    let listeners = Listeners { tcp: Some(tcp), page: Some(page), unix };
    (Server::start(listeners, View::of(status())).unwrap(), open, dir)
}

fn ask(addr: SocketAddr, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: page.example\r\n\r\n").unwrap();
    BufReader::new(stream)
}

/// The lines of the head.
fn head(answer: &mut impl BufRead) -> Vec<String> {
    answer.lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect()
}

/// The next event.
fn event(answer: &mut impl BufRead) -> Value {
    let mut lines = answer.lines().map(Result::unwrap);
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    serde_json::from_str(&data).unwrap()
}

#[tokio::test]
async fn events_come_whole_then_changed() {
    let (_server, open, _dir) = server();
    let mut answer = ask(open, "GET /v1/events");
    let head = head(&mut answer);
    assert!(head[0].starts_with("HTTP/1.1 200 "), "{head:?}");
    assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    let first = event(&mut answer);
    assert_eq!((&first["whole"], first["peers"].as_array().unwrap().len()), (&true.into(), 2));
    let next = event(&mut answer);
    assert_eq!((&next["whole"], next.get("peers")), (&false.into(), None), "{next}");
}

#[tokio::test]
async fn events_end_with_the_server_and_do_not_hold_it_up() {
    let mut soonest = Duration::MAX;
    for _ in 0..3 {
        let (server, open, _dir) = server();
        let mut answer = ask(open, "GET /v1/events");
        event(&mut answer);
        let begun = std::time::Instant::now();
        server.close().await;
        soonest = soonest.min(begun.elapsed());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut answer, &mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    }
    // One who holds an agent up that ends does so for a second.
    assert!(soonest < Duration::from_millis(900), "{soonest:?}");
}

#[tokio::test]
async fn those_who_look_are_bounded_and_make_room_again() {
    let (_server, open, _dir) = server();
    let mut looking: Vec<_> = (0..LOOKING).map(|_| ask(open, "GET /v1/events")).collect();
    looking.iter_mut().for_each(|answer| drop(event(answer)));
    let refused = head(&mut ask(open, "GET /v1/events"));
    assert!(refused[0].starts_with("HTTP/1.1 503 "), "{refused:?}");
    looking.pop();
    let begun = std::time::Instant::now();
    while !head(&mut ask(open, "GET /v1/events"))[0].contains(" 200 ") {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn the_document_is_whole_and_may_ask_nobody_else() {
    let (_server, open, dir) = server();
    let mut answer = ask(open, "GET /");
    let head = head(&mut answer);
    let find =
        |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let policy = find("content-security-policy: ");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(find("cache-control: "), "no-store");
    let mut body = vec![0; find("content-length: ").parse().unwrap()];
    std::io::Read::read_exact(&mut answer, &mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(body.matches(&format!(" nonce=\"{nonce}\"")).count(), 2, "one style, one script");
    for word in ["NONCE", "STYLE<", "SCRIPT<", "innerHTML", "https://", "@import", "url(", "eval("] {
        assert!(!body.contains(word), "{word}");
    }
    // The only other address in it is the name of SVG.
    assert!(
        body.match_indices("http://").all(|(at, _)| body[at..].starts_with("http://www.w3.org/2000/svg"))
    );
    assert!(body.len() < 72 << 10, "{}", body.len());
    // Nobody else's page reads it through a name that leads here; and it only looks.
    let unix = || UnixStream::connect(dir.path().join("http.sock")).unwrap();
    for (host, want) in [("localhost", " 200 "), ("page.example", " 403 ")] {
        let mut stream = unix();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut answer = BufReader::new(stream);
        assert!(self::head(&mut answer)[0].contains(want), "{host}");
    }
    for request in ["POST /", "DELETE /v1/status", "PUT /v1/events"] {
        assert!(self::head(&mut ask(open, request))[0].contains(" 405 "), "{request}");
    }
}
