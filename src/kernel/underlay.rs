//! Chooses the interface that carries the fabric: pure, over what the host looks like.
//!
//! As the operator asked: by names or addresses in their order, then by patterns in their order, then by what a
//! given address is reached through. Unasked, it is the interface that owns the public address, or else the one with
//! the default route.
//!
//! # Why what is in use stays
//! Addresses and routes come and go beside those in use: a failover's address, another uplink, a VPN. Peers take
//! packets only from the address they know, so a move costs packets on every host. What carries the fabric is given up
//! when it can no longer, or when it is not what was asked for, and not because something else would be chosen by now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::family::{Family, PerFamily};
use twill_backends::state::LinkName;

use super::facts::{AddrFact, HostFacts, LinkFact, RouteFact};
use super::{KernelError, Underlay, UnderlayChoice};

/// The interface chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What was chosen.
    pub underlay: Underlay,
    /// Why the candidates tried before it were rejected, for the log.
    pub rejected: Vec<String>,
}

/// One way of pointing at an interface.
#[derive(Debug)]
enum Wish<'a> {
    Value(String),
    Pattern(&'a regex::Regex),
    Reach(IpAddr),
    DefaultRoute,
}

/// Chooses the interface.
///
/// # Errors
/// [`KernelError::NoUnderlay`] with the reason each candidate was rejected for.
pub fn choose(facts: &HostFacts, choice: &UnderlayChoice) -> Result<Chosen, KernelError> {
    if let Some(underlay) = kept(facts, choice) {
        return Ok(Chosen { underlay, rejected: Vec::new() });
    }
    let mut rejected = Vec::new();
    for wish in wishes(choice, Wish::DefaultRoute) {
        match granted(facts, choice, &wish) {
            Ok(underlay) => return Ok(Chosen { underlay, rejected }),
            Err(why) => rejected.push(why),
        }
    }
    Err(KernelError::NoUnderlay(rejected.join("; ")))
}

/// What is in use, if it would be chosen were it all there is. Unasked, it need not have the default route for that.
fn kept(facts: &HostFacts, choice: &UnderlayChoice) -> Option<Underlay> {
    let link = facts.link(choice.present?)?;
    let alone = HostFacts {
        links: vec![link.clone()],
        addrs: facts.addrs_of(link.index).cloned().collect(),
        routes: facts.routes.iter().filter(|route| route.dev == Some(link.name)).cloned().collect(),
        reach: facts.reach,
    };
    wishes(choice, Wish::Value(link.name.to_string()))
        .iter()
        .filter_map(|wish| granted(&alone, choice, wish).ok())
        .find(|underlay| underlay.addrs == choice.used)
}

/// What the operator asked for, in the order to be tried.
fn wishes<'a>(choice: &'a UnderlayChoice, unasked: Wish<'a>) -> Vec<Wish<'a>> {
    let mut wishes: Vec<Wish<'_>> = choice.names.iter().cloned().map(Wish::Value).collect();
    wishes.extend(choice.patterns.iter().map(Wish::Pattern));
    wishes.extend(choice.can_reach.map(Wish::Reach));
    if wishes.is_empty() {
        let public = choice.public.v4.or(choice.public.v6);
        wishes.push(public.map_or(unasked, |ip| Wish::Value(ip.to_string())));
    }
    wishes
}

fn granted(facts: &HostFacts, choice: &UnderlayChoice, wish: &Wish<'_>) -> Result<Underlay, String> {
    match wish {
        Wish::Value(value) => by_value(facts, choice, value).map_err(|why| format!("{value}: {why}")),
        Wish::Pattern(pattern) => by_pattern(facts, choice, pattern),
        Wish::Reach(ip) => by_reach(facts, choice).map_err(|why| format!("the way to {ip}: {why}")),
        Wish::DefaultRoute => by_default_route(facts, choice),
    }
}

