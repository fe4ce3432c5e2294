//! Our table as JSON. Pure.

use ipnet::IpNet;
use serde_json::{Value, json};
use twill_backends::filter::{Filter, FilterNet, multicast};

/// The mark that says kube-proxy has masqueraded already.
const KUBE_PROXY_MARK: u32 = 0x4000;

/// The table as `nft -j list table` would print it, handles aside.
pub(super) fn render(table: &str, want: &Filter, random: bool) -> Vec<Value> {
    let mut objects = vec![json!({"table": {"family": "inet", "name": table}})];
    let chain = |name: &str, kind: &str, hook: &str, prio: i32| {
        json!({"chain": {"family": "inet", "table": table, "name": name, "type": kind, "hook": hook,
            "prio": prio, "policy": "accept"}})
    };
    let rule = |chain: &str, comment: &str, expr: Vec<Value>| json!({"rule": {"family": "inet", "table": table, "chain": chain, "comment": comment, "expr": expr}});
    if want.masquerade.is_some() {
        objects.push(chain("postrouting", "nat", "postrouting", 100));
        let marked = json!({"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, KUBE_PROXY_MARK]},
            "right": KUBE_PROXY_MARK}});
        objects.push(rule("postrouting", "marked by kube-proxy", vec![marked, json!({"return": null})]));
        for FilterNet { network, .. } in &want.nets {
            let expr = vec![
                address("saddr", "==", network),
                address("daddr", "!=", network),
                address("daddr", "!=", &multicast(network)),
                masquerade(random),
            ];
            objects.push(rule("postrouting", "pods to outside", expr));
        }
    }
    if want.forward {
        objects.push(chain("forward", "filter", "forward", 0));
        for FilterNet { network, .. } in &want.nets {
            for (field, comment) in [("saddr", "from the fabric"), ("daddr", "to the fabric")] {
                objects.push(rule(
                    "forward",
                    comment,
                    vec![address(field, "==", network), json!({"accept": null})],
                ));
            }
        }
    }
    objects
}

fn address(field: &str, op: &str, net: &IpNet) -> Value {
    let protocol = if net.addr().is_ipv6() { "ip6" } else { "ip" };
    let addr = net.network().to_string();
    let right = if net.prefix_len() == net.max_prefix_len() {
        json!(addr)
    } else {
        json!({"prefix": {"addr": addr, "len": net.prefix_len()}})
    };
    json!({"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}})
}

/// The least table that masquerades: for a dry run.
pub(super) fn probe(table: &str, random: bool) -> Vec<Value> {
    let chain = json!({"family": "inet", "table": table, "name": "postrouting", "type": "nat",
        "hook": "postrouting", "prio": 100, "policy": "accept"});
    let expr = json!([masquerade(random)]);
    let rule = json!({"family": "inet", "table": table, "chain": "postrouting", "expr": expr});
    let table = json!({"family": "inet", "name": table});
    vec![json!({"table": table}), json!({"chain": chain}), json!({"rule": rule})]
}

fn masquerade(random: bool) -> Value {
    json!({"masquerade": if random { json!({"flags": ["fully-random"]}) } else { Value::Null }})
}

/// Replaces the whole table at once. nft 1.0.6 has no `destroy`: adding first makes the deletion sure to work.
pub(super) fn transaction(table: &str, objects: &[Value]) -> String {
    let this = json!({"table": {"family": "inet", "name": table}});
    let mut commands = vec![json!({"add": this}), json!({"delete": this})];
    commands.extend(objects.iter().map(|object| json!({"add": object})));
    json!({"nftables": commands}).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use twill_backends::filter::Masquerade;

    pub(in crate::filter::nft) fn want() -> Filter {
        let net = |network: &str, subnet: &str| FilterNet {
            network: network.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
        };
        Filter {
            nets: vec![net("10.5.0.0/16", "10.5.1.0/24"), net("fc00::/48", "fc00:0:0:1::/64")],
            masquerade: Some(Masquerade { random_fully: true }),
            forward: true,
        }
    }

    #[test]
    fn parts_come_and_go_with_what_is_wanted() {
        let names = |want: &Filter| {
            let all = render("t", want, false);
            all.iter().map(|o| o.as_object().unwrap().keys().next().unwrap().clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&Filter { forward: false, ..want() }), ["table", "chain", "rule", "rule", "rule"]);
        assert_eq!(
            names(&Filter { masquerade: None, ..want() }),
            ["table", "chain", "rule", "rule", "rule", "rule"]
        );
        let plain = Value::Array(render("t", &want(), false)).to_string();
        assert!(plain.contains(r#"{"masquerade":null}"#) && !plain.contains("fully-random"));
    }

    #[test]
    fn one_transaction_replaces_the_table() {
        let input: Value = serde_json::from_str(&transaction("t", &render("t", &want(), true))).unwrap();
        let verbs: Vec<String> = input["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c.as_object().unwrap().keys().next().unwrap().clone())
            .collect();
        assert_eq!(&verbs[..3], ["add", "delete", "add"]);
        assert!(verbs[3..].iter().all(|v| v == "add"));
    }

    #[test]
    fn a_host_network_is_written_as_a_plain_address() {
        let one: IpNet = "10.0.0.1/32".parse().unwrap();
        assert_eq!(address("saddr", "==", &one)["match"]["right"], json!("10.0.0.1"));
    }
}
