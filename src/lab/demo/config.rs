//! What the demo is to be.

/// What `twill demo` builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoConfig {
    /// How many hosts; 2 to 100.
    pub hosts: u16,
    /// Where the demo's leases live.
    pub store: DemoStore,
    /// Which backend carries the pods' packets.
    pub backend: DemoBackend,
    /// Dual-stack: a pair counts when both families pass.
    pub ipv6: bool,
    /// Leave everything up at the end.
    pub keep: bool,
    /// The last line of stdout is one JSON object.
    pub json: bool,
}

/// Where the demo's leases live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoStore {
    /// A directory the demo makes.
    File,
    /// An etcd the demo starts.
    Etcd,
}

/// The backend of the demo's network config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoBackend {
    /// VXLAN tunnels.
    Vxlan,
    /// Routes to the hosts, no tunnel.
    HostGw,
}

impl DemoStore {
    /// As typed after `--store`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Etcd => "etcd",
        }
    }
}

impl DemoBackend {
    /// As typed after `--backend`, and as `Backend.Type` in the network config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

impl DemoConfig {
    /// The JSON the fabric is configured with.
    pub(super) fn network(&self) -> String {
        let backend = self.backend.as_str();
        let v6 = if self.ipv6 { r#","EnableIPv6":true,"IPv6Network":"fd00:244::/48""# } else { "" };
        format!(r#"{{"Network":"10.244.0.0/16"{v6},"Backend":{{"Type":"{backend}"}}}}"#)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
        let json: serde_json::Value = serde_json::from_str(&CONFIG.network()).unwrap();
        assert_eq!(json["Backend"]["Type"], "host-gw");
        assert_eq!(json.get("EnableIPv6"), None);
        let both = DemoConfig { ipv6: true, backend: DemoBackend::Vxlan, ..CONFIG };
        let json: serde_json::Value = serde_json::from_str(&both.network()).unwrap();
        assert_eq!(json["EnableIPv6"], true);
        assert_eq!(json["IPv6Network"], "fd00:244::/48");
        assert_eq!(json["Backend"]["Type"], "vxlan");
    }
}
