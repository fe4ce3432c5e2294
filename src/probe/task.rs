//! The thread that probes: sockets in, sockets out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use tokio::sync::{mpsc, watch};
use twill_backends::family::Family;
use twill_backends::lease::LeaseKey;
use twill_backends::probe::echo::{Echo, HEADER, SHORTEST, TAG};
use twill_backends::probe::{Finding, LineId, Outgoing, Prober, Way, headers};

use super::account::Account;
use super::known::{Known, Lines};
use super::ping::Pings;
use super::rows::{Outlook, Rows};
use super::secret::{self, Party};
use super::sockets::{self, Socket, Sockets, heard};
use super::{Findings, News, Order, Peer, Peers, Traffic, socket};

/// The shortest time between two turns. What is due within it is sent at once.
const TURN: Duration = Duration::from_millis(5);
/// The longest packet.
const LONGEST: usize = 1 << 16;

/// What the thread is asked for.
pub(super) struct Asked {
    pub(super) orders: watch::Receiver<Order>,
    pub(super) peers: mpsc::UnboundedReceiver<Peers>,
    pub(super) traffic: watch::Receiver<Traffic>,
}

/// What it tells.
pub(super) struct Told {
    pub(super) findings: watch::Sender<Findings>,
    pub(super) news: watch::Sender<News>,
    pub(super) outlook: Outlook,
}

/// The thread that probes.
pub(super) struct Task {
    asked: Asked,
    told: Told,
    order: Order,
    known: Known,
    prober: Prober,
    sockets: Sockets,
    pings: Pings,
    own_name: u64,
    account: Account,
    rows: Rows,
    buffer: Vec<u8>,
}

impl Task {
    pub(super) fn new(own: Party, asked: Asked, told: Told) -> Self {
        let (now, own_name) = (Instant::now(), secret::name(&own));
        Self {
            own_name,
            rows: Rows::new(own_name, told.outlook.clone(), now),
            known: Known::new(own),
            asked,
            told,
            order: Order::default(),
            prober: Prober::new(fastrand::u32(..), now),
            sockets: BTreeMap::new(),
            pings: Pings::new(),
            account: Account::new(now),
            buffer: vec![0; LONGEST],
        }
    }

    /// Probes until nobody asks for it any more.
    pub(super) async fn run(mut self) {
        // Before the first peers are known there is nothing to tell of them: what an earlier process measured holds.
        match self.asked.peers.recv().await {
            Some(peers) => self.meet(peers),
            None => return,
        }
        loop {
            let now = Instant::now();
            sockets::keep(&mut self.sockets, &self.order, now);
            for out in self.prober.requests(now) {
                self.request(&out, now);
            }
            self.tell(now);
            let due = self.due(now).max(now + TURN);
            let heard = tokio::select! {
                ordered = self.asked.orders.changed() => match ordered {
                    Ok(()) => {
                        self.obey();
                        None
                    }
                    Err(_) => return,
                },
                Some(peers) = self.asked.peers.recv() => {
                    self.meet(peers);
                    None
                }
                Ok(()) = self.asked.traffic.changed() => {
                    if let Some((used, looked)) = &*self.asked.traffic.borrow_and_update() {
                        self.prober.carry(used, *looked);
                    }
                    None
                }
                heard = heard(sockets::open(&self.sockets)) => Some(heard),
                (place, _) = heard(self.pings.sockets()) => {
                    let now = Instant::now();
                    self.pings.answers(place).into_iter().for_each(|addr| self.prober.echoed(addr, now));
                    None
                }
                () = tokio::time::sleep_until(due.into()) => None,
            };
            if let Some((place, failed)) = heard {
                self.receive(place);
                if failed {
                    self.refused(place);
                }
            }
        }
    }

    fn due(&self, now: Instant) -> Instant {
        let failed = self.sockets.values().filter_map(|socket| match socket {
            Socket::Failed { again, .. } => Some(*again),
            Socket::Open(..) => None,
        });
        let first = failed.chain(self.prober.due(now)).min();
        first.map_or(self.account.due(), |first| first.min(self.account.due()))
    }

    /// Takes an order.
    fn obey(&mut self) {
        self.order = self.asked.orders.borrow_and_update().clone();
        self.prober.settled(self.order.settled);
    }

    fn meet(&mut self, peers: Peers) {
        peers.into_iter().for_each(|(lease, peer)| self.follow(lease, peer));
    }

    /// Probes a peer from now on, in this way; `None`: no longer.
    fn follow(&mut self, lease: LeaseKey, peer: Option<Peer>) {
        let now = Instant::now();
        let mut lines = Lines::NONE;
        for family in Family::ALL {
            let course = peer.as_ref().and_then(|peer| peer.courses.get(family)).copied();
            lines.set(family, self.prober.follow(&(lease.clone(), family), course, now));
        }
        let gone = self.known.follow(&lease, peer.map(|peer| (peer.party, lines)));
        gone.into_iter().for_each(|name| self.rows.forget(name));
    }

