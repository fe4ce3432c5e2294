//! The vxlan plan under flannel's name for packets that a program carries, and on the port of that: VXLAN by the
//! userspace datapath on a TAP device, unless the operator of a host says otherwise.
//!
//! # Why the same wire format
//! flannel's own udp backend sends bare IP packets, one per system call, and publishes neither backend type nor VTEP.
//! Its leases are faults here, never peers.

use crate::fault::Fault;
use crate::network::NetworkConfig;
use crate::state::Datapath;
use crate::vxlan::{Flavour, Vxlan};

/// The port of flannel's udp backend.
pub const PORT: u16 = 8285;

/// The udp backend.
pub(crate) fn new(config: &NetworkConfig) -> Result<Vxlan, Fault> {
    Vxlan::flavoured(config, Flavour { kind: "udp", port: PORT, datapath: Datapath::Userspace })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::backend::from_config;
    use crate::samples;
    use crate::state::{Datapath, LinkKind};

    #[test]
    fn it_is_vxlan_on_another_port_and_by_this_program() {
        let config = samples::config(samples::V4, json!({"Type": "udp"}));
        let backend = from_config(&config).unwrap();
        assert_eq!((backend.kind(), backend.datapath()), ("udp", Some(Datapath::Userspace)));
        let mut host = samples::host();
        let link = |host: &_| {
            let base = from_config(&config).unwrap().base(host, &samples::own(config.clone()));
            (base.net.links.values().next().unwrap().clone(), base.tunnels)
        };
        let (kernel, tunnels) = link(&host);
        assert_eq!((kernel.vxlan().unwrap().port, tunnels.len()), (8285, 0));
        host.datapath = Datapath::Userspace;
        let (tap, tunnels) = link(&host);
        assert_eq!(tap.kind, LinkKind::Tap);
        assert_eq!((tap.mac, tap.mtu, &tap.addrs), (kernel.mac, kernel.mtu, &kernel.addrs));
        assert_eq!(Some(&tunnels[0].vxlan), kernel.vxlan());
        assert!(tap.replaces(&kernel) && kernel.replaces(&tap) && !tap.replaces(&tap));
    }

    #[test]
    fn a_port_that_is_configured_counts() {
        let config = samples::config(samples::V4, json!({"Type": "udp", "Port": 9000}));
        let backend = from_config(&config).unwrap();
        let base = backend.base(&samples::host(), &samples::own(config.clone()));
        assert_eq!(base.net.links.values().next().unwrap().vxlan().unwrap().port, 9000);
    }
}
