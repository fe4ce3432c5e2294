//! Bulk transfer over TCP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::lab::{Cancel, LabError, Netns};

/// How long connecting may take, which whoever expects that nothing passes waits for.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long any single write or read may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);
const BUFFER: usize = 256 * 1024;

/// Moves bytes over one connection from `from` to `target`, an address of `to`, for `duration`: Gbit/s of payload as
/// the receiver counts it.
pub fn tcp_gbps(
    from: &Netns,
    to: &Netns,
    target: IpAddr,
    duration: Duration,
    cancel: &Cancel,
) -> Result<f64, LabError> {
    let attempt = || format!("move TCP from {} to {target}", from.name());
    let listener =
        to.run(|| TcpListener::bind(SocketAddr::new(target, 0)))?.map_err(LabError::io(attempt))?;
    let server = listener.local_addr().map_err(LabError::io(attempt))?;
    let stream = from
        .run(|| TcpStream::connect_timeout(&server, CONNECTING))?
        .map_err(LabError::io(|| format!("connect to {server} from {}", from.name())))?;
    // The handshake is done, so accept does not wait.
    let (accepted, _peer) = listener.accept().map_err(LabError::io(attempt))?;
    let sink = to.thread(move || receive(accepted))?;
    let sent = send(stream, duration, cancel);
    let received = sink.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    sent.map_err(LabError::io(attempt))?;
    cancel.check()?;
    let (bytes, took) = received.map_err(LabError::io(attempt))?;
    Ok(gbps(bytes, took))
}

fn send(mut stream: TcpStream, duration: Duration, cancel: &Cancel) -> io::Result<()> {
    let buffer = vec![0x55_u8; BUFFER];
    stream.set_write_timeout(Some(PATIENCE))?;
    let end = Instant::now() + duration;
    while Instant::now() < end && !cancel.is_cancelled() {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads to the end: bytes, and the time from here to the last of them.
fn receive(mut stream: TcpStream) -> io::Result<(u64, Duration)> {
    let mut buffer = vec![0_u8; BUFFER];
    stream.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    let mut bytes = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((bytes, begin.elapsed())),
            length => bytes = bytes.saturating_add(length as u64),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people, three digits of it")]
fn gbps(bytes: u64, took: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e9 / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabyte_in_a_second_is_eight() {
        assert!((gbps(1_000_000_000, Duration::from_secs(1)) - 8.0).abs() < 1e-9);
    }
}