    fn request(&mut self, out: &Outgoing, now: Instant) {
        let ip = out.to.ip();
        let place = (out.echo.way, Family::of(&ip));
        let Some(Socket::Open(own, _)) = self.sockets.get(&place) else {
            return self.prober.unsent(out, false, now);
        };
        let own = own.ip();
        let sent = self.send(out, out.to);
        if out.ping {
            self.pings.ask(place, own, ip);
        }
        if sent.is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
            self.prober.unsent(out, true, now);
        }
    }

    fn send(&mut self, out: &Outgoing, to: SocketAddr) -> io::Result<()> {
        let Some(key) = self.known.key(out.line) else { return Ok(()) };
        let place = (out.echo.way, Family::of(&to.ip()));
        let Some(Socket::Open(_, socket)) = self.sockets.get(&place) else { return Ok(()) };
        let length = out.size.saturating_sub(headers(to.is_ipv6()));
        let Ok(length) = u16::try_from(length) else {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        };
        let mut header = out.echo.encode(self.own_name, length);
        self.rows.write(out.echo.seq, &mut header);
        let mut probe = vec![0; usize::from(length).max(SHORTEST)];
        probe[..HEADER].copy_from_slice(&header);
        probe[HEADER..HEADER + TAG].copy_from_slice(&secret::tag(key, &header));
        match socket::send(socket, &probe, to) {
            // What an earlier packet met with; this one was not sent.
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                socket::send(socket, &probe, to)
            }
            sent => sent,
        }
    }

    /// Takes everything that came to a socket.
    fn receive(&mut self, place: (Way, Family)) {
        loop {
            let Some(Socket::Open(_, socket)) = self.sockets.get(&place) else { return };
            match socket.try_recv_from(&mut self.buffer) {
                Ok((length, from)) => self.hear(place, length, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.refused(place),
            }
        }
    }

    /// Takes what peers' kernels said of packets that were sent.
    fn refused(&mut self, place: (Way, Family)) {
        let Some(Socket::Open(_, socket)) = self.sockets.get(&place) else { return };
        let refused = socket::refusals(socket);
        refused.into_iter().for_each(|addr| self.prober.refused(addr, Instant::now()));
    }

    /// Takes one packet for what it is, if it is one of a peer's.
    fn hear(&mut self, (way, family): (Way, Family), length: usize, from: SocketAddr) {
        let probe = &self.buffer[..length];
        let Some((name, echo)) = Echo::decode(probe).filter(|(_, echo)| echo.way == way) else { return };
        let Some((key, lines)) = self.known.speaker(name) else { return };
        if !secret::is_tagged(key, probe) {
            return;
        }
        let line = lines.get(family).copied();
        let now = Instant::now();
        self.rows.hear(name, probe, now);
        let size = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(headers(family == Family::V6));
        if let Some(answer) = line.and_then(|line| self.prober.hear(line, &echo, size, now))
            && let Err(error) = self.send(&answer, from)
        {
            tracing::trace!(%from, %error, "a probe was not answered");
        }
    }

    /// Says what there is to act on at once, and the rest now and then.
    fn tell(&mut self, now: Instant) {
        self.rows.tell(self.known.names(), self.prober.pace(), now);
        let trouble = self.sockets.values().filter_map(|socket| socket.trouble(now)).next();
        let decided = self.prober.decide();
        if self.prober.turned() {
            self.account.turn(self.known.len(), now);
        }
        let due = decided || self.account.due() <= now;
        let limits: Option<BTreeMap<LineId, u32>> = (due || self.told.news.borrow().limits.is_none())
            .then(|| self.prober.limits().map(|(line, mtu)| (line.clone(), mtu)).collect());
        let verdicts = due && self.account_for(now);
        self.told.news.send_if_modified(|news| {
            // In most turns there is nothing to tell: the limits of many peers are not copied to find that out.
            let known = limits.is_none() || news.limits == limits;
            news.limits = limits.or(news.limits.take());
            let same = std::mem::replace(&mut news.trouble, trouble) == news.trouble;
            !known || !same || verdicts
        });
    }

    /// Tells what was found out. Returns whether a verdict is another one.
    fn account_for(&mut self, now: Instant) -> bool {
        let findings: BTreeMap<LineId, Finding> =
            self.prober.findings(now).map(|(line, finding)| (line.clone(), finding)).collect();
        let turned = self.account.tell(&findings, now);
        self.rows.found(&findings, self.known.names());
        // What is told anew is put together anew with all peers by whoever looks; nothing is not news.
        self.told.findings.send_if_modified(|told| {
            let news = !(told.is_empty() && findings.is_empty());
            if news {
                *told = Arc::new(findings);
            }
            news
        });
        turned
    }
}
