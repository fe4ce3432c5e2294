//! What a message from the kernel means: pure.
//!
//! Most messages are noise (every pod makes dozens), so a message is told from noise by its first bytes, and parsed
//! only if it can matter.

use netlink_packet_core::{NLM_F_REPLACE, NlasIterator, Parseable};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use twill_backends::diff::Op;
use twill_backends::state::{Fdb, Link, LinkName, NeighKey, Route, RouteKey, RouteKind};

use super::known::Known;
use super::parse::{self, SeenLink};
use crate::kernel::Scope;
use crate::kernel::ownership::Claim;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;

const IFLA_IFNAME: u16 = 3;
const IFLA_IFALIAS: u16 = 20;
const IFLA_EVENT: u16 = 44;
/// `IFLA_EVENT_FEATURES`: somebody changed what is left to the device.
const EVENT_FEATURES: u32 = 2;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const AF_INET: u8 = 2;

/// What a message means to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Noise,
    /// Objects of ours are as these operations left them.
    Did(Vec<Op>),
    /// Something that cannot be told in operations.
    Unknown(&'static str),
    /// The underlay is not what it was.
    Underlay,
}

/// A netlink message less its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) payload: &'a [u8],
}

impl Heard<'_> {
    /// The link index, where links, addresses and neighbours have theirs.
    fn index(&self) -> u32 {
        let bytes = self.payload.get(4..8).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }
}

/// What a message means. `known` is kept up to date.
pub(super) fn hear(heard: Heard<'_>, scope: &Scope, known: &mut Known) -> News {
    let news = match heard.kind {
        RTM_NEWLINK | RTM_DELLINK => link(heard, scope, known),
        RTM_NEWADDR | RTM_DELADDR => addr(heard, scope, known),
        RTM_NEWROUTE | RTM_DELROUTE => route(heard, scope, known),
        RTM_NEWNEIGH | RTM_DELNEIGH => neigh(heard, known),
        RTM_NEWNETCONF => netconf(heard, scope, known),
        _ => None,
    };
    news.unwrap_or(News::Noise)
}

fn link(heard: Heard<'_>, scope: &Scope, known: &mut Known) -> Option<News> {
    let index = heard.index();
    let ours = known.links.contains_key(&index);
    let underlay = known.underlay.as_ref().is_some_and(|seen| seen.index == index);
    // Bridge ports are announced in a family of their own.
    if heard.family() != 0 {
        return None;
    }
    if heard.kind == RTM_DELLINK {
        known.forget(index);
        return match (ours, underlay || scope.underlay.is_none()) {
            (true, _) => Some(News::Unknown("a link of ours is gone")),
            (false, true) => Some(News::Underlay),
            (false, false) => None,
        };
    }
    if !ours && !underlay && !may_matter(heard.payload, scope) {
        return None;
    }
    let seen = parse::link(&LinkMessage::parse(heard.payload).ok()?)?;
    if scope.owns_link(seen.name, &seen.link.alias) || ours {
        let news = link_of_ours(seen, known);
        return news.or_else(|| {
            is_about_offloads(heard.payload)
                .then_some(News::Unknown("the offloads of a link of ours changed"))
        });
    }
    match scope.underlay {
        // Any link may be the one that is waited for.
        None => Some(News::Underlay),
        Some(name) if underlay || name == seen.name => link_of_underlay(seen, known),
        Some(_) => None,
    }
}

fn link_of_underlay(seen: SeenLink, known: &mut Known) -> Option<News> {
    let flags = |seen: &SeenLink| (seen.link.up, seen.running);
    let (found, now) = (seen.identity(), flags(&seen));
    match known.underlay.replace(seen) {
        Some(before) if before.identity() == found => {
            (flags(&before) != now).then_some(News::Unknown("the underlay went up or down"))
        }
        Some(_) | None => Some(News::Underlay),
    }
}

fn link_of_ours(seen: SeenLink, known: &mut Known) -> Option<News> {
    let entry = known.links.get(&seen.index);
    let addrs = entry.map(|(_, link)| link.addrs.clone()).unwrap_or_default();
    let mut found = (seen.name, Link { addrs, ..seen.link });
    if let (Some(before), Some(now)) = (entry.and_then(|(_, link)| link.vxlan()), found.1.vxlan_mut()) {
        // The message does not say.
        now.checksums.offload = before.checksums.offload;
    }
    let reason = match entry {
        Some(before) if *before == found => return None,
        Some(_) => "a link of ours changed",
        None => "a link of ours appeared",
    };
    known.links.insert(seen.index, found);
    Some(News::Unknown(reason))
}

/// Whether the link of this message could be ours or the underlay, by its name and alias alone.
fn may_matter(payload: &[u8], scope: &Scope) -> bool {
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let attributes = payload.get(16..).unwrap_or_default();
    NlasIterator::new(attributes).map_while(Result::ok).any(|attribute| match attribute.kind() {
        IFLA_IFNAME => LinkName::try_from(text(attribute.value()).as_str())
            .is_ok_and(|name| scope.links.contains(&name) || scope.underlay.is_none_or(|u| u == name)),
        IFLA_IFALIAS => text(attribute.value()) == scope.alias,
        _ => false,
    })
}

