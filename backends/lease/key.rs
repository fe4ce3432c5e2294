//! The names of leases: `10.5.52.0-24`, `10.5.52.0-24&fd00:5:0:56::-64`, `0.0.0.0-0&fd00:5:0:56::-64`.
//!
//! What flanneld reads as a lease is one here too, or two hosts would disagree on what is taken. It searches the text
//! for the expression `(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$`, so anything may stand before the IPv4 part
//! and nothing after the last length; then the addresses must parse, and the lengths be at most 31 and 127.
//!
//! Deviations: host bits are cleared, because a route to a subnet with host bits is refused by the kernel; and
//! `0.0.0.0-0`, `::-0`, which flanneld writes for "no subnet of this family", are read as just that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{LeaseKey, Subnets};
use crate::fault::{Code, Fault};
use crate::json::brief;

impl LeaseKey {
    /// The key flannel gives a lease of these subnets. Without an IPv4 subnet it begins with `0.0.0.0-0&`.
    #[must_use]
    pub fn of(subnets: &Subnets) -> Self {
        let v4 = subnets.v4.map_or_else(|| "0.0.0.0-0".to_owned(), |net| part(&net));
        Self(subnets.v6.map_or_else(|| v4.clone(), |net| format!("{v4}&{}", part(&net))))
    }

    /// The subnets this key takes: at least one, without host bits.
    ///
    /// # Errors
    /// [`Code::BadLeaseKey`] with the reason.
    pub fn subnets(&self) -> Result<Subnets, Fault> {
        parse(&self.0).map_err(|cause| Fault::new(Code::BadLeaseKey, brief(&self.0), cause.to_string()))
    }
}

fn part(net: &IpNet) -> String {
    format!("{}-{}", net.network(), net.prefix_len())
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Form,
    Address,
    Length { max: u8 },
    Nothing,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => {
                f.write_str("the key is not of the form 10.5.52.0-24 or 10.5.52.0-24&fd00:5:0:56::-64")
            }
            Self::Address => f.write_str("an address in the key does not parse"),
            Self::Length { max } => write!(f, "a prefix length in the key is not in 0..={max}"),
            Self::Nothing => f.write_str("the key names no subnet of either address family"),
        }
    }
}

fn parse(text: &str) -> Result<Subnets, Cause> {
    let (rest, last) = text.rsplit_once('-').ok_or(Cause::Form)?;
    let both = rest.rsplit_once('&').filter(|(_, addr)| is_hex_and_colons(addr));
    let (v4, v6) = match both {
        Some((head, addr)) => {
            let (v4, len) = head.rsplit_once('-').ok_or(Cause::Form)?;
            ((v4, len), Some((addr, last)))
        }
        None => ((rest, last), None),
    };
    let quad = trailing_quad(v4.0).ok_or(Cause::Form)?;
    let v4 = subnet(quad.parse::<Ipv4Addr>().map(IpAddr::V4), v4.1, 31)?;
    let v6 = v6.map(|(addr, len)| subnet(addr.parse::<Ipv6Addr>().map(IpAddr::V6), len, 127)).transpose()?;
    let subnets = Subnets { v4, v6: v6.flatten() };
    if subnets.is_empty() { Err(Cause::Nothing) } else { Ok(subnets) }
}

fn is_hex_and_colons(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9' | b':'))
}

/// The four numbers joined by dots at the end of `text`. What precedes them is no part of the key: the first number
/// begins where its digits begin.
fn trailing_quad(text: &str) -> Option<&str> {
    let mut dots = 0;
    let start = text.rfind(|c: char| {
        dots += usize::from(c == '.');
        dots == 4 || !(c == '.' || c.is_ascii_digit())
    });
    // What stopped the search is one character, which may be several bytes long.
    let quad = start.map_or(text, |at| text[at..].trim_start_matches(|c: char| !c.is_ascii_digit()));
    (quad.split('.').count() == 4).then_some(quad)
}

