//! The guard's table as text, and as what `nft -j -t list table` prints of it. Pure.
//!
//! Text, because the JSON of nft cannot name the type of a set by what is looked up in it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Value, json};
use twill_backends::guard::{Element, GuardNetwork, GuardRules};

use super::elements::change;
use super::rules::{self, chains, key};
use super::sets::{Kin, Set};

/// Packets and bytes by the name of the counter.
pub(super) type Counts = BTreeMap<String, (u64, u64)>;

/// What is counted: frames whose inner source is not their sender's, pods that send to a tunnel port, and frames from
/// addresses without a lease.
pub(super) const COUNTERS: [&str; 3] = ["forged", "pods", "strangers"];

/// Before the filters of anybody else see the frames, who may drop more. Fragments are put together by then.
const PRIORITY: i32 = -10;

/// Two transactions that make the table as it should be, whatever is there. Counters go on from `counts`.
///
/// # Why two
/// Rules of a transaction may look into its sets before those are filled, and would drop what comes in that moment. So
/// the sets come first, and then the chains.
pub(super) fn load(
    table: &str,
    rules: &GuardRules,
    elements: &BTreeSet<Element>,
    counts: &Counts,
) -> [String; 2] {
    [sets(table, rules, counts) + &change(table, "add", elements, rules), hooked(table, rules)]
}

/// The table with something in each of its sets, for a dry run under another name.
pub(super) fn probe(table: &str, rules: &GuardRules) -> String {
    let samples = |network: &GuardNetwork| {
        let (addr, bits) = (network.net.network(), network.net.max_prefix_len());
        let lens = [network.subnet_len, bits, network.net.prefix_len()].into_iter().filter(|_| rules.inner);
        let nets = lens.filter_map(move |len| IpNet::new(addr, len).ok());
        [Element::From(addr)].into_iter().chain(nets.map(move |net| Element::Carries(addr, net)))
    };
    let elements = rules.networks.iter().flat_map(samples).collect();
    load(table, rules, &elements, &Counts::new()).concat()
}

/// The table in place of whatever is there, with counters and empty sets.
fn sets(table: &str, rules: &GuardRules, counts: &Counts) -> String {
    // nft 1.0.6 has no `destroy`: adding first makes the deletion sure to work.
    let fresh = format!("table inet {table}\ndelete table inet {table}\n");
    let mut lines = Vec::new();
    for name in COUNTERS {
        let (packets, bytes) = counts.get(name).copied().unwrap_or_default();
        lines.push(format!("counter {name} {{ packets {packets} bytes {bytes}\n}}"));
    }
    for (kin, network) in Kin::all(rules) {
        lines.push(format!("set {} {{ type {}; counter; }}", Set::From(kin), kin.kind));
        for set in kin.carries(network).into_iter().filter(|_| rules.inner) {
            let flags = if matches!(set, Set::Intervals(_)) { " flags interval;" } else { "" };
            lines.push(format!("set {set} {{ typeof {};{flags} }}", key(kin)));
        }
    }
    fresh + &block(table, &lines)
}

/// The table's chains, with their rules.
fn hooked(table: &str, rules: &GuardRules) -> String {
    let (all, mut lines) = (rules::rules(rules), Vec::new());
    for (chain, hooked) in chains(rules) {
        lines.push(format!("chain {chain} {{"));
        if hooked {
            lines.push(format!("type filter hook {chain} priority {PRIORITY}; policy accept;"));
        }
        for rule in all.iter().filter(|rule| rule.chain == chain) {
            lines.push(format!("{} comment \"{}\"", rule.text, rule.comment));
        }
        lines.push("}".to_owned());
    }
    block(table, &lines)
}

/// These lines of a table.
fn block(table: &str, lines: &[String]) -> String {
    format!("table inet {table} {{\n{}\n}}\n", lines.join("\n"))
}

