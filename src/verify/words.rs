//! Entries of the kernel as people say them.

use twill_backends::diff::Op;
use twill_backends::state::{Fdb, Link, LinkKind, NetState, Route, RouteKind};

/// Which entry an operation is about.
#[must_use]
pub fn entry(op: &Op) -> String {
    match op {
        Op::SetLink(name, _) | Op::DelLink(name) => format!("device {name}"),
        Op::SetSysctl(path, _) => format!("setting {}", path.replace('/', ".")),
        Op::SetNeigh(key, _) | Op::DelNeigh(key) => format!("neighbour {} on {}", key.ip, key.dev),
        Op::SetFdb(entry) | Op::DelFdb(entry) => format!("FDB entry {} on {}", entry.mac, entry.dev),
        Op::SetRoute(key, _) | Op::DelRoute(key, _) => format!("route {}", key.dst),
    }
}

/// The same of a link, with how many entries belong on it that are not there because it is not.
pub(super) fn with_what_is_on_it(link: &str, entries: usize) -> String {
    match entries {
        1 => format!("{link}, and 1 entry on it"),
        more => format!("{link}, and {more} entries on it"),
    }
}

/// What is wanted of the entry, and what was found.
pub(super) fn compared(op: &Op, want: &NetState, have: &NetState) -> (Option<String>, Option<String>) {
    match op {
        Op::SetLink(name, link) => match have.links.get(name) {
            Some(found) => {
                let (wanted, found) = differing(link, found);
                (Some(wanted), Some(found))
            }
            None => (Some(device(link)), None),
        },
        Op::SetSysctl(path, value) => (Some(value.clone()), have.sysctls.get(path).cloned()),
        Op::SetNeigh(key, mac) => (Some(mac.to_string()), have.neighs.get(key).map(ToString::to_string)),
        Op::SetFdb(entry) => (Some(to(entry)), moved(have, entry).map(to)),
        Op::SetRoute(key, wanted) => (Some(route(wanted)), have.routes.get(key).map(route)),
        Op::DelRoute(_, found) => (None, Some(route(found))),
        Op::DelFdb(entry) => (moved(want, entry).map(to), Some(to(entry))),
        Op::DelNeigh(key) => (None, have.neighs.get(key).map(ToString::to_string)),
        Op::DelLink(name) => (None, have.links.get(name).map(device)),
    }
}

/// The entry of the same Ethernet address that leads elsewhere.
pub(super) fn moved<'a>(state: &'a NetState, entry: &Fdb) -> Option<&'a Fdb> {
    let same = |other: &&Fdb| (other.dev, other.mac) == (entry.dev, entry.mac) && other.dst != entry.dst;
    state.fdb.iter().find(same)
}

fn to(entry: &Fdb) -> String {
    format!("to {}", entry.dst)
}

/// Where a route leads.
#[must_use]
pub fn route(route: &Route) -> String {
    let mut words = Vec::new();
    if route.kind == RouteKind::Blackhole {
        words.push("blackhole".to_owned());
    }
    words.extend(route.via.map(|via| format!("via {via}")));
    words.extend(route.dev.map(|dev| format!("dev {dev}")));
    words.extend(route.onlink.then(|| "onlink".to_owned()));
    words.extend(route.mtu.map(|mtu| format!("mtu {mtu}")));
    words.push(format!("proto {}", route.protocol));
    words.join(" ")
}

/// A link with all that is set on it.
#[must_use]
pub fn device(link: &Link) -> String {
    attributes(link).into_iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// The attributes that differ, as they are wanted and as they were found.
#[must_use]
pub fn differing(want: &Link, have: &Link) -> (String, String) {
    let (want, have) = (attributes(want), attributes(have));
    let of = |these: &[(&'static str, String)], those: &[(&'static str, String)]| {
        let differs = |this: &&(&'static str, String)| !those.contains(this);
        let words: Vec<String> =
            these.iter().filter(differs).map(|(name, value)| format!("{name} {value}")).collect();
        if words.is_empty() { "nothing more".to_owned() } else { words.join(", ") }
    };
    (of(&want, &have), of(&have, &want))
}

fn attributes(link: &Link) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("state", if link.up { "up" } else { "down" }.to_owned()),
        ("mtu", link.mtu.to_string()),
        ("address", link.mac.to_string()),
    ];
    match &link.kind {
        LinkKind::Vxlan(vxlan) => all.extend([
            ("kind", "vxlan".to_owned()),
            ("id", vxlan.vni.to_string()),
            ("port", vxlan.port.to_string()),
            ("local", vxlan.local.to_string()),
            ("learning", if vxlan.learning { "on" } else { "off" }.to_owned()),
            ("gbp", if vxlan.gbp { "on" } else { "off" }.to_owned()),
        ]),
        LinkKind::Tap => all.push(("kind", "tap".to_owned())),
        LinkKind::Other => all.push(("kind", "another".to_owned())),
    }
    all.push(("alias", link.alias.clone()));
    all.extend(link.addrs.iter().map(|addr| ("addr", addr.to_string())));
    all
}
