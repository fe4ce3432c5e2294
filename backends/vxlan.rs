//! Packets between hosts travel in VXLAN (RFC 7348), by the kernel's device or, on the same wire, by the userspace
//! datapath through a TAP device in its place; see the crate's description for the walk
//! of one packet. Between hosts on one network a plain route is enough, if the configuration allows it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::base;
use crate::family::{Family, PerFamily};
use crate::fault::{Code, Fault};
use crate::guard::{GuardNetwork, GuardRules};
use crate::host::{Fact, Host, Own};
use crate::json::scalar;
use crate::lease::{Attrs, Endpoint};
use crate::mac::Mac;
use crate::network::NetworkConfig;
use crate::state::{
    self, Checksums, Datapath, Desired, Fdb, Link, LinkKind, LinkName, NeighKey, PeerState, Route, Tunnel,
};

/// The port that the kernel and flannel use unless told another; the IANA number is 4789.
pub const DEFAULT_PORT: u16 = 8472;

/// The largest VNI: it has 24 bits.
const MAX_VNI: u32 = (1 << 24) - 1;

/// What tells the backends on this plan apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flavour {
    /// What the configuration and the leases call it.
    pub(crate) kind: &'static str,
    /// The port, unless the configuration says another.
    pub(crate) port: u16,
    /// Who carries frames, unless the operator says otherwise.
    pub(crate) datapath: Datapath,
}

const VXLAN: Flavour = Flavour { kind: "vxlan", port: DEFAULT_PORT, datapath: Datapath::Kernel };

/// The vxlan backend.
#[derive(Debug, Clone)]
pub struct Vxlan {
    flavour: Flavour,
    vni: u32,
    port: u16,
    gbp: bool,
    learning: bool,
    /// Replaces the MTU of the underlay interface.
    mtu: Option<u32>,
    /// Whether peers on a network of this host need no tunnel.
    direct_routing: bool,
    /// The device of each family in use.
    links: PerFamily<LinkName>,
}

impl Vxlan {
    /// Reads the options. An error says which one is wrong.
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, Fault> {
        Self::flavoured(config, VXLAN)
    }

    pub(crate) fn flavoured(config: &NetworkConfig, flavour: Flavour) -> Result<Self, Fault> {
        let options = config.options();
        let vni = options.uint("VNI", 1)?;
        if vni > MAX_VNI {
            return Err(bad(format!("Backend.VNI is {vni}; expected 24 bits, at most {MAX_VNI}")));
        }
        let mtu = Some(options.uint("MTU", 0)?).filter(|mtu| *mtu > 0);
        let mut links = PerFamily::NONE;
        for (family, ()) in base::families(config).iter() {
            if let Some(mtu) = mtu.filter(|mtu| *mtu < least_mtu(family) + overhead(family)) {
                return Err(bad(format!(
                    "Backend.MTU is {mtu}, too little for {family} packets in a tunnel"
                )));
            }
            links.set(family, Some(link_name(family, vni)?));
        }
        Ok(Self {
            flavour,
            vni,
            port: Some(options.uint("Port", 0)?).filter(|port| *port != 0).unwrap_or(flavour.port),
            gbp: options.bool("GBP", false)?,
            learning: options.bool("Learning", false)?,
            mtu,
            direct_routing: options.bool("DirectRouting", false)?,
            links,
        })
    }

    /// The MTU of one family's device. Asking for more than the interface carries would lose every large packet, and
    /// the kernel does not let a device with a parent have more.
    fn link_mtu(&self, host: &Host, family: Family) -> u32 {
        self.mtu.unwrap_or(host.mtu).min(host.mtu).saturating_sub(overhead(family))
    }

    fn device(&self, host: &Host, family: Family) -> Option<state::Vxlan> {
        Some(state::Vxlan {
            vni: self.vni,
            port: self.port,
            local: host.addrs.get(family)?.local,
            learning: self.learning,
            gbp: self.gbp,
            // The userspace datapath finishes all it sends, or has it done by sockets.
            checksums: match host.datapath {
                Datapath::Kernel => host.checksums.get(family).copied().unwrap_or_default(),
                Datapath::Userspace => Checksums::default(),
            },
        })
    }

