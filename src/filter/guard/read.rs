//! What nft prints, and what the kernel announces, of the guard's table. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use twill_backends::guard::{Element, GuardRules};

use super::render::Counts;
use super::sets::{Kin, Set};
use crate::filter::nft::canonical;

/// The table as it was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Everything but elements and counts, in one order.
    pub(super) objects: Vec<Value>,
    pub(super) elements: BTreeSet<Element>,
    /// Whether there are elements that are none of ours in form or place.
    pub(super) strays: bool,
    pub(super) counts: Counts,
}

/// What `nft -j list table` prints: objects by their kind.
#[derive(Deserialize)]
struct Listing<'t> {
    #[serde(borrow)]
    nftables: Vec<BTreeMap<String, &'t RawValue>>,
}

impl Found {
    /// From what `nft -j list table` prints, where these are the rules. Element by element: as one tree, those of
    /// thousands of peers would take more memory than all else in this program.
    pub(super) fn read(printed: &str, rules: &GuardRules) -> serde_json::Result<Self> {
        let (mut found, mut objects) = (Self::default(), Vec::new());
        let listing: Listing<'_> = serde_json::from_str(printed)?;
        for (kind, text) in listing.nftables.into_iter().flatten().filter(|(kind, _)| kind != "metainfo") {
            let object = match kind.as_str() {
                "set" => found.set(text, rules)?,
                "counter" => found.counter(text)?,
                _ => serde_json::from_str(text.get())?,
            };
            objects.push(json!({ kind: object }));
        }
        found.objects = canonical(&objects);
        Ok(found)
    }

    /// A set, whose elements are taken from it.
    fn set(&mut self, text: &RawValue, rules: &GuardRules) -> serde_json::Result<Value> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text.get())?;
        let listed: Vec<&RawValue> = match fields.remove("elem") {
            Some(elements) => serde_json::from_str(elements.get())?,
            None => Vec::new(),
        };
        let object = serde_json::to_value(fields)?;
        let set = object.get("name").and_then(Value::as_str).and_then(Set::named);
        for one in listed {
            let one = serde_json::from_str(one.get())?;
            let element = set.and_then(|set| element(&one, set));
            self.strays |= element.is_none_or(|element| Some(Set::of(&element, rules)) != set);
            self.elements.extend(element);
        }
        Ok(object)
    }

    /// A counter, whose counts are taken from it.
    fn counter(&mut self, text: &RawValue) -> serde_json::Result<Value> {
        let mut fields: Map<String, Value> = serde_json::from_str(text.get())?;
        let mut number = |field| fields.remove(field).and_then(|value| value.as_u64()).unwrap_or_default();
        let count = (number("packets"), number("bytes"));
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
        self.counts.insert(name.to_owned(), count);
        Ok(Value::Object(fields))
    }
}

/// An element as `nft -j` prints it: an address with what it is counted by, or an address and a number or a range of
/// numbers.
fn element(value: &Value, set: Set) -> Option<Element> {
    let Some(pair) = value.get("concat").and_then(Value::as_array) else {
        let addr = value.get("elem").and_then(|counted| counted.get("val")).unwrap_or(value);
        return kept(set, addr.as_str()?.parse().ok()?, None);
    };
    let [addr, source] = pair.as_slice() else { return None };
    let source = match source.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => (number(first)?, Some(number(last)?)),
        _ => (number(source)?, None),
    };
    kept(set, addr.as_str()?.parse().ok()?, Some(source))
}

