//! CHECK: the delegate knows whether the attachment is still as it made it.

use std::net::IpAddr;

use serde_json::Value;
use twill_backends::family::Family;

use super::call::Call;
use super::error::{self, CniError};
use super::exec::Plugin;
use super::netconf::NetConf;
use super::state;

/// Has the delegate check a container.
///
/// # Errors
/// The delegate's; code 3 for a container that this plugin did not attach.
pub(super) fn check(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let saved = state::find(&conf.data_dir, &call.container, &call.ifname, &conf.name)?;
    let unknown = || {
        let dir = conf.data_dir.display();
        let text = format!("container {} was not attached by this plugin: nothing in {dir}", call.container);
        CniError::new(error::UNKNOWN, text)
    };
    let saved = saved.ok_or_else(unknown)?;
    let plugin = Plugin::find(saved.kind(), call, conf.patience)?;
    let mut config = saved.config;
    if let Some(previous) = &conf.previous {
        config["prevResult"] = with_gateways(previous.clone());
    }
    plugin.run(call, &config).map(drop)
}

/// A result whose routes all name their gateway.
///
/// # Why
/// The bridge plugin sends a route without one through the gateway of the container's address, but its CHECK looks for
/// the route as the result has it, and finds none.
fn with_gateways(mut result: Value) -> Value {
    let addr = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let ips = result["ips"].as_array().into_iter().flatten();
    let gateways: Vec<IpAddr> = ips.filter_map(|ip| addr(&ip["gateway"])).collect();
    for route in result.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        let v6 = route["dst"].as_str().is_some_and(|dst| dst.contains(':'));
        let family = if v6 { Family::V6 } else { Family::V4 };
        let gateway = gateways.iter().find(|gateway| Family::of(gateway) == family);
        if let (Some(route), Some(gateway)) = (route.as_object_mut(), gateway) {
            route.entry("gw").or_insert_with(|| gateway.to_string().into());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_get_the_gateway_of_their_family() {
        let result = json!({
            "ips": [{ "gateway": "10.1.17.1" }, { "gateway": "fd00::1" }],
            "routes": [{ "dst": "10.1.0.0/16" }, { "dst": "::/0" }, { "dst": "0.0.0.0/0", "gw": "10.1.17.9" }],
        });
        let routes = &with_gateways(result)["routes"];
        let gateways: Vec<_> = (0..3).map(|n| routes[n]["gw"].as_str().unwrap()).collect();
        assert_eq!(gateways, ["10.1.17.1", "fd00::1", "10.1.17.9"]);
        assert_eq!(with_gateways(json!({ "routes": [{ "dst": "::/0" }] }))["routes"][0].get("gw"), None);
    }

    proptest! {
        #[test]
        fn any_result_is_passed_on(
            text in r#"(null|7|\[\]|\{"ips":(7|\[7\]|\[\{"gateway":"x"\}\])\}|\{"routes":(7|\[7\]|\{\})\})"#,
        ) {
            let result: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(with_gateways(result.clone()), result);
        }
    }
}
