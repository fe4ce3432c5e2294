//! What a host's network stack looks like, ours or not: the input of interface selection and of the preflight.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::family::Family;
use twill_backends::mac::Mac;
use twill_backends::state::{LinkName, Route, RouteKey, RouteKind, Vxlan};

/// `RTPROT_KERNEL`: the kernel made it, as it does for an address's network.
pub const BY_KERNEL: u8 = 2;
/// `RTPROT_BOOT`: what `ip route` and flanneld leave.
pub const BY_BOOT: u8 = 3;
/// `RTPROT_RA`: from a router advertisement.
pub const BY_RA: u8 = 9;

/// A host's links, addresses and main routing table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// Links in the order of their indices.
    pub links: Vec<LinkFact>,
    /// Addresses in the kernel's order.
    pub addrs: Vec<AddrFact>,
    /// Routes of the main table in the kernel's order.
    pub routes: Vec<RouteFact>,
    /// How the address that was asked about is reached, where it can be.
    pub reach: Option<Reach>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFact {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: LinkName,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its `IFLA_IFALIAS`, empty if it has none.
    pub alias: String,
    /// Whether it is up and has a carrier.
    pub running: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// What it is told, if it is a VXLAN device.
    pub vxlan: Option<Vxlan>,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddrFact {
    /// The link's index.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// `IFA_F_PERMANENT`: it does not expire.
    pub permanent: bool,
    /// `IFA_F_TEMPORARY` (IPv6): a privacy address.
    pub temporary: bool,
    /// `IFA_F_DEPRECATED`, or `IFA_F_DADFAILED`: not to be used for anything begun from here on.
    pub deprecated: bool,
    /// `IFA_F_TENTATIVE`: duplicate address detection has not finished.
    pub tentative: bool,
}

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The index of the link it is reached through.
    pub index: u32,
    /// The gateway, if there is one.
    pub via: Option<IpAddr>,
    /// The source address the kernel prefers.
    pub source: Option<IpAddr>,
    /// The largest packet in bytes, where the kernel knows of less than the link carries.
    pub mtu: Option<u32>,
}

/// A route, with everything that tells whose it is. It displays as `ip route` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFact {
    /// The destination.
    pub dst: IpNet,
    /// The metric: 0 for an IPv4 route without one.
    pub metric: u32,
    /// `rtm_type`.
    pub kind: u8,
    /// `rtm_scope`.
    pub scope: u8,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The device.
    pub dev: Option<LinkName>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// `RTNH_F_ONLINK`.
    pub onlink: bool,
    /// `RTAX_MTU` in bytes.
    pub mtu: Option<u32>,
    /// Whether it has several next hops, which are not kept.
    pub multipath: bool,
}

impl HostFacts {
    /// The link of this name.
    #[must_use]
    pub fn link(&self, name: LinkName) -> Option<&LinkFact> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The addresses of the link of this index.
    pub fn addrs_of(&self, index: u32) -> impl Iterator<Item = &AddrFact> {
        self.addrs.iter().filter(move |addr| addr.index == index)
    }
}

impl RouteFact {
    /// `RTN_UNICAST`.
    pub const UNICAST: u8 = 1;
    /// `RTN_BLACKHOLE`.
    pub const BLACKHOLE: u8 = 6;

    /// The route as one of ours would be written down, if it does what ours can do.
    #[must_use]
    pub fn entry(&self) -> Option<(RouteKey, Route)> {
        let kind = match self.kind {
            Self::UNICAST => RouteKind::Unicast,
            Self::BLACKHOLE => RouteKind::Blackhole,
            _ => return None,
        };
        let route = Route {
            kind,
            via: self.via,
            // IPv6 shows the loopback device where there is none.
            dev: self.dev.filter(|_| kind == RouteKind::Unicast),
            onlink: self.onlink,
            mtu: self.mtu,
            protocol: self.protocol,
        };
        Some((RouteKey { dst: self.dst, metric: self.metric }, route))
    }
}