    fn link(&self, host: &Host, subnet: &IpNet) -> Option<(LinkName, Link)> {
        let family = Family::of_net(subnet);
        let vxlan = self.device(host, family)?;
        let link = Link {
            kind: match host.datapath {
                Datapath::Kernel => LinkKind::Vxlan(vxlan),
                Datapath::Userspace => LinkKind::Tap,
            },
            mac: *host.macs.get(family)?,
            mtu: self.link_mtu(host, family),
            up: true,
            alias: host.alias(),
            addrs: BTreeSet::from([IpNet::from(subnet.network())]),
        };
        Some((*self.links.get(family)?, link))
    }

    /// The userspace datapath looks into the frames itself.
    fn guard(&self, host: &Host, own: &Own) -> GuardRules {
        GuardRules {
            port: self.port,
            vni: self.vni,
            networks: own.parts().map(|(_, pool)| GuardNetwork::from(pool)).collect(),
            outer: own.policy.outer_check,
            inner: own.policy.inner_check && host.datapath == Datapath::Kernel,
        }
    }

    /// The Ethernet address of the peer's tunnel device.
    fn vtep(&self, host: &Host, peer: &Endpoint<'_>) -> Result<Mac, Fault> {
        let incomplete = |cause: String| {
            let field = if peer.family == Family::V4 { "BackendData" } else { "BackendV6Data" };
            Fault::new(
                Code::IncompleteLease,
                peer.lease.key.as_str(),
                format!("its {field} is of no use: {cause}"),
            )
        };
        let fields = || peer.data.and_then(Value::as_object).into_iter().flatten();
        let mac = |value: &Value| value.as_str()?.parse::<Mac>().ok();
        let mac = scalar(fields(), "VtepMAC", "an Ethernet address", mac).map_err(incomplete)?;
        let mac = mac.ok_or_else(|| incomplete("there is no VtepMAC".to_owned()))?;
        if !mac.is_unicast() {
            return Err(incomplete(format!("VtepMAC {mac} is not the address of one device")));
        }
        match scalar(fields(), "VNI", "a whole number", Value::as_u64).map_err(incomplete)? {
            Some(vni) if vni != u64::from(self.vni) => {
                Err(incomplete(format!("its VNI is {vni}, ours is {}", self.vni)))
            }
            _ if host.macs.get(peer.family) == Some(&mac) => Err(Fault::new(
                Code::DuplicateVtep,
                peer.lease.key.as_str(),
                format!("its {} tunnel has the Ethernet address of this host's own, {mac}", peer.family),
            )),
            _ => Ok(mac),
        }
    }
}