/// Whether a message about a link is there because its offloads changed.
fn is_about_offloads(payload: &[u8]) -> bool {
    let attributes = payload.get(16..).unwrap_or_default();
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .any(|attribute| attribute.kind() == IFLA_EVENT && attribute.value() == EVENT_FEATURES.to_ne_bytes())
}

fn addr(heard: Heard<'_>, scope: &Scope, known: &mut Known) -> Option<News> {
    let index = heard.index();
    let ours = known.links.contains_key(&index);
    let underlay = known.underlay.as_ref().is_some_and(|seen| seen.index == index);
    if !ours && !underlay {
        return scope.underlay.is_none().then_some(News::Underlay);
    }
    let fact = parse::addr(&AddressMessage::parse(heard.payload).ok()?)?;
    let gone = heard.kind == RTM_DELADDR;
    if underlay {
        let before = known.underlay_addrs.clone();
        known.underlay_addrs.retain(|addr| addr.net != fact.net);
        known.underlay_addrs.extend((!gone).then_some(fact));
        known.underlay_addrs.sort_by_key(|addr| addr.net);
        return (before != known.underlay_addrs).then_some(News::Underlay);
    }
    if parse::is_link_local(fact.net.addr()) {
        return None;
    }
    let (_, link) = known.links.get_mut(&index)?;
    let changed = if gone { link.addrs.remove(&fact.net) } else { link.addrs.insert(fact.net) };
    changed.then_some(News::Unknown("an address of a link of ours changed"))
}

