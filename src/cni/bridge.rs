//! The bridge before containers are attached to it: one process at a time makes it, and it must not carry the address of
//! an older subnet.
//!
//! # Why
//!
//! Two bridge plugins that find no bridge both make one and both give it its address, and one of them can fail. And the
//! bridge plugin refuses a bridge with another address than its own, without saying where that came from: the host's
//! subnet has changed since.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use nix::fcntl::Flock;
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use twill_backends::family::Family;
use twill_backends::lease::Subnets;

use super::delegate::BRIDGE;
use super::error::{self, CniError};
use super::fabric::Fabric;
use super::netlink::{addresses, ports, remove};
use super::{lock, state};

/// The bridge, unless the delegate's configuration names another.
const NAME: &str = "cni0";
/// The lock of whoever makes a bridge, in the directory of attachments. Not the name of a container.
pub(super) const LOCK: &str = ".lock";

/// What a bridge is to carry, and what it does carry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bridge<'a> {
    name: &'a str,
    /// `None` where there is none.
    index: Option<u32>,
    /// Whether it is to have an address of each subnet.
    gateway: bool,
    /// The addresses it has.
    carries: Vec<IpNet>,
}

/// Makes sure that the delegate can use its bridge. The lock is to be held until the delegate has made the bridge; there
/// is none if the bridge is as it must be.
///
/// # Errors
/// The bridge carries an address of an older subnet and has containers (999), or it cannot be looked at (5).
pub(super) fn prepare(
    delegate: &Value,
    fabric: &Fabric,
    dir: &Path,
    patience: Duration,
) -> Result<Option<Flock<File>>, CniError> {
    if delegate["type"] != BRIDGE || Bridge::look(delegate)?.is_settled(fabric) {
        return Ok(None);
    }
    state::make(dir)?;
    let lock = lock::take(&dir.join(LOCK), patience)?;
    let bridge = Bridge::look(delegate)?;
    if bridge.is_settled(fabric) {
        return Ok(None);
    }
    if delegate["forceAddress"] != true {
        bridge.repair(fabric)?;
    }
    Ok(Some(lock))
}

/// Whether the delegate attaches containers to a bridge, and that is not there: then none is attached.
pub(super) fn is_missing(delegate: &Value) -> bool {
    delegate["type"] == BRIDGE && if_nametoindex(name(delegate)).is_err()
}

/// The bridge of a delegate's configuration.
pub(super) fn name(delegate: &Value) -> &str {
    delegate["bridge"].as_str().filter(|name| !name.is_empty()).unwrap_or(NAME)
}

impl<'a> Bridge<'a> {
    fn look(delegate: &'a Value) -> Result<Self, CniError> {
        let name = name(delegate);
        let index = if_nametoindex(name).ok();
        let gateway = delegate["isGateway"] == true || delegate["isDefaultGateway"] == true;
        let carries = match index {
            Some(index) => addresses(index).map_err(|cause| unseen(name, &cause))?,
            None => Vec::new(),
        };
        Ok(Self { name, index, gateway, carries })
    }

    /// Whether the delegate will find nothing to change.
    fn is_settled(&self, fabric: &Fabric) -> bool {
        let has = |subnet: &IpNet| self.carries.iter().any(|addr| subnet.contains(&addr.addr()));
        let addressed = fabric.subnets.iter().all(|(_, subnet)| has(subnet));
        self.index.is_some() && (!self.gateway || (addressed && self.stale(fabric).is_empty()))
    }

    fn stale(&self, fabric: &Fabric) -> Vec<IpNet> {
        stale(&self.carries, &fabric.subnets, &fabric.networks)
    }

    /// Takes the addresses of an older subnet away, if nobody uses them.
    fn repair(&self, fabric: &Fabric) -> Result<(), CniError> {
        let stale = self.stale(fabric);
        let (Some(index), true, false) = (self.index, self.gateway, stale.is_empty()) else { return Ok(()) };
        let join = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        let subnets: Vec<IpNet> = fabric.subnets.iter().map(|(_, subnet)| *subnet).collect();
        let what = format!(
            "bridge {} carries {}, of an older subnet; this host's is {}",
            self.name,
            join(&stale),
            join(&subnets)
        );
        let ports = ports(index).map_err(|cause| unseen(self.name, &cause))?.len();
        if ports > 0 {
            return Err(CniError::new(
                error::OTHER,
                format!("{what}; {ports} containers are attached; next: restart them, then try again"),
            ));
        }
        stale.iter().try_for_each(|addr| {
            remove(index, addr).map_err(|cause| {
                CniError::new(
                    error::IO,
                    format!("{what}; cannot remove {addr}: {cause}; next: delete the bridge"),
                )
            })
        })
    }
}

/// The addresses of a bridge, in the kernel's order, that the bridge plugin will object to: of IPv4 every other one that
/// it meets before its own, of IPv6 those inside the fabric.
#[must_use]
pub fn stale(carries: &[IpNet], subnets: &Subnets, networks: &[IpNet]) -> Vec<IpNet> {
    let ours =
        |addr: &IpNet| subnets.get(Family::of_net(addr)).is_some_and(|subnet| subnet.contains(&addr.addr()));
    let own = carries.iter().position(|addr| Family::of_net(addr) == Family::V4 && ours(addr));
    let old = |(at, addr): &(usize, &IpNet)| {
        let family = Family::of_net(addr);
        let met = match family {
            Family::V4 => own.is_none_or(|own| *at < own),
            Family::V6 => networks.iter().any(|network| network.contains(&addr.addr())),
        };
        subnets.get(family).is_some() && !ours(addr) && met
    };
    carries.iter().enumerate().filter(old).map(|(_, addr)| *addr).collect()
}

fn unseen(name: &str, cause: &io::Error) -> CniError {
    CniError::new(error::IO, format!("cannot look at bridge {name}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fabric() -> Fabric {
        let text = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\n\
                    FLANNEL_IPV6_SUBNET=fd00:0:0:5::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true";
        Fabric::parse(text).unwrap()
    }

    fn bridge(carries: &[&str]) -> Bridge<'static> {
        let carries = carries.iter().map(|net| net.parse().unwrap()).collect();
        Bridge { name: NAME, index: Some(7), gateway: true, carries }
    }

    #[test]
    fn a_bridge_is_settled_with_an_address_of_each_subnet_and_no_older_one() {
        for (carries, settled, stale) in [
            (vec![], false, 0),
            (vec!["10.1.17.1/24"], false, 0),
            (vec!["10.1.17.1/24", "fd00:0:0:5::1/64"], true, 0),
            (vec!["10.1.17.1/24", "fd00:0:0:5::1/64", "fd99::1/64"], true, 0),
            (vec!["10.1.17.1/24", "192.168.1.1/24", "fd00:0:0:5::1/64"], true, 0),
            (vec!["192.168.1.1/24", "10.1.17.1/24", "fd00:0:0:5::1/64"], false, 1),
            (vec!["10.1.16.1/24", "fd00:0:0:4::1/64"], false, 2),
        ] {
            let bridge = bridge(&carries);
            assert_eq!(bridge.is_settled(&fabric()), settled, "{carries:?}");
            assert_eq!(bridge.stale(&fabric()).len(), stale, "{carries:?}");
        }
        assert!(Bridge { gateway: false, ..bridge(&[]) }.is_settled(&fabric()));
        assert!(!Bridge { index: None, ..bridge(&[]) }.is_settled(&fabric()));
    }
}
