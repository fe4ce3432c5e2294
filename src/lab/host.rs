//! A host of the lab: a namespace with `eth0` on the underlay.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::agent::{AgentOptions, AgentProcess};
use super::pod::{Pod, PodSubnet};
use super::site::Site;
use super::underlay::Underlay;
use super::{LabError, Netns};

/// The device every host has on the underlay.
pub const UPLINK: &str = "eth0";

/// One host. Faults are made through its namespace: `host.net.link_down("eth0")`, `host.net.exec(&["nft", …])`.
#[derive(Debug)]
pub struct Host {
    /// `n1`, `n2`, …
    pub name: String,
    /// The host's namespace.
    pub net: Netns,
    /// Its addresses on the underlay: IPv4 first, IPv6 second, those it has.
    pub addresses: Vec<IpAddr>,
    site: Arc<Site>,
    pods: AtomicU32,
    agents: AtomicU32,
}

impl Host {
    /// Host number `number` (from 1) on segment `segment` of the underlay, with its default routes.
    pub(super) fn new(
        site: &Arc<Site>,
        underlay: &Underlay,
        number: u16,
        segment: u8,
    ) -> Result<Self, LabError> {
        let name = format!("n{number}");
        let net = Netns::new(&format!("{}-{name}", site.name), site.visible)?;
        let addresses = underlay.attach(&net, &name, number, segment)?;
        Ok(Self {
            name,
            net,
            addresses,
            site: Arc::clone(site),
            pods: AtomicU32::new(0),
            agents: AtomicU32::new(0),
        })
    }

    /// Its address on the underlay in the family of `like`.
    #[must_use]
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }

    /// Attaches a pod to the host's bridge `cni0`, which the first pod makes, as the CNI bridge plugin would
    /// with this subnet; except that forwarding is left to the agent.
    pub fn pod(&self, subnet: &PodSubnet) -> Result<Pod, LabError> {
        Pod::attach(self, subnet, &self.site, self.pods.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Starts a real agent process on this host; it has files, ports and a log of its own.
    pub fn agent(&self, options: &AgentOptions) -> Result<AgentProcess, LabError> {
        AgentProcess::start(self, options, &self.site, self.agents.fetch_add(1, Ordering::Relaxed))
    }
}
