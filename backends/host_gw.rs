//! Packets between hosts travel as they are: each host is the gateway of its own subnet, so that all hosts must be on
//! one network.

use crate::backend::Backend;
use crate::base;
use crate::family::PerFamily;
use crate::fault::{Code, Fault};
use crate::host::{Fact, Host, Own};
use crate::lease::{Attrs, Endpoint};
use crate::network::NetworkConfig;
use crate::state::{Desired, LinkName, PeerState};

/// The host-gw backend.
#[derive(Debug, Clone)]
pub struct HostGw {
    families: PerFamily<()>,
}

impl HostGw {
    /// It has no options.
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self { families: base::families(config) }
    }
}

impl Backend for HostGw {
    fn kind(&self) -> &'static str {
        "host-gw"
    }

    fn links(&self) -> PerFamily<LinkName> {
        PerFamily::NONE
    }

    fn mtu(&self, host: &Host) -> u32 {
        host.mtu
    }

    fn attrs(&self, host: &Host) -> Attrs {
        base::attrs(self.kind(), self.families, host)
    }

    /// Peers use the published address as a gateway, so it has to be on the interface itself.
    fn fits(&self, host: &Host) -> Result<(), Fault> {
        base::has_addresses(self.families, host)?;
        let used = |family| self.families.get(family).is_some();
        match host.addrs.iter().find(|(family, addr)| used(*family) && addr.local != addr.public) {
            Some((_, addr)) => Err(Fault::new(
                Code::NoUnderlay,
                host.iface.to_string(),
                format!(
                    "host-gw needs the published address {} on the interface itself, which has {}",
                    addr.public, addr.local
                ),
            )),
            None => Ok(()),
        }
    }

    fn base(&self, host: &Host, own: &Own) -> Desired {
        base::desired(self.fits(host), own)
    }

    fn peer(&self, host: &Host, _own: &Own, peer: Endpoint<'_>, fact: &Fact) -> Result<PeerState, Fault> {
        if !fact.direct.unwrap_or_else(|| host.is_on_link(&peer.public)) {
            return Err(Fault::new(
                Code::PeerOffLink,
                peer.lease.key.as_str(),
                format!("its host {} is not on a network of {}", peer.public, host.iface),
            ));
        }
        let route = base::unicast(peer.public, host.iface, fact);
        Ok(PeerState { fdb: None, neigh: None, route: (base::route_key(&peer), route) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::from_config;
    use crate::family::Family;
    use crate::samples;

    #[test]
    fn a_published_address_that_is_not_on_the_interface_is_refused() {
        let config = samples::config(samples::DUAL, json!({"Type": "host-gw"}));
        let backend = from_config(&config).unwrap();
        assert_eq!(backend.fits(&samples::host()), Ok(()));
        for family in Family::ALL {
            let mut host = samples::host();
            let mut addr = *host.addrs.get(family).unwrap();
            addr.public = if family == Family::V4 { "203.0.113.1" } else { "2001:db8::1" }.parse().unwrap();
            host.addrs.set(family, Some(addr));
            let fault = backend.fits(&host).unwrap_err();
            assert!(fault.cause.contains(&addr.public.to_string()), "{fault}");
            assert_eq!(backend.base(&host, &samples::own(config.clone())).faults, [fault]);
        }
    }

    #[test]
    fn a_family_that_is_not_in_use_does_not_matter() {
        let backend = from_config(&samples::config(samples::V4, json!({"Type": "host-gw"}))).unwrap();
        let mut host = samples::host();
        host.addrs.v6 = None;
        assert_eq!(backend.fits(&host), Ok(()));
        assert_eq!(backend.mtu(&host), 1500);
        assert_eq!(backend.attrs(&samples::host()).public_ipv6, None);
    }

    #[test]
    fn a_gateway_off_link_is_a_fault_unless_it_was_measured_to_be_direct() {
        let config = samples::config(samples::V4, json!({"Type": "host-gw"}));
        let backend = from_config(&config).unwrap();
        let mut lease = samples::lease(samples::V4, 9);
        lease.attrs.public_ip = Some("198.51.100.9".parse().unwrap());
        let own = samples::own(config);
        let plan =
            |fact: Fact| backend.peer(&samples::host(), &own, lease.endpoints().next().unwrap(), &fact);
        assert_eq!(plan(Fact::default()).unwrap_err().code, Code::PeerOffLink);
        let state = plan(Fact { direct: Some(true), mtu: Some(1400) }).unwrap();
        assert_eq!(state.route.1.mtu, Some(1400));
        assert_eq!(state.route.1.via, Some("198.51.100.9".parse().unwrap()));
    }
}
