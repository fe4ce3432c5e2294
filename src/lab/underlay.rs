//! The network between the hosts: a namespace with one bridge per segment, and routing between segments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::links::{anywhere, local_mac};
use super::{Cancel, LabError, LabOptions, Netns, UPLINK};

/// The last byte of a gateway's addresses.
const GATEWAY: u16 = 254;
/// How many hosts the numbers of a segment are for.
pub(super) const ROOM: u16 = 250;

/// The underlay. Segment `s` is the bridge `ub<s>` with 192.168.(77+s).0/24 and fd77:0:0:s::/64; its gateway, and
/// whatever else is meant to be outside the fabric, is the bridge's own address, ending in 254 (`fe`).
#[derive(Debug)]
pub struct Underlay {
    /// The namespace of the bridges: the place of an etcd, and of "the rest of the world" for pods.
    pub net: Netns,
    ipv4: bool,
    ipv6: bool,
    mtu: u32,
    cancel: Cancel,
}

impl Underlay {
    pub(super) fn new(net: Netns, options: &LabOptions) -> Result<Self, LabError> {
        let (ipv4, ipv6, mtu) = (options.ipv4, options.ipv6, options.mtu);
        let underlay = Self { net, ipv4, ipv6, mtu, cancel: options.cancel.clone() };
        let rounds = options.hosts.div_ceil(ROOM).max(1);
        let segments = options.segments.saturating_mul(u8::try_from(rounds).unwrap_or(u8::MAX));
        for segment in 0..segments {
            let bridge = bridge(segment);
            underlay.net.add_bridge(&bridge, local_mac([0x77, segment, 0, 0, 254]), options.mtu)?;
            if options.ipv6 {
                underlay.net.skip_dad(&bridge)?;
            }
            for address in underlay.networks(segment, GATEWAY) {
                underlay.net.add_address(&bridge, address)?;
            }
        }
        if segments > 1 {
            underlay.net.set_sysctl("net/ipv4/ip_forward", "1")?;
            underlay.net.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        Ok(underlay)
    }

    /// The gateway's addresses on a segment: IPv4 first, IPv6 second, those the lab has.
    #[must_use]
    pub fn gateways(&self, segment: u8) -> Vec<IpAddr> {
        self.networks(segment, GATEWAY).iter().map(IpNet::addr).collect()
    }

    /// Gives `net` its `eth0` on a segment, with addresses and default routes. Returns the addresses.
    pub(super) fn attach(
        &self,
        net: &Netns,
        name: &str,
        number: u16,
        segment: u8,
    ) -> Result<Vec<IpAddr>, LabError> {
        self.net.add_veth(name, net, UPLINK, self.mtu)?;
        self.net.join_bridge(name, &bridge(segment))?;
        if self.ipv6 {
            net.skip_dad(UPLINK)?;
        }
        self.net.link_up(name)?;
        net.link_up(UPLINK)?;
        self.net.wait_running(name, &self.cancel)?;
        net.wait_running(UPLINK, &self.cancel)?;
        self.address(net, number, segment)
    }

    /// Gives `eth0` of host `number` its addresses and default routes: at first, and again after a fault took them
    /// (as the host's network manager would).
    pub(super) fn address(&self, net: &Netns, number: u16, segment: u8) -> Result<Vec<IpAddr>, LabError> {
        let own = self.networks(segment, number.saturating_sub(1) % ROOM + 1);
        for (address, gateway) in own.iter().zip(self.gateways(segment)) {
            net.add_address(UPLINK, *address)?;
            net.add_route(anywhere(gateway), gateway)?;
        }
        Ok(own.iter().map(IpNet::addr).collect())
    }

    fn networks(&self, segment: u8, number: u16) -> Vec<IpNet> {
        let low = u8::try_from(number).unwrap_or(u8::MAX);
        let v4 = Ipv4Net::new(Ipv4Addr::new(192, 168, 77 + segment, low), 24).map(IpNet::V4);
        let v6 =
            Ipv6Net::new(Ipv6Addr::new(0xfd77, 0, 0, segment.into(), 0, 0, 0, number), 64).map(IpNet::V6);
        let wanted = [(self.ipv4, v4), (self.ipv6, v6)];
        wanted.into_iter().filter(|(wanted, _net)| *wanted).filter_map(|(_, net)| net.ok()).collect()
    }
}

fn bridge(segment: u8) -> String {
    format!("ub{segment}")
}
