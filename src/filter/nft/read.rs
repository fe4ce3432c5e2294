//! What `nft -j` prints, made comparable. Pure.

use serde_json::{Value, json};

use crate::filter::PolicyDrop;

/// Objects in one order, without what the kernel numbers and with one spelling of what nft spells in two ways.
pub(in crate::filter) fn canonical(objects: &[Value]) -> Vec<Value> {
    let mut objects = objects.to_vec();
    for object in &mut objects {
        for inner in object.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
            if let Some(fields) = inner.as_object_mut() {
                fields.remove("handle");
            }
            if let Some(expressions) = inner.get_mut("expr").and_then(Value::as_array_mut) {
                expressions.iter_mut().for_each(list_flags);
            }
        }
    }
    objects.sort_by(|a, b| place(a).cmp(&place(b)));
    objects
}

/// `"flags": "x"` and `"flags": ["x"]` are one thing.
fn list_flags(expression: &mut Value) {
    for statement in expression.as_object_mut().into_iter().flat_map(|e| e.values_mut()) {
        if let Some(flags) = statement.get_mut("flags")
            && flags.is_string()
        {
            *flags = json!([flags.take()]);
        }
    }
}

/// Tables, then chains, counters and sets by name, then rules by chain: a stable sort keeps the order of the rules.
fn place(object: &Value) -> (u8, &str) {
    let Some((kind, fields)) = object.as_object().and_then(|object| object.iter().next()) else {
        return (u8::MAX, "");
    };
    match kind.as_str() {
        "table" => (0, ""),
        "chain" => (1, text(fields, "name")),
        "rule" => (4, text(fields, "chain")),
        "counter" => (2, text(fields, "name")),
        _ => (3, text(fields, "name")),
    }
}

/// What differs, said by the first object that does.
pub(in crate::filter) fn difference(wanted: &[Value], found: &[Value]) -> String {
    if let Some(lost) = wanted.iter().find(|object| !found.contains(object)) {
        return format!("{} is missing or altered", name(lost));
    }
    match found.iter().find(|object| !wanted.contains(object)) {
        Some(foreign) => format!("{} is not ours", name(foreign)),
        None => "its rules are out of order or repeated".to_owned(),
    }
}

fn name(object: &Value) -> String {
    if let Some(rule) = object.get("rule") {
        return format!("rule `{}` of chain {}", text(rule, "comment"), text(rule, "chain"));
    }
    let kind = object.as_object().and_then(|o| o.iter().next());
    kind.map_or_else(String::new, |(kind, inner)| format!("{kind} {}", text(inner, "name")))
}

pub(super) fn comments(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object.get("rule")).map(|rule| text(rule, "comment")).collect()
}

pub(super) fn policy_drop(chain: &Value) -> Option<PolicyDrop> {
    let (family, table, name) = (text(chain, "family"), text(chain, "table"), text(chain, "name"));
    let forwards = text(chain, "hook") == "forward" && text(chain, "policy") == "drop";
    (forwards && ["ip", "ip6", "inet"].contains(&family)).then(|| PolicyDrop {
        v6: family == "ip6",
        chain: format!("{family} {table} {name}"),
        iptables: family != "inet" && table == "filter" && name == "FORWARD",
    })
}

pub(in crate::filter) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::render::render;
    use super::super::render::tests::want;
    use super::*;

    /// What nft 1.0.6 prints for `want()`.
    fn printed() -> Value {
        serde_json::from_str(include_str!("printed.json")).unwrap()
    }

    fn objects(value: &Value) -> Vec<Value> {
        let all = value["nftables"].as_array().unwrap();
        all.iter().filter(|o| o.get("metainfo").is_none()).cloned().collect()
    }

    #[test]
    fn rendered_reads_like_what_nft_prints() {
        assert_eq!(canonical(&render("twill-x", &want(), true)), canonical(&objects(&printed())));
    }

    #[test]
    fn every_kind_of_damage_is_seen_and_named() {
        let wanted = canonical(&render("twill-x", &want(), true));
        let good = objects(&printed());
        let rule = |i: usize| good.iter().position(|o| o.get("rule").is_some()).unwrap() + i;
        let why = |damage: &dyn Fn(&mut Vec<Value>)| {
            let mut found = good.clone();
            damage(&mut found);
            assert_ne!(canonical(&found), wanted);
            difference(&wanted, &canonical(&found))
        };
        assert!(why(&|f| f.clear()).contains("table twill-x is missing"));
        assert!(why(&|f| drop(f.remove(rule(1)))).contains("rule `pods to outside` of chain postrouting"));
        assert!(why(&|f| f[rule(1)]["rule"]["expr"][0]["match"]["op"] = json!("!=")).contains("altered"));
        assert!(why(&|f| f[rule(1)]["rule"]["expr"][3]["masquerade"] = Value::Null).contains("altered"));
        assert!(why(&|f| f[0]["table"]["flags"] = json!("dormant")).contains("table twill-x"));
        assert!(why(&|f| f[1]["chain"]["policy"] = json!("drop")).contains("chain postrouting"));
        assert!(why(&|f| f.push(f[rule(0)].clone())).contains("repeated"));
        assert!(why(&|f| f.swap(rule(0), rule(1))).contains("out of order"));
        assert!(why(&|f| f.push(json!({"set": {"name": "s"}}))).contains("set s is not ours"));
    }

    #[test]
    fn only_forward_chains_that_drop_are_obstacles() {
        let chain = |family: &str, hook: &str, policy: &str| {
            policy_drop(
                &json!({"family": family, "table": "filter", "name": "FORWARD", "hook": hook, "policy": policy}),
            )
        };
        let drop = chain("ip", "forward", "drop").unwrap();
        assert!(drop.iptables && drop.to_string().contains("--firewall iptables"));
        assert!(chain("ip6", "forward", "drop").unwrap().to_string().contains("ip6tables -P FORWARD ACCEPT"));
        assert!(!chain("inet", "forward", "drop").unwrap().iptables);
        assert_eq!(chain("ip", "forward", "accept"), None);
        assert_eq!(chain("ip", "input", "drop"), None);
        assert_eq!(chain("bridge", "forward", "drop"), None);
    }
}
