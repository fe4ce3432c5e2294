//! ICMP and ICMPv6 echo through a raw socket.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, Ipv4HeaderSlice,
};
use socket2::{Domain, Protocol, Socket, Type};

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
    match socket.send_to(&request(target, header), &SocketAddr::new(target, 0).into()) {
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
        if reply(target, &buffer[..length]) == Some(header) {
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

/// The request's ICMP bytes. The kernel fills in the checksum of ICMPv6 (RFC 3542, section 3.1).
fn request(target: IpAddr, header: IcmpEchoHeader) -> Vec<u8> {
    let mut packet = match target {
        IpAddr::V4(_) => {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), PAYLOAD).to_bytes().to_vec()
        }
        IpAddr::V6(_) => etherparse::Icmpv6Header::new(Icmpv6Type::EchoRequest(header)).to_bytes().to_vec(),
    };
    packet.extend_from_slice(PAYLOAD);
    packet
}

/// The echo header if `packet` is an echo reply. Raw IPv4 sockets deliver the IP header, raw IPv6 sockets do not.
fn reply(target: IpAddr, packet: &[u8]) -> Option<IcmpEchoHeader> {
    match target {
        IpAddr::V4(_) => {
            let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
            let icmp = Icmpv4Slice::from_slice(packet.get(ip.slice().len()..)?).ok()?;
            if let Icmpv4Type::EchoReply(header) = icmp.icmp_type() { Some(header) } else { None }
        }
        IpAddr::V6(_) => {
            let icmp = Icmpv6Slice::from_slice(packet).ok()?;
            if let Icmpv6Type::EchoReply(header) = icmp.icmp_type() { Some(header) } else { None }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_echo_request_and_no_reply() {
        let header = IcmpEchoHeader { id: 7, seq: 1 };
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let packet = request(v6, header);
        assert_eq!(packet[0], 128);
        assert_eq!(reply(v6, &packet), None);
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let packet = request(v4, header);
        let icmp = Icmpv4Slice::from_slice(&packet).unwrap();
        assert_eq!(icmp.icmp_type(), Icmpv4Type::EchoRequest(header));
    }
}
