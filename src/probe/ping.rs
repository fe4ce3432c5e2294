//! ICMP echoes to peers whose agents do not answer: whether their kernels do.
//!
//! # What an answer is worth
//! Each request carries what nobody can guess who did not get it, so that an answer comes from where it was sent, or
//! from one whom it passed. It says nothing of what pods' packets meet with beyond.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use etherparse::IcmpEchoHeader;
use socket2::{Domain, Protocol, SockFilter, Type};
use tokio::net::UdpSocket;
use twill_backends::family::Family;
use twill_backends::icmp;
use twill_backends::probe::Way;

use super::socket;

/// As much of an answer as is looked at.
const LONGEST: usize = 256;

/// The sockets, by the way and the family of what they send and receive; opened when there is something to ask.
pub(super) struct Pings {
    sockets: BTreeMap<(Way, Family), (IpAddr, UdpSocket)>,
    token: [u8; 16],
    seq: u16,
}

impl Pings {
    pub(super) fn new() -> Self {
        Self { sockets: BTreeMap::new(), token: *uuid::Uuid::new_v4().as_bytes(), seq: 0 }
    }

    /// Asks the kernel at `to`. Where raw sockets are not to be had, or nothing leads there, nobody answers either.
    pub(super) fn ask(&mut self, place: (Way, Family), from: IpAddr, to: IpAddr) {
        if self.sockets.get(&place).is_none_or(|(addr, _)| *addr != from) {
            match open(from) {
                Ok(socket) => self.sockets.insert(place, (from, socket)),
                Err(error) => return tracing::debug!(%from, %error, "no socket for echoes"),
            };
        }
        let Some((_, socket)) = self.sockets.get(&place) else { return };
        self.seq = self.seq.wrapping_add(1);
        let request = icmp::request(to, IcmpEchoHeader { id: 0, seq: self.seq }, &self.token);
        if let Err(error) = socket::send(socket, &request, SocketAddr::new(to, 0)) {
            tracing::trace!(%to, %error, "an echo request was not sent");
        }
    }

    /// The sockets, to wait for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = ((Way, Family), &UdpSocket)> {
        self.sockets.iter().map(|(place, (_, socket))| (*place, socket))
    }

    /// Takes what came: the addresses whose kernels answered.
    pub(super) fn answers(&self, place: (Way, Family)) -> Vec<IpAddr> {
        let Some((_, socket)) = self.sockets.get(&place) else { return Vec::new() };
        let mut buffer = [0; LONGEST];
        let next = || match socket.try_recv_from(&mut buffer) {
            Ok((length, from)) => Some((from.ip(), self.is_answer(from.ip(), &buffer[..length]))),
            Err(_) => None,
        };
        std::iter::from_fn(next).filter(|(_, answer)| *answer).map(|(from, _)| from).collect()
    }

    fn is_answer(&self, from: IpAddr, packet: &[u8]) -> bool {
        icmp::reply(from, packet).is_some_and(|(_, payload)| payload == self.token)
    }
}

/// A raw socket at this address that hears echo replies. To the runtime it is what a UDP socket is: one that sends to
/// addresses and receives from them.
fn open(addr: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match addr {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = socket2::Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&replies(addr.is_ipv6()))?;
    socket.bind(&SocketAddr::new(addr, 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// A program of the kernel's packet filter that lets echo replies pass.
fn replies(v6: bool) -> Vec<SockFilter> {
    // Instructions of the classic packet filter (linux/filter.h).
    const LENGTH_OF_IPV4: u16 = 0xb1;
    const BYTE: u16 = 0x30;
    const BYTE_BEHIND: u16 = 0x50;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let [v4_reply, v6_reply] = icmp::REPLIES.map(u32::from);
    // Raw IPv4 sockets see the IP header, raw IPv6 sockets do not.
    let (load, reply) = if v6 {
        (vec![SockFilter::new(BYTE, 0, 0, 0)], v6_reply)
    } else {
        (vec![SockFilter::new(LENGTH_OF_IPV4, 0, 0, 0), SockFilter::new(BYTE_BEHIND, 0, 0, 0)], v4_reply)
    };
    let judge = [
        SockFilter::new(IF_EQUAL, 0, 1, reply),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    load.into_iter().chain(judge).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::Interest;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The kernel of this machine answers at its loopback addresses.
    #[tokio::test]
    async fn a_kernel_that_answers_is_heard_and_nobody_else() {
        let v6 = std::path::Path::new("/proc/net/if_inet6").exists();
        let mut pings = Pings::new();
        for (family, local) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            let (place, local) = ((Way::Underlay, family), local.parse().unwrap());
            if family == Family::V6 && !v6 {
                println!("SKIP: this kernel has no IPv6");
                continue;
            }
            if let Err(error) = open(local) {
                println!("SKIP: no raw sockets: {error}");
                return;
            }
            pings.ask(place, local, local);
            let (_, socket) = pings.sockets().find(|(at, _)| *at == place).unwrap();
            let answers = async {
                loop {
                    socket.ready(Interest::READABLE).await.unwrap();
                    let answers = pings.answers(place);
                    if !answers.is_empty() {
                        break answers;
                    }
                }
            };
            assert_eq!(tokio::time::timeout(PATIENCE, answers).await.unwrap(), [local]);
            // What another process asked is not ours.
            let other = Pings::new();
            assert!(
                !other
                    .is_answer(local, &icmp::request(local, IcmpEchoHeader { id: 0, seq: 1 }, &pings.token))
            );
        }
    }
}
