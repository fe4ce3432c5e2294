//! Writing a frame from front to back.

use crate::frame::bytes::put16;
use crate::frame::checksum::{Sum, pseudo};
use crate::frame::parse::ICMPV6;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// Of errors that a router sends.
const TTL: u8 = 64;

/// A frame under construction.
#[derive(Debug)]
pub(super) struct Frame<'o> {
    out: &'o mut [u8],
    len: usize,
    /// Whether something did not fit.
    full: bool,
}

impl<'o> Frame<'o> {
    pub(super) const fn new(out: &'o mut [u8]) -> Self {
        Self { out, len: 0, full: false }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The length, if there was room for all.
    pub(super) const fn finish(&self) -> Option<usize> {
        if self.full { None } else { Some(self.len) }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.full = true,
        }
    }

    /// An Ethernet header with the tags and the type of `frame`, whose IP header is at `l3`.
    pub(super) fn ethernet(&mut self, to: [u8; 6], from: [u8; 6], frame: &[u8], l3: usize) {
        self.push(&to);
        self.push(&from);
        self.push(frame.get(12..l3).unwrap_or_default());
    }

    /// An IPv4 header with its checksum, for `len` bytes of ICMP.
    pub(super) fn ipv4(&mut self, from: [u8; 4], to: [u8; 4], len: usize) {
        let at = self.len;
        let total = ((IPV4_LEN + len) as u16).to_be_bytes();
        // Precedence "internetwork control", as RFC 1812, section 4.3.2.5, asks for.
        self.push(&[0x45, 0xc0, total[0], total[1], 0, 0, 0, 0, TTL, 1, 0, 0]);
        self.push(&from);
        self.push(&to);
        let sum = Sum::ZERO.bytes(self.out.get(at..self.len).unwrap_or_default()).checksum();
        put16(self.out, at + 10, sum);
    }

    /// An IPv6 header with a hop limit of 255, for `len` bytes of ICMPv6.
    pub(super) fn ipv6(&mut self, from: [u8; 16], to: [u8; 16], len: usize) {
        let len = (len as u16).to_be_bytes();
        self.push(&[0x60, 0, 0, 0, len[0], len[1], ICMPV6, 255]);
        self.push(&from);
        self.push(&to);
    }

    /// Fills in the checksum of the ICMP message that begins at `at`.
    pub(super) fn icmp_checksum(&mut self, at: usize) {
        self.checksum(at, Sum::ZERO);
    }

    /// The same for ICMPv6, right behind its IPv6 header.
    pub(super) fn icmpv6_checksum(&mut self, at: usize) {
        let pseudo = pseudo(self.out, at.saturating_sub(IPV6_LEN), true, ICMPV6).unwrap_or(Sum::ZERO);
        self.checksum(at, pseudo.word((self.len - at) as u16));
    }

    fn checksum(&mut self, at: usize, sum: Sum) {
        let sum = sum.bytes(self.out.get(at..self.len).unwrap_or_default()).checksum();
        put16(self.out, at + 2, sum);
    }
}
