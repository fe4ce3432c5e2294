//! Elements of the guard's sets, as nft takes them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_backends::guard::{Element, Guard, GuardRules};

use super::sets::{Kin, Set};

/// What is in the sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Elements {
    all: BTreeSet<Element>,
    /// Whether there are some among them that are not wanted.
    leftovers: bool,
}

impl Elements {
    /// These are there, wanted or not.
    pub(super) const fn found(all: BTreeSet<Element>) -> Self {
        Self { all, leftovers: true }
    }

    pub(super) const fn all(&self) -> &BTreeSet<Element> {
        &self.all
    }

    /// Takes what is wanted for done; where `touched` is given, only of these addresses anything else is wanted than
    /// before. Returns what has to be deleted and what has to be added for that. What is not wanted stays unless
    /// `removals` may be made.
    pub(super) fn become_wanted(
        &mut self,
        want: &Guard,
        touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> (BTreeSet<Element>, BTreeSet<Element>) {
        let touched = touched.filter(|_| !(self.leftovers && removals));
        let (wanted, there) = match touched {
            None => (want.elements(), self.all.clone()),
            Some(addrs) => (
                addrs.iter().flat_map(|addr| want.elements_of(*addr)).collect(),
                addrs.iter().flat_map(|addr| self.of(*addr)).copied().collect(),
            ),
        };
        let target = if removals { wanted.clone() } else { with_leftovers(&wanted, &there, &want.rules) };
        let (gone, new) = (&there - &target, &target - &there);
        for element in &gone {
            self.all.remove(element);
        }
        self.all.extend(&new);
        self.leftovers = target != wanted || (self.leftovers && touched.is_some());
        (gone, new)
    }

    fn of(&self, addr: IpAddr) -> impl Iterator<Item = &Element> {
        self.all.range(Element::From(addr)..).take_while(move |element| element.addr() == addr)
    }
}

/// An element as nft takes it. What is looked up in a packet by its place alone has no type but a number's.
fn element(element: &Element, set: Set) -> String {
    let Element::Carries(addr, net) = element else { return element.addr().to_string() };
    let (first, last) = (number(net.network()), number(net.broadcast()));
    if first != last && matches!(set, Set::Intervals(_)) {
        format!("{addr} . {first:#x}-{last:#x}")
    } else {
        format!("{addr} . {first:#x}")
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The lines that add or delete elements.
pub(super) fn change<'e>(
    table: &str,
    verb: &str,
    elements: impl IntoIterator<Item = &'e Element>,
    rules: &GuardRules,
) -> String {
    let mut sets: BTreeMap<Set, Vec<String>> = BTreeMap::new();
    for one in elements {
        let set = Set::of(one, rules);
        sets.entry(set).or_default().push(element(one, set));
    }
    sets.iter().fold(String::new(), |mut text, (set, elements)| {
        // Writing to a string does not fail.
        writeln!(text, "{verb} element inet {table} {set} {{ {} }}", elements.join(", ")).ok();
        text
    })
}

/// What is wanted and what else is there, as far as there is a set for it and neither is inside the other: intervals of
/// one set never are.
fn with_leftovers(
    wanted: &BTreeSet<Element>,
    have: &BTreeSet<Element>,
    rules: &GuardRules,
) -> BTreeSet<Element> {
    let mut carried: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
    for element in wanted {
        if let Element::Carries(addr, net) = element {
            carried.entry(*addr).or_default().push(*net);
        }
    }
    let kins: Vec<&Kin> = Kin::all(rules).map(|(kin, _)| kin).collect();
    let fits = |one: &&Element| match one {
        // Frames of a family without a network are not looked at.
        other if !kins.contains(&Kin::of(&other.addr())) => false,
        Element::From(_) => true,
        Element::Carries(addr, net) => {
            let beside = carried.get(addr).into_iter().flatten();
            rules.inner && beside.into_iter().all(|other| !other.contains(net) && !net.contains(other))
        }
    };
    wanted.iter().chain(have.difference(wanted).filter(fits)).copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twill_backends::guard::Sender;

    use super::super::render::tests::rules;
    use super::*;

    fn guard(senders: &BTreeSet<(u8, u8)>) -> Guard {
        let sender = |(host, net): &(u8, u8)| Sender {
            addr: [192, 0, 2, *host].into(),
            subnet: format!("10.5.{net}.0/24").parse().unwrap(),
        };
        Guard { rules: rules(), senders: senders.iter().map(sender).collect() }
    }

    fn senders() -> impl Strategy<Value = BTreeSet<(u8, u8)>> {
        proptest::collection::btree_set((0..4_u8, 0..4_u8), 0..6)
    }

    proptest! {
        #[test]
        fn to_follow_what_changed_is_to_follow_everything(
            history in proptest::collection::vec((senders(), any::<bool>()), 1..6),
        ) {
            let (mut partly, mut wholly) = (Elements::default(), Elements::default());
            let mut before = guard(&BTreeSet::new());
            for (senders, removals) in &history {
                let want = guard(senders);
                let differing = want.senders.symmetric_difference(&before.senders);
                let touched: BTreeSet<IpAddr> = differing.map(|sender| sender.addr).collect();
                let some = partly.become_wanted(&want, Some(&touched), *removals);
                let all = wholly.become_wanted(&want, None, *removals);
                prop_assert_eq!(some, all);
                prop_assert_eq!(partly.all(), wholly.all());
                before = want;
            }
            partly.become_wanted(&before, Some(&BTreeSet::new()), true);
            prop_assert_eq!(partly.all(), &before.elements());
        }
    }
}
