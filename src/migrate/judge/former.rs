//! Whether the configuration is still what flanneld started with on this host: it reads it once, and whoever changed it
//! since has seen nothing happen.

use twill_backends::backend::from_config;
use twill_backends::family::Family;
use twill_backends::network::NetworkConfig;

use crate::cni::fabric::Fabric;
use crate::migrate::{About, Device, Finding, Seen};

/// What differs. What is in the way of an agent is then flanneld's, and in use.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let (Ok(Some(env)), Some(Ok(network))) = (&seen.env, &seen.network) else { return Vec::new() };
    if from_config(network).is_err() {
        return Vec::new();
    }
    devices(seen, network).into_iter().chain(lengths(env, network)).collect()
}

/// Devices of flanneld's with addresses of this host's subnets: those of its tunnels, whatever they are called.
pub(super) fn tunnels(seen: &Seen) -> Vec<&Device> {
    let Ok(Some(env)) = &seen.env else { return Vec::new() };
    let own = |device: &&Device| {
        device.addrs.iter().any(|addr| env.subnets.iter().any(|(_, net)| net.contains(addr)))
    };
    seen.devices.iter().filter(own).collect()
}

fn devices(seen: &Seen, network: &NetworkConfig) -> Vec<Finding> {
    let wanted = wanted(network);
    let finding = |device: &Device| {
        let what = if wanted.is_empty() { "no device".to_owned() } else { wanted.join(", ") };
        let cause = format!(
            "flanneld made {} for this host's subnet, and the configuration asks for {what}",
            device.name
        );
        let next =
            "put back the Backend.Type and VNI that flanneld started with, or change all hosts at once";
        Finding::breaks(About::Device, cause, next)
    };
    tunnels(seen).into_iter().filter(|device| !wanted.contains(&device.name)).map(finding).collect()
}

/// The names of the devices that the configuration means.
fn wanted(network: &NetworkConfig) -> Vec<String> {
    if network.options().kind().as_deref() != Some("vxlan") {
        return Vec::new();
    }
    let vni = network.options().uint("VNI", 1_u32).unwrap_or(1);
    let name = |family| match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    };
    network.pools.iter().map(|(family, _)| name(family)).collect()
}

fn lengths(env: &Fabric, network: &NetworkConfig) -> Vec<Finding> {
    let other = network.pools.iter().filter_map(|(family, pool)| {
        let net = env.subnets.get(family).filter(|net| net.prefix_len() != pool.subnet_len)?;
        let cause =
            format!("this host's subnet is {net}, and the configuration has subnets of /{}", pool.subnet_len);
        let next = "put back the SubnetLen that flanneld started with";
        Some(Finding::breaks(About::Lease, cause, next))
    });
    other.collect()
}