fn route(heard: Heard<'_>, scope: &Scope, known: &Known) -> Option<News> {
    if heard.payload.get(4) != Some(&RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let fact = parse::route(&RouteMessage::parse(heard.payload).ok()?, |index| known.name_of(index))?;
    if scope.underlay.is_none() && fact.dst.prefix_len() == 0 {
        return Some(News::Underlay);
    }
    let gone = heard.kind == RTM_DELROUTE;
    let tunnel = known.links.values().any(|(name, _)| Some(*name) == fact.dev);
    match scope.claim(&fact, tunnel) {
        Claim::Ours(key, route) if gone => Some(News::Did(vec![Op::DelRoute(key, route)])),
        Claim::Ours(key, route) => Some(News::Did(vec![Op::SetRoute(key, route)])),
        // It stands where another stood. If that was ours, it was altered, and is put back.
        Claim::Foreign if !gone && heard.flags & NLM_F_REPLACE != 0 => {
            let key = RouteKey { dst: fact.dst, metric: fact.metric };
            let lost = Route {
                kind: RouteKind::Unicast,
                via: fact.via,
                dev: fact.dev,
                onlink: fact.onlink,
                mtu: fact.mtu,
                protocol: fact.protocol,
            };
            Some(News::Did(vec![Op::DelRoute(key, lost)]))
        }
        Claim::Foreign if gone => Some(News::Unknown("somebody else's route inside the network went away")),
        Claim::Foreign => Some(News::Unknown("somebody else's route appeared inside the network")),
        Claim::Elsewhere => None,
    }
}

fn neigh(heard: Heard<'_>, known: &mut Known) -> Option<News> {
    let (dev, _) = known.links.get(&heard.index())?;
    let dev = *dev;
    let seen = parse::neigh(&NeighbourMessage::parse(heard.payload).ok()?)?;
    let stands = heard.kind == RTM_NEWNEIGH && seen.permanent;
    if !seen.fdb {
        let key = NeighKey { dev, ip: seen.ip };
        let set = seen.mac.filter(|_| stands).map(|mac| Op::SetNeigh(key, mac));
        return Some(News::Did(vec![set.unwrap_or(Op::DelNeigh(key))]));
    }
    let mac = seen.mac?;
    let entry = Fdb { dev, mac, dst: seen.ip };
    let key = (seen.index, mac);
    let before = known.fdb.get(&key).map(|dst| Fdb { dst: *dst, ..entry });
    if stands {
        known.fdb.insert(key, seen.ip);
        // An entry that was pointed elsewhere is announced only as it is.
        let moved = before.filter(|before| *before != entry).map(Op::DelFdb);
        return Some(News::Did(moved.into_iter().chain([Op::SetFdb(entry)]).collect()));
    }
    if heard.kind == RTM_NEWNEIGH {
        // Learned, or made to age: not what we set.
        known.fdb.remove(&key);
        return before.map(|before| News::Did(vec![Op::DelFdb(before)]));
    }
    if before == Some(entry) {
        known.fdb.remove(&key);
    }
    Some(News::Did(vec![Op::DelFdb(entry)]))
}

/// Forwarding was switched (`RTM_NEWNETCONF`): the one kind of setting the kernel announces.
fn netconf(heard: Heard<'_>, scope: &Scope, known: &Known) -> Option<News> {
    let (mut index, mut forwarding) = (None, None);
    for attribute in NlasIterator::new(heard.payload.get(4..)?).map_while(Result::ok) {
        let value = attribute.value().try_into().map(i32::from_ne_bytes).ok();
        match attribute.kind() {
            NETCONFA_IFINDEX => index = value,
            NETCONFA_FORWARDING => forwarding = value,
            _ => {}
        }
    }
    let family = if heard.family() == AF_INET { "ipv4" } else { "ipv6" };
    let name = match index? {
        -1 => "all".to_owned(),
        -2 => "default".to_owned(),
        index => known.name_of(index.try_into().ok()?)?.to_string(),
    };
    let mut paths = vec![format!("net/{family}/conf/{name}/forwarding")];
    if (family, name.as_str()) == ("ipv4", "all") {
        paths.push("net/ipv4/ip_forward".to_owned());
    }
    let value = forwarding?.to_string();
    let ops: Vec<Op> = paths
        .into_iter()
        .filter(|path| scope.sysctls.contains(path))
        .map(|path| Op::SetSysctl(path, value.clone()))
        .collect();
    (!ops.is_empty()).then_some(News::Did(ops))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::link::{LinkAttribute, LinkEvent};
    use proptest::prelude::*;

    use super::*;

    fn scope() -> Scope {
        Scope {
            alias: "twill:x".to_owned(),
            links: ["flannel.1".try_into().unwrap()].into(),
            networks: vec![("10.5.0.0/16".parse().unwrap(), 24)],
            underlay: "eth0".try_into().ok(),
            ..Scope::default()
        }
    }

    fn new_link(name: &str, alias: &str) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::IfAlias(alias.to_owned()),
        ];
        message
    }

    fn heard(message: &LinkMessage, scope: &Scope, known: &mut Known) -> News {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        hear(Heard { kind: RTM_NEWLINK, flags: 0, payload: &payload }, scope, known)
    }

    #[test]
    fn only_links_that_matter_are_remembered() {
        let mut known = Known::default();
        for (name, alias) in [("veth1", ""), ("flannel.1", "twill:other"), ("flannel.2", "")] {
            assert_eq!(heard(&new_link(name, alias), &scope(), &mut known), News::Noise, "{name}");
        }
        assert_eq!(known, Known::default());
        let port = {
            let mut message = new_link("flannel.1", "");
            message.header.interface_family = AddressFamily::Bridge;
            message
        };
        assert_eq!(heard(&port, &scope(), &mut known), News::Noise);
        let appeared = News::Unknown("a link of ours appeared");
        assert_eq!(heard(&new_link("flannel.1", ""), &scope(), &mut known), appeared);
        assert_eq!(heard(&new_link("flannel.1", ""), &scope(), &mut known), News::Noise);
        let mut known = Known::default();
        assert_eq!(heard(&new_link("flannel.9", "twill:x"), &scope(), &mut known), appeared);
    }

    #[test]
    fn offloads_that_change_are_told_though_the_message_does_not_say_which() {
        let mut known = Known::default();
        let seen = parse::link(&new_link("flannel.1", "")).unwrap();
        known.links.insert(7, (seen.name, seen.link));
        assert_eq!(heard(&new_link("flannel.1", ""), &scope(), &mut known), News::Noise);
        let mut message = new_link("flannel.1", "");
        message.attributes.push(LinkAttribute::Event(LinkEvent::Features));
        let changed = News::Unknown("the offloads of a link of ours changed");
        assert_eq!(heard(&message, &scope(), &mut known), changed);
        message.attributes.pop();
        message.attributes.push(LinkAttribute::Event(LinkEvent::NotifyPeers));
        assert_eq!(heard(&message, &scope(), &mut known), News::Noise);
    }

    #[test]
    fn the_underlay_appears_and_anything_may_be_it_while_there_is_none() {
        let mut known = Known::default();
        assert_eq!(heard(&new_link("eth0", ""), &scope(), &mut known), News::Underlay);
        assert_eq!(heard(&new_link("eth0", ""), &scope(), &mut known), News::Noise);
        let waiting = Scope { underlay: None, ..scope() };
        let mut known = Known::default();
        assert_eq!(heard(&new_link("eth5", ""), &waiting, &mut known), News::Underlay);
        assert_eq!(known, Known::default());
    }

    proptest! {
        #[test]
        fn a_garbled_message_does_no_harm(
            kind in 16u16..=82,
            flags: u16,
            head in proptest::collection::vec(any::<u8>(), 0..16),
            tail in proptest::collection::vec(0u8..24, 0..64),
        ) {
            let payload = [head, tail].concat();
            let mut known = Known::default();
            let seen = parse::link(&new_link("flannel.1", "")).unwrap();
            known.links.insert(7, (seen.name, seen.link));
            for scope in [scope(), Scope::default()] {
                let _: News = hear(Heard { kind, flags, payload: &payload }, &scope, &mut known);
            }
        }
    }
}