/// By name, or by an address it has.
fn by_value(facts: &HostFacts, choice: &UnderlayChoice, value: &str) -> Result<Underlay, String> {
    let Ok(ip) = value.parse::<IpAddr>() else {
        let name = LinkName::try_from(value).map_err(|error| error.to_string())?;
        let link = facts.link(name).ok_or("there is no such interface")?;
        return candidate(facts, link, choice, PerFamily::NONE);
    };
    let family = Family::of(&ip);
    if choice.families.get(family).is_none() {
        return Err(format!("{family} is not in use"));
    }
    let link = owner(facts, ip).ok_or("no interface has this address")?;
    let mut fixed = PerFamily::NONE;
    fixed.set(family, Some(ip));
    // A public address of the other family has to be beside it.
    for (other, public) in choice.public.iter().filter(|(other, _)| *other != family) {
        if choice.families.get(other).is_some() {
            if owner(facts, *public).map(|link| link.index) != Some(link.index) {
                return Err(format!("the public address {public} is not on {}", link.name));
            }
            fixed.set(other, Some(*public));
        }
    }
    candidate(facts, link, choice, fixed)
}

/// The first interface with an address that matches in every family, else the first whose name matches.
fn by_pattern(
    facts: &HostFacts,
    choice: &UnderlayChoice,
    pattern: &regex::Regex,
) -> Result<Underlay, String> {
    let mut why = Vec::new();
    for link in &facts.links {
        let fixed = choice.families.map(|family, ()| {
            usable(facts, link, choice, family).into_iter().find(|ip| pattern.is_match(&ip.to_string()))
        });
        let fixed = PerFamily { v4: fixed.v4.flatten(), v6: fixed.v6.flatten() };
        if choice.families.iter().all(|(family, ())| fixed.get(family).is_some()) {
            return candidate(facts, link, choice, fixed);
        }
    }
    for link in &facts.links {
        if pattern.is_match(link.name.as_str()) {
            match candidate(facts, link, choice, PerFamily::NONE) {
                Ok(underlay) => return Ok(underlay),
                Err(reason) => why.push(format!("{}: {reason}", link.name)),
            }
        }
    }
    why.push(format!("nothing else matches among {}", inventory(facts)));
    Err(format!("pattern {pattern}: {}", why.join("; ")))
}

/// What the kernel would use.
fn by_reach(facts: &HostFacts, choice: &UnderlayChoice) -> Result<Underlay, String> {
    let reach = facts.reach.ok_or("there is no route")?;
    let link = facts.links.iter().find(|link| link.index == reach.index).ok_or("its interface is gone")?;
    let mut fixed = PerFamily::NONE;
    if let Some(source) = reach.source {
        let family = Family::of(&source);
        let used = usable(facts, link, choice, family).into_iter().find(|ip| is_used(choice, *ip));
        fixed.set(family, used.or(Some(source)));
    }
    candidate(facts, link, choice, fixed)
}

/// The interface of the default route of every family in use.
fn by_default_route(facts: &HostFacts, choice: &UnderlayChoice) -> Result<Underlay, String> {
    let mut found: Option<LinkName> = None;
    for (family, ()) in choice.families.iter() {
        let dev = default_dev(facts, family)
            .ok_or_else(|| format!("there is no {family} default route; name an interface with --iface"))?;
        if let Some(before) = found.filter(|before| *before != dev) {
            return Err(format!(
                "the default routes lead through {before} (IPv4) and {dev} (IPv6); name an interface with --iface"
            ));
        }
        found = Some(dev);
    }
    let link = found.and_then(|name| facts.link(name)).ok_or("the default route's interface is gone")?;
    candidate(facts, link, choice, PerFamily::NONE).map_err(|why| format!("{}: {why}", link.name))
}

fn default_dev(facts: &HostFacts, family: Family) -> Option<LinkName> {
    let defaults = facts.routes.iter().filter(|route| {
        route.dst.prefix_len() == 0
            && Family::of_net(&route.dst) == family
            && route.kind == RouteFact::UNICAST
    });
    defaults.filter(|route| route.dev.is_some()).min_by_key(|route| route.metric)?.dev
}

