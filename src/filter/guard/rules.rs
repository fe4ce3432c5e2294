//! The rules of the guard's table, each as text and as nft prints it. Pure.

use ipnet::IpNet;
use serde_json::{Value, json};
use twill_backends::guard::{GuardNetwork, GuardRules};

use super::sets::{Kin, Set};

/// Where something of a frame is, in bits from the UDP header on (8 bytes): after it come the VXLAN header (8, the VNI
/// in bytes 4 to 6), the inner Ethernet header (14, the type at its end) and the inner IP header.
const VNI: u32 = 96;
const ETHERTYPE: u32 = 224;

/// A rule.
pub(super) struct Rule {
    pub(super) chain: &'static str,
    pub(super) comment: &'static str,
    pub(super) text: String,
    pub(super) expr: Vec<Value>,
}

/// Something that a rule asks or does, in both forms.
struct Part(String, Value);

impl Rule {
    fn new(chain: &'static str, comment: &'static str, parts: impl IntoIterator<Item = Part>) -> Self {
        let (text, expr): (Vec<_>, _) = parts.into_iter().map(|Part(text, value)| (text, value)).unzip();
        Self { chain, comment, text: text.join(" "), expr }
    }
}

/// The chains, what is jumped to before what jumps, and whether each is hooked in.
pub(super) fn chains(rules: &GuardRules) -> Vec<(&'static str, bool)> {
    let inner = Kin::all(rules).map(|(kin, _)| (kin.inner, false)).filter(|_| rules.inner);
    inner.chain([("senders", false), ("input", true), ("forward", true)]).collect()
}

/// All rules, in the order of each chain.
pub(super) fn rules(rules: &GuardRules) -> Vec<Rule> {
    let mut all = Vec::new();
    for (kin, network) in Kin::all(rules) {
        all.extend(senders(rules, kin));
        if rules.inner {
            all.extend(inner(kin, network));
        }
        if rules.outer {
            all.extend(pods(rules, kin, &network.net));
        }
    }
    let jump = Part("jump senders".to_owned(), json!({"jump": {"target": "senders"}}));
    all.push(Rule::new("input", "frames of the fabric", frame(rules).into_iter().chain([jump])));
    all
}

/// Frames of our network come from hosts with a lease. Each is counted where its sender is found.
fn senders(rules: &GuardRules, kin: &'static Kin) -> impl Iterator<Item = Rule> {
    let then = match rules.inner {
        true => Part(format!("goto {}", kin.inner), json!({"goto": {"target": kin.inner}})),
        false => back(),
    };
    let known = Rule::new(
        "senders",
        "a live lease has this address",
        [is_in(outer(kin, "saddr"), Set::From(kin), true), then],
    );
    let family = json!({"meta": {"key": "nfproto"}});
    let family = Part(format!("meta nfproto {}", kin.nfproto), compare("==", family, kin.nfproto));
    // Where the outer source is not checked, strangers have no lease that their packets could be outside of.
    let others = rules.outer.then(|| {
        Rule::new("senders", "no live lease has this address", [family].into_iter().chain(drop("strangers")))
    });
    [known].into_iter().chain(others)
}

/// The packets inside come from a subnet of their sender's.
fn inner(kin: &'static Kin, network: &GuardNetwork) -> impl Iterator<Item = Rule> {
    let Kin { inner: chain, ethertype, .. } = *kin;
    let other =
        Part(format!("@th,{ETHERTYPE},16 != {ethertype:#x}"), compare("!=", raw(ETHERTYPE, 16), ethertype));
    let own = kin.carries(network).into_iter();
    let own =
        own.map(move |set| Rule::new(chain, "a source of its own", [is_in(pair(set), set, true), back()]));
    [Rule::new(chain, "no packet of this family", [other].into_iter().chain(drop("forged")))]
        .into_iter()
        .chain(own)
        .chain([Rule::new(chain, "a source of another host", drop("forged"))])
}

/// Pods send no frames to hosts. What is not found in a set is not counted there.
fn pods(rules: &GuardRules, kin: &'static Kin, net: &IpNet) -> [Rule; 2] {
    let prefix = json!({"prefix": {"addr": net.network().to_string(), "len": net.prefix_len()}});
    let text = format!("{} saddr {}", kin.protocol, net.trunc());
    let from_pods = || {
        let source = Part(text.clone(), compare("==", field(kin, "saddr"), prefix.clone()));
        frame(rules).into_iter().chain([source])
    };
    let elsewhere = is_in(outer(kin, "daddr"), Set::From(kin), false);
    [
        Rule::new("forward", "not to a host", from_pods().chain([elsewhere, back()])),
        Rule::new("forward", "pods send no frames", from_pods().chain(drop("pods"))),
    ]
}

/// What a set of inner sources is asked for: the sender, and as much of the inner source as its networks are long.
fn pair(set: Set) -> Part {
    let kin = set.kin();
    let (mut text, mut source) = (key(kin), raw(kin.source, kin.bits.into()));
    if let Set::Carries(_, len) = set
        && len < kin.bits
    {
        let mask = u128::MAX.checked_shl((kin.bits - len).into()).unwrap_or_default();
        let mask = mask & (u128::MAX >> (128 - kin.bits));
        text = format!("{text} & {mask:#x}");
        let mask = u32::try_from(mask).map_or_else(|_| json!(format!("{mask:#x}")), |mask| json!(mask));
        source = json!({"&": [source, mask]});
    }
    Part(text, json!({"concat": [field(kin, "saddr"), source]}))
}

/// What the elements of a set of inner sources are made of.
pub(super) fn key(kin: &Kin) -> String {
    format!("{} saddr . @th,{},{}", kin.protocol, kin.source, kin.bits)
}

/// An address of the outer packet.
fn outer(kin: &Kin, which: &str) -> Part {
    Part(format!("{} {which}", kin.protocol), field(kin, which))
}

/// Something is in a set, or is not.
fn is_in(Part(text, value): Part, set: Set, is: bool) -> Part {
    let (spelled, op) = if is { ("", "==") } else { ("!= ", "!=") };
    Part(format!("{text} {spelled}@{set}"), compare(op, value, format!("@{set}")))
}

/// Frames of our network, to any tunnel port of this number.
fn frame(rules: &GuardRules) -> [Part; 2] {
    let GuardRules { port, vni, .. } = rules;
    let udp = json!({"payload": {"protocol": "udp", "field": "dport"}});
    [
        Part(format!("udp dport {port}"), compare("==", udp, *port)),
        Part(format!("@th,{VNI},24 {vni}"), compare("==", raw(VNI, 24), *vni)),
    ]
}

fn back() -> Part {
    Part("return".to_owned(), json!({"return": null}))
}

fn drop(counter: &str) -> [Part; 2] {
    [
        Part(format!("counter name {counter}"), json!({"counter": counter})),
        Part("drop".to_owned(), json!({"drop": null})),
    ]
}

fn compare(op: &str, left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": op, "left": left, "right": right.into()}})
}

fn field(kin: &Kin, field: &str) -> Value {
    json!({"payload": {"protocol": kin.protocol, "field": field}})
}

fn raw(offset: u32, length: u32) -> Value {
    json!({"payload": {"base": "th", "offset": offset, "len": length}})
}