/// `None` for the form that stands for no subnet.
fn subnet<E>(addr: Result<IpAddr, E>, len: &str, max: u8) -> Result<Option<IpNet>, Cause> {
    if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Cause::Form);
    }
    let addr = addr.map_err(|_| Cause::Address)?;
    let len = len.parse().ok().filter(|len| *len <= max).ok_or(Cause::Length { max })?;
    let net = IpNet::new(addr, len).map_err(|_| Cause::Length { max })?.trunc();
    Ok((len > 0 || !addr.is_unspecified()).then_some(net))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Option<IpNet> {
        Some(text.parse().unwrap())
    }

    fn read(text: &str) -> Result<Subnets, Cause> {
        let subnets = parse(text);
        assert_eq!(LeaseKey::new(text).subnets().is_ok(), subnets.is_ok());
        subnets
    }

    #[test]
    fn keys_are_written_as_flannel_writes_them() {
        let v4 = net("10.5.52.0/24");
        let v6 = net("fd00:5:0:56::/64");
        for (v4, v6, text) in [
            (v4, None, "10.5.52.0-24"),
            (v4, v6, "10.5.52.0-24&fd00:5:0:56::-64"),
            (None, v6, "0.0.0.0-0&fd00:5:0:56::-64"),
        ] {
            let subnets = Subnets { v4, v6 };
            assert_eq!(LeaseKey::of(&subnets).as_str(), text);
            assert_eq!(read(text), Ok(subnets));
        }
    }

    /// The names of flannel's own tests TestSubnetNodev4, TestSubnetNodev6 and TestSubnetNodeInvalid.
    #[test]
    fn flannels_own_table_holds() {
        for text in ["10.12.13.0-24", "10.12.13.0-24&fd00:12:13::-56"] {
            assert_eq!(LeaseKey::of(&read(text).unwrap()).as_str(), text);
        }
        let dual = |tail: &str| format!("10.12.13.0-24{tail}");
        for (text, cause) in [
            ("10".to_owned(), Cause::Form),
            ("10.12.13.0".to_owned(), Cause::Form),
            ("10.12.13-24".to_owned(), Cause::Form),
            ("10.12.13.300-24".to_owned(), Cause::Address),
            (dual("hi"), Cause::Form),
            ("&2001::-56".to_owned(), Cause::Form),
            (dual("&:12:13:-56"), Cause::Address),
            (dual("&20011::-56"), Cause::Address),
            (dual("&2001-56"), Cause::Address),
            (dual("&2001::"), Cause::Form),
            (dual("&2001::-56hi"), Cause::Form),
        ] {
            assert_eq!(read(&text), Err(cause), "{text}");
        }
    }

    #[test]
    fn lengths_end_where_flannels_integers_end() {
        for len in 1..=31 {
            assert!(read(&format!("10.5.52.0-{len}")).is_ok(), "{len}");
        }
        assert_eq!(read("10.5.52.0-0"), Ok(Subnets { v4: net("0.0.0.0/0"), v6: None }));
        for len in ["32", "33", "64", "256", "4294967328", "99999999999999999999"] {
            assert_eq!(read(&format!("10.5.52.0-{len}")), Err(Cause::Length { max: 31 }), "{len}");
        }
        for len in 0..=127 {
            assert!(read(&format!("10.5.52.0-24&fd00::-{len}")).is_ok(), "{len}");
        }
        for len in ["128", "129", "256"] {
            let text = format!("10.5.52.0-24&fd00::-{len}");
            assert_eq!(read(&text), Err(Cause::Length { max: 127 }), "{len}");
        }
        assert_eq!(read("255.255.255.255-32"), Err(Cause::Length { max: 31 }));
        assert_eq!(read("10.5.52.0-024"), Ok(Subnets { v4: net("10.5.52.0/24"), v6: None }));
    }

    #[test]
    fn a_family_may_be_absent_but_not_both() {
        assert_eq!(read("10.5.52.0-24&::-0"), Ok(Subnets { v4: net("10.5.52.0/24"), v6: None }));
        assert_eq!(read("0.0.0.0-8"), Ok(Subnets { v4: net("0.0.0.0/8"), v6: None }));
        assert_eq!(read("0.0.0.0-0"), Err(Cause::Nothing));
        assert_eq!(read("0.0.0.0-0&::-0"), Err(Cause::Nothing));
        assert_eq!(LeaseKey::of(&Subnets::NONE).subnets().unwrap_err().code, Code::BadLeaseKey);
    }

    #[test]
    fn text_before_the_key_is_ignored_and_text_after_it_is_not() {
        let want = Ok(Subnets { v4: net("10.5.52.0/24"), v6: None });
        for text in ["x10.5.52.0-24", "old/10.5.52.0-24", "9.10.5.52.0-24", "é10.5.52.0-24", ".10.5.52.0-24"]
        {
            assert_eq!(read(text), want, "{text}");
        }
        assert_eq!(read("10.1.1.0-24&10.5.52.0-24"), want);
        assert_eq!(read("9910.5.52.0-24"), Err(Cause::Address));
        for text in ["10.5.52.0-24 ", "10.5.52.0-24\n", "10.5.52.0-24/x", "10.5.52.0-24&", "10.5.52.0-"] {
            assert_eq!(read(text), Err(Cause::Form), "{text:?}");
        }
    }

    #[test]
    fn digits_addresses_and_case_are_gos() {
        for text in [
            "10.5.52.0-+24",
            "10.5.52.0-٢٤",
            "10x5x52x0-24",
            "10.5x52x0-24",
            "10.5.52.0-24&FD00::-64",
            "",
            "-",
            "&-",
        ] {
            assert_eq!(read(text), Err(Cause::Form), "{text}");
        }
        for text in ["10.05.52.0-24", "10.5..0-24", "10.5.52.0-24&1:2:3:4::5:6:7:8-64"] {
            assert_eq!(read(text), Err(Cause::Address), "{text}");
        }
    }

    #[test]
    fn host_bits_are_cleared() {
        let want = Subnets { v4: net("10.5.52.0/24"), v6: net("fd00::/64") };
        assert_eq!(read("10.5.52.7-24&fd00::7-64"), Ok(want));
        assert_eq!(LeaseKey::of(&Subnets { v4: net("10.5.52.7/24"), v6: None }).as_str(), "10.5.52.0-24");
    }

    #[test]
    fn a_fault_names_the_key_and_the_reason() {
        let fault = LeaseKey::new("10.5.52.0-33").subnets().unwrap_err();
        assert_eq!(
            fault.to_string(),
            "10.5.52.0-33: a prefix length in the key is not in 0..=31; \
             next: delete the key, or move it out of the prefix"
        );
    }

    /// The expression of the module's head, tried from the left as Go tries it, in the plainest way.
    fn flannel(text: &str) -> Option<Subnets> {
        let at = (0..text.len()).filter(|at| text.is_char_boundary(*at));
        let text = at.map(|at| &text[at..]).find(|text| matches_from_here(text).is_some())?;
        let (head, v6) = text.split_once('&').map_or((text, None), |(head, v6)| (head, Some(v6)));
        let read = |part: &str, max: u8| {
            let (addr, len) = part.split_once('-')?;
            let len = len.parse().ok().filter(|len| *len <= max)?;
            Some(IpNet::new(addr.parse().ok()?, len).ok()?.trunc())
        };
        Some(Subnets {
            v4: Some(read(head, 31)?),
            v6: match v6 {
                Some(part) => Some(read(part, 127)?),
                None => None,
            },
        })
    }

    fn matches_from_here(text: &str) -> Option<()> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let quad = |s: &str| s.split('.').count() == 4 && s.split('.').all(digits);
        let hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b"0123456789abcdef:".contains(&b));
        let (head, v6) = text.split_once('&').map_or((text, None), |(head, v6)| (head, Some(v6)));
        let pair = |part: &str, addr: &dyn Fn(&str) -> bool| {
            part.split_once('-').is_some_and(|(a, len)| addr(a) && digits(len))
        };
        (pair(head, &quad) && v6.is_none_or(|v6| pair(v6, &hex))).then_some(())
    }

    /// Without the two forms that stand for no subnet, of which flannel has another notion.
    fn real(subnets: Subnets) -> Vec<IpNet> {
        subnets.iter().map(|(_, net)| *net).filter(|net| net.prefix_len() > 0).collect()
    }

    proptest! {
        #[test]
        fn any_subnets_survive_their_key(
            v4 in proptest::option::of((any::<u32>(), 1_u8..=31)),
            v6 in proptest::option::of((any::<u128>(), 1_u8..=127)),
        ) {
            let v4 = v4.map(|(a, len)| IpNet::new(Ipv4Addr::from(a).into(), len).unwrap().trunc());
            let v6 = v6.map(|(a, len)| IpNet::new(Ipv6Addr::from(a).into(), len).unwrap().trunc());
            // Configurations have no networks of IPv4 in IPv6 clothes.
            prop_assume!(v4.is_some() || v6.is_some());
            prop_assume!(!v6.is_some_and(|n| n.network().to_canonical().is_ipv4()));
            let subnets = Subnets { v4, v6 };
            prop_assert_eq!(LeaseKey::of(&subnets).subnets(), Ok(subnets));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            prop_assert_eq!(parse(&text).ok().map(real), flannel(&text).map(real));
        }

        #[test]
        fn near_keys_are_judged_as_flannel_judges_them(
            text in "(x|9|é|\\.|\n)?[0-9]{1,3}\\.[0-9]{1,3}[.x][0-9]{1,2}\\.[0-9]-[0-9]{1,2}(&[a-f0-9:]{1,9}(::)?-[0-9]{1,3})?[h\n&-]?",
        ) {
            prop_assert_eq!(parse(&text).map(real).unwrap_or_default(), flannel(&text).map(real).unwrap_or_default());
        }

        #[test]
        fn a_damaged_key_is_judged_as_flannel_judges_it(at in 0_usize..29, by in any::<char>()) {
            let mut text: Vec<char> = "10.5.52.0-24&fd00:5:0:56::-64".chars().collect();
            text[at] = by;
            let text: String = text.into_iter().collect();
            prop_assert_eq!(parse(&text).map(real).unwrap_or_default(), flannel(&text).map(real).unwrap_or_default());
        }
    }
}
