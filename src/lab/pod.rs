//! A pod: a namespace behind the bridge of its host, wired as the CNI bridge plugin would.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::links::{anywhere, local_mac};
use super::site::Site;
use super::{Host, LabError, Netns};

/// The bridge of a host's pods.
pub const BRIDGE: &str = "cni0";
/// A pod's device.
pub(super) const DEVICE: &str = "eth0";

/// What a pod needs to know of its host's lease: the content of subnet.env.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSubnet {
    /// The bridge's IPv4 address, the first of the subnet, and the subnet's length: `10.244.3.1/24`.
    pub ipv4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// The MTU of bridge and pod, in bytes.
    pub mtu: u32,
}

impl PodSubnet {
    /// Reads the `FLANNEL_*` lines of subnet.env (`spec/flannel.md`, section 5) as strictly as the CNI plugin does.
    /// Unknown lines are skipped.
    ///
    /// # Errors
    /// A value that does not parse, no MTU, or no subnet at all.
    pub fn from_subnet_env(text: &str) -> Result<Self, LabError> {
        let value = |key: &str| {
            text.lines().filter_map(|line| line.split_once('=')).find(|(k, _v)| *k == key).map(|(_k, v)| v)
        };
        let bad = |text: &str| LabError::Unreadable { what: "subnet.env".into(), text: text.trim().into() };
        let ipv4 = value("FLANNEL_SUBNET").filter(|v| !v.is_empty()).map(|v| v.parse().map_err(|_e| bad(v)));
        let ipv6 =
            value("FLANNEL_IPV6_SUBNET").filter(|v| !v.is_empty()).map(|v| v.parse().map_err(|_e| bad(v)));
        let mtu = value("FLANNEL_MTU").and_then(|v| v.parse().ok()).ok_or_else(|| bad(text))?;
        let subnet = Self { ipv4: ipv4.transpose()?, ipv6: ipv6.transpose()?, mtu };
        if subnet.gateways().is_empty() { Err(bad(text)) } else { Ok(subnet) }
    }

    /// The bridge's addresses: IPv4 first, IPv6 second, those there are.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpNet> {
        self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6)).collect()
    }
}

/// A pod. Dropping it removes its namespace and, with it, its port on the bridge.
#[derive(Debug)]
pub struct Pod {
    /// `n1p1`, `n1p2`, …
    pub name: String,
    /// The pod's namespace.
    pub net: Netns,
    /// Its addresses: IPv4 first, IPv6 second, those it has.
    pub addresses: Vec<IpAddr>,
    /// Keeps the lab's folder and lock as long as a pod lives.
    _site: Arc<Site>,
}

impl Pod {
    /// Pod number `number` (from 1) of `host`: it gets the subnet's address 1 + `number`.
    pub(super) fn attach(
        host: &Host,
        subnet: &PodSubnet,
        site: &Arc<Site>,
        number: u32,
    ) -> Result<Self, LabError> {
        ensure_bridge(host, subnet)?;
        let name = format!("{}p{number}", host.name);
        let net = Netns::new(&format!("{}-{name}", site.name), site.visible)?;
        let port = format!("veth{number}");
        host.net.add_veth(&port, &net, DEVICE, subnet.mtu)?;
        host.net.join_bridge(&port, BRIDGE)?;
        host.net.link_up(&port)?;
        if subnet.ipv6.is_some() {
            net.skip_dad(DEVICE)?;
        }
        net.link_up(DEVICE)?;
        let mut addresses = Vec::new();
        for gateway in subnet.gateways() {
            let address = offset(gateway, number)?;
            net.add_address(DEVICE, address)?;
            net.add_route(anywhere(gateway.addr()), gateway.addr())?;
            addresses.push(address.addr());
        }
        for (net, device) in [(&net, DEVICE), (&host.net, port.as_str()), (&host.net, BRIDGE)] {
            net.wait_running(device, &site.cancel)?;
        }
        Ok(Self { name, net, addresses, _site: Arc::clone(site) })
    }

    /// Its address in the family of `like`.
    #[must_use]
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

/// The host's bridge with the subnet's first addresses, made if it is not there.
fn ensure_bridge(host: &Host, subnet: &PodSubnet) -> Result<(), LabError> {
    if host.net.links()?.iter().any(|link| link == BRIDGE) {
        return Ok(());
    }
    host.net.add_bridge(BRIDGE, local_mac([0x58, 0, 0, 0, 1]), subnet.mtu)?;
    if subnet.ipv6.is_some() {
        host.net.skip_dad(BRIDGE)?;
    }
    subnet.gateways().into_iter().try_for_each(|gateway| host.net.add_address(BRIDGE, gateway))
}

/// The address `by` after the gateway's, with the same length.
fn offset(gateway: IpNet, by: u32) -> Result<IpNet, LabError> {
    let (address, limit) = match gateway {
        IpNet::V4(net) => {
            (IpAddr::V4((u32::from(net.addr()).saturating_add(by)).into()), IpAddr::V4(net.broadcast()))
        }
        IpNet::V6(net) => (
            IpAddr::V6((u128::from(net.addr()).saturating_add(by.into())).into()),
            IpAddr::V6(net.broadcast()),
        ),
    };
    let full =
        || LabError::Unreadable { what: "the pod's number".into(), text: format!("{gateway} is full") };
    if address >= limit {
        return Err(full());
    }
    IpNet::new(address, gateway.prefix_len()).map_err(|_length| full())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_subnet_env_of_each_family() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
                    FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:3::1/64\n\
                    FLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n";
        let both = PodSubnet::from_subnet_env(text).unwrap();
        assert_eq!(both.gateways().len(), 2);
        assert_eq!(both.mtu, 1430);
        let only_v6 =
            PodSubnet::from_subnet_env("FLANNEL_IPV6_SUBNET=fd00::1/64\nFLANNEL_MTU=1430\n").unwrap();
        assert_eq!(only_v6.gateways(), ["fd00::1/64".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn refuses_a_subnet_env_that_says_nothing() {
        for text in
            ["", "FLANNEL_MTU=1450\n", "FLANNEL_SUBNET=10.1.1.1/24\n", "FLANNEL_SUBNET=x\nFLANNEL_MTU=1\n"]
        {
            assert!(PodSubnet::from_subnet_env(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pods_count_from_the_gateway_and_stop_at_the_broadcast_address() {
        let gateway: IpNet = "10.244.3.1/30".parse().unwrap();
        assert_eq!(offset(gateway, 1).unwrap().to_string(), "10.244.3.2/30");
        assert!(offset(gateway, 2).is_err());
        assert_eq!(offset("fd00::1/64".parse().unwrap(), 1).unwrap().to_string(), "fd00::2/64");
    }
}