fn number(value: &Value) -> Option<u128> {
    match value.as_str() {
        Some(text) => match text.strip_prefix("0x") {
            Some(digits) => u128::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
        None => value.as_u64().map(u128::from),
    }
}

/// The element that a set keeps as an address, and in most of them the first and perhaps the last inner source.
fn kept(set: Set, addr: IpAddr, source: Option<(u128, Option<u128>)>) -> Option<Element> {
    let kin = set.kin();
    let net = match (set, source) {
        (Set::From(_), None) => return (Kin::of(&addr) == kin).then_some(Element::From(addr)),
        (Set::Carries(_, len), Some((net, None))) => IpNet::new(address(kin, net)?, len).ok()?,
        (Set::Intervals(_), Some((first, last))) => {
            let host = 128 - (first ^ last.unwrap_or(first)).leading_zeros();
            let len = u32::from(kin.bits).checked_sub(host)?;
            let net = IpNet::new(address(kin, first)?, u8::try_from(len).ok()?).ok()?;
            (address(kin, last.unwrap_or(first))? == net.broadcast()).then_some(net)?
        }
        _ => return None,
    };
    (Kin::of(&addr) == kin && net.trunc() == net).then_some(Element::Carries(addr, net))
}

fn address(kin: &Kin, number: u128) -> Option<IpAddr> {
    match kin.bits {
        32 => Some(Ipv4Addr::from_bits(u32::try_from(number).ok()?).into()),
        _ => Some(Ipv6Addr::from_bits(number).into()),
    }
}

/// An element and its set from the bytes that the kernel keeps: its key, and the end of the key where that is a range.
pub(super) fn from_keys(set: &[u8], key: &[u8], end: Option<&[u8]>) -> Option<(Set, Element)> {
    let set = Set::named(str::from_utf8(set).ok()?)?;
    let part = usize::from(set.kin().bits / 8);
    let (addr, first) = key.split_at_checked(part)?;
    let bits = |bytes: &[u8]| {
        let bytes = Some(bytes).filter(|bytes| bytes.len() == part)?;
        Some(bytes.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte)))
    };
    let last = match end {
        Some(end) => Some(bits(end.get(part..)?)?),
        None => None,
    };
    let source = if first.is_empty() { None } else { Some((bits(first)?, last)) };
    Some((set, kept(set, address(set.kin(), bits(addr)?)?, source)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::render::{printed, tests::rules};
    use super::*;

    pub(in crate::filter::guard) fn objects(text: &str) -> Vec<Value> {
        let value: Value = serde_json::from_str(text).unwrap();
        let all = value["nftables"].as_array().unwrap();
        all.iter().filter(|object| object.get("metainfo").is_none()).cloned().collect()
    }

    fn carries(addr: &str, net: &str) -> Element {
        Element::Carries(addr.parse().unwrap(), net.parse().unwrap())
    }

    /// What nft 1.0.6 prints of the table of `rules()` with a peer of both families.
    pub(in crate::filter::guard) const PRINTED: &str = include_str!("printed.json");

    #[test]
    fn what_is_rendered_reads_like_what_nft_prints() {
        let found = Found::read(PRINTED, &rules()).unwrap();
        assert_eq!(found.objects, canonical(&printed("twill-guard-x", &rules())));
        let from = |addr: &str| Element::From(addr.parse().unwrap());
        let elements = [
            from("192.0.2.7"),
            from("2001:db8::7"),
            carries("192.0.2.7", "10.5.7.0/24"),
            carries("192.0.2.7", "192.0.2.7/32"),
            carries("192.0.2.7", "10.5.64.0/20"),
            carries("2001:db8::7", "fd00:5:0:7::/64"),
            carries("2001:db8::7", "2001:db8::7/128"),
        ];
        assert_eq!((found.elements, found.strays), (BTreeSet::from(elements), false));
        assert_eq!(found.counts["strangers"], (3, 252));
    }

    #[test]
    fn an_element_of_another_form_or_in_another_place_is_nobodys() {
        let number = |net: &str| net.parse().map(Ipv4Addr::to_bits).unwrap().to_string();
        let (subnet, last) = (number("10.5.7.0"), number("10.5.79.255"));
        for (is, becomes) in [
            (last.clone(), number("10.5.79.254")),
            (subnet.clone(), number("10.5.7.1")),
            (number("192.0.2.7"), "-1".to_owned()),
            // A subnet of the usual length is nowhere but in the set of these.
            (format!("{}, {last}", number("10.5.64.0")), format!("{subnet}, {}", number("10.5.7.255"))),
        ] {
            assert!(PRINTED.contains(&is), "{is}");
            assert!(Found::read(&PRINTED.replace(&is, &becomes), &rules()).unwrap().strays, "{becomes}");
        }
    }

    #[test]
    fn keys_of_the_kernel_are_the_elements_that_nft_prints() {
        let key = |set: &str, key: &[u8], end: Option<&[u8]>| {
            let (found, element) = from_keys(set.as_bytes(), key, end)?;
            (found.to_string() == set).then_some(element)
        };
        assert_eq!(key("from4", &[192, 0, 2, 0], None), Some(Element::From([192, 0, 2, 0].into())));
        let (first, last) = ([10, 0, 0, 1, 10, 5, 0, 0], [10, 0, 0, 1, 10, 5, 255, 255]);
        assert_eq!(key("carries4", &first, Some(&last)), Some(carries("10.0.0.1", "10.5.0.0/16")));
        assert_eq!(key("carries4", &first, None), Some(carries("10.0.0.1", "10.5.0.0/32")));
        assert_eq!(key("carries4-20", &first, None), Some(carries("10.0.0.1", "10.5.0.0/20")));
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let first = [v6("2001:db8::7"), v6("fd00:5::")].concat();
        let last = [v6("2001:db8::7"), v6("fd00:5::ffff")].concat();
        assert_eq!(key("carries6", &first, Some(&last)), Some(carries("2001:db8::7", "fd00:5::/112")));
        assert_eq!(key("carries6-64", &first, None), Some(carries("2001:db8::7", "fd00:5::/64")));
        assert_eq!(key("from6", &v6("::1"), None), Some(Element::From(Ipv6Addr::LOCALHOST.into())));
        for (set, bytes, end) in [
            ("from4", &[1][..], None),
            ("other", &[1, 2, 3, 4], None),
            ("carries4", &[], None),
            ("carries6", &[0; 20], Some(&[][..])),
            ("carries4-33", &first, None),
            ("carries4-24", &[10, 0, 0, 1, 10, 5, 0, 1], None),
            ("carries4-24", &first[..8], Some(&last[..8])),
        ] {
            assert_eq!(key(set, bytes, end), None, "{set} {bytes:?}");
        }
    }

    #[test]
    fn only_whole_networks_are_networks() {
        let [v4, v6] = ["carries4", "carries6"].map(|name| Set::named(name).unwrap());
        let net = |set, first, last| {
            let addr = if set == v4 { "192.0.2.7" } else { "2001:db8::7" }.parse().unwrap();
            kept(set, addr, Some((first, Some(last)))).map(|element| match element {
                Element::Carries(_, net) => net.to_string(),
                Element::From(addr) => addr.to_string(),
            })
        };
        assert_eq!(net(v4, 0, u32::MAX.into()).as_deref(), Some("0.0.0.0/0"));
        assert_eq!((net(v4, 1, 2), net(v4, 255, 0), net(v4, 0, u128::MAX)), (None, None, None));
        assert_eq!(net(v6, 0, u128::MAX).as_deref(), Some("::/0"));
    }
}
