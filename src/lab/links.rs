//! Devices, addresses and routes of a namespace: what a lab builds, and what a fault breaks. Straight to rtnetlink, so
//! that nothing depends on the `ip` program.

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State};
use rtnetlink::{Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{Cancel, LabError, Netns, Seen, until};

/// How long the kernel may take to carry an `up` through; it rations itself to once a second.
const RUNNING: Duration = Duration::from_secs(30);

/// A hardware address.
pub type Mac = [u8; 6];

impl Netns {
    /// Adds a bridge, up. Its MAC is set so that it does not change as ports come and go.
    pub fn add_bridge(&self, name: &str, mac: Mac, mtu: u32) -> Result<(), LabError> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
        let attempt = format!("add bridge {name}");
        self.request(attempt, |netlink| async move { netlink.link().add(message).execute().await })
    }

    /// Adds a veth pair: `name` here, `peer` in the namespace `there`. Both are down.
    pub fn add_veth(&self, name: &str, there: &Netns, peer: &str, mtu: u32) -> Result<(), LabError> {
        let fd = there.file().as_raw_fd();
        let peer = LinkUnspec::new_with_name(peer).setns_by_fd(fd).mtu(mtu).build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let attempt = format!("add veth {name} to {}", there.name());
        self.request(attempt, |netlink| async move { netlink.link().add(message).execute().await })
    }

    /// Puts a device into a bridge.
    pub fn join_bridge(&self, device: &str, bridge: &str) -> Result<(), LabError> {
        let bridge = self.index(bridge)?;
        self.change(device, "join a bridge", |link| link.controller(bridge))
    }

    /// Sets a device up.
    pub fn link_up(&self, device: &str) -> Result<(), LabError> {
        self.change(device, "set up", LinkMessageBuilder::up)
    }

    /// Waits until the kernel has carried an `up` through: until then it drops what is sent, and the ARP request that is
    /// lost so costs a second.
    pub(super) fn wait_running(&self, device: &str, cancel: &Cancel) -> Result<(), LabError> {
        let what = format!("{device} of {} running", self.name());
        until(&what, RUNNING, cancel, || {
            let attributes = self.link(device)?.attributes;
            let state = attributes.into_iter().find_map(|attribute| {
                if let LinkAttribute::OperState(state) = attribute { Some(state) } else { None }
            });
            Ok(if state == Some(State::Up) { Seen::Yes(()) } else { Seen::NotYet(format!("{state:?}")) })
        })
    }

    /// Sets a device down. The kernel drops its IPv4 routes without a notification, and its static IPv6 addresses.
    pub fn link_down(&self, device: &str) -> Result<(), LabError> {
        self.change(device, "set down", LinkMessageBuilder::down)
    }

    /// Changes a device's MAC.
    pub fn set_mac(&self, device: &str, mac: Mac) -> Result<(), LabError> {
        self.change(device, "set the MAC", |link| link.address(mac.to_vec()))
    }

    /// Changes a device's MTU.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> Result<(), LabError> {
        self.change(device, "set the MTU", |link| link.mtu(mtu))
    }

    /// Changes how large the frames are that the stack hands to a device for cutting, in bytes.
    pub(super) fn set_largest(&self, device: &str, bytes: u32) -> Result<(), LabError> {
        let largest = LinkAttribute::GsoMaxSize(bytes);
        self.change(device, "set the largest frame", |link| link.append_extra_attribute(largest))
    }

    /// Deletes a device.
    pub fn delete_link(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        let attempt = format!("delete {device}");
        self.request(attempt, move |netlink| async move { netlink.link().del(index).execute().await })
    }

    /// The names of all devices, in index order.
    pub fn links(&self) -> Result<Vec<String>, LabError> {
        let all = self.request("list devices".into(), |netlink| async move {
            netlink.link().get().execute().try_collect::<Vec<_>>().await
        })?;
        let name = |attribute| if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None };
        Ok(all.into_iter().filter_map(|link| link.attributes.into_iter().find_map(name)).collect())
    }

    /// Adds an address with its prefix length; an IPv6 one is usable at once (no duplicate address detection).
    pub fn add_address(&self, device: &str, address: IpNet) -> Result<(), LabError> {
        let index = self.index(device)?;
        let attempt = format!("add {address} to {device}");
        self.request(attempt, move |netlink| async move {
            let mut request = netlink.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                let nodad = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(nodad);
            }
            request.execute().await
        })
    }

    /// Removes all addresses of a device, IPv6 link-local ones too.
    pub fn flush_addresses(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        let attempt = format!("flush the addresses of {device}");
        self.request(attempt, move |netlink| async move {
            let mut all = netlink.address().get().set_link_index_filter(index).execute();
            while let Some(address) = all.try_next().await? {
                netlink.address().del(address).execute().await?;
            }
            Ok(())
        })
    }

    /// The addresses of a device with their prefix lengths, IPv6 link-local ones left out.
    pub fn addresses(&self, device: &str) -> Result<Vec<IpNet>, LabError> {
        let index = self.index(device)?;
        let attempt = format!("list the addresses of {device}");
        let all = self.request(attempt, move |netlink| async move {
            netlink.address().get().set_link_index_filter(index).execute().try_collect::<Vec<_>>().await
        })?;
        let address = |attribute: &AddressAttribute| {
            if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
        };
        let local = |net: &IpNet| matches!(net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        Ok(all
            .iter()
            .filter_map(|message| Some((message.attributes.iter().find_map(address)?, message)))
            .filter_map(|(address, message)| IpNet::new(address, message.header.prefix_len).ok())
            .filter(|net| !local(net))
            .collect())
    }

    /// Adds a route by gateway, as an administrator would (protocol static).
    pub fn add_route(&self, destination: IpNet, via: IpAddr) -> Result<(), LabError> {
        let attempt = format!("add route {destination} via {via}");
        let unusable = |error: rtnetlink::Error| self.refused(&attempt, error);
        let built = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .and_then(|route| route.gateway(via));
        let message = built.map_err(|_family| unusable(Error::InvalidNla(attempt.clone())))?.build();
        self.request(attempt.clone(), |netlink| async move { netlink.route().add(message).execute().await })
    }

    /// Deletes the route that [`Netns::add_route`] or anyone else made to exactly this destination.
    pub fn delete_route(&self, destination: IpNet) -> Result<(), LabError> {
        let attempt = format!("delete route {destination}");
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .map_err(|_family| self.refused(&attempt, Error::InvalidNla(attempt.clone())))?
            .build();
        // Zero and "nowhere" match any protocol and scope.
        message.header.protocol = netlink_packet_route::route::RouteProtocol::Unspec;
        message.header.scope = netlink_packet_route::route::RouteScope::NoWhere;
        self.request(attempt, |netlink| async move { netlink.route().del(message).execute().await })
    }

    /// Turns duplicate address detection off, so that link-local addresses are usable at once, too; it would hold up
    /// neighbour discovery for a second or two.
    pub(super) fn skip_dad(&self, device: &str) -> Result<(), LabError> {
        self.set_sysctl(&format!("net/ipv6/conf/{device}/accept_dad"), "0")
    }

    /// Writes a sysctl of the namespace: `net/ipv4/ip_forward`, a path below `/proc/sys`.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        let file = format!("/proc/sys/{path}");
        self.run(|| std::fs::write(&file, value))?
            .map_err(LabError::io(|| format!("write {value} to {file}")))
    }

    /// Reads a sysctl of the namespace, without the line's end.
    pub fn sysctl(&self, path: &str) -> Result<String, LabError> {
        let file = format!("/proc/sys/{path}");
        let text = self.run(|| std::fs::read_to_string(&file))?;
        Ok(text.map_err(LabError::io(|| format!("read {file}")))?.trim_end().to_owned())
    }

    fn change(
        &self,
        device: &str,
        verb: &str,
        how: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), LabError> {
        let message = how(LinkUnspec::new_with_index(self.index(device)?)).build();
        let attempt = format!("{device}: {verb}");
        self.request(attempt, |netlink| async move { netlink.link().change(message).execute().await })
    }

    /// The kernel's number of a device.
    pub(super) fn index(&self, device: &str) -> Result<u32, LabError> {
        self.link(device).map(|link| link.header.index)
    }

    fn link(&self, device: &str) -> Result<LinkMessage, LabError> {
        let name = device.to_owned();
        let found = self.netlink(|netlink| async move {
            netlink.link().get().match_name(name).execute().try_next().await
        })?;
        let missing = || LabError::NoDevice { namespace: self.name().to_owned(), device: device.to_owned() };
        found.ok().flatten().ok_or_else(missing)
    }

    /// A netlink exchange whose failure names `attempt`.
    pub(super) fn request<T, F>(
        &self,
        attempt: String,
        work: impl FnOnce(Handle) -> F + Send + 'static,
    ) -> Result<T, LabError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>>,
    {
        self.netlink(work)?.map_err(|source| self.refused(&attempt, source))
    }

    pub(super) fn refused(&self, attempt: &str, source: Error) -> LabError {
        LabError::Netlink { attempt: format!("{}: {attempt}", self.name()), source }
    }
}

/// A locally administered unicast MAC made of five bytes.
#[must_use]
pub fn local_mac(tail: [u8; 5]) -> Mac {
    let [a, b, c, d, e] = tail;
    [0x0a, a, b, c, d, e]
}

/// The default route's destination in the family of `like`.
pub(super) fn anywhere(like: IpAddr) -> IpNet {
    if like.is_ipv4() { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) }
}
