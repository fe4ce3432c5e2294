//! What nft prints, and what the kernel announces, of the guard's table. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;
use twill_backends::guard::Element;

use super::elements::set;
use super::render::Counts;
use crate::filter::nft::{canonical, text};

/// The table as it was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Everything but elements and counts, in one order.
    pub(super) objects: Vec<Value>,
    /// `None` if there are elements that are none of ours in form.
    pub(super) elements: Option<BTreeSet<Element>>,
    pub(super) counts: Counts,
}

impl Found {
    /// From the objects that `nft -j list table` prints.
    pub(super) fn read(mut objects: Vec<Value>) -> Self {
        let (mut elements, mut counts) = (Some(BTreeSet::new()), Counts::new());
        for object in &mut objects {
            if let Some(counter) = object.get_mut("counter").and_then(Value::as_object_mut) {
                let mut number =
                    |field| counter.remove(field).and_then(|value| value.as_u64()).unwrap_or_default();
                let count = (number("packets"), number("bytes"));
                let name = counter.get("name").and_then(Value::as_str).unwrap_or_default();
                counts.insert(name.to_owned(), count);
            }
            let Some(fields) = object.get_mut("set").and_then(Value::as_object_mut) else { continue };
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let Some(Value::Array(listed)) = fields.remove("elem") else { continue };
            for one in listed {
                match element(&one).filter(|element| set(element) == name) {
                    Some(element) => elements.as_mut().map(|all| all.insert(element)),
                    None => elements.take().map(|_| false),
                };
            }
        }
        Self { objects: canonical(&objects), elements, counts }
    }
}

/// Packets by the name of the counter, from what `nft -j list counters` prints.
pub(super) fn counted(objects: &[Value]) -> impl Iterator<Item = (String, u64)> {
    let counters = objects.iter().filter_map(|object| object.get("counter"));
    counters.map(|counter| {
        (text(counter, "name").to_owned(), counter.get("packets").and_then(Value::as_u64).unwrap_or_default())
    })
}

/// An element as `nft -j` prints it: an address, or an address and a number or a range of numbers.
fn element(value: &Value) -> Option<Element> {
    if let Some(addr) = value.as_str() {
        return addr.parse().ok().map(Element::From);
    }
    let [addr, source] = value.get("concat")?.as_array()?.as_slice() else { return None };
    let addr: IpAddr = addr.as_str()?.parse().ok()?;
    let (first, last) = match source.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => (number(first)?, number(last)?),
        _ => (number(source)?, number(source)?),
    };
    Some(Element::Carries(addr, net(addr.is_ipv4(), first, last)?))
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

/// The network from its first to its last address, if it is one.
fn net(v4: bool, first: u128, last: u128) -> Option<IpNet> {
    let (addr, bits) = if v4 {
        (IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(first).ok()?)), 32)
    } else {
        (IpAddr::V6(Ipv6Addr::from_bits(first)), 128)
    };
    let host = 128 - (first ^ last).leading_zeros();
    let net = IpNet::new(addr, u8::try_from(bits - i64::from(host)).ok()?).ok()?;
    let last_of = |net: &IpNet| match net.broadcast() {
        IpAddr::V4(last) => u128::from(last.to_bits()),
        IpAddr::V6(last) => last.to_bits(),
    };
    (net.trunc() == net && last_of(&net) == last).then_some(net)
}

