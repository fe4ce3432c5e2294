//! How a peer is reached, and how small a probe of it can be.

use std::net::IpAddr;

use super::echo::SHORTEST;

/// The way a probe takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Between the hosts' tunnel addresses, as pods' packets go.
    Overlay,
    /// Between the hosts' public addresses.
    Underlay,
}

/// How a peer is reached, in one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Its tunnel address; `None` where it has none.
    pub overlay: Option<IpAddr>,
    /// Its public address.
    pub underlay: IpAddr,
    /// The port at which its agent listens.
    pub port: u16,
    /// The largest packet in bytes that this host's devices take for its pods.
    pub mtu: u32,
    /// What the tunnel adds to it; 0 where there is none on the way.
    pub overhead: u32,
    /// The largest packet that arrived there when this was last measured.
    pub known: Option<u32>,
}

/// The bytes of IP and UDP headers.
#[must_use]
pub const fn headers(v6: bool) -> u32 {
    if v6 { 48 } else { 28 }
}

/// The smallest packet that carries a probe.
pub(super) fn smallest(v6: bool) -> u32 {
    headers(v6) + u32::try_from(SHORTEST).unwrap_or(u32::MAX)
}

impl Way {
    /// Both, the one that pods' packets take first.
    pub(super) const ALL: [Self; 2] = [Self::Overlay, Self::Underlay];

    /// The other way to the same peer.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Overlay => Self::Underlay,
            Self::Underlay => Self::Overlay,
        }
    }
}

impl Course {
    /// The MTU that every path is taken to have (RFC 791, RFC 8200).
    pub(super) fn floor(&self) -> u32 {
        if self.underlay.is_ipv6() { 1280 } else { 576 }
    }
}
