//! Devices, addresses and ports.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::family::Family;

use super::agent::of_fault;
use crate::cni::bridge::stale;
use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::doctor::sign::Sign;
use crate::kernel::preflight::{self, Plans};

/// The bridge that containers are attached to, unless a configuration says otherwise.
const BRIDGE: &str = "cni0";

/// Whether the tunnel stands.
pub(super) fn tunnels(facts: &Facts) -> Vec<Finding> {
    let fault = |name: &twill_backends::state::LinkName| {
        let found = match facts.host.link(*name) {
            None => "it is missing",
            Some(link) if !link.up => "it is down",
            Some(_) => return None,
        };
        Some(Finding::new(Sign::TunnelDown.entry(), name.to_string(), found))
    };
    facts.fabric.tunnels.iter().filter_map(fault).collect()
}

/// Whether the VNI is the fabric's alone.
pub(super) fn vni(facts: &Facts) -> Vec<Finding> {
    let Some((vni, port)) = facts.fabric.vxlan else { return Vec::new() };
    let other = facts.host.links.iter().filter(|link| {
        let same = link.vxlan.as_ref().is_some_and(|have| (have.vni, have.port) == (vni, port));
        same && !facts.fabric.tunnels.contains(&link.name)
    });
    other
        .map(|link| {
            let found = format!("it has VNI {vni} on port {port}");
            Finding::new(Sign::VniTaken.entry(), link.name.to_string(), found)
                .next(format!("ip link del {}, or choose another Backend.VNI or Port", link.name))
        })
        .collect()
}

/// Whether the port is the fabric's alone. The userspace datapath has it by a socket of the agent's, the kernel by one
/// that nobody holds.
pub(super) fn port(facts: &Facts) -> Vec<Finding> {
    let agent = facts.status().map(|status| status.pid);
    let port = facts.fabric.vxlan.map(|(_, port)| port);
    let kernels =
        facts.host.links.iter().any(|link| link.up && link.vxlan.as_ref().map(|vxlan| vxlan.port) == port);
    let others = facts.sockets.iter().filter(|socket| match &socket.holder {
        Some(holder) => Some(holder.pid) != agent,
        None => !kernels,
    });
    others
        .map(|socket| {
            let found = match &socket.holder {
                Some(holder) => format!("{} (pid {}) has it", holder.name, holder.pid),
                None => "a program that cannot be seen from here has it".to_owned(),
            };
            let next =
                format!("find it with: ss -ulpn sport = :{}; {}", socket.port, Sign::PortTaken.entry().next);
            Finding::new(Sign::PortTaken.entry(), format!("UDP port {}", socket.port), found).next(next)
        })
        .take(1)
        .collect()
}

/// Whether the network is this host's to use.
pub(super) fn overlap(facts: &Facts) -> Vec<Finding> {
    let Some(network) = &facts.fabric.network else { return Vec::new() };
    let entries = facts.store.entries.as_deref().unwrap_or_default();
    let leases = entries.iter().filter_map(|entry| entry.lease.as_ref().ok());
    let public: Vec<IpAddr> =
        leases.flat_map(|lease| Family::ALL.map(|family| lease.attrs.public(family))).flatten().collect();
    let own = |addr: &IpAddr| facts.host.addrs.iter().any(|own| own.net.addr() == *addr);
    let plans = Plans {
        networks: network.pools.iter().map(|(_, pool)| pool.network).collect(),
        peers: public.into_iter().filter(|addr| !own(addr)).collect(),
        // Its addresses are among those of the host.
        underlay: Vec::new(),
    };
    let verdict = preflight::check(&facts.host, &facts.fabric.scope, &plans);
    verdict.refusals.iter().chain(&verdict.warnings).map(of_fault).collect()
}

/// Whether the containers' bridge is of this host's lease.
pub(super) fn bridge(facts: &Facts) -> Vec<Finding> {
    let name = facts.cni.networks.iter().find_map(|network| network.bridge.as_deref()).unwrap_or(BRIDGE);
    let Some(bridge) = facts.host.links.iter().find(|link| link.name.as_str() == name) else {
        return Vec::new();
    };
    let own = &facts.fabric.own;
    let carries = facts.host.addrs.iter().filter(|addr| addr.index == bridge.index).map(|addr| addr.net);
    let carries: Vec<IpNet> = carries.filter(|addr| !is_local(addr)).collect();
    let pools = facts.fabric.network.iter().flat_map(|network| network.pools.iter());
    let networks: Vec<IpNet> = pools.map(|(_, pool)| pool.network).collect();
    let own_text = own.iter().map(|(_, net)| net.to_string()).collect::<Vec<_>>().join(", ");
    let mut findings: Vec<Finding> = stale(&carries, own, &networks)
        .iter()
        .map(|addr| {
            let next =
                format!("drain this host's pods, then: ip link del {name}; the CNI plugin makes it again");
            Finding::new(Sign::BridgeAddress.entry(), name, addr.to_string())
                .wanted(format!("the first address of {own_text}"))
                .next(next)
        })
        .collect();
    let wanted = facts.status().and_then(|status| status.network.as_ref()).map(|network| network.mtu);
    if let Some(mtu) = wanted.filter(|mtu| bridge.mtu > *mtu) {
        let found = format!("{name} has MTU {}", bridge.mtu);
        findings.push(Finding::new(Sign::BridgeMtu.entry(), name, found).wanted(format!("at most {mtu}")));
    }
    findings
}

/// Whether an address is one that each device has.
fn is_local(addr: &IpNet) -> bool {
    match addr.addr() {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}