impl Backend for Vxlan {
    fn kind(&self) -> &'static str {
        self.flavour.kind
    }

    fn datapath(&self) -> Option<Datapath> {
        Some(self.flavour.datapath)
    }

    fn links(&self) -> PerFamily<LinkName> {
        self.links
    }

    fn mtu(&self, host: &Host) -> u32 {
        self.links.iter().map(|(family, _)| self.link_mtu(host, family)).min().unwrap_or(host.mtu)
    }

    fn attrs(&self, host: &Host) -> Attrs {
        let data = |family| {
            let mac = self.links.get(family).and(host.macs.get(family))?;
            Some(json!({ "VNI": self.vni, "VtepMAC": mac }))
        };
        Attrs {
            backend_data: data(Family::V4),
            backend_v6_data: data(Family::V6),
            ..base::attrs(self.kind(), self.links.map(|_, _| ()), host)
        }
    }

    fn fits(&self, host: &Host) -> Result<(), Fault> {
        base::has_addresses(self.links.map(|_, _| ()), host)
    }

    fn base(&self, host: &Host, own: &Own) -> Desired {
        let mut desired = base::desired(self.fits(host), own);
        let links = own.parts().filter_map(|(subnet, _)| Some((subnet, self.link(host, &subnet)?)));
        for (subnet, (name, link)) in links {
            // A router advertisement from a pod must not configure the tunnel.
            desired.net.sysctls.insert(format!("net/ipv6/conf/{name}/accept_ra"), "0".to_owned());
            if link.kind == LinkKind::Tap {
                let vxlan = self.device(host, Family::of_net(&subnet));
                let tunnel = |vxlan| Tunnel { dev: name, vxlan, mtu: link.mtu, pods: self.mtu(host) };
                desired.tunnels.extend(vxlan.map(tunnel));
            }
            desired.net.links.insert(name, link);
        }
        desired.guard = Some(self.guard(host, own)).filter(GuardRules::checks);
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu > host.mtu) {
            desired.faults.push(Fault::new(
                Code::BadConfig,
                "Backend.MTU",
                format!("{mtu} is more than the {} of {}, which is what counts", host.mtu, host.iface),
            ));
        }
        desired
    }

    fn peer(&self, host: &Host, _own: &Own, peer: Endpoint<'_>, fact: &Fact) -> Result<PeerState, Fault> {
        let key = base::route_key(&peer);
        if self.direct_routing && fact.direct.unwrap_or_else(|| host.is_on_link(&peer.public)) {
            let route = base::unicast(peer.public, host.iface, fact);
            return Ok(PeerState { fdb: None, neigh: None, route: (key, route) });
        }
        let mac = self.vtep(host, &peer)?;
        let dev = *self.links.get(peer.family).ok_or_else(|| {
            Fault::new(
                Code::OutsideNetwork,
                peer.lease.key.as_str(),
                format!("{} is not in use", peer.family),
            )
        })?;
        let gateway = key.dst.network();
        Ok(PeerState {
            fdb: Some(Fdb { dev, mac, dst: peer.public }),
            neigh: Some((NeighKey { dev, ip: gateway }, mac)),
            route: (key, Route { onlink: true, ..base::unicast(gateway, dev, fact) }),
        })
    }
}

