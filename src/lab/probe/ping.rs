//! ICMP and ICMPv6 echo through a raw socket.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::IcmpEchoHeader;
use socket2::{Domain, Protocol, Socket, Type};
use twill_backends::icmp;

use crate::lab::{Cancel, LabError, Netns, Seen, until};

/// How long one attempt of [`ping_until`] waits for its answer.
const ATTEMPT: Duration = Duration::from_millis(250);
/// What each request carries.
const PAYLOAD: &[u8] = b"a thread of the fabric, woven there and back again";
/// Tells the requests of this process apart: a raw socket sees all echoes of its namespace.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// Sends one echo request from `net` and waits at most `patience`: the round trip, or `None` without an answer or
/// without a route.
pub fn ping(net: &Netns, target: IpAddr, patience: Duration) -> Result<Option<Duration>, LabError> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    net.run(|| echo(target, IcmpEchoHeader { id, seq: 1 }, patience))?
        .map_err(LabError::io(|| format!("ping {target} from {}", net.name())))
}

/// Sends echo requests until one is answered: its round trip.
///
/// # Errors
/// [`LabError::Timeout`] without an answer within `limit`; [`LabError::Interrupted`] if cancelled.
pub fn ping_until(
    net: &Netns,
    target: IpAddr,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Duration, LabError> {
    let what = format!("an echo of {target} at {}", net.name());
    let mut sent = 0_u32;
    until(&what, limit, cancel, || {
        sent += 1;
        let none = || Seen::NotYet(format!("{sent} requests unanswered"));
        Ok(ping(net, target, ATTEMPT.min(limit))?.map_or_else(none, Seen::Yes))
    })
}

/// Sends an echo request each `interval` for `duration` from `net`, each after the answer to the one before: the round
/// trips of those answered within `interval`, or within 250 ms if that is longer.
///
/// # Errors
/// No socket, or [`LabError::Interrupted`] if cancelled.
pub fn round_trips(
    net: &Netns,
    target: IpAddr,
    interval: Duration,
    duration: Duration,
    cancel: &Cancel,
) -> Result<Vec<Duration>, LabError> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let paced = || -> io::Result<Vec<Duration>> {
        let socket = open(target)?;
        let (mut due, mut trips) = (Instant::now(), Vec::new());
        let end = due + duration;
        let mut seq = 0_u16;
        while due < end && !cancel.is_cancelled() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            seq = seq.wrapping_add(1);
            trips.extend(exchange(&socket, target, IcmpEchoHeader { id, seq }, ATTEMPT.max(interval))?);
            due = (due + interval).max(Instant::now());
        }
        Ok(trips)
    };
    let trips = net.run(paced)?.map_err(LabError::io(|| format!("ping {target} from {}", net.name())))?;
    cancel.check().map(|()| trips)
}

fn echo(target: IpAddr, header: IcmpEchoHeader, patience: Duration) -> io::Result<Option<Duration>> {
    exchange(&open(target)?, target, header, patience)
}

fn exchange(
    socket: &Socket,
    target: IpAddr,
    header: IcmpEchoHeader,
    patience: Duration,
) -> io::Result<Option<Duration>> {
    let begin = Instant::now();
    match socket.send_to(&icmp::request(target, header, PAYLOAD), &SocketAddr::new(target, 0).into()) {
        Ok(_length) => {}
        Err(error) if no_route(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut buffer = [0_u8; 2048];
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut reader = socket;
        let length = match reader.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if icmp::reply(target, &buffer[..length]).is_some_and(|(answered, _)| answered == header) {
            return Ok(Some(begin.elapsed()));
        }
    }
}

fn open(target: IpAddr) -> io::Result<Socket> {
    match target {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
    }
}

/// Errors that only say that the packet cannot get there at this moment.
fn no_route(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        NetworkUnreachable | HostUnreachable | NetworkDown | AddrNotAvailable | PermissionDenied
    )
}
