//! What a thread notes while it carries a batch.
//!
//! # Why it gathers first
//! Threads that count in one place cost each other more than a packet does. So each gathers what it carried of the last
//! few peers, and adds it up when its batch ends, or when another peer needs the room.

use std::net::IpAddr;

use twill_backends::frame::Dropped;
use twill_backends::frame::table::Peer;

use super::batch::Refused;
use super::counters::{Count, Tally, What};
use super::peers::{Amount, Peers};

/// Of how many peers a thread gathers at once: a power of two, as many as [`Gathered::open`] has bits.
const ROWS: usize = 16;
/// Outer IP and UDP headers.
const OUTER_V4: u64 = 20 + 8;
const OUTER_V6: u64 = 40 + 8;

/// What one thread carried of the last few peers, not yet added up.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    rows: [Row; ROWS],
    /// A bit for each row in use.
    open: u16,
    /// What was lost of one peer for one reason.
    lost: Option<(usize, What, u64)>,
    /// When frames last came to be sent.
    moment: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// The place of the peer.
    place: usize,
    sent: Amount,
    received: Amount,
}

/// Where a thread notes what it does in a turn.
#[derive(Debug)]
pub(super) struct Books<'t> {
    /// By whom frames go.
    pub(super) peers: &'t Peers,
    pub(super) tally: &'t mut Tally,
    pub(super) gathered: &'t mut Gathered,
}

impl Books<'_> {
    /// Something happened.
    #[inline]
    pub(super) const fn add(&mut self, what: Count, count: u64) {
        self.tally.add(what, count);
    }

    /// A frame is not carried that concerns nobody.
    #[inline]
    pub(super) const fn drop(&mut self, reason: Dropped) {
        self.tally.drop(reason);
    }

    /// A frame to or from the peer at a place is not carried.
    pub(super) fn drop_of(&mut self, place: usize, reason: Dropped) {
        self.drop(reason);
        self.lose(place, reason, 1);
    }

    /// A datagram from a public address is not let in: a peer's, if the address is one's alone.
    pub(super) fn drop_from(&mut self, from: IpAddr, reason: Dropped) {
        let table = self.peers.table();
        match table.alone_at(from) {
            Some(peer) => self.drop_of(table.place(peer), reason),
            None => self.drop(reason),
        }
    }

    /// The sender of a frame to the peer at a place was told that it is too large.
    pub(super) fn tell(&mut self, place: usize) {
        self.add(Count::Told, 1);
        self.lose(place, Count::Told, 1);
    }

    /// Something is lost of the peer at a place.
    pub(super) fn lose(&mut self, place: usize, what: impl Into<What>, count: u64) {
        let (what, lost) = (what.into(), &mut self.gathered.lost);
        match lost {
            Some((at, why, sum)) if (*at, *why) == (place, what) => *sum += count,
            _ => {
                if let Some((place, what, count)) = lost.replace((place, what, count)) {
                    self.peers.lose(place, what, count);
                }
            }
        }
    }

    /// What the underlay did not take for the peer at a place.
    pub(super) fn refused(&mut self, place: usize, refused: Refused) {
        for (what, count) in refused.counts() {
            if count > 0 {
                self.lose(place, what, count);
            }
        }
    }

    /// Frames come to be sent.
    pub(super) const fn begin(&mut self, moment: u32) {
        self.gathered.moment = moment;
    }

    /// The underlay took so many datagrams for the peer at a place, of so many bytes from their VXLAN headers on.
    #[inline]
    pub(super) fn sent(&mut self, place: usize, to: IpAddr, Amount { packets, bytes }: Amount) {
        self.row(place).sent += Amount::of(packets, bytes + packets * outer(to));
    }

    /// A datagram of a peer was let in.
    #[inline]
    pub(super) fn received(&mut self, peer: &Peer, bytes: usize) {
        self.add(Count::Received, 1);
        self.row(self.peers.table().place(peer)).received += Amount::of(1, bytes as u64 + outer(peer.addr));
    }

    #[inline]
    fn row(&mut self, place: usize) -> &mut Row {
        let Gathered { rows, open, moment, .. } = &mut *self.gathered;
        let at = place % ROWS;
        let row = &mut rows[at];
        if *open & 1 << at == 0 || row.place != place {
            if *open & 1 << at != 0 {
                self.peers.add(row.place, row.sent, row.received, *moment);
            }
            *open |= 1 << at;
            *row = Row { place, ..Row::default() };
        }
        row
    }

    /// Adds up what was gathered: the next turn may go by other peers.
    pub(super) fn close(&mut self) {
        let Gathered { rows, open, lost, moment } = &mut *self.gathered;
        while *open != 0 {
            let row = &rows[open.trailing_zeros() as usize];
            self.peers.add(row.place, row.sent, row.received, *moment);
            *open &= *open - 1;
        }
        if let Some((place, what, count)) = lost.take() {
            self.peers.lose(place, what, count);
        }
    }
}