/// Outer IP (20 or 40), UDP (8) and VXLAN (8) headers, and the inner Ethernet header (14), in bytes.
#[must_use]
pub const fn overhead(family: Family) -> u32 {
    match family {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

/// The smallest MTU that a link of the family may have (RFC 791, RFC 8200).
const fn least_mtu(family: Family) -> u32 {
    match family {
        Family::V4 => 68,
        Family::V6 => 1280,
    }
}

fn bad(cause: String) -> Fault {
    Fault::new(Code::BadConfig, "network config", cause)
}

fn link_name(family: Family, vni: u32) -> Result<LinkName, Fault> {
    let name = match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    };
    LinkName::try_from(name.as_str())
        .map_err(|e| bad(format!("Backend.VNI is {vni}, too long for the name of a device: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::from_config;
    use crate::samples;

    fn peer(options: Value, data: Value, fact: Fact) -> Result<PeerState, Fault> {
        let config = samples::config(samples::V4, options);
        let backend = from_config(&config).unwrap();
        let mut lease = samples::lease(samples::V4, 9);
        lease.attrs.backend_data = Some(data);
        backend.peer(&samples::host(), &samples::own(config), lease.endpoints().next().unwrap(), &fact)
    }

    fn good() -> Value {
        json!({"VNI": 1, "VtepMAC": "02:00:00:00:00:09"})
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for (option, says) in [
            (json!({"VNI": 16_777_216}), "Backend.VNI is 16777216"),
            (json!({"VNI": "1"}), "Backend.VNI is \"1\""),
            (json!({"VNI": 10_000}), "too long"),
            (json!({"Port": 65_536}), "Backend.Port is 65536"),
            (json!({"MTU": 1349}), "too little for IPv6"),
            (json!({"GBP": 1}), "Backend.GBP is 1"),
            (json!({"Learning": "no"}), "Backend.Learning"),
            (json!({"DirectRouting": "yes"}), "Backend.DirectRouting"),
        ] {
            let mut option = option;
            option["Type"] = json!("vxlan");
            let fault = from_config(&samples::config(samples::DUAL, option)).unwrap_err();
            assert!(fault.cause.contains(says), "{fault}");
        }
    }

    #[test]
    fn the_longest_device_names_are_accepted() {
        let backend = from_config(&samples::config(samples::V4, json!({"Type": "vxlan", "VNI": 9_999_999})));
        assert_eq!(backend.unwrap().links().v4.unwrap().as_str(), "flannel.9999999");
        let backend = from_config(&samples::config(samples::DUAL, json!({"Type": "vxlan", "VNI": 9999})));
        assert_eq!(backend.unwrap().links().v6.unwrap().as_str(), "flannel-v6.9999");
    }

    #[test]
    fn the_mtu_is_the_smallest_of_the_families_and_never_above_the_interface() {
        let mtu = |net, options| from_config(&samples::config(net, options)).unwrap().mtu(&samples::host());
        assert_eq!(mtu(samples::V4, json!({"Type": "vxlan"})), 1450);
        assert_eq!(mtu(samples::DUAL, json!({"Type": "vxlan"})), 1430);
        assert_eq!(mtu(samples::V6, json!({"Type": "vxlan"})), 1430);
        assert_eq!(mtu(samples::V4, json!({"Type": "vxlan", "MTU": 1400})), 1350);
        assert_eq!(mtu(samples::V4, json!({"Type": "vxlan", "MTU": 9000})), 1450);
        let config = samples::config(samples::V4, json!({"Type": "vxlan", "MTU": 9000}));
        let base = from_config(&config).unwrap().base(&samples::host(), &samples::own(config));
        assert_eq!(base.faults[0].subject, "Backend.MTU");
    }

    #[test]
    fn a_lease_that_lacks_what_the_tunnel_needs_is_a_fault_that_says_what() {
        for (data, says) in [
            (json!({"VNI": 2, "VtepMAC": "02:00:00:00:00:09"}), "its VNI is 2, ours is 1"),
            (json!({"VNI": -1, "VtepMAC": "02:00:00:00:00:09"}), "VNI is -1"),
            (json!({"VNI": 1}), "no VtepMAC"),
            (json!({"VNI": 1, "VtepMAC": 5}), "VtepMAC is 5"),
            (json!({"VNI": 1, "VtepMAC": "02:00"}), "VtepMAC is \"02:00\""),
            (json!({"VNI": 1, "VtepMAC": "01:00:00:00:00:09"}), "not the address of one device"),
            (json!("text"), "no VtepMAC"),
        ] {
            let fault = peer(json!({"Type": "vxlan"}), data, Fact::default()).unwrap_err();
            assert_eq!(fault.code, Code::IncompleteLease);
            assert!(fault.cause.contains(says) && fault.cause.contains("BackendData"), "{fault}");
        }
        let own = json!({"VNI": 1, "VtepMAC": samples::host().macs.v4});
        let fault = peer(json!({"Type": "vxlan"}), own, Fact::default()).unwrap_err();
        assert_eq!(fault.code, Code::DuplicateVtep);
    }

    #[test]
    fn a_lease_of_an_old_flannel_names_no_vni() {
        let data = json!({"VtepMAC": "02:00:00:00:00:09"});
        assert!(peer(json!({"Type": "vxlan"}), data, Fact::default()).is_ok());
    }

    #[test]
    fn what_was_measured_decides_over_what_the_networks_say() {
        let direct = |options: Value, fact| peer(options, good(), fact).unwrap().fdb.is_none();
        let on = json!({"Type": "vxlan", "DirectRouting": true});
        assert!(direct(on.clone(), Fact::default()));
        assert!(!direct(on, Fact { direct: Some(false), mtu: None }));
        assert!(!direct(json!({"Type": "vxlan"}), Fact { direct: Some(true), mtu: None }));
    }

    #[test]
    fn a_measured_mtu_goes_into_the_route() {
        let state = peer(json!({"Type": "vxlan"}), good(), Fact { mtu: Some(1400), direct: None }).unwrap();
        assert_eq!(state.route.1.mtu, Some(1400));
    }

    #[test]
    fn a_host_without_an_address_of_a_family_does_not_fit_but_gets_the_other() {
        let config = samples::config(samples::DUAL, json!({"Type": "vxlan"}));
        let mut host = samples::host();
        host.addrs.v6 = None;
        let backend = from_config(&config).unwrap();
        assert_eq!(backend.fits(&host).unwrap_err().code, Code::NoUnderlay);
        let base = backend.base(&host, &samples::own(config));
        assert_eq!(base.net.links.keys().map(LinkName::as_str).collect::<Vec<_>>(), ["flannel.1"]);
        assert_eq!(base.faults.len(), 1);
    }
}
