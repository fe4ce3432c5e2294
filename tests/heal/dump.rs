//! The state of a host, as lines that can be compared: what `ip`, `bridge` and `nft` print, less what differs from
//! one reading to the next although nothing was changed.

use std::collections::BTreeMap;

use serde_json::Value;
use twill::lab::Netns;

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
    let mut lines = links(net);
    lines.extend(routes(net));
    lines.extend(json(net, "neigh ", "ip -j neigh show nud permanent"));
    lines.extend(json(net, "neigh ", "ip -6 -j neigh show nud permanent"));
    let fdb = json(net, "fdb ", "bridge -j fdb show");
    lines.extend(fdb.into_iter().filter(|line| line.contains("flannel")));
    lines.retain(|line| !line.contains("33:33:") && !line.contains("01:00:5e"));
    lines.sort();
    lines.dedup();
    lines.extend(firewall(net));
    lines
}

/// Routes of the main table.
pub(crate) fn routes(net: &Netns) -> Vec<String> {
    let mut lines = json(net, "route ", "ip -4 -j route show");
    lines.extend(json(net, "route ", "ip -6 -j route show"));
    lines.retain(|line| !line.contains("\"fe80::/64\"") && !line.contains("\"multicast\""));
    lines
}

/// The rules, without counters.
pub(crate) fn firewall(net: &Netns) -> Vec<String> {
    let text = run(net, "nft -s list ruleset");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Links with addresses; of pods' veths and `lo`, that they exist.
fn links(net: &Netns) -> Vec<String> {
    let entries: Value = parse(&run(net, "ip -d -j addr show"));
    let mut lines = Vec::new();
    for link in entries.as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
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
fn json(net: &Netns, prefix: &str, command: &str) -> Vec<String> {
    let list = parse(&run(net, command));
    let mut lines = Vec::new();
    for object in list.as_array().cloned().unwrap_or_default() {
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
