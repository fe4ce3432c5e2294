//! Elements of the guard's sets, as nft takes them. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use twill_backends::guard::Element;

use super::render::Kin;

/// The set an element belongs to.
pub(super) const fn set(element: &Element) -> &'static str {
    match element {
        Element::From(addr) => Kin::of(addr).from,
        Element::Carries(addr, _) => Kin::of(addr).carries,
    }
}

/// An element as nft takes it. What is looked up in a packet by its place alone has no type but a number's.
fn element(element: &Element) -> String {
    match element {
        Element::From(addr) => addr.to_string(),
        Element::Carries(addr, net) => {
            let (first, last) = (number(net.network()), number(net.broadcast()));
            if first == last {
                format!("{addr} . {first:#x}")
            } else {
                format!("{addr} . {first:#x}-{last:#x}")
            }
        }
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The lines that add or delete elements.
pub(super) fn change<'e>(table: &str, verb: &str, elements: impl IntoIterator<Item = &'e Element>) -> String {
    let mut sets: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    elements.into_iter().for_each(|one| sets.entry(set(one)).or_default().push(element(one)));
    sets.iter().fold(String::new(), |mut text, (set, elements)| {
        // Writing to a string does not fail.
        writeln!(text, "{verb} element inet {table} {set} {{ {} }}", elements.join(", ")).ok();
        text
    })
}
