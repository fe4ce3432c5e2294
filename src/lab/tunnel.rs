//! Kernel VXLAN set up by hand: what a careful operator does with `ip link`, `bridge fdb`, `ip neigh` and `ip route`.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::neighbour::NeighbourFlags;
use rtnetlink::{Error, LinkVxlan, RouteMessageBuilder};

use super::{LabError, Mac, Netns};

/// A VXLAN device.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The UDP port, here and there.
    pub port: u16,
    /// The address on the underlay it sends from.
    pub local: IpAddr,
    /// Its MAC.
    pub mac: Mac,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its own address; the prefix covers nothing else.
    pub address: IpAddr,
}

/// The other end of a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelPeer {
    /// Its address on the underlay.
    pub public: IpAddr,
    /// Its tunnel device's MAC.
    pub mac: Mac,
    /// Its tunnel device's address.
    pub address: IpAddr,
    /// What is behind it.
    pub subnet: IpNet,
}

impl Netns {
    /// Adds the device with its address, up: `ip link add … type vxlan … nolearning`.
    pub fn add_tunnel(&self, tunnel: &Tunnel) -> Result<(), LabError> {
        let link = LinkVxlan::new(&tunnel.name, tunnel.vni).port(tunnel.port).learning(false);
        let link = match tunnel.local {
            IpAddr::V4(local) => link.local(local),
            IpAddr::V6(local) => link.local6(local),
        };
        let message = link.address(tunnel.mac.to_vec()).mtu(tunnel.mtu).build();
        let attempt = format!("add vxlan {}", tunnel.name);
        self.request(attempt, |netlink| async move { netlink.link().add(message).execute().await })?;
        self.add_address(&tunnel.name, IpNet::from(tunnel.address))?;
        self.link_up(&tunnel.name)
    }

    /// Adds what one peer needs: FDB entry, neighbour, route.
    pub fn add_tunnel_peer(&self, device: &str, peer: &TunnelPeer) -> Result<(), LabError> {
        let index = self.index(device)?;
        let (mac, public) = (peer.mac, peer.public);
        self.request(format!("add {public} to {device}"), move |netlink| async move {
            let entry = netlink.neighbours().add_bridge(index, &mac).destination(public);
            entry.flags(NeighbourFlags::Own).execute().await
        })?;
        self.add_tunnel_route(device, peer)
    }

    /// Leads a peer's subnet into a device: neighbour and route.
    pub(super) fn add_tunnel_route(&self, device: &str, peer: &TunnelPeer) -> Result<(), LabError> {
        let index = self.index(device)?;
        let attempt = format!("lead {} into {device}", peer.subnet);
        let built = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(peer.subnet.addr(), peer.subnet.prefix_len())
            .and_then(|route| route.gateway(peer.address));
        let family = |_error| self.refused(&attempt, Error::InvalidNla(attempt.clone()));
        let route = built.map_err(family)?.output_interface(index).onlink().build();
        let peer = peer.clone();
        self.request(attempt.clone(), move |netlink| async move {
            netlink.neighbours().add(index, peer.address).link_layer_address(&peer.mac).execute().await?;
            netlink.route().add(route).execute().await
        })
    }
}
