//! The range of subnets of one address family: what makes it valid, and arithmetic on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::Pool;
use crate::family::Family;

/// What the configuration says of one family, before any default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) family: Family,
    pub(super) network: Option<IpNet>,
    /// 0 means unset, as in Go.
    pub(super) len: u64,
    pub(super) min: Option<IpAddr>,
    pub(super) max: Option<IpAddr>,
}

/// Addresses of IPv4 in the clothes of IPv6: on the wire they would be neither.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

impl Wish {
    /// Checks in the order in which flannel checks, then what it does not: that the minimum is not above the
    /// maximum (there it shows as "out of subnets"), and that no IPv6 network is IPv4 in disguise.
    pub(super) fn pool(self) -> Result<Pool, String> {
        let key = |name| self.key(name);
        let network = self.network.filter(|net| net.prefix_len() > 0 || !net.network().is_unspecified());
        let network = network.ok_or_else(|| format!("{} is missing", key("Network")))?;
        if matches!(network, IpNet::V6(v6) if overlap(&IpNet::V6(v6), &IpNet::V6(MAPPED))) {
            return Err(format!("{} {network} holds IPv4 addresses in IPv6 notation", key("Network")));
        }
        let subnet_len = self.subnet_len(&network)?;
        let first = number(network.network());
        let size = 1_u128 << (self.family.bits() - subnet_len);
        // The base of the network doubles as its address, so its first subnet is left out unless asked for.
        let min = self.bound("SubnetMin", self.min, first + size, &network)?;
        let last = number(network.broadcast()) & !(size - 1);
        let max = self.bound("SubnetMax", self.max, last, &network)?;
        for (name, addr) in [("SubnetMin", min), ("SubnetMax", max)] {
            if number(addr) & (size - 1) != 0 {
                return Err(format!("{} {addr} is not the first address of a /{subnet_len}", key(name)));
            }
        }
        if min > max {
            return Err(format!("{} {min} is above {} {max}", key("SubnetMin"), key("SubnetMax")));
        }
        Ok(Pool { network, subnet_len, min, max })
    }

    fn subnet_len(&self, network: &IpNet) -> Result<u8, String> {
        let (key, net_key) = (self.key("SubnetLen"), self.key("Network"));
        // Each host needs at least four addresses, and the network at least four subnets.
        let longest = self.family.bits() - 2;
        let prefix = network.prefix_len();
        if self.len == 0 {
            let usual = self.family.bits() - if self.family == Family::V4 { 8 } else { 64 };
            return match prefix {
                _ if prefix + 2 <= usual => Ok(usual),
                _ if prefix + 2 <= longest => Ok(prefix + 2),
                _ => Err(format!("{net_key} {network} is too small: /{} at most", longest - 2)),
            };
        }
        let len = u8::try_from(self.len).ok().filter(|len| *len <= longest);
        let len = len.ok_or_else(|| format!("{key} is {}; at most {longest} is possible", self.len))?;
        if len < prefix.saturating_add(2) {
            return Err(format!("{key} is {len}, so that {net_key} {network} does not hold four subnets"));
        }
        Ok(len)
    }

    /// A bound of the range: as wished, if it lies in the network.
    fn bound(&self, key: &str, wish: Option<IpAddr>, default: u128, net: &IpNet) -> Result<IpAddr, String> {
        match wish.filter(|addr| !addr.is_unspecified()) {
            Some(addr) if net.contains(&addr) => Ok(addr),
            Some(addr) => Err(format!("{} {addr} is outside {} {net}", self.key(key), self.key("Network"))),
            None => Ok(address(self.family, default)),
        }
    }

    /// The key as the configuration spells it: `IPv6` goes before the key of IPv4.
    fn key(&self, name: &str) -> String {
        format!("{}{name}", if self.family == Family::V6 { "IPv6" } else { "" })
    }
}

