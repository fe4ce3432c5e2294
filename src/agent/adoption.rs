//! What takes effect of a network configuration that changes under a running agent.

use serde_json::{Map, Value};
use twill_backends::fault::{Code, Fault};
use twill_backends::network::NetworkConfig;

/// The keys of `Backend` that apply to a running fabric. The others decide what exists under which name and port, or
/// which subnets there are: changing them under running pods would cut them off.
const LIVE: [&str; 3] = ["mtu", "directrouting", "learning"];

/// The configuration to run with when `read` stands in the store and `in_force` was run with: what can change at
/// once is taken over, what cannot is reported.
#[must_use]
pub(super) fn adopt(in_force: &NetworkConfig, read: &NetworkConfig) -> (NetworkConfig, Option<Fault>) {
    let mut waiting = Vec::new();
    if in_force.pools != read.pools {
        waiting.push("Network or its subnets".to_owned());
    }
    if in_force.nftables != read.nftables {
        waiting.push("EnableNFTables".to_owned());
    }
    let (old, new) = (options(in_force), options(read));
    let mut backend = in_force.backend.clone();
    for name in names(&old, &new) {
        let (before, after) = (old.get(&name), new.get(&name));
        if before == after {
            continue;
        }
        if LIVE.contains(&name.as_str()) {
            let map = backend.get_or_insert_default();
            map.retain(|key, _| key.to_lowercase() != name);
            if let Some(value) = after {
                map.insert(name, value.clone());
            }
        } else {
            waiting.push(format!("Backend.{name}"));
        }
    }
    let fault = (!waiting.is_empty()).then(|| {
        let cause = format!("changed in the store, but not in force on this host: {}", waiting.join(", "));
        Fault::new(Code::RestartToApply, "network configuration", cause)
    });
    (NetworkConfig { backend, ..in_force.clone() }, fault)
}

fn options(config: &NetworkConfig) -> Map<String, Value> {
    let options = config.backend.clone().unwrap_or_default();
    options.into_iter().map(|(key, value)| (key.to_lowercase(), plain(value))).collect()
}

/// The type is found in any case.
fn plain(value: Value) -> Value {
    value.as_str().map(str::to_lowercase).map_or(value.clone(), Value::String)
}

fn names(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    old.keys().chain(added).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(network: &str, backend: &str) -> NetworkConfig {
        NetworkConfig::parse(&format!("{{\"Network\":\"{network}\",\"Backend\":{backend}}}")).unwrap()
    }

    #[test]
    fn live_keys_apply_whatever_their_case() {
        let old = config("10.5.0.0/16", r#"{"Type":"vxlan","mtu":1400}"#);
        let new = config("10.5.0.0/16", r#"{"type":"VXLAN","MTU":1300,"DirectRouting":true}"#);
        let (run, fault) = adopt(&old, &new);
        assert_eq!(fault, None);
        let backend = run.backend.unwrap();
        assert_eq!((backend["mtu"].as_u64(), backend["directrouting"].as_bool()), (Some(1300), Some(true)));
        assert_eq!(backend["Type"], "vxlan");
    }

    #[test]
    fn what_must_wait_is_named_and_not_applied() {
        let old = config("10.5.0.0/16", r#"{"Type":"vxlan"}"#);
        for (network, backend, named) in [
            ("10.6.0.0/16", r#"{"Type":"vxlan"}"#, "Network"),
            ("10.5.0.0/16", r#"{"Type":"vxlan","VNI":2}"#, "Backend.vni"),
            ("10.5.0.0/16", r#"{"Type":"vxlan","Port":4789}"#, "Backend.port"),
            ("10.5.0.0/16", r#"{"Type":"host-gw"}"#, "Backend.type"),
        ] {
            let (run, fault) = adopt(&old, &config(network, backend));
            assert_eq!(run, old);
            let fault = fault.unwrap();
            assert_eq!(fault.code, Code::RestartToApply);
            assert!(fault.cause.contains(named), "{fault}");
        }
    }

    #[test]
    fn going_back_takes_the_report_away() {
        let old = config("10.5.0.0/16", r#"{"Type":"vxlan"}"#);
        assert_eq!(adopt(&old, &old), (old.clone(), None));
    }
}
