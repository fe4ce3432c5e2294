//! What the firewall of this host must do for the fabric: a value, rendered into nftables or iptables by the shell.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What the firewall of this host must do for the fabric. The default wants nothing: whatever is ours goes.
///
/// With `nets` given and nothing wanted for them, only the rules of those networks go from chains that several
/// fabrics share; without `nets` everything in such chains counts as ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Filter {
    /// One entry per address family, IPv4 first.
    pub nets: Vec<FilterNet>,
    /// Give pod traffic that leaves the fabric this host's address; `None` leaves sources alone.
    pub masquerade: Option<Masquerade>,
    /// Accept forwarded traffic from and to the fabric.
    pub forward: bool,
}

/// The fabric in one address family, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterNet {
    /// The network every host's subnet is taken from.
    pub network: IpNet,
    /// The subnet leased by this host.
    pub subnet: IpNet,
}

/// How sources are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masquerade {
    /// Choose source ports at random where the kernel and its tools can.
    pub random_fully: bool,
}

impl Filter {
    /// Whether there is any rule to have.
    pub fn wants_rules(&self) -> bool {
        !self.nets.is_empty() && (self.masquerade.is_some() || self.forward)
    }

    /// The networks of one address family.
    pub fn family(&self, v6: bool) -> impl Iterator<Item = &FilterNet> {
        self.nets.iter().filter(move |net| net.network.addr().is_ipv6() == v6)
    }
}

/// All multicast addresses of the family of `net`: never masqueraded.
pub fn multicast(net: &IpNet) -> IpNet {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match net {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(network: &str, subnet: &str) -> FilterNet {
        FilterNet { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }
    }

    #[test]
    fn rules_need_a_network_and_a_purpose() {
        let nets = vec![net("10.5.0.0/16", "10.5.1.0/24")];
        assert!(!Filter::default().wants_rules());
        assert!(!Filter { nets: nets.clone(), ..Filter::default() }.wants_rules());
        assert!(!Filter { forward: true, ..Filter::default() }.wants_rules());
        assert!(Filter { nets: nets.clone(), forward: true, masquerade: None }.wants_rules());
        assert!(
            Filter { nets, forward: false, masquerade: Some(Masquerade { random_fully: true }) }
                .wants_rules()
        );
    }

    #[test]
    fn families_are_told_apart() {
        let nets = vec![net("10.5.0.0/16", "10.5.1.0/24"), net("fc00::/48", "fc00:0:0:1::/64")];
        let want = Filter { nets: nets.clone(), ..Filter::default() };
        assert_eq!(want.family(false).collect::<Vec<_>>(), [&nets[0]]);
        assert_eq!(want.family(true).collect::<Vec<_>>(), [&nets[1]]);
        assert_eq!(multicast(&nets[0].network).to_string(), "224.0.0.0/4");
        assert_eq!(multicast(&nets[1].network).to_string(), "ff00::/8");
    }
}
