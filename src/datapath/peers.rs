//! The peers of a tunnel device, and what was carried to and from each.
//!
//! The table is made again whenever a lease comes or goes. A peer that stays keeps the place where it is counted, which
//! the old table and the one after it share: threads that still go by the old one lose nothing.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, SubAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipnet::IpNet;
use twill_backends::frame::table::{Peer, Table};

use super::counters::{Counters, What};

/// The peers of a tunnel device, and what was carried to and from each.
#[derive(Debug, Default)]
pub struct Peers {
    table: Table,
    /// In the order of the table's peers.
    carried: Vec<Arc<Carried>>,
    /// The largest packet that this host's pods take.
    pods: u32,
}

/// What was carried to and from one peer, added up by all threads.
#[derive(Debug, Default)]
struct Carried {
    /// The moment when a frame last went to it, 0 if none did.
    used: AtomicU32,
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
    lost: Counters,
}

/// What was carried to and from a peer since it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What the underlay took for it.
    pub sent: Amount,
    /// What came from it and was let in.
    pub received: Amount,
    /// Frames to or from it that were not carried, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// How much was carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets of the underlay.
    pub packets: u64,
    /// Their bytes, from the outer IP header on.
    pub bytes: u64,
}

impl Peers {
    /// Those of a table, which comes after another one, and what this host's pods take. Who has the same device and subnet is the same peer: it may get
    /// another public address, and the way to it another MTU.
    #[must_use]
    pub fn after(before: &Self, table: Table, pods: u32) -> Self {
        let had = |peer: &Peer| before.of(&peer.subnet).filter(|(old, _)| old.mac == peer.mac);
        let carried = table.peers().iter().map(had).map(|had| had.map(|(_, carried)| Arc::clone(carried)));
        Self { carried: carried.map(Option::unwrap_or_default).collect(), table, pods }
    }

    /// Where frames go, and who may send.
    #[inline]
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The largest packet that this host's pods take.
    pub(super) const fn pods(&self) -> u32 {
        self.pods
    }

    /// What was carried to and from each peer to which packets go through the tunnel.
    pub fn traffic(&self) -> impl Iterator<Item = (&Peer, Traffic)> {
        let each = self.each().filter(|(peer, _)| peer.mac.is_some());
        each.map(|(peer, carried)| (peer, carried.read()))
    }

    /// The same of the peer of a subnet, if there is one.
    #[must_use]
    pub fn traffic_of(&self, subnet: &IpNet) -> Option<Traffic> {
        self.of(subnet).filter(|(peer, _)| peer.mac.is_some()).map(|(_, carried)| carried.read())
    }

    /// The moment when a frame last went to each peer that any went to.
    pub(super) fn used(&self) -> impl Iterator<Item = (&Peer, u32)> {
        let moments = self.each().map(|(peer, carried)| (peer, carried.used.load(Ordering::Relaxed)));
        moments.filter(|(_, moment)| *moment != 0)
    }

    fn of(&self, subnet: &IpNet) -> Option<(&Peer, &Arc<Carried>)> {
        let peer = self.table.tunnel(subnet.network()).filter(|peer| peer.subnet == *subnet)?;
        Some((peer, self.carried.get(self.table.place(peer))?))
    }

    fn each(&self) -> impl Iterator<Item = (&Peer, &Arc<Carried>)> {
        self.table.peers().iter().zip(&self.carried)
    }

    /// Adds up what was carried to and from the peer at a place, the last of it to the peer at `moment`.
    pub(super) fn add(&self, place: usize, sent: Amount, received: Amount, moment: u32) {
        let Some(carried) = self.carried.get(place) else { return };
        if sent.packets > 0 {
            carried.used.store(moment, Ordering::Relaxed);
        }
        sent.add_to(&carried.sent);
        received.add_to(&carried.received);
    }

    /// Adds up what was not carried to or from it.
    pub(super) fn lose(&self, place: usize, what: What, count: u64) {
        if let Some(carried) = self.carried.get(place) {
            carried.lost.add(what, count);
        }
    }
}

impl Carried {
    fn read(&self) -> Traffic {
        Traffic {
            sent: Amount::read(&self.sent),
            received: Amount::read(&self.received),
            dropped: self.lost.found(),
        }
    }
}

impl Amount {
    pub(super) const fn of(packets: u64, bytes: u64) -> Self {
        Self { packets, bytes }
    }

    fn read([packets, bytes]: &[AtomicU64; 2]) -> Self {
        Self { packets: packets.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    fn add_to(self, [packets, bytes]: &[AtomicU64; 2]) {
        if self.packets > 0 {
            packets.fetch_add(self.packets, Ordering::Relaxed);
            bytes.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, less: Self) {
        self.packets = self.packets.saturating_sub(less.packets);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(mut self, more: Self) -> Self {
        self.sent += more.sent;
        self.received += more.received;
        for (reason, count) in more.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self
    }
}

impl AddAssign for Amount {
    #[inline]
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

#[cfg(test)]
impl Peers {
    /// As if a packet went to the peer at a place.
    pub(crate) fn count_one(&self, place: usize, bytes: u64) {
        self.add(place, Amount::of(1, bytes), Amount::default(), 1);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use twill_backends::frame::Dropped;
    use twill_backends::mac::Mac;

    use super::*;

    pub(in crate::datapath) fn peer(n: u8) -> Peer {
        let subnet = format!("10.5.{n}.0/24").parse().unwrap();
        Peer { mac: Some(Mac([2, 0, 0, 0, 0, n])), addr: [192, 0, 2, n].into(), subnet, mtu: 1450 }
    }

    fn mac(n: u8) -> Mac {
        peer(n).mac.unwrap()
    }

    fn carried(peers: &Peers) -> Vec<(Mac, u64)> {
        peers.traffic().map(|(peer, traffic)| (peer.mac.unwrap(), traffic.sent.bytes)).collect()
    }

    #[test]
    fn whoever_comes_or_goes_those_who_stay_keep_their_counts() {
        let first = Peers::after(&Peers::default(), Table::new([2, 3, 4].map(peer)), 1450);
        for place in 0..3 {
            first.add(place, Amount::of(1, 100 + place as u64), Amount::default(), 7);
            first.lose(place, Dropped::Oversize.into(), 1);
        }
        // 3 went, 1 came; 2 got another public address and 4 a way of another MTU.
        let moved = Peer { addr: [192, 0, 2, 99].into(), ..peer(2) };
        let narrow = Peer { mtu: 1200, ..peer(4) };
        let second = Peers::after(&first, Table::new([narrow, peer(1), moved]), 1450);
        assert_eq!(carried(&second), [4, 1, 2].map(mac).into_iter().zip([102, 0, 100]).collect::<Vec<_>>());
        assert_eq!(
            second.used().map(|(peer, at)| (peer.mac.unwrap(), at)).collect::<Vec<_>>(),
            [(mac(4), 7), (mac(2), 7)]
        );
        // A thread that has not seen the second one yet counts for both.
        first.add(0, Amount::of(1, 1), Amount::default(), 8);
        assert_eq!(carried(&second)[2], (mac(2), 101));
        let (_, traffic) = second.traffic().next().unwrap();
        assert_eq!(traffic.dropped, BTreeMap::from([("oversize".to_owned(), 1)]));
        // Who comes back is another one, and so is another host in the subnet of one that went.
        let other = Peer { mac: Some(Mac([2, 9, 9, 9, 9, 9])), ..peer(4) };
        let third = Peers::after(&second, Table::new([peer(3), other]), 1450);
        assert_eq!(carried(&third), [(mac(3), 0), (other.mac.unwrap(), 0)]);
    }
}
