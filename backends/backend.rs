//! One way of carrying pod traffic between hosts.

use std::fmt::Debug;

use crate::family::PerFamily;
use crate::fault::{Code, Fault};
use crate::host::{Fact, Host, Own};
use crate::host_gw::HostGw;
use crate::lease::{Attrs, Endpoint};
use crate::network::NetworkConfig;
use crate::state::{Datapath, Desired, LinkName, PeerState};
use crate::udp;
use crate::vxlan::Vxlan;

/// The types that flannel knows and that are refused by name rather than as unknown.
const UNSUPPORTED: [&str; 6] = ["wireguard", "ipip", "ipsec", "alloc", "extension", "tencent-vpc"];

/// One way of carrying pod traffic between hosts. Pure: no I/O, no clock, no randomness.
pub trait Backend: Debug + Send + Sync {
    /// What `Backend.Type` and the leases call it.
    fn kind(&self) -> &'static str;

    /// Who carries its frames unless the operator says otherwise; `None` if it has no tunnel.
    fn datapath(&self) -> Option<Datapath> {
        None
    }

    /// Its tunnel device of each family in use, so that one that exists can be adopted with its Ethernet address.
    fn links(&self) -> PerFamily<LinkName>;

    /// The largest packet in bytes that pods may send: the smallest of the families in use (`FLANNEL_MTU`).
    fn mtu(&self, host: &Host) -> u32;

    /// What this host publishes, less its node id and session.
    fn attrs(&self, host: &Host) -> Attrs;

    /// Whether it can work on this host: asked at start, and part of [`Backend::base`] afterwards.
    ///
    /// # Errors
    /// What the host lacks.
    fn fits(&self, host: &Host) -> Result<(), Fault>;

    /// What this host needs whoever else exists: links, settings, routes of its own, firewall.
    fn base(&self, host: &Host, own: &Own) -> Desired;

    /// What one peer adds, for one address family. `fact` is what was measured about it.
    ///
    /// # Errors
    /// The lease lacks what is needed of it, or the peer cannot be reached in this way.
    fn peer(&self, host: &Host, own: &Own, peer: Endpoint<'_>, fact: &Fact) -> Result<PeerState, Fault>;
}

/// The backend that the configuration asks for.
///
/// # Errors
/// [`Code::BadConfig`]: there is no `Backend`, its type is unknown or not supported, or an option is out of range. The
/// cause contains a configuration for the same network that would work.
pub fn from_config(config: &NetworkConfig) -> Result<Box<dyn Backend>, Fault> {
    let refused = |cause: String| refused(config, cause);
    if config.backend.is_none() {
        return Err(refused("there is no `Backend`, which flannel takes for the udp backend".to_owned()));
    }
    match config.options().kind().as_deref() {
        Some("vxlan") => Ok(Box::new(Vxlan::new(config).map_err(|fault| refused(fault.cause))?)),
        Some("udp") => Ok(Box::new(udp::new(config).map_err(|fault| refused(fault.cause))?)),
        Some("host-gw") => Ok(Box::new(HostGw::new(config))),
        Some(known) if UNSUPPORTED.contains(&known) => {
            Err(refused(format!("the backend type `{known}` is not supported")))
        }
        Some(unknown) => Err(refused(format!("the backend type `{unknown}` is unknown"))),
        None => Err(refused("`Backend` has no `Type`".to_owned())),
    }
}

/// A fault that shows a configuration for the same network that would work.
fn refused(config: &NetworkConfig, cause: String) -> Fault {
    let mut parts = Vec::new();
    match &config.pools.v4 {
        Some(pool) => parts.push(format!("\"Network\":\"{}\"", pool.network)),
        None => parts.push("\"EnableIPv4\":false".to_owned()),
    }
    if let Some(pool) = &config.pools.v6 {
        parts.push(format!("\"EnableIPv6\":true,\"IPv6Network\":\"{}\"", pool.network));
    }
    parts.push("\"Backend\":{\"Type\":\"vxlan\"}".to_owned());
    let working = format!("{cause}; this would work: {{{}}} (or host-gw for vxlan)", parts.join(","));
    Fault::new(Code::BadConfig, "Backend", working)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples;

    fn refusal(backend: serde_json::Value) -> String {
        let config = samples::config(samples::DUAL, backend);
        let fault = from_config(&config).unwrap_err();
        assert_eq!(fault.code, Code::BadConfig);
        fault.cause
    }

    #[test]
    fn types_are_found_in_any_case() {
        for (kind, name) in [("vxlan", "vxlan"), ("VXLAN", "vxlan"), ("Host-GW", "host-gw")] {
            let config = samples::config(samples::V4, json!({ "Type": kind }));
            assert_eq!(from_config(&config).unwrap().kind(), name);
            let config = samples::config(samples::V4, json!({ "type": kind }));
            assert_eq!(from_config(&config).unwrap().kind(), name);
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_line_that_works() {
        let line = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
        for kind in UNSUPPORTED {
            let cause = refusal(json!({ "Type": kind }));
            assert!(cause.contains(&format!("`{kind}` is not supported")), "{cause}");
            assert!(cause.contains(line), "{cause}");
        }
        assert!(refusal(json!({})).contains("no `Type`"));
        assert!(refusal(json!({ "Type": null })).contains("no `Type`"));
        assert!(refusal(json!({ "Type": 7 })).contains("no `Type`"));
        assert!(refusal(json!({ "Type": "nonsense" })).contains("`nonsense` is unknown"));
    }

    #[test]
    fn an_absent_backend_is_refused_rather_than_taken_for_udp() {
        let config = NetworkConfig { backend: None, ..samples::config(samples::V6, json!({})) };
        let fault = from_config(&config).unwrap_err();
        let line = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
        assert!(fault.cause.contains("udp") && fault.cause.contains(line), "{fault}");
    }
}