/// The interface with an address of each family in use: a fixed one, or its best.
fn candidate(
    facts: &HostFacts,
    link: &LinkFact,
    choice: &UnderlayChoice,
    fixed: PerFamily<IpAddr>,
) -> Result<Underlay, String> {
    if link.mtu == 0 {
        return Err("its MTU is 0".to_owned());
    }
    let mut addrs = PerFamily::NONE;
    for (family, ()) in choice.families.iter() {
        let best = || usable(facts, link, choice, family).first().copied();
        let addr = fixed.get(family).copied().or_else(best);
        addrs.set(family, Some(addr.ok_or_else(|| format!("it has no usable {family} address"))?));
    }
    let on_link = on_link(facts, link);
    Ok(Underlay { name: link.name, index: link.index, mtu: link.mtu, addrs, on_link })
}

/// The addresses of one family that can carry the fabric, best first: global before link-local, the one in use before
/// others, permanent before dynamic, lasting before temporary. The one in use is tentative only until it is back.
fn usable(facts: &HostFacts, link: &LinkFact, choice: &UnderlayChoice, family: Family) -> Vec<IpAddr> {
    let used = |addr: &AddrFact| is_used(choice, addr.net.addr());
    let mut addrs: Vec<&AddrFact> = facts
        .addrs_of(link.index)
        .filter(|addr| Family::of_net(&addr.net) == family && !addr.deprecated)
        .filter(|addr| is_unicast(addr.net.addr()) && (!addr.tentative || used(addr)))
        .collect();
    addrs.sort_by_key(|addr| (is_link_local(addr.net.addr()), !used(addr), !addr.permanent, addr.temporary));
    addrs.into_iter().map(|addr| addr.net.addr()).collect()
}

fn is_used(choice: &UnderlayChoice, ip: IpAddr) -> bool {
    choice.used.get(Family::of(&ip)) == Some(&ip)
}

/// The networks the interface is attached to. Those of its addresses count while the interface is down, when the
/// kernel has no routes to them.
fn on_link(facts: &HostFacts, link: &LinkFact) -> Vec<IpNet> {
    let addrs = facts.addrs_of(link.index).map(|addr| addr.net.trunc());
    let routes = facts.routes.iter().filter(|route| {
        route.dev == Some(link.name) && route.via.is_none() && route.kind == RouteFact::UNICAST
    });
    let nets: BTreeSet<IpNet> = addrs
        .chain(routes.map(|route| route.dst))
        .filter(|net| net.prefix_len() > 0 && is_unicast(net.addr()) && !is_link_local(net.addr()))
        .filter(|net| net.prefix_len() < Family::of_net(net).bits())
        .collect();
    nets.into_iter().collect()
}

fn owner(facts: &HostFacts, ip: IpAddr) -> Option<&LinkFact> {
    let index = facts.addrs.iter().find(|addr| addr.net.addr() == ip)?.index;
    facts.links.iter().find(|link| link.index == index)
}

