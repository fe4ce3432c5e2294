//! What netlink's nftables group announces, as far as it is about ours. Pure.

use super::Heard;

/// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h.
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWSETELEM` and `NFT_MSG_DELSETELEM` of linux/netfilter/nf_tables.h.
const NEW_ELEMENT: u16 = 12;
const DELETED_ELEMENT: u16 = 14;

/// `NFPROTO_*` of linux/netfilter.h.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

/// Part of the ruleset whose changes matter.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) family: u8,
    pub(super) table: String,
    /// Chains by name; empty: everything in the table.
    pub(super) chains: &'static [&'static str],
    /// Whether it is the guard's table.
    pub(super) guard: bool,
}

/// An element of a set that came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced<'m> {
    /// Whether it came.
    pub(super) added: bool,
    /// The set's name.
    pub(super) set: &'m [u8],
    /// Its key, and the end of the key where it is a range.
    pub(super) key: &'m [u8],
    pub(super) end: Option<&'m [u8]>,
}

/// Nobody can say where a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What is no news of the guard.
pub(super) trait Knows {
    /// Whether the one who has this number made a change on our behalf.
    fn wrote(&self, writer: u32) -> bool;

    /// Whether an element is as it is believed to be: come and gone again, or the reverse.
    fn knows(&self, news: Announced<'_>) -> bool;
}

/// What of ours any message of a datagram is about. What cannot be read might be about anything. Of the guard nothing
/// is told that is known.
pub(super) fn concerns(datagram: &[u8], watches: &[Watch], guard: &impl Knows) -> Heard {
    let mut heard = Heard::default();
    for message in messages(datagram) {
        match message {
            Ok(message) => heard |= about(message, watches, guard),
            Err(Unreadable) => return Heard::ALL,
        }
    }
    heard
}

/// The messages of a datagram, each with its header, as far as they can be read.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Result<&[u8], Unreadable>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let fits = |length: &usize| (16..=datagram.len()).contains(length);
        let Some(length) = word(datagram).filter(fits) else {
            datagram = &[];
            return Some(Err(Unreadable));
        };
        let message = &datagram[..length];
        datagram = &datagram[aligned(length).min(datagram.len())..];
        Some(Ok(message))
    })
}

/// What a message is: its subsystem, and what happened there.
pub(super) fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// One netlink message: header (16 bytes, the last four of which number who made the change), nfgenmsg (4 bytes: family,
/// version, resource), attributes.
fn about(message: &[u8], watches: &[Watch], guard: &impl Knows) -> Heard {
    let kind = kind(message);
    /// `NLMSG_OVERRUN`.
    const OVERRUN: u16 = 4;
    if kind >> 8 != SUBSYSTEM {
        return if kind == OVERRUN { Heard::ALL } else { Heard::default() };
    }
    let Some((family, attributes)) = message.get(16).zip(message.get(20..)) else {
        return Heard::ALL;
    };
    // NFT_MSG_*: chains 3 to 5 carry their name as attribute 3, rules 6 to 8 their chain's as 2; of generations 15, 16
    // and traces 17, attribute 1 is no table.
    let chain_attribute = match kind & 0xff {
        3..=5 => Some(3),
        6..=8 => Some(2),
        15..=17 => return Heard::default(),
        _ => None,
    };
    let Some(table) = text(attributes, 1) else {
        return Heard::default();
    };
    let chain = chain_attribute.and_then(|number| text(attributes, number));
    let writer = u32::from_ne_bytes([message[12], message[13], message[14], message[15]]);
    let mut heard = Heard::default();
    for watch in watches.iter().filter(|watch| watch.family == *family && watch.table.as_bytes() == table) {
        let meant = watch.chains.is_empty()
            || chain.is_none_or(|chain| watch.chains.iter().any(|name| name.as_bytes() == chain));
        if !watch.guard {
            heard.rules |= meant;
        } else if meant && !guard.wrote(writer) {
            let mut elements = elements(kind & 0xff, attributes);
            heard.guard |= !elements.as_mut().is_some_and(|all| all.all(|element| guard.knows(element)));
        }
    }
    heard
}

/// The elements that a message is about; `None` if it is about something else.
fn elements(kind: u16, attributes: &[u8]) -> Option<impl Iterator<Item = Announced<'_>>> {
    /// `NFTA_SET_ELEM_LIST_SET` and `_ELEMENTS`; `NFTA_LIST_ELEM`; `NFTA_SET_ELEM_KEY` and `_KEY_END`; `NFTA_DATA_VALUE`.
    const SET: u16 = 2;
    const ELEMENTS: u16 = 3;
    const ELEMENT: u16 = 1;
    const KEY: u16 = 1;
    const KEY_END: u16 = 10;
    const VALUE: u16 = 1;
    let added = match kind {
        NEW_ELEMENT => true,
        DELETED_ELEMENT => false,
        _ => return None,
    };
    let set = text(attributes, SET)?;
    let list = attribute(attributes, ELEMENTS)?;
    let data = |element, number| attribute(attribute(element, number)?, VALUE);
    Some(all(list).filter(|(number, _)| *number == ELEMENT).map(move |(_, element)| Announced {
        added,
        set,
        key: data(element, KEY).unwrap_or_default(),
        end: data(element, KEY_END),
    }))
}

/// The text of one attribute, without its NUL.
fn text(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attribute(bytes, number).map(|value| value.strip_suffix(&[0]).unwrap_or(value))
}

pub(super) fn attribute(bytes: &[u8], number: u16) -> Option<&[u8]> {
    all(bytes).find(|(found, _)| *found == number).map(|(_, value)| value)
}

/// Attributes by number, as far as they can be read.
fn all(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Not part of the number: `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let [l0, l1, n0, n1, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([n0, n1]) & !FLAGS, value))
    })
}

