//! The sets of the guard's table: what each is called, and which element is kept where. Pure.
//!
//! # Why several for inner sources
//! nft keeps pairs of an address and an interval in an array that is searched from its beginning to take one away:
//! among 10,000 hosts that took 35 ms of the processor, for each that left. Where all subnets have one length, the
//! pair of an address and a network is found in a hash as well, and that takes the same time however many there are.
//! Nearly all have: the length of the configuration, or that of the host's own address. Any other is an interval.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use twill_backends::guard::{Element, GuardNetwork, GuardRules};

/// What is different about a family.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kin {
    /// How nft calls it in front of a field.
    pub(super) protocol: &'static str,
    /// How nft calls it as a value.
    pub(super) nfproto: &'static str,
    /// The type of its addresses.
    pub(super) kind: &'static str,
    /// The chain that looks at inner sources.
    pub(super) inner: &'static str,
    pub(super) ethertype: u16,
    /// Where the inner source address is.
    pub(super) source: u32,
    /// The length of an address in bits.
    pub(super) bits: u8,
    from: &'static str,
    carries: &'static str,
}

static V4: Kin = Kin {
    protocol: "ip",
    nfproto: "ipv4",
    kind: "ipv4_addr",
    inner: "inner4",
    ethertype: 0x0800,
    source: 336,
    bits: 32,
    from: "from4",
    carries: "carries4",
};
static V6: Kin = Kin {
    protocol: "ip6",
    nfproto: "ipv6",
    kind: "ipv6_addr",
    inner: "inner6",
    ethertype: 0x86dd,
    source: 304,
    bits: 128,
    from: "from6",
    carries: "carries6",
};

/// A set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Who may send.
    From(&'static Kin),
    /// With which inner sources, as networks of one length.
    Carries(&'static Kin, u8),
    /// The same, as intervals.
    Intervals(&'static Kin),
}

impl Kin {
    pub(super) fn of(addr: &IpAddr) -> &'static Self {
        if addr.is_ipv4() { &V4 } else { &V6 }
    }

    /// Those that have a network, which is returned as well.
    pub(super) fn all(rules: &GuardRules) -> impl Iterator<Item = (&'static Self, &GuardNetwork)> {
        let network = |kin| rules.networks.iter().find(move |network| Self::of(&network.net.addr()) == kin);
        [&V4, &V6].into_iter().filter_map(move |kin| Some((kin, network(kin)?)))
    }

    /// The sets of inner sources, in the order in which a packet is looked up.
    pub(super) fn carries(&'static self, network: &GuardNetwork) -> Vec<Set> {
        let lens = BTreeSet::from([network.subnet_len, self.bits]);
        lens.into_iter().map(|len| Set::Carries(self, len)).chain([Set::Intervals(self)]).collect()
    }
}

impl Set {
    /// The sets of those who may send, whose elements count.
    pub(super) fn senders(rules: &GuardRules) -> Vec<Self> {
        Kin::all(rules).map(|(kin, _)| Self::From(kin)).collect()
    }

    /// Where an element is kept.
    pub(super) fn of(element: &Element, rules: &GuardRules) -> Self {
        let kin = Kin::of(&element.addr());
        let Element::Carries(_, net) = element else { return Self::From(kin) };
        let len = net.prefix_len();
        let usual = Kin::all(rules).any(|(other, network)| other == kin && network.subnet_len == len);
        if usual || len == kin.bits { Self::Carries(kin, len) } else { Self::Intervals(kin) }
    }

    /// The set of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [&V4, &V6].into_iter().find_map(|kin| match name.strip_prefix(kin.carries) {
            Some("") => Some(Self::Intervals(kin)),
            Some(len) => {
                let len = len.strip_prefix('-')?.parse().ok().filter(|len| *len <= kin.bits);
                len.map(|len| Self::Carries(kin, len))
            }
            None => (name == kin.from).then_some(Self::From(kin)),
        })
    }

    pub(super) const fn kin(self) -> &'static Kin {
        match self {
            Self::From(kin) | Self::Carries(kin, _) | Self::Intervals(kin) => kin,
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(kin) => f.write_str(kin.from),
            Self::Carries(kin, len) => write!(f, "{}-{len}", kin.carries),
            Self::Intervals(kin) => f.write_str(kin.carries),
        }
    }
}
