//! Hearing that the firewall changed: netlink's nftables group, and a clock where nothing is announced.
//!
//! Only messages about what is ours count: kube-proxy rewrites its own chains of the same tables all day.

use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// `NETLINK_NETFILTER`, `NFNLGRP_NFTABLES` and `NFNL_SUBSYS_NFTABLES` of linux/netlink.h, linux/netfilter/nfnetlink.h.
const PROTOCOL: isize = 12;
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10;
/// `ENOBUFS`: messages were lost.
const NO_BUFFERS: i32 = 105;
/// How long a burst is waited out.
const BURST: Duration = Duration::from_millis(10);
/// Larger than any batch of notifications the kernel builds.
const DATAGRAM: usize = 64 * 1024;

/// `NFPROTO_*` of linux/netfilter.h.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

/// Part of the ruleset whose changes matter.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) family: u8,
    pub(super) table: String,
    /// Chains by name; empty: everything in the table.
    pub(super) chains: &'static [&'static str],
}

/// The ear.
#[derive(Debug)]
pub(super) struct Monitor {
    watches: Vec<Watch>,
    period: Duration,
    state: Mutex<State>,
}

struct State {
    /// `None` where the kernel has no nftables: the clock remains.
    socket: Option<TokioSocket>,
    buffer: Vec<u8>,
    /// When what was heard is reported. It outlives the caller: one that comes back often is not kept waiting.
    pending: Option<Instant>,
    due: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("pending", &self.pending)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// Listens from here on; `period` is how often to look without having heard anything.
    pub(super) fn open(watches: Vec<Watch>, period: Duration) -> Self {
        let socket = listen()
            .inspect_err(|error| tracing::warn!(%error, "nftables changes are not announced here: polling"))
            .ok();
        let due = Instant::now() + period;
        let state = State { socket, buffer: Vec::with_capacity(DATAGRAM), pending: None, due };
        Self { watches, period, state: Mutex::new(state) }
    }

    /// Resolves on a change of what is watched, or when the period is over.
    pub(super) async fn changed(&self) {
        let mut state = self.state.lock().await;
        loop {
            let until = state.pending.unwrap_or(state.due);
            if until <= Instant::now() {
                break;
            }
            if tokio::time::timeout_at(until, state.hear(&self.watches)).await == Ok(true) {
                state.pending = state.pending.or_else(|| Some(Instant::now() + BURST));
            }
        }
        state.pending = None;
        state.due = Instant::now() + self.period;
    }
}

impl State {
    /// One datagram: whether it concerns us. Losing messages does.
    async fn hear(&mut self, watches: &[Watch]) -> bool {
        let Some(socket) = &mut self.socket else {
            return std::future::pending().await;
        };
        self.buffer.clear();
        match socket.recv(&mut self.buffer).await {
            Ok(()) => concerns(&self.buffer, watches),
            Err(e) if e.raw_os_error() == Some(NO_BUFFERS) => true,
            Err(error) => {
                tracing::warn!(%error, "lost the nftables announcements: polling");
                self.socket = None;
                true
            }
        }
    }
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(PROTOCOL)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(GROUP)?;
    Ok(socket)
}

/// Whether any message of a datagram is about what is watched. What cannot be read might be.
fn concerns(mut datagram: &[u8], watches: &[Watch]) -> bool {
    while !datagram.is_empty() {
        let Some(length) = word(datagram).filter(|&length| (16..=datagram.len()).contains(&length)) else {
            return true;
        };
        let (message, rest) = (&datagram[..length], &datagram[aligned(length).min(datagram.len())..]);
        if about(message, watches) {
            return true;
        }
        datagram = rest;
    }
    false
}

/// One netlink message: header (16 bytes), nfgenmsg (4 bytes: family, version, resource), attributes.
fn about(message: &[u8], watches: &[Watch]) -> bool {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    /// `NLMSG_OVERRUN`.
    const OVERRUN: u16 = 4;
    if kind >> 8 != SUBSYSTEM {
        return kind == OVERRUN;
    }
    let Some((family, attributes)) = message.get(16).zip(message.get(20..)) else {
        return true;
    };
    // NFT_MSG_* of linux/netfilter/nf_tables.h: chains 3 to 5 carry their name as attribute 3, rules 6 to 8 their
    // chain's as 2; of generations 15, 16 and traces 17, attribute 1 is no table.
    let chain_attribute = match kind & 0xff {
        3..=5 => Some(3),
        6..=8 => Some(2),
        15..=17 => return false,
        _ => None,
    };
    let Some(table) = attribute(attributes, 1) else {
        return false;
    };
    let chain = chain_attribute.and_then(|number| attribute(attributes, number));
    watches.iter().filter(|watch| watch.family == *family && watch.table.as_bytes() == table).any(|watch| {
        watch.chains.is_empty()
            || chain.is_none_or(|chain| watch.chains.iter().any(|name| name.as_bytes() == chain))
    })
}