#[inline]
const fn outer(public: IpAddr) -> u64 {
    if public.is_ipv4() { OUTER_V4 } else { OUTER_V6 }
}

#[cfg(test)]
mod tests {
    use twill_backends::frame::table::Table;

    use super::super::peers::Traffic;
    use super::super::peers::tests::peer;
    use super::*;

    /// More peers than there are rows, in an order in which each turns another out.
    #[test]
    fn however_many_peers_take_turns_each_gets_its_own() {
        let peers = Peers::after(&Peers::default(), Table::new((0..50).map(peer)), 1450);
        let (mut tally, mut gathered) = (Tally::new(), Gathered::default());
        let mut books = Books { peers: &peers, tally: &mut tally, gathered: &mut gathered };
        books.begin(5);
        for round in 0..3_usize {
            for n in 0..50_usize {
                let place = (n * 17 + round) % 50;
                books.sent(place, [192, 0, 2, 1].into(), Amount::of(2, 100));
                books.received(&peers.table().peers()[place], place);
                books.lose(place, Count::Told, 1);
            }
        }
        books.drop_from([192, 0, 2, 7].into(), Dropped::ForeignSource);
        books.drop_from([192, 0, 2, 77].into(), Dropped::NoLease);
        books.refused(7, Refused { too_big: 1, full: 0, other: 2 });
        books.close();
        books.close();
        for (place, (peer, traffic)) in peers.traffic().enumerate() {
            let Traffic { sent, received, dropped } = traffic;
            assert_eq!((sent.packets, sent.bytes), (6, 3 * (100 + 56)), "{peer:?}");
            assert_eq!((received.packets, received.bytes), (3, 3 * (place as u64 + 28)), "{peer:?}");
            let mut want = vec![("told_too_big", 3)];
            if place == 7 {
                want.extend([("foreign_source", 1), ("underlay_refused", 2), ("underlay_too_big", 1)]);
            }
            want.sort_unstable();
            assert!(dropped.iter().map(|(reason, count)| (reason.as_str(), *count)).eq(want), "{dropped:?}");
        }
        assert_eq!(peers.used().count(), 50);
    }

    /// IPv6 headers are longer, and of hosts behind one address nobody knows whose frame it was that was dropped.
    #[test]
    fn what_is_noted_depends_on_the_address() {
        let v6 = Peer { addr: "2001:db8::2".parse().unwrap(), ..peer(0) };
        let same = [1, 2].map(|n| Peer { addr: [192, 0, 2, 9].into(), ..peer(n) });
        let peers = Peers::after(&Peers::default(), Table::new([v6].into_iter().chain(same)), 1450);
        let (mut tally, mut gathered) = (Tally::new(), Gathered::default());
        let mut books = Books { peers: &peers, tally: &mut tally, gathered: &mut gathered };
        books.sent(0, v6.addr, Amount::of(2, 200));
        for peer in peers.table().peers() {
            books.received(peer, 100);
            books.drop_from(peer.addr, Dropped::NotIp);
        }
        books.close();
        let traffic: Vec<Traffic> = peers.traffic().map(|(_, traffic)| traffic).collect();
        assert_eq!(traffic[0].sent, Amount::of(2, 200 + 2 * 48));
        assert_eq!([0, 1, 2].map(|at: usize| traffic[at].received.bytes), [148, 128, 128]);
        assert_eq!([0, 1, 2].map(|at: usize| traffic[at].dropped.len()), [1, 0, 0]);
    }
}
