//! This host's place in the underlay: found, lost, found again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use twill_backends::backend::Backend;
use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::{Code, Fault};
use twill_backends::host::{Address, Host};
use twill_backends::lease::Lease;
use twill_backends::mac::Mac;
use twill_backends::network::NetworkConfig;

use super::{Agent, World};
use crate::kernel::{Kernel, Underlay, UnderlayChoice};
use crate::store::LeaseStore;

/// How long to wait before looking again while there is no underlay and nothing was announced.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of the underlay.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The interface chosen last. It stays while a change is looked into, and while it is away.
    pub(super) underlay: Option<Underlay>,
    /// Whether it has been looked at since the last change.
    fresh: bool,
    retry: Option<Instant>,
    pub(super) fault: Option<Fault>,
}

impl Found {
    /// Something changed: look again.
    pub(super) const fn forget(&mut self) {
        self.fresh = false;
        self.retry = None;
    }

    /// When to look again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.retry
    }

    fn stale(&self, now: Instant) -> bool {
        !self.fresh && self.retry.is_none_or(|at| at <= now)
    }
}

impl<W: World> Agent<W> {
    /// Chooses the underlay, if that is to be done. A host that lost its address keeps what it had: the address may
    /// be back in a moment, and packets that cannot leave are lost either way.
    pub(super) async fn find_underlay(&mut self, now: Instant) {
        let Some(network) = self.network.as_ref().filter(|_| self.found.stale(now)) else { return };
        let choice = self.underlay_choice(network);
        match self.world.kernel().underlay(&choice).await {
            Ok(underlay) => {
                if self.found.underlay.as_ref() != Some(&underlay) {
                    let addresses = underlay
                        .addrs
                        .iter()
                        .map(|(_, addr)| addr.to_string())
                        .collect::<Vec<_>>()
                        .join(", ");
                    tracing::info!(interface = %underlay.name, mtu = underlay.mtu, addresses, "underlay");
                    if self.found.underlay.as_ref().is_some_and(|before| before.addrs != underlay.addrs) {
                        self.world.store().moved();
                    }
                    self.found.underlay = Some(underlay);
                    self.replan = true;
                }
                self.found.fresh = true;
                self.found.retry = None;
                self.found.fault = None;
            }
            Err(error) => {
                let fault = Fault::new(Code::NoUnderlay, "underlay", error.to_string());
                if self.found.fault.as_ref() != Some(&fault) {
                    tracing::warn!(%fault, "waiting for the underlay");
                }
                self.found.fault = Some(fault);
                self.found.retry = Some(now + AGAIN);
            }
        }
    }

    /// How the underlay of a network is chosen. A start chooses the interface as asked, and prefers of its addresses
    /// the one that peers know from the last run; one that the operator told them need not be where packets leave.
    pub(super) fn underlay_choice(&self, network: &NetworkConfig) -> UnderlayChoice {
        let asked = choice(&self.config.interface, network);
        if let Some(Underlay { name, addrs, .. }) = &self.found.underlay {
            return UnderlayChoice { present: Some(*name), used: *addrs, ..asked };
        }
        let own = self.memory.as_ref().and_then(|memory| memory.own.as_ref());
        let published = |family| own.filter(|_| asked.public.get(family).is_none())?.attrs.public(family);
        UnderlayChoice { used: PerFamily { v4: published(Family::V4), v6: published(Family::V6) }, ..asked }
    }

    /// This host, as backends see it.
    pub(super) async fn host(&self, backend: &dyn Backend) -> Option<Host> {
        let underlay = self.found.underlay.as_ref()?;
        let interface = &self.config.interface;
        let public = |family, local| match family {
            Family::V4 => interface.public_ip.map_or(local, Into::into),
            Family::V6 => interface.public_ipv6.map_or(local, Into::into),
        };
        let mut macs = PerFamily::NONE;
        for (family, derived) in self.identity.macs().iter() {
            macs.set(family, Some(self.tunnel_mac(backend, family).await.unwrap_or(*derived)));
        }
        Some(Host {
            instance: self.config.site.instance(),
            iface: underlay.name,
            mtu: underlay.mtu,
            addrs: underlay.addrs.map(|family, local| Address { local, public: public(family, local) }),
            on_link: underlay.on_link.clone(),
            macs,
            checksums: self.trying.checksums(),
            datapath: self.carrying.datapath(),
        })
    }

    /// The Ethernet address that peers know, or that the device has.
    async fn tunnel_mac(&self, backend: &dyn Backend, family: Family) -> Option<Mac> {
        let own = self.tenure.lease().or_else(|| self.lease_of_this_node());
        let published = own.and_then(|lease| vtep_mac(lease.attrs.data(family)?));
        match (published, backend.links().get(family)) {
            (Some(mac), _) => Some(mac),
            (None, Some(link)) => self.world.kernel().mac_of(*link).await.filter(|mac| mac.is_unicast()),
            (None, None) => None,
        }
    }

    /// The lease that is ours by the claim order, as far as that can be told before it is claimed.
    pub(super) fn lease_of_this_node(&self) -> Option<&Lease> {
        let node = self.identity.node.to_string();
        let ours = |lease: &&Lease| lease.attrs.node_id.as_ref() == Some(&node);
        let addrs = self.found.underlay.as_ref().map(|underlay| underlay.addrs).unwrap_or_default();
        let here = |lease: &&Lease| {
            let published = |family: Family, addr: &IpAddr| lease.attrs.public(family) == Some(*addr);
            lease.attrs.node_id.is_none() && addrs.iter().any(|(family, addr)| published(family, addr))
        };
        self.leases.iter().find(ours).or_else(|| self.leases.iter().find(here))
    }
}

impl<W: World> Agent<W> {
    /// The lease with our address whose tunnel device is here. It is ours by the claim order even if the state
    /// directory, and the node id with it, was lost.
    pub(super) async fn lease_of_this_device(&self, backend: &dyn Backend, host: &Host) -> Option<&Lease> {
        for (family, link) in backend.links().iter() {
            let (Some(mac), Some(addr)) = (self.world.kernel().mac_of(*link).await, host.addrs.get(family))
            else {
                continue;
            };
            let ours = |lease: &&Lease| {
                lease.attrs.public(family) == Some(addr.public)
                    && lease.attrs.data(family).and_then(vtep_mac) == Some(mac)
            };
            if let Some(lease) = self.leases.iter().find(ours) {
                return Some(lease);
            }
        }
        None
    }
}

fn vtep_mac(data: &Value) -> Option<Mac> {
    let (_, mac) = data.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case("VtepMAC"))?;
    mac.as_str()?.parse().ok()
}

/// How the underlay of a network is chosen by what the operator asked for, where nothing is in use yet.
#[must_use]
pub fn choice(interface: &crate::config::InterfaceConfig, network: &NetworkConfig) -> UnderlayChoice {
    UnderlayChoice {
        names: interface.names.clone(),
        patterns: interface.patterns.clone(),
        can_reach: interface.can_reach,
        public: PerFamily {
            v4: interface.public_ip.map(Into::into),
            v6: interface.public_ipv6.map(Into::into),
        },
        families: network.pools.map(|_, _| ()),
        ..UnderlayChoice::default()
    }
}
