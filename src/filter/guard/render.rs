//! The guard's table as text, and as what `nft -j -t list table` prints of it. Pure.
//!
//! Text, because the JSON of nft cannot name the type of a set by what is looked up in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use twill_backends::guard::{Element, GuardRules};

use super::elements::change;

/// Packets and bytes by the name of the counter.
pub(super) type Counts = BTreeMap<String, (u64, u64)>;

/// What is counted: frames whose inner source is not their sender's, pods that send to a tunnel port, and frames from
/// addresses without a lease.
pub(super) const COUNTERS: [&str; 3] = ["forged", "pods", "strangers"];

/// Before the filters of anybody else see the frames, who may drop more. Fragments are put together by then.
const PRIORITY: i32 = -10;

/// Where something of a frame is, in bits from the UDP header on (8 bytes): after it come the VXLAN header (8, the VNI
/// in bytes 4 to 6), the inner Ethernet header (14, the type at its end) and the inner IP header.
const VNI: u32 = 96;
const ETHERTYPE: u32 = 224;

/// What is different about a family.
pub(super) struct Kin {
    /// How nft calls it.
    protocol: &'static str,
    /// The type of its addresses.
    kind: &'static str,
    /// The sets: who may send, and with which inner sources.
    pub(super) from: &'static str,
    pub(super) carries: &'static str,
    ethertype: u16,
    /// Where the inner source address is, and its length in bits.
    source: (u32, u32),
}

const V4: Kin = Kin {
    protocol: "ip",
    kind: "ipv4_addr",
    from: "from4",
    carries: "carries4",
    ethertype: 0x0800,
    source: (336, 32),
};
const V6: Kin = Kin {
    protocol: "ip6",
    kind: "ipv6_addr",
    from: "from6",
    carries: "carries6",
    ethertype: 0x86dd,
    source: (304, 128),
};

/// A rule, in both forms.
struct Rule {
    chain: &'static str,
    comment: &'static str,
    text: String,
    expr: Vec<Value>,
}

impl Kin {
    pub(super) const fn of(addr: &IpAddr) -> &'static Self {
        if addr.is_ipv4() { &V4 } else { &V6 }
    }
}

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
    [sets(table, rules, counts) + &change(table, "add", elements), hooked(table, rules)]
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
    for kin in kin(rules) {
        lines.push(format!("set {} {{ type {}; }}", kin.from, kin.kind));
        if rules.inner {
            let (at, length) = kin.source;
            let key = format!("typeof {} saddr . @th,{at},{length}", kin.protocol);
            lines.push(format!("set {} {{ {key}; flags interval; }}", kin.carries));
        }
    }
    fresh + &block(table, &lines)
}

