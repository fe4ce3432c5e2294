//! A GET request of a few lines: enough for `/readyz`, without a client library.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::lab::{LabError, Netns};

/// How long connecting may take, which whoever expects that nothing passes waits for.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long an answer may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `http://server/path` from within `net`: status and body (HTTP/1.0, so the body is never chunked).
pub fn http_get(net: &Netns, server: SocketAddr, path: &str) -> Result<(u16, String), LabError> {
    let attempt = || format!("GET http://{server}{path} in {}", net.name());
    let answer = net.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, CONNECTING)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })?;
    let text = answer.map_err(LabError::io(attempt))?;
    parse(&text).ok_or_else(|| LabError::Unreadable { what: attempt(), text })
}

fn parse(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_status_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nwait\n";
        assert_eq!(parse(text), Some((503, "wait\n".to_owned())));
        assert_eq!(parse("garbage"), None);
    }
}