/// An element from the bytes that the kernel keeps: its key, and the end of the key where that is a range.
pub(super) fn from_keys(set: &[u8], key: &[u8], end: Option<&[u8]>) -> Option<Element> {
    match set {
        b"from4" => Some(Element::From(v4(key)?.into())),
        b"from6" => Some(Element::From(v6(key)?.into())),
        b"carries4" => {
            let (addr, first) = key.split_first_chunk::<4>()?;
            let last = end.and_then(|end| end.get(4..)).unwrap_or(first);
            let (first, last) = (v4(first)?.to_bits().into(), v4(last)?.to_bits().into());
            Some(Element::Carries(Ipv4Addr::from(*addr).into(), net(true, first, last)?))
        }
        b"carries6" => {
            let (addr, first) = key.split_first_chunk::<16>()?;
            let last = end.and_then(|end| end.get(16..)).unwrap_or(first);
            let net = net(false, v6(first)?.to_bits(), v6(last)?.to_bits())?;
            Some(Element::Carries(Ipv6Addr::from(*addr).into(), net))
        }
        _ => None,
    }
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::super::render::{printed, tests::rules};
    use super::*;

    fn objects(text: &str) -> Vec<Value> {
        let value: Value = serde_json::from_str(text).unwrap();
        let all = value["nftables"].as_array().unwrap();
        all.iter().filter(|object| object.get("metainfo").is_none()).cloned().collect()
    }

    fn carries(addr: &str, net: &str) -> Element {
        Element::Carries(addr.parse().unwrap(), net.parse().unwrap())
    }

    /// What nft 1.0.6 prints of the table of `rules()` with a peer of both families.
    const PRINTED: &str = include_str!("printed.json");

    #[test]
    fn what_is_rendered_reads_like_what_nft_prints() {
        let found = Found::read(objects(PRINTED));
        assert_eq!(found.objects, canonical(&printed("twill-guard-x", &rules())));
        let from = |addr: &str| Element::From(addr.parse().unwrap());
        let elements = [
            from("192.0.2.7"),
            from("2001:db8::7"),
            carries("192.0.2.7", "10.5.7.0/24"),
            carries("192.0.2.7", "192.0.2.7/32"),
            carries("2001:db8::7", "fd00:5:0:7::/64"),
            carries("2001:db8::7", "2001:db8::7/128"),
        ];
        assert_eq!(found.elements, Some(BTreeSet::from(elements)));
        assert_eq!(found.counts["strangers"], (3, 252));
    }

    #[test]
    fn an_element_of_another_form_is_nobodys() {
        for (is, becomes) in [("168101632, 168101887", "168101632, 168101886"), ("3221225991", "-1")] {
            assert!(PRINTED.contains(is));
            assert_eq!(Found::read(objects(&PRINTED.replace(is, becomes))).elements, None, "{becomes}");
        }
    }

    #[test]
    fn keys_of_the_kernel_are_the_elements_that_nft_prints() {
        let key = |set: &str, key: &[u8], end: Option<&[u8]>| from_keys(set.as_bytes(), key, end);
        assert_eq!(key("from4", &[192, 0, 2, 0], None), Some(Element::From([192, 0, 2, 0].into())));
        let (first, last) = ([10, 0, 0, 1, 10, 5, 0, 0], [10, 0, 0, 1, 10, 5, 255, 255]);
        assert_eq!(key("carries4", &first, Some(&last)), Some(carries("10.0.0.1", "10.5.0.0/16")));
        assert_eq!(key("carries4", &first, None), Some(carries("10.0.0.1", "10.5.0.0/32")));
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let first = [v6("2001:db8::7"), v6("fd00:5::")].concat();
        let last = [v6("2001:db8::7"), v6("fd00:5::ffff")].concat();
        assert_eq!(key("carries6", &first, Some(&last)), Some(carries("2001:db8::7", "fd00:5::/112")));
        assert_eq!(key("from6", &v6("::1"), None), Some(Element::From(Ipv6Addr::LOCALHOST.into())));
        assert_eq!((key("from4", &[1], None), key("other", &[1, 2, 3, 4], None)), (None, None));
        assert_eq!((key("carries4", &[], None), key("carries6", &[0; 20], Some(&[]))), (None, None));
    }

    #[test]
    fn only_whole_networks_are_networks() {
        assert_eq!(net(true, 0, u32::MAX.into()), Some("0.0.0.0/0".parse().unwrap()));
        assert_eq!(net(true, 1, 2), None);
        assert_eq!(net(true, 255, 0), None);
        assert_eq!(net(false, 0, u128::MAX), Some("::/0".parse().unwrap()));
    }
}