/// Every interface with its addresses.
fn inventory(facts: &HostFacts) -> String {
    let describe = |link: &LinkFact| {
        let addrs: Vec<String> = facts.addrs_of(link.index).map(|addr| addr.net.addr().to_string()).collect();
        format!("{} ({})", link.name, addrs.join(" "))
    };
    facts.links.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn is_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || broadcast)
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{addr, link, route};
    use super::super::facts::{BY_KERNEL, Reach};
    use super::*;

    /// A laptop in a data centre: NAT on eth0 with the default route, the LAN on eth1.
    fn host() -> HostFacts {
        HostFacts {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")],
            addrs: vec![
                addr(1, "127.0.0.1/8"),
                addr(2, "10.0.2.15/24"),
                addr(3, "192.168.77.1/24"),
                addr(1, "::1/128"),
                addr(2, "fe80::2/64"),
                addr(3, "fe80::3/64"),
                addr(3, "fd77::1/64"),
            ],
            routes: vec![
                RouteFact { via: "10.0.2.2".parse().ok(), ..route("0.0.0.0/0") },
                RouteFact {
                    via: "fe80::9".parse().ok(),
                    dev: "eth1".try_into().ok(),
                    metric: 1024,
                    ..route("::/0")
                },
                RouteFact { protocol: BY_KERNEL, scope: 253, ..route("10.0.2.0/24") },
            ],
            reach: None,
        }
    }

    const V4: PerFamily<()> = PerFamily { v4: Some(()), v6: None };
    const V6: PerFamily<()> = PerFamily { v4: None, v6: Some(()) };
    const DUAL: PerFamily<()> = PerFamily { v4: Some(()), v6: Some(()) };

    fn wish(families: PerFamily<()>) -> UnderlayChoice {
        UnderlayChoice { families, ..UnderlayChoice::default() }
    }

    fn named(families: PerFamily<()>, names: &[&str]) -> UnderlayChoice {
        UnderlayChoice { names: names.iter().map(ToString::to_string).collect(), ..wish(families) }
    }

    fn matching(families: PerFamily<()>, pattern: &str) -> UnderlayChoice {
        UnderlayChoice { patterns: vec![regex::Regex::new(pattern).unwrap()], ..wish(families) }
    }

    fn picked(choice: &UnderlayChoice) -> (String, Vec<String>) {
        let chosen = choose(&host(), choice).unwrap();
        let addrs = chosen.underlay.addrs.iter().map(|(_, ip)| ip.to_string()).collect();
        (chosen.underlay.name.to_string(), addrs)
    }

    fn refusal(choice: &UnderlayChoice) -> String {
        choose(&host(), choice).unwrap_err().to_string()
    }

    #[track_caller]
    fn picks(choice: &UnderlayChoice, name: &str, addrs: &[&str]) {
        assert_eq!(picked(choice), (name.to_owned(), addrs.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn unasked_it_is_the_default_route() {
        picks(&wish(V4), "eth0", &["10.0.2.15"]);
        picks(&wish(V6), "eth1", &["fd77::1"]);
        assert!(refusal(&wish(DUAL)).contains("eth0 (IPv4) and eth1 (IPv6)"));
        let lost = HostFacts { routes: vec![], ..host() };
        assert!(choose(&lost, &wish(V4)).unwrap_err().to_string().contains("no IPv4 default route"));
    }

    #[test]
    fn the_public_address_points_at_its_interface() {
        let public = |v4: Option<&str>, v6: Option<&str>, families| UnderlayChoice {
            public: PerFamily { v4: v4.map(|ip| ip.parse().unwrap()), v6: v6.map(|ip| ip.parse().unwrap()) },
            ..wish(families)
        };
        picks(&public(Some("192.168.77.1"), None, V4), "eth1", &["192.168.77.1"]);
        assert!(refusal(&public(Some("203.0.113.1"), None, V4)).contains("no interface has this address"));
        picks(&public(None, Some("fd77::1"), DUAL), "eth1", &["192.168.77.1", "fd77::1"]);
        picks(&public(Some("192.168.77.1"), Some("fd77::1"), DUAL), "eth1", &["192.168.77.1", "fd77::1"]);
        let apart = public(Some("10.0.2.15"), Some("fd77::1"), DUAL);
        assert!(refusal(&apart).contains("fd77::1 is not on eth0"));
        // Behind NAT the interface is named, and the public address may be any.
        let nat = UnderlayChoice { names: vec!["eth0".into()], ..public(Some("203.0.113.1"), None, V4) };
        picks(&nat, "eth0", &["10.0.2.15"]);
    }

    #[test]
    fn names_and_addresses_in_their_order() {
        picks(&named(V4, &["eth1"]), "eth1", &["192.168.77.1"]);
        picks(&named(V4, &["192.168.77.1", "eth0"]), "eth1", &["192.168.77.1"]);
        picks(&named(DUAL, &["192.168.77.1"]), "eth1", &["192.168.77.1", "fd77::1"]);
        picks(&named(DUAL, &["fd77::1"]), "eth1", &["192.168.77.1", "fd77::1"]);
        let chosen = choose(&host(), &named(V4, &["eth7", "fd77::1", "lo", "eth1"])).unwrap();
        assert_eq!(
            chosen.rejected,
            [
                "eth7: there is no such interface",
                "fd77::1: IPv6 is not in use",
                "lo: it has no usable IPv4 address"
            ]
        );
        assert!(refusal(&named(V4, &["a name too long for it"])).contains("cannot name an interface"));
    }

    #[test]
    fn patterns_match_addresses_before_names() {
        picks(&matching(V4, r"^192\.168\."), "eth1", &["192.168.77.1"]);
        picks(&matching(V4, "^eth1$"), "eth1", &["192.168.77.1"]);
        picks(&matching(V4, "0"), "eth0", &["10.0.2.15"]);
        picks(&matching(DUAL, "77"), "eth1", &["192.168.77.1", "fd77::1"]);
        let refused = refusal(&matching(V4, "^wlan"));
        assert!(refused.contains("eth0 (10.0.2.15 fe80::2)"), "{refused}");
    }

    #[test]
    fn can_reach_takes_what_the_kernel_would() {
        let choice = UnderlayChoice { can_reach: "192.168.77.2".parse().ok(), ..wish(V4) };
        assert!(refusal(&choice).contains("there is no route"));
        let reach = Some(Reach { index: 3, via: None, source: "192.168.77.1".parse().ok(), mtu: None });
        let underlay = choose(&HostFacts { reach, ..host() }, &choice).unwrap().underlay;
        assert_eq!((underlay.name.as_str(), underlay.addrs.v4), ("eth1", "192.168.77.1".parse().ok()));
    }

    #[test]
    fn the_best_address_wins() {
        let best = |addrs: Vec<AddrFact>| {
            let facts = HostFacts { addrs, ..host() };
            choose(&facts, &named(V6, &["eth1"])).ok().and_then(|chosen| chosen.underlay.addrs.v6)
        };
        let (local, global, other) =
            (addr(3, "fe80::3/64"), addr(3, "2001:db8::3/64"), addr(3, "fd77::4/64"));
        let ip = |addr: &AddrFact| Some(addr.net.addr());
        assert_eq!(best(vec![local.clone(), global.clone(), other.clone()]), ip(&global));
        let dynamic = AddrFact { permanent: false, ..global.clone() };
        assert_eq!(best(vec![local.clone(), dynamic.clone(), other.clone()]), ip(&other));
        let private = AddrFact { permanent: false, temporary: true, ..other.clone() };
        assert_eq!(best(vec![private, dynamic.clone()]), ip(&dynamic));
        let old = AddrFact { deprecated: true, ..global.clone() };
        let early = AddrFact { tentative: true, ..other };
        assert_eq!(best(vec![old, early.clone(), local.clone()]), ip(&local));
        assert_eq!(best(vec![early]), None);
    }

    /// `host` with what a failover adds to eth0, which comes first by rank and in the kernel's order, and with an uplink
    /// that comes first by its metric.
    fn disturbed() -> HostFacts {
        let mut facts = host();
        let dynamic = |net| AddrFact { permanent: false, ..addr(2, net) };
        facts.addrs = vec![addr(2, "10.0.2.9/32"), dynamic("10.0.2.15/24"), addr(3, "192.168.77.1/24")];
        facts.addrs.extend([addr(2, "fd02::9/128"), dynamic("fd02::15/64"), addr(2, "fe80::2/64")]);
        facts.routes[0].metric = 100;
        facts.routes.push(RouteFact { dev: "eth1".try_into().ok(), ..route("0.0.0.0/0") });
        let source = "fd02::9".parse().ok();
        facts.reach = Some(Reach { index: 2, via: None, source, mtu: None });
        facts
    }

    fn using(addrs: &[&str], choice: UnderlayChoice) -> UnderlayChoice {
        let mut used = PerFamily::NONE;
        for ip in addrs.iter().map(|ip| ip.parse::<IpAddr>().unwrap()) {
            used.set(Family::of(&ip), Some(ip));
        }
        UnderlayChoice { used, ..choice }
    }

    #[track_caller]
    fn chooses(facts: &HostFacts, choice: &UnderlayChoice, name: &str, addrs: &[&str]) {
        let underlay = choose(facts, choice).unwrap().underlay;
        let chosen: Vec<String> = underlay.addrs.iter().map(|(_, ip)| ip.to_string()).collect();
        assert_eq!((underlay.name.as_str(), chosen), (name, addrs.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn what_is_in_use_stays_whatever_comes_beside_it() {
        let facts = disturbed();
        let reach = UnderlayChoice { can_reach: "fd00::9".parse().ok(), ..wish(DUAL) };
        for asked in [
            wish(DUAL),
            named(DUAL, &["eth1", "eth0"]),
            named(DUAL, &["10.0.2.15"]),
            matching(DUAL, "^eth"),
            matching(DUAL, r"0\.?2"),
            reach.clone(),
        ] {
            let used = using(&["10.0.2.15", "fd02::15"], asked);
            let present = "eth0".try_into().ok();
            chooses(&facts, &UnderlayChoice { present, ..used }, "eth0", &["10.0.2.15", "fd02::15"]);
        }
        chooses(&facts, &reach, "eth0", &["10.0.2.9", "fd02::9"]);
        chooses(&facts, &wish(V4), "eth1", &["192.168.77.1"]);
    }

    #[test]
    fn what_is_used_no_longer_or_not_asked_for_gives_way() {
        let present = |addrs: &[&str], choice| {
            let name = "eth0".try_into().ok();
            UnderlayChoice { present: name, ..using(addrs, choice) }
        };
        let used = ["10.0.2.15", "fd02::15"];
        for asked in [named(V4, &["eth1"]), named(V4, &["192.168.77.1"]), matching(V4, "eth1|168")] {
            chooses(&disturbed(), &present(&used[..1], asked), "eth1", &["192.168.77.1"]);
        }
        let dual = present(&used, named(DUAL, &["eth0"]));
        let mut facts = disturbed();
        facts.addrs.retain(|addr| addr.net.addr() != used[0].parse::<IpAddr>().unwrap());
        chooses(&facts, &dual, "eth0", &["10.0.2.9", "fd02::15"]);
        chooses(&facts, &present(&used[..1], wish(V4)), "eth1", &["192.168.77.1"]);
        let mut facts = disturbed();
        facts.addrs[4].tentative = true;
        chooses(&facts, &dual, "eth0", &["10.0.2.15", "fd02::15"]);
        facts.addrs[4].deprecated = true;
        chooses(&facts, &dual, "eth0", &["10.0.2.15", "fd02::9"]);
        let makeshift = present(&["fe80::2"], named(V6, &["eth0"]));
        chooses(&facts, &makeshift, "eth0", &["fd02::9"]);
        facts.links.remove(1);
        chooses(&facts, &present(&used[..1], wish(V4)), "eth1", &["192.168.77.1"]);
    }

    #[test]
    fn a_start_chooses_the_interface_and_keeps_the_address_it_has_on_it() {
        let published = |choice| using(&["10.0.2.15", "fd02::15"], choice);
        chooses(&disturbed(), &published(named(DUAL, &["eth0"])), "eth0", &["10.0.2.15", "fd02::15"]);
        chooses(&disturbed(), &published(wish(V4)), "eth1", &["192.168.77.1"]);
    }

    #[test]
    fn on_link_networks_come_from_addresses_and_connected_routes() {
        let mut facts = host();
        facts.routes.push(RouteFact { dev: "eth1".try_into().ok(), scope: 253, ..route("192.168.88.0/24") });
        facts.routes.push(RouteFact {
            dev: "eth1".try_into().ok(),
            via: "192.168.77.9".parse().ok(),
            ..route("172.16.0.0/16")
        });
        let underlay = choose(&facts, &named(V4, &["eth1"])).unwrap().underlay;
        let nets: Vec<String> = underlay.on_link.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["192.168.77.0/24", "192.168.88.0/24", "fd77::/64"]);
    }

    #[test]
    fn an_interface_without_mtu_is_no_candidate() {
        let mut facts = host();
        facts.links[2].mtu = 0;
        let refused = choose(&facts, &named(V4, &["eth1"])).unwrap_err().to_string();
        assert!(refused.contains("eth1: its MTU is 0"), "{refused}");
    }
}