/// The text of one attribute, without its NUL.
fn attribute(mut bytes: &[u8], number: u16) -> Option<&[u8]> {
    /// Not part of the number: `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    while let [l0, l1, n0, n1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        if u16::from_ne_bytes([n0, n1]) & !FLAGS == number {
            return Some(value.strip_suffix(&[0]).unwrap_or(value));
        }
        bytes = bytes.get(aligned(length)..)?;
    }
    None
}

fn word(bytes: &[u8]) -> Option<usize> {
    let (first, _) = bytes.split_first_chunk::<4>()?;
    usize::try_from(u32::from_ne_bytes(*first)).ok()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(number: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, family: u8, attrs: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = attrs.concat();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(20 + body.len()).unwrap().to_ne_bytes());
        bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    fn watches() -> Vec<Watch> {
        vec![
            Watch { family: INET, table: "twill-x".into(), chains: &[] },
            Watch { family: IPV4, table: "nat".into(), chains: &["POSTROUTING", "FLANNEL-POSTRTG"] },
        ]
    }

    #[test]
    fn only_what_is_watched_is_heard() {
        let heard = |kind, family, attrs: &[Vec<u8>]| concerns(&message(kind, family, attrs), &watches());
        assert!(heard(2, INET, &[attr(1, b"twill-x\0")]));
        assert!(heard(8, INET, &[attr(1, b"twill-x\0"), attr(2, b"forward\0")]));
        assert!(!heard(2, IPV4, &[attr(1, b"twill-x\0")]));
        assert!(!heard(2, INET, &[attr(1, b"twill-xy\0")]));
        assert!(heard(8, IPV4, &[attr(1, b"nat\0"), attr(2, b"FLANNEL-POSTRTG\0")]));
        assert!(!heard(6, IPV4, &[attr(1, b"nat\0"), attr(2, b"KUBE-SERVICES\0")]));
        assert!(heard(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"POSTROUTING\0")]));
        assert!(!heard(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"KUBE-MARK\0")]));
        assert!(heard(2, IPV4, &[attr(1, b"nat\0")]), "the whole table");
        assert!(!heard(15, INET, &[attr(1, b"twill-x\0")]), "a generation number is no name");
    }

    #[test]
    fn a_later_message_of_a_batch_counts() {
        let mut batch = message(6, IPV4, &[attr(1, b"nat\0"), attr(2, b"KUBE\0")]);
        assert!(!concerns(&batch, &watches()));
        batch.extend(message(0, INET, &[attr(1, b"twill-x\0")]));
        assert!(concerns(&batch, &watches()));
    }

    #[test]
    fn no_datagram_is_out_of_bounds() {
        let good = message(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"POSTROUTING\0")]);
        for cut in 0..good.len() {
            concerns(&good[..cut], &watches());
            for byte in 0..=u8::MAX {
                let mut bad = good.clone();
                bad[cut] = byte;
                concerns(&bad, &watches());
            }
        }
        assert!(concerns(&good[..10], &watches()), "unreadable means look");
        assert!(!concerns(&[], &watches()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_socket_the_clock_remains() {
        let state = State { socket: None, buffer: Vec::new(), pending: None, due: Instant::now() };
        let monitor =
            Monitor { watches: watches(), period: Duration::from_secs(5), state: Mutex::new(state) };
        monitor.changed().await;
        let start = Instant::now();
        monitor.changed().await;
        assert!((5.0..5.1).contains(&start.elapsed().as_secs_f64()));
        // What was heard is not lost with the caller.
        monitor.state.lock().await.pending = Some(Instant::now() + BURST);
        let start = Instant::now();
        let impatient = || tokio::time::timeout(Duration::from_millis(3), monitor.changed());
        while impatient().await.is_err() {}
        assert!(start.elapsed() < Duration::from_millis(20));
    }
}
