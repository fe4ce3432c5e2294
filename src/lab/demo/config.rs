//! The network config of the demo.

use crate::config::DemoConfig;

/// The JSON the fabric is configured with.
pub(super) fn network(config: &DemoConfig) -> String {
    let backend = config.backend.as_str();
    let v6 = if config.ipv6 { r#","EnableIPv6":true,"IPv6Network":"fd00:244::/48""# } else { "" };
    format!(r#"{{"Network":"10.244.0.0/16"{v6},"Backend":{{"Type":"{backend}"}}}}"#)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{DemoBackend, DemoStore};

    pub(in crate::lab::demo) const CONFIG: DemoConfig = DemoConfig {
        hosts: 3,
        store: DemoStore::File,
        backend: DemoBackend::HostGw,
        ipv6: false,
        keep: false,
        json: true,
    };

    #[test]
    fn the_network_config_is_json_that_says_what_was_asked() {
        let json: serde_json::Value = serde_json::from_str(&network(&CONFIG)).unwrap();
        assert_eq!(json["Backend"]["Type"], "host-gw");
        assert_eq!(json.get("EnableIPv6"), None);
        let both = DemoConfig { ipv6: true, backend: DemoBackend::Vxlan, ..CONFIG };
        let json: serde_json::Value = serde_json::from_str(&network(&both)).unwrap();
        assert_eq!(json["EnableIPv6"], true);
        assert_eq!(json["IPv6Network"], "fd00:244::/48");
        assert_eq!(json["Backend"]["Type"], "vxlan");
    }
}