impl Pool {
    /// The address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of_net(&self.network)
    }

    /// How many subnets there are between the bounds.
    #[must_use]
    pub fn size(&self) -> u128 {
        number(self.max).checked_sub(number(self.min)).map_or(0, |span| (span >> self.shift()) + 1)
    }

    /// The subnet at `index`, counted from the lower bound. `None` from [`Pool::size`] on.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpNet> {
        let index = Some(index).filter(|index| *index < self.size())?;
        let base = number(self.min).checked_add(index << self.shift())?;
        IpNet::new(address(self.family(), base), self.subnet_len).ok()
    }

    /// Whether `subnet` is one that could be taken from here.
    #[must_use]
    pub fn holds(&self, subnet: &IpNet) -> bool {
        Family::of_net(subnet) == self.family()
            && subnet.prefix_len() == self.subnet_len
            && (self.min..=self.max).contains(&subnet.network())
    }

    /// The indices of the first and the last subnet that `net` overlaps, if there is any.
    #[must_use]
    pub fn overlapped(&self, net: &IpNet) -> Option<(u128, u128)> {
        if Family::of_net(net) != self.family() {
            return None;
        }
        let (min, size) = (number(self.min), self.size());
        let to = number(net.broadcast()).checked_sub(min)? >> self.shift();
        let from = number(net.network()).saturating_sub(min) >> self.shift();
        (from < size).then(|| (from, to.min(size - 1)))
    }

    /// By how many bits the number of an address is shifted to leave that of its subnet.
    fn shift(&self) -> u32 {
        u32::from(self.family().bits().saturating_sub(self.subnet_len)).min(127)
    }
}

/// Whether two networks share an address.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::pool;

    #[test]
    fn subnets_are_counted_and_numbered() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let v4 = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0");
        assert_eq!(v4.size(), 255);
        assert_eq!(v4.nth(0), Some(net("10.5.1.0/24")));
        assert_eq!(v4.nth(254), Some(net("10.5.255.0/24")));
        assert_eq!(v4.nth(255), None);
        let top = pool("255.255.0.0/16", 30, "255.255.0.4", "255.255.255.252");
        assert_eq!(top.nth(top.size() - 1), Some(net("255.255.255.252/30")));
        let wide = pool("fd00::/8", 126, "fd00::4", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc");
        assert_eq!(wide.size(), (1 << 118) - 1);
        assert_eq!(wide.nth(wide.size() - 1), Some(net("fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")));
        assert_eq!(wide.nth(u128::MAX), None);
        assert_eq!(pool("10.5.0.0/16", 24, "10.5.9.0", "10.5.8.0").size(), 0);
    }

    #[test]
    fn only_subnets_of_the_length_between_the_bounds_are_held() {
        let v4 = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.8.0");
        for (net, held) in [
            ("10.5.0.0/24", false),
            ("10.5.1.0/24", true),
            ("10.5.8.0/24", true),
            ("10.5.9.0/24", false),
            ("10.5.2.0/25", false),
            ("10.5.2.0/23", false),
            ("fd00::/24", false),
        ] {
            assert_eq!(v4.holds(&net.parse().unwrap()), held, "{net}");
        }
    }

    #[test]
    fn networks_of_any_size_overlap() {
        let v4 = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.8.0");
        for (net, want) in [
            ("0.0.0.0/0", Some((0, 7))),
            ("10.5.0.0/16", Some((0, 7))),
            ("10.5.0.0/24", None),
            ("10.5.0.0/23", Some((0, 0))),
            ("10.5.3.9/32", Some((2, 2))),
            ("10.5.4.0/22", Some((3, 6))),
            ("10.5.8.0/22", Some((7, 7))),
            ("10.5.9.0/24", None),
            ("10.4.0.0/16", None),
            ("10.6.0.0/16", None),
            ("::/0", None),
        ] {
            assert_eq!(v4.overlapped(&net.parse().unwrap()), want, "{net}");
        }
        let v6 = pool("fd00::/16", 64, "fd00:0:0:1::", "fd00:ffff:ffff:ffff::");
        assert_eq!(v6.overlapped(&"::/0".parse().unwrap()), Some((0, v6.size() - 1)));
        assert_eq!(v6.overlapped(&"fd00:0:0:2::/63".parse().unwrap()), Some((1, 2)));
    }
}