/// The table's chains, with their rules.
fn hooked(table: &str, rules: &GuardRules) -> String {
    let all = chains(rules);
    let mut lines = Vec::new();
    // What is jumped to comes first.
    for (chain, hook) in [("senders", None), ("input", Some("input")), ("forward", Some("forward"))] {
        lines.push(format!("chain {chain} {{"));
        if let Some(hook) = hook {
            lines.push(format!("type filter hook {hook} priority {PRIORITY}; policy accept;"));
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
    for kin in kin(rules) {
        objects.push(json!({"set": with(kin.from, json!({"type": kin.kind}))}));
        if rules.inner {
            let more = json!({"type": [kin.kind, "integer"], "flags": ["interval"]});
            objects.push(json!({"set": with(kin.carries, more)}));
        }
    }
    objects.push(json!({"chain": named("senders")}));
    for hook in ["input", "forward"] {
        let base = json!({"type": "filter", "hook": hook, "prio": PRIORITY, "policy": "accept"});
        objects.push(json!({"chain": with(hook, base)}));
    }
    objects.extend(chains(rules).into_iter().map(|rule| {
        json!({"rule": {"family": "inet", "table": table, "chain": rule.chain, "comment": rule.comment,
            "expr": rule.expr}})
    }));
    objects
}

fn kin(rules: &GuardRules) -> impl Iterator<Item = &'static Kin> {
    [&V4, &V6]
        .into_iter()
        .filter(|kin| rules.networks.iter().any(|net| Kin::of(&net.addr()).from == kin.from))
}

fn chains(rules: &GuardRules) -> Vec<Rule> {
    let mut all = Vec::new();
    for kin in kin(rules) {
        senders(rules, kin, &mut all);
    }
    let (frame, expr) = frame(rules);
    all.push(Rule {
        chain: "input",
        comment: "frames of the fabric",
        text: format!("{frame} jump senders"),
        expr: [expr.clone(), vec![json!({"jump": {"target": "senders"}})]].concat(),
    });
    for net in rules.networks.iter().filter(|_| rules.outer) {
        let kin = Kin::of(&net.addr());
        let (text, own) = verdict("pods");
        let matches = vec![
            compare("==", field(kin, "saddr"), prefix(net)),
            compare("==", field(kin, "daddr"), json!(format!("@{}", kin.from))),
        ];
        all.push(Rule {
            chain: "forward",
            comment: "pods send no frames",
            text: format!(
                "{frame} {p} saddr {} {p} daddr @{} {text}",
                net.trunc(),
                kin.from,
                p = kin.protocol
            ),
            expr: [expr.clone(), matches, own].concat(),
        });
    }
    all
}

/// The rules for frames of our network, of one family.
fn senders(rules: &GuardRules, kin: &Kin, all: &mut Vec<Rule>) {
    let Kin { protocol, from: set, carries, ethertype, source: (at, length), .. } = *kin;
    let mut rule = |comment, counter, text: String, matches: Vec<Value>| {
        let (counted, verdict) = verdict(counter);
        let expr = [matches, verdict].concat();
        all.push(Rule { chain: "senders", comment, text: format!("{text} {counted}"), expr });
    };
    let from = |op: &str| compare(op, field(kin, "saddr"), json!(format!("@{set}")));
    if rules.outer {
        rule(
            "no live lease has this address",
            "strangers",
            format!("{protocol} saddr != @{set}"),
            vec![from("!=")],
        );
    }
    if rules.inner {
        // Where the outer source is not checked, strangers have no lease that their packets could be outside of.
        rule(
            "no packet of this family",
            "forged",
            format!("{protocol} saddr @{set} @th,{ETHERTYPE},16 != {ethertype:#x}"),
            vec![from("=="), compare("!=", raw(ETHERTYPE, 16), json!(ethertype))],
        );
        let pair = json!({"concat": [field(kin, "saddr"), raw(at, length)]});
        rule(
            "a source of another host",
            "forged",
            format!("{protocol} saddr @{set} {protocol} saddr . @th,{at},{length} != @{carries}"),
            vec![from("=="), compare("!=", pair, json!(format!("@{carries}")))],
        );
    }
}

/// Frames of our network, to any tunnel port of this number.
fn frame(rules: &GuardRules) -> (String, Vec<Value>) {
    let GuardRules { port, vni, .. } = rules;
    let udp = json!({"payload": {"protocol": "udp", "field": "dport"}});
    (
        format!("udp dport {port} @th,{VNI},24 {vni}"),
        vec![compare("==", udp, json!(port)), compare("==", raw(VNI, 24), json!(vni))],
    )
}

fn verdict(counter: &str) -> (String, Vec<Value>) {
    (format!("counter name {counter} drop"), vec![json!({"counter": counter}), json!({"drop": null})])
}

fn compare(op: &str, left: Value, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn field(kin: &Kin, field: &str) -> Value {
    json!({"payload": {"protocol": kin.protocol, "field": field}})
}

fn raw(offset: u32, length: u32) -> Value {
    json!({"payload": {"base": "th", "offset": offset, "len": length}})
}

fn prefix(net: &IpNet) -> Value {
    json!({"prefix": {"addr": net.network().to_string(), "len": net.prefix_len()}})
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::filter::guard) fn rules() -> GuardRules {
        let networks = ["10.5.0.0/16", "fd00:5::/48"].iter().map(|net| net.parse().unwrap()).collect();
        GuardRules { port: 8472, vni: 1, networks, outer: true, inner: true }
    }

    fn elements() -> BTreeSet<Element> {
        let carries = |addr: &str, net: &str| Element::Carries(addr.parse().unwrap(), net.parse().unwrap());
        BTreeSet::from([
            Element::From("192.0.2.7".parse().unwrap()),
            carries("192.0.2.7", "10.5.7.0/24"),
            carries("192.0.2.7", "192.0.2.7/32"),
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
            "set carries6 { typeof ip6 saddr . @th,304,128; flags interval; }",
            "udp dport 8472 @th,96,24 1 jump senders comment \"frames of the fabric\"",
            "ip saddr != @from4 counter name strangers drop comment",
            "add element inet t from4 { 192.0.2.7 }",
            "add element inet t carries4 { 192.0.2.7 . 0xa050700-0xa0507ff, 192.0.2.7 . 0xc0000207 }",
            "add element inet t carries6 { 2001:db8::7 . 0xfd000005000000070000000000000000-0xfd00000500000007ffffffffffffffff }",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
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
        assert!(inner.contains("ip6 saddr @from6 ip6 saddr . @th,304,128 != @carries6"));
        let v4 = text(&GuardRules { networks: vec!["10.5.0.0/16".parse().unwrap()], ..rules() });
        assert!(!v4.contains("ip6") && v4.contains("ip saddr"));
    }
}
