//! The state of a host, as lines that can be compared: what `ip`, `bridge` and `nft` print, less what differs from
//! one reading to the next although nothing was changed.

use std::collections::BTreeMap;

use serde_json::Value;
use twill::lab::Netns;

/// Ends what one command printed.
const BREAK: &str = "=====";
const ROUTES: [&str; 2] = ["ip -4 -j route show", "ip -6 -j route show"];
const RULES: &str = "nft -s list ruleset";
/// The settings that an agent makes.
const SYSCTLS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// Links, addresses, routes, permanent neighbours and FDB entries, firewall and forwarding. Link-local addresses are
/// not in it: the kernel makes them.
pub(crate) fn of(net: &Netns) -> Vec<String> {
    let mut lines = network(net);
    lines.extend(SYSCTLS.iter().map(|path| format!("{path} = {}", net.sysctl(path).unwrap())));
    lines
}

/// [`of`] without settings, which a cleanup leaves.
pub(crate) fn network(net: &Netns) -> Vec<String> {
    let neigh = ["ip -4 -j neigh show nud permanent", "ip -6 -j neigh show nud permanent"];
    let commands =
        ["ip -d -j addr show", ROUTES[0], ROUTES[1], neigh[0], neigh[1], "bridge -j fdb show", RULES];
    let texts = all(net, &commands);
    let mut lines = links(&parse(&texts[0]));
    lines.extend(texts[1..3].iter().flat_map(|text| routes_of(text)));
    lines.extend(texts[3..5].iter().flat_map(|text| objects("neigh ", text)));
    lines.extend(objects("fdb ", &texts[5]).into_iter().filter(|line| line.contains("flannel")));
    lines.retain(|line| !line.contains("33:33:") && !line.contains("01:00:5e"));
    lines.sort();
    lines.dedup();
    lines.extend(rules_of(&texts[6]));
    lines
}

/// Routes of the main table.
pub(crate) fn routes(net: &Netns) -> Vec<String> {
    all(net, &ROUTES).iter().flat_map(|text| routes_of(text)).collect()
}

/// The rules, without counters.
pub(crate) fn firewall(net: &Netns) -> Vec<String> {
    rules_of(&run(net, RULES))
}

/// [`firewall`] without the guard: what flanneld has a counterpart of.
pub(crate) fn rules(net: &Netns) -> Vec<String> {
    let mut rules = firewall(net);
    if let Some(first) = rules.iter().position(|line| line.starts_with("table inet twill-guard-")) {
        let last = first + rules[first..].iter().position(|line| line == "}").unwrap();
        rules.drain(first..=last);
        // Elements stand at the end, and only the guard has any.
        let end = rules.iter().rposition(|line| line == "}").map_or(0, |last| last + 1);
        rules.truncate(end);
    }
    rules
}

fn routes_of(text: &str) -> Vec<String> {
    let mut lines = objects("route ", text);
    lines.retain(|line| !line.contains("\"fe80::/64\"") && !line.contains("\"multicast\""));
    lines
}

fn rules_of(text: &str) -> Vec<String> {
    let (elements, mut lines): (Vec<_>, Vec<_>) = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .partition(|line| line.contains(" . 0x") || line.contains("elements = "));
    // The kernel keeps elements in the order in which they came.
    let elements = elements.iter().flat_map(|line| line.split(", "));
    let bare =
        |one: &str| one.trim().trim_start_matches("elements = {").trim_matches([',', '}', ' ']).to_owned();
    let mut elements: Vec<String> = elements.map(bare).collect();
    elements.sort();
    lines.retain(|line| !line.trim().is_empty());
    lines.into_iter().map(str::to_owned).chain(elements).collect()
}

/// Links with addresses. Of a device that is no tunnel, its Ethernet address does not count.
fn links(entries: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for link in entries.as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        if name.starts_with("twill-try") {
            // A trial of checksums is under way, for a moment.
            continue;
        }
        let kept = ["mtu", "ifalias", "operstate", "flags"].map(|key| link[key].clone());
        lines.push(format!("link {name} {}", Value::from(kept.to_vec())));
        let data = &link["linkinfo"]["info_data"];
        if link["linkinfo"]["info_kind"] == "vxlan" {
            let kept = ["id", "local", "local6", "port", "learning", "link"].map(|key| data[key].clone());
            lines.push(format!("vxlan {name} {} {}", link["address"], Value::from(kept.to_vec())));
        }
        for addr in link["addr_info"].as_array().unwrap().iter().filter(|addr| addr["scope"] != "link") {
            let kept = ["local", "prefixlen", "dadfailed"].map(|key| addr[key].clone());
            lines.push(format!("addr {name} {}", Value::from(kept.to_vec())));
        }
    }
    lines
}

/// One line per object of a JSON list. What names nothing (cache lifetimes, flags of the cache) is left out.
fn objects(prefix: &str, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for object in parse(text).as_array().cloned().unwrap_or_default() {
        let Value::Object(fields) = object else { continue };
        let kept = |key: &str| !matches!(key, "expires" | "cache" | "used" | "updated" | "pref");
        let fields: BTreeMap<String, Value> = fields.into_iter().filter(|(key, _)| kept(key)).collect();
        lines.push(format!("{prefix}{}", serde_json::to_string(&fields).unwrap()));
    }
    lines
}

fn parse(text: &str) -> Value {
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(text).unwrap() }
}

/// What each of the commands prints, read in one go.
fn all(net: &Netns, commands: &[&str]) -> Vec<String> {
    let text = sh(net, &commands.join(&format!("; echo '{BREAK}'; ")));
    let texts: Vec<String> = text.split(BREAK).map(|text| text.trim().to_owned()).collect();
    assert_eq!(texts.len(), commands.len(), "{text}");
    texts
}

/// A device's Ethernet address.
pub(crate) fn mac_of(net: &Netns, device: &str) -> String {
    parse(&run(net, &format!("ip -j link show {device}")))[0]["address"].as_str().unwrap().to_owned()
}

/// A device's index: another device has another one.
pub(crate) fn index_of(net: &Netns, device: &str) -> u64 {
    parse(&run(net, &format!("ip -j link show {device}")))[0]["ifindex"].as_u64().unwrap()
}

/// Runs a command of plain words.
pub(crate) fn run(net: &Netns, command: &str) -> String {
    net.exec(&command.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a line of shell.
pub(crate) fn sh(net: &Netns, line: &str) -> String {
    net.exec(&["sh", "-ec", line]).unwrap_or_else(|error| panic!("{error}"))
}

/// What differs, for messages.
pub(crate) fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}