/// The table as nft prints it, without elements and counts.
pub(super) fn printed(table: &str, rules: &GuardRules) -> Vec<Value> {
    let mut objects = vec![json!({"table": {"family": "inet", "name": table}})];
    let named = |name: &str| json!({"family": "inet", "table": table, "name": name});
    let with = |name: &str, more: Value| {
        let mut object = named(name);
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        object
    };
    objects.extend(COUNTERS.iter().map(|name| json!({"counter": named(name)})));
    for (kin, network) in Kin::all(rules) {
        let from = json!({"type": kin.kind, "stmt": [{"counter": null}]});
        objects.push(json!({"set": with(&Set::From(kin).to_string(), from)}));
        for set in kin.carries(network).into_iter().filter(|_| rules.inner) {
            let mut more = json!({"type": [kin.kind, "integer"]});
            if let (Set::Intervals(_), Some(more)) = (set, more.as_object_mut()) {
                more.insert("flags".to_owned(), json!(["interval"]));
            }
            objects.push(json!({"set": with(&set.to_string(), more)}));
        }
    }
    for (chain, hooked) in chains(rules) {
        let base = json!({"type": "filter", "hook": chain, "prio": PRIORITY, "policy": "accept"});
        objects.push(json!({"chain": if hooked { with(chain, base) } else { named(chain) }}));
    }
    objects.extend(rules::rules(rules).into_iter().map(|rule| {
        json!({"rule": {"family": "inet", "table": table, "chain": rule.chain, "comment": rule.comment,
            "expr": rule.expr}})
    }));
    objects
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::filter::guard) fn rules() -> GuardRules {
        let network = |net: &str, subnet_len| GuardNetwork { net: net.parse().unwrap(), subnet_len };
        let networks = vec![network("10.5.0.0/16", 24), network("fd00:5::/48", 64)];
        GuardRules { port: 8472, vni: 1, networks, outer: true, inner: true }
    }

    fn elements() -> BTreeSet<Element> {
        let carries = |addr: &str, net: &str| Element::Carries(addr.parse().unwrap(), net.parse().unwrap());
        BTreeSet::from([
            Element::From("192.0.2.7".parse().unwrap()),
            carries("192.0.2.7", "10.5.7.0/24"),
            carries("192.0.2.7", "192.0.2.7/32"),
            carries("192.0.2.7", "10.5.64.0/20"),
            carries("2001:db8::7", "fd00:5:0:7::/64"),
        ])
    }

    #[test]
    fn the_table_is_replaced_sets_first_and_counts_go_on() {
        let counts = Counts::from([("pods".to_owned(), (3, 300))]);
        let [sets, chains] = load("t", &rules(), &elements(), &counts);
        assert!(!sets.contains("chain") && !chains.contains("element"), "{sets}{chains}");
        let text = sets + &chains;
        assert!(text.starts_with("table inet t\ndelete table inet t\ntable inet t {\n"), "{text}");
        for line in [
            "counter pods { packets 3 bytes 300",
            "counter strangers { packets 0 bytes 0",
            "set from4 { type ipv4_addr; counter; }",
            "set carries6-64 { typeof ip6 saddr . @th,304,128; }",
            "set carries6 { typeof ip6 saddr . @th,304,128; flags interval; }",
            "udp dport 8472 @th,96,24 1 jump senders comment \"frames of the fabric\"",
            "ip saddr @from4 goto inner4 comment",
            "meta nfproto ipv4 counter name strangers drop comment",
            "ip saddr . @th,336,32 & 0xffffff00 @carries4-24 return comment",
            "ip saddr . @th,336,32 @carries4-32 return comment",
            "ip6 saddr . @th,304,128 & 0xffffffffffffffff0000000000000000 @carries6-64 return comment",
            "add element inet t from4 { 192.0.2.7 }",
            "add element inet t carries4-24 { 192.0.2.7 . 0xa050700 }",
            "add element inet t carries4-32 { 192.0.2.7 . 0xc0000207 }",
            "add element inet t carries4 { 192.0.2.7 . 0xa054000-0xa054fff }",
            "add element inet t carries6-64 { 2001:db8::7 . 0xfd000005000000070000000000000000 }",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_dry_run_has_something_for_each_set() {
        for inner in [true, false] {
            let text = probe("t", &GuardRules { inner, ..rules() });
            let named =
                |line| text.lines().filter_map(move |text| text.strip_prefix(line)?.split(' ').next());
            let (sets, filled): (Vec<_>, Vec<_>) =
                (named("set ").collect(), named("add element inet t ").collect());
            assert_eq!(sets.len(), if inner { 8 } else { 2 }, "{text}");
            assert!(sets.iter().all(|set| filled.contains(set)) && text.contains("chain input"), "{text}");
        }
    }

    #[test]
    fn parts_come_and_go_with_what_is_checked() {
        let text = |rules: &GuardRules| load("t", rules, &BTreeSet::new(), &Counts::new()).concat();
        let outer = text(&GuardRules { inner: false, ..rules() });
        assert!(
            !outer.contains("carries4") && outer.contains("strangers drop") && outer.contains("pods drop")
        );
        let inner = text(&GuardRules { outer: false, ..rules() });
        assert!(!inner.contains("strangers drop") && !inner.contains("pods drop"));
        assert!(inner.contains("ip6 saddr @from6 goto inner6") && outer.contains("ip6 saddr @from6 return"));
        let v4 = text(&GuardRules { networks: rules().networks[..1].to_vec(), ..rules() });
        assert!(!v4.contains("ip6") && v4.contains("ip saddr"));
    }
}
