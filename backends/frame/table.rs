//! Which peer has which Ethernet address, and who may send from where: an immutable snapshot, made again when a lease
//! changes and swapped under the threads that use it.
//!
//! # Why a table of our own
//!
//! It is asked once or twice for each packet, from keys of 6 and 16 bytes, never changes, and is never iterated. Open
//! addressing over 8-byte slots that are at most half full answers with one cache line of slots and one of the peer:
//! with 10,000 peers the slots take 256 KiB, so they stay in the second-level cache. Keys come from leases, not from
//! packets, so nobody can choose colliding ones without being a peer; a seed would not change that.

use std::net::IpAddr;
use std::ptr;

use ipnet::IpNet;

use super::flow::mix;
use crate::mac::Mac;

/// A peer as the packet path sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address of its tunnel device; `None` if packets to it need no tunnel. Its own may come through one all the
    /// same: it may see the network otherwise.
    pub mac: Option<Mac>,
    /// Its public address: where datagrams for it go, and the only source from which its datagrams are taken.
    pub addr: IpAddr,
    /// Its subnet. The first address is that of its tunnel device. Inner sources are inside it, or its public address:
    /// what a process on the host has that was connected to an address of a service.
    pub subnet: IpNet,
    /// The largest inner IP packet on the way to it, in bytes.
    pub mtu: u32,
}

/// All peers of one tunnel device.
#[derive(Debug, Clone, Default)]
pub struct Table {
    peers: Vec<Peer>,
    /// For each peer what [`Table::permits`] compares.
    sources: Vec<Source>,
    by_mac: Index,
    by_addr: Index,
    /// Tunnel addresses in ascending order, with their peer.
    by_tunnel: Vec<(IpAddr, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    addr: u128,
    net: u128,
    mask: u128,
}

/// What the source of a datagram may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit<'t> {
    /// It is this peer.
    Peer(&'t Peer),
    /// There is such a peer, but the inner source is not its.
    Foreign,
    /// No live lease has this address.
    Unknown,
}

impl Table {
    /// A table of these peers. Of several with one Ethernet address the first counts; several may share an address.
    pub fn new(peers: impl IntoIterator<Item = Peer>) -> Self {
        let peers: Vec<Peer> = peers.into_iter().collect();
        let sources: Vec<Source> = peers.iter().map(Source::of).collect();
        let mut by_tunnel: Vec<_> =
            peers.iter().zip(0..).map(|(peer, at)| (peer.subnet.network(), at)).collect();
        by_tunnel.sort_unstable();
        Self {
            by_mac: Index::new(peers.iter().map(|peer| peer.mac.map_or(0, |mac| hash_mac(mac.0)))),
            by_addr: Index::new(sources.iter().map(|source| hash_addr(source.addr))),
            peers,
            sources,
            by_tunnel,
        }
    }

    /// The peer whose tunnel device has the Ethernet address `mac`.
    #[inline]
    #[must_use]
    pub fn at(&self, mac: [u8; 6]) -> Option<&Peer> {
        let mut candidates = self.by_mac.candidates(hash_mac(mac));
        candidates.find_map(|at| self.peers.get(at).filter(|peer| peer.mac == Some(Mac(mac))))
    }

    /// The place among [`Table::peers`] of one that this table gave out. Of a copy of it, or of another table's peer, it
    /// says nothing.
    #[inline]
    #[must_use]
    pub fn place(&self, peer: &Peer) -> usize {
        ptr::from_ref(peer).addr().wrapping_sub(self.peers.as_ptr().addr()) / size_of::<Peer>()
    }

    /// The peer whose public address this is, if it is nobody else's as well.
    #[must_use]
    pub fn alone_at(&self, public: IpAddr) -> Option<&Peer> {
        let addr = number(public);
        let is = |at: &usize| self.sources.get(*at).is_some_and(|source| source.addr == addr);
        let mut found = self.by_addr.candidates(hash_addr(addr)).filter(is);
        match (found.next(), found.next()) {
            (Some(at), None) => self.peers.get(at),
            _ => None,
        }
    }

    /// Whether a datagram from the public address `from` may carry a packet with the source `inner`; `None` asks
    /// for the public address alone.
    #[inline]
    #[must_use]
    pub fn permits(&self, from: IpAddr, inner: Option<u128>) -> Permit<'_> {
        let addr = number(from);
        let mut permit = Permit::Unknown;
        for at in self.by_addr.candidates(hash_addr(addr)) {
            let Some(source) = self.sources.get(at).filter(|source| source.addr == addr) else { continue };
            match self.peers.get(at) {
                Some(peer) if inner.is_none_or(|inner| source.has(inner)) => {
                    return Permit::Peer(peer);
                }
                _ => permit = Permit::Foreign,
            }
        }
        permit
    }

    /// The peer whose tunnel device has the IP address `ip`.
    #[must_use]
    pub fn tunnel(&self, ip: IpAddr) -> Option<&Peer> {
        let at = self.by_tunnel.binary_search_by(|(tunnel, _)| tunnel.cmp(&ip)).ok()?;
        self.by_tunnel.get(at).and_then(|(_, at)| self.peers.get(*at as usize))
    }

    /// All peers, in the order given.
    #[must_use]
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }
}

impl Source {
    #[inline]
    const fn has(&self, inner: u128) -> bool {
        inner & self.mask == self.net || inner == self.addr
    }

    fn of(peer: &Peer) -> Self {
        let host_bits = u32::from(peer.subnet.max_prefix_len() - peer.subnet.prefix_len());
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Self { addr: number(peer.addr), net: number(peer.subnet.addr()) & mask, mask }
    }
}

/// An address as a number. IPv4 addresses are those that IPv6 maps them to (RFC 4291, section 2.5.5.2): a socket for
/// both families reports them so.
#[inline]
#[must_use]
pub const fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => mapped(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An IPv4 address as [`number`] gives it.
#[inline]
pub(super) const fn mapped(v4: u32) -> u128 {
    0xffff_0000_0000 | v4 as u128
}

#[inline]
const fn hash_mac(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    mix(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
}

#[inline]
const fn hash_addr(addr: u128) -> u64 {
    mix(addr as u64 ^ 0x9e37_79b9_7f4a_7c15, (addr >> 64) as u64 ^ 0xd6e8_feb8_6659_fd93)
}

/// From hashes to positions in a list. A slot holds 32 bits of the hash and the position plus one; 0 is free.
#[derive(Debug, Clone)]
struct Index {
    slots: Box<[u64]>,
    /// The number of slots, a power of two, less one.
    mask: usize,
}

impl Index {
    fn new(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let size = (hashes.len() * 2 + 1).next_power_of_two();
        let (mut slots, mask) = (vec![0_u64; size].into_boxed_slice(), size - 1);
        for (hash, position) in hashes.zip(1_u64..) {
            let mut at = hash as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = hash & TAG | position;
        }
        Self { slots, mask }
    }

    /// The positions that may have this hash, in the order of the list.
    #[inline]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mut at = hash as usize & self.mask;
        std::iter::from_fn(move || {
            loop {
                let slot = *self.slots.get(at)?;
                at = (at + 1) & self.mask;
                if slot == 0 {
                    return None;
                }
                if (slot ^ hash) & TAG == 0 {
                    return Some((slot & !TAG) as usize - 1);
                }
            }
        })
    }
}

/// The bits of the hash in a slot; the others choose where it is looked for.
const TAG: u64 = 0xffff_ffff_0000_0000;

impl Default for Index {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

#[cfg(test)]
mod tests;
