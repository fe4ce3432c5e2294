//! Why a frame was not carried.

/// Why a frame was not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// It ends before its headers do, or before they say.
    Truncated,
    /// Its VXLAN header has no VNI, or bits that must be zero.
    BadVxlan,
    /// It is of another VNI.
    OtherVni,
    /// It comes from an address that no live lease announces.
    NoLease,
    /// The packet inside has a source that is not in the subnet of the host that sent it.
    ForeignSource,
    /// The frame inside carries no IP packet, so that its source cannot be checked.
    NotIp,
    /// The IP header inside contradicts itself.
    BadInner,
    /// The frame from the TAP is not what its virtio header says.
    BadOffload,
    /// No peer has its destination address.
    NoPeer,
    /// It is for all hosts; nobody is flooded.
    Broadcast,
    /// It is for a group of hosts; nobody is flooded.
    Multicast,
    /// It asks for a neighbour that is no peer's tunnel.
    NoNeighbour,
    /// It is larger than the way to its peer carries, and its sender cannot be told.
    Oversize,
}

impl Dropped {
    /// All reasons, in the order of [`Dropped::index`].
    pub const ALL: [Self; 13] = [
        Self::Truncated,
        Self::BadVxlan,
        Self::OtherVni,
        Self::NoLease,
        Self::ForeignSource,
        Self::NotIp,
        Self::BadInner,
        Self::BadOffload,
        Self::NoPeer,
        Self::Broadcast,
        Self::Multicast,
        Self::NoNeighbour,
        Self::Oversize,
    ];

    /// The place of the reason in an array of counters, less than the length of [`Dropped::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason as the label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadVxlan => "bad_vxlan",
            Self::OtherVni => "other_vni",
            Self::NoLease => "no_lease",
            Self::ForeignSource => "foreign_source",
            Self::NotIp => "not_ip",
            Self::BadInner => "bad_inner",
            Self::BadOffload => "bad_offload",
            Self::NoPeer => "no_peer",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::NoNeighbour => "no_neighbour",
            Self::Oversize => "oversize",
        }
    }
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place_and_its_name() {
        let names: std::collections::BTreeSet<_> =
            Dropped::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Dropped::ALL.len());
        for (at, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }
}
