//! The configuration of the plugin that does the work: pure, and to the byte what flannel's plugin makes.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::error::{self, CniError};
use super::fabric::Fabric;
use super::netconf::NetConf;

/// The plugin that attaches containers, unless the configuration names another.
pub const BRIDGE: &str = "bridge";
/// The plugin that hands out addresses, unless the configuration names another.
pub const HOST_LOCAL: &str = "host-local";

/// The keys of a route whose values are numbers.
const NUMBERS: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// The delegate's configuration, keys sorted at each level.
///
/// # Errors
/// Code 7 for routes that are malformed.
pub fn config(conf: &NetConf, fabric: &Fabric) -> Result<Value, CniError> {
    let mut made = conf.delegate.clone();
    if !conf.runtime.is_empty() {
        made.insert("runtimeConfig".to_owned(), conf.runtime.clone().into());
    }
    made.insert("name".to_owned(), conf.name.as_str().into());
    default(&mut made, "type", BRIDGE);
    default(&mut made, "ipMasq", !fabric.masquerade);
    default(&mut made, "mtu", fabric.mtu);
    if made["type"] == BRIDGE {
        default(&mut made, "isGateway", true);
    }
    if !conf.version.is_empty() {
        made.insert("cniVersion".to_owned(), conf.version.as_str().into());
    }
    made.insert("ipam".to_owned(), ipam(&conf.ipam, fabric)?);
    let mut made = Value::Object(made);
    made.sort_all_objects();
    Ok(made)
}

/// Where addresses come from: what was given, the host's subnets as its only ranges, and a route to each network.
fn ipam(given: &Map<String, Value>, fabric: &Fabric) -> Result<Value, CniError> {
    let mut made = given.clone();
    default(&mut made, "type", HOST_LOCAL);
    let range = |subnet: &IpNet| json!([{ "subnet": subnet.to_string() }]);
    made.insert("ranges".to_owned(), fabric.subnets.iter().map(|(_, subnet)| range(subnet)).collect());
    let mut routes = Vec::new();
    match given.get("routes") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for given in list {
                routes.push(route(given).ok_or_else(|| malformed(given))?);
            }
        }
        Some(other) => return Err(malformed(other)),
    }
    routes.extend(fabric.networks.iter().map(|network| json!({ "dst": network.to_string() })));
    made.insert("routes".to_owned(), routes.into());
    Ok(made.into())
}

/// A given route with the keys that CNI knows; others are dropped.
fn route(given: &Value) -> Option<Value> {
    let given = given.as_object()?;
    let mut made = Map::new();
    let dst: IpNet = given.get("dst")?.as_str()?.parse().ok()?;
    made.insert("dst".to_owned(), dst.to_string().into());
    if let Some(gw) = given.get("gw").filter(|gw| !gw.is_null()) {
        let gw: std::net::IpAddr = gw.as_str()?.parse().ok()?;
        made.insert("gw".to_owned(), gw.to_string().into());
    }
    for key in NUMBERS {
        if let Some(number) = given.get(key).filter(|number| !number.is_null()) {
            made.insert(key.to_owned(), number.as_i64()?.into());
        }
    }
    Some(made.into())
}

fn default(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !object.contains_key(key) {
        object.insert(key.to_owned(), value.into());
    }
}

fn malformed(route: &Value) -> CniError {
    CniError::new(error::CONFIG, format!("ipam.routes: {route} is not a route"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(conf: &str, env: &str) -> Result<Value, CniError> {
        config(&NetConf::parse(conf.as_bytes()).unwrap(), &Fabric::parse(env).unwrap())
    }

    const ENV: &str =
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true";

    #[test]
    fn defaults_give_flannels_text() {
        let text = r#"{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}"#;
        assert_eq!(made(r#"{"name":"cni-flannel","type":"flannel"}"#, ENV).unwrap().to_string(), text);
    }

    #[test]
    fn malformed_routes_are_quoted() {
        for routes in [
            "7",
            "[7]",
            "[{}]",
            r#"[{"dst":"x"}]"#,
            r#"[{"dst":"10.0.0.0/8","gw":"x"}]"#,
            r#"[{"dst":"10.0.0.0/8","mtu":"x"}]"#,
        ] {
            let error = made(&format!(r#"{{"name":"a","ipam":{{"routes":{routes}}}}}"#), ENV).unwrap_err();
            assert!(error.code == error::CONFIG && error.msg.contains("ipam.routes"), "{routes}: {error}");
        }
    }
}