impl fmt::Display for RouteFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kind_name(self.kind))?;
        let host = self.dst.prefix_len() == Family::of_net(&self.dst).bits();
        match self.dst.prefix_len() {
            0 => f.write_str("default")?,
            _ if host => write!(f, "{}", self.dst.addr())?,
            _ => write!(f, "{}", self.dst)?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = self.dev {
            write!(f, " dev {dev}")?;
        }
        match self.protocol {
            BY_BOOT => {}
            BY_KERNEL => f.write_str(" proto kernel")?,
            4 => f.write_str(" proto static")?,
            BY_RA => f.write_str(" proto ra")?,
            16 => f.write_str(" proto dhcp")?,
            other => write!(f, " proto {other}")?,
        }
        match self.scope {
            0 => {}
            253 => f.write_str(" scope link")?,
            254 => f.write_str(" scope host")?,
            other => write!(f, " scope {other}")?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        f.write_str(if self.onlink { " onlink" } else { "" })?;
        f.write_str(if self.multipath { " nexthop ..." } else { "" })
    }
}

const fn kind_name(kind: u8) -> &'static str {
    match kind {
        2 => "local ",
        3 => "broadcast ",
        4 => "anycast ",
        5 => "multicast ",
        6 => "blackhole ",
        7 => "unreachable ",
        8 => "prohibit ",
        9 => "throw ",
        _ => "",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A link without an Ethernet address.
    pub(crate) fn link(index: u32, name: &str) -> LinkFact {
        LinkFact {
            index,
            name: name.try_into().unwrap(),
            mac: None,
            mtu: 1500,
            alias: String::new(),
            running: true,
            up: true,
            vxlan: None,
        }
    }

    /// An address that is there to stay.
    pub(crate) fn addr(index: u32, net: &str) -> AddrFact {
        AddrFact {
            index,
            net: net.parse().unwrap(),
            permanent: true,
            temporary: false,
            deprecated: false,
            tentative: false,
        }
    }

    /// A unicast route of protocol boot through eth0.
    pub(crate) fn route(dst: &str) -> RouteFact {
        RouteFact {
            dst: dst.parse().unwrap(),
            metric: 0,
            kind: RouteFact::UNICAST,
            scope: 0,
            protocol: BY_BOOT,
            via: None,
            dev: Some("eth0".try_into().unwrap()),
            source: None,
            onlink: false,
            mtu: None,
            multipath: false,
        }
    }

    #[test]
    fn routes_print_as_ip_route_does() {
        let via = RouteFact { via: "192.168.77.9".parse().ok(), onlink: true, ..route("10.5.2.0/24") };
        assert_eq!(via.to_string(), "10.5.2.0/24 via 192.168.77.9 dev eth0 onlink");
        let connected = RouteFact {
            scope: 253,
            protocol: BY_KERNEL,
            source: "10.5.2.1".parse().ok(),
            ..route("10.5.2.0/24")
        };
        assert_eq!(connected.to_string(), "10.5.2.0/24 dev eth0 proto kernel scope link src 10.5.2.1");
        let dropped = RouteFact { kind: 6, dev: None, metric: 1024, ..route("fd00:5::/64") };
        assert_eq!(dropped.to_string(), "blackhole fd00:5::/64 metric 1024");
        assert_eq!(RouteFact { protocol: 70, ..route("0.0.0.0/0") }.to_string(), "default dev eth0 proto 70");
        assert_eq!(
            RouteFact { protocol: 4, ..route("10.5.2.7/32") }.to_string(),
            "10.5.2.7 dev eth0 proto static"
        );
    }

    #[test]
    fn a_blackhole_has_no_device() {
        let v6 = RouteFact { kind: 6, dev: "lo".try_into().ok(), ..route("fd00:5::/64") };
        assert_eq!(v6.entry().unwrap().1.dev, None);
        assert_eq!(RouteFact { kind: 7, ..route("10.5.2.0/24") }.entry(), None);
    }
}