fn word(bytes: &[u8]) -> Option<usize> {
    let (first, _) = bytes.split_first_chunk::<4>()?;
    usize::try_from(u32::from_ne_bytes(*first)).ok()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::filter) fn attr(number: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    pub(in crate::filter) fn message(kind: u16, family: u8, attrs: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = attrs.concat();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(20 + body.len()).unwrap().to_ne_bytes());
        bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    /// Knows the elements that this says, and what the process 7 did.
    struct Guard<F>(F);

    impl<F: Fn(Announced<'_>) -> bool> Knows for Guard<F> {
        fn wrote(&self, writer: u32) -> bool {
            writer == 7
        }

        fn knows(&self, news: Announced<'_>) -> bool {
            self.0(news)
        }
    }

    fn watches() -> Vec<Watch> {
        vec![
            Watch { family: INET, table: "twill-x".into(), chains: &[], guard: false },
            Watch { family: INET, table: "guard".into(), chains: &[], guard: true },
            Watch {
                family: IPV4,
                table: "nat".into(),
                chains: &["POSTROUTING", "FLANNEL-POSTRTG"],
                guard: false,
            },
        ]
    }

    #[test]
    fn only_what_is_watched_is_heard() {
        let heard = |kind, family, attrs: &[Vec<u8>]| {
            concerns(&message(kind, family, attrs), &watches(), &Guard(|_: Announced<'_>| true)).rules
        };
        assert!(heard(2, INET, &[attr(1, b"twill-x\0")]));
        assert!(heard(8, INET, &[attr(1, b"twill-x\0"), attr(2, b"forward\0")]));
        assert!(!heard(2, IPV4, &[attr(1, b"twill-x\0")]));
        assert!(!heard(2, INET, &[attr(1, b"twill-xy\0")]));
        assert!(heard(8, IPV4, &[attr(1, b"nat\0"), attr(2, b"FLANNEL-POSTRTG\0")]));
        assert!(!heard(6, IPV4, &[attr(1, b"nat\0"), attr(2, b"KUBE-SERVICES\0")]));
        assert!(heard(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"POSTROUTING\0")]));
        assert!(!heard(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"KUBE-MARK\0")]));
        assert!(heard(2, IPV4, &[attr(1, b"nat\0")]), "the whole table");
        assert!(!heard(15, INET, &[attr(1, b"twill-x\0")]), "a generation number is no name");
    }

    #[test]
    fn a_later_message_of_a_batch_counts() {
        let mut batch = message(6, IPV4, &[attr(1, b"nat\0"), attr(2, b"KUBE\0")]);
        assert_eq!(concerns(&batch, &watches(), &Guard(|_: Announced<'_>| true)), Heard::default());
        batch.extend(message(0, INET, &[attr(1, b"twill-x\0")]));
        assert_eq!(
            concerns(&batch, &watches(), &Guard(|_: Announced<'_>| true)),
            Heard { rules: true, guard: false }
        );
    }

    #[test]
    fn no_datagram_is_out_of_bounds() {
        let chain = message(5, IPV4, &[attr(1, b"nat\0"), attr(2, &[0; 8]), attr(3, b"POSTROUTING\0")]);
        let good = [elements(NEW_ELEMENT), chain].concat();
        for cut in 0..good.len() {
            concerns(&good[..cut], &watches(), &Guard(|_: Announced<'_>| true));
            for byte in 0..=u8::MAX {
                let mut bad = good.clone();
                bad[cut] = byte;
                concerns(&bad, &watches(), &Guard(|_: Announced<'_>| true));
            }
        }
        assert_eq!(
            concerns(&good[..10], &watches(), &Guard(|_: Announced<'_>| true)),
            Heard::ALL,
            "unreadable means look"
        );
        assert_eq!(concerns(&[], &watches(), &Guard(|_: Announced<'_>| true)), Heard::default());
    }

    /// Two elements: an address, and a range behind one.
    fn elements(kind: u16) -> Vec<u8> {
        let data = |number, bytes: &[u8]| attr(number, &attr(1, bytes));
        let one = attr(1, &data(1, &[192, 0, 2, 0]));
        let two = attr(
            1,
            &[data(1, &[10, 0, 0, 1, 10, 5, 7, 0]), data(10, &[10, 0, 0, 1, 10, 5, 7, 255])].concat(),
        );
        message(kind, INET, &[attr(1, b"guard\0"), attr(2, b"from4\0"), attr(3, &[one, two].concat())])
    }

    #[test]
    fn elements_are_told_of_unless_all_are_known() {
        for (kind, added) in [(NEW_ELEMENT, true), (DELETED_ELEMENT, false)] {
            let seen = std::cell::RefCell::new(Vec::new());
            let guard = Guard(|element: Announced<'_>| {
                seen.borrow_mut().push((
                    element.added,
                    element.key.to_vec(),
                    element.end.map(<[u8]>::to_vec),
                ));
                assert_eq!(element.set, b"from4");
                true
            });
            assert_eq!(concerns(&elements(kind), &watches(), &guard), Heard::default());
            let range = (vec![10, 0, 0, 1, 10, 5, 7, 0], Some(vec![10, 0, 0, 1, 10, 5, 7, 255]));
            assert_eq!(seen.into_inner(), [(added, vec![192, 0, 2, 0], None), (added, range.0, range.1)]);
            let second = Guard(|element: Announced<'_>| element.end.is_none());
            assert_eq!(concerns(&elements(kind), &watches(), &second), Heard { rules: false, guard: true });
        }
    }

    #[test]
    fn what_this_program_did_to_the_guard_is_no_news() {
        let stranger = Guard(|_: Announced<'_>| false);
        let rule = |table: &[u8]| message(6, INET, &[attr(1, table), attr(2, b"input\0")]);
        for mut message in [rule(b"guard\0"), elements(NEW_ELEMENT)] {
            assert_eq!(concerns(&message, &watches(), &stranger), Heard { rules: false, guard: true });
            message[12..16].copy_from_slice(&7_u32.to_ne_bytes());
            assert_eq!(concerns(&message, &watches(), &stranger), Heard::default());
        }
        let mut other = rule(b"twill-x\0");
        other[12..16].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(concerns(&other, &watches(), &stranger), Heard { rules: true, guard: false });
    }
}
