//! Ethernet addresses of tunnel endpoints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address, written in lower-case hexadecimal with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text was not six hexadecimal octets joined by colons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMac(String);

impl Mac {
    /// A locally administered unicast address made of six arbitrary octets.
    #[must_use]
    pub const fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & 0xfe;
        Self(octets)
    }

    /// Whether the address can belong to one station: not a group address, not all zeros.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an Ethernet address such as 0a:1b:2c:3d:4e:5f", self.0)
    }
}

impl std::error::Error for BadMac {}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac = Mac([0xf6, 0x8c, 0xbe, 0x44, 0x42, 0x8e]);
        assert_eq!(mac.to_string(), "f6:8c:be:44:42:8e");
        assert_eq!("F6:8C:be:44:42:8e".parse(), Ok(mac));
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "",
            "f6:8c:be:44:42",
            "f6:8c:be:44:42:8e:00",
            "f6:8c:be:44:42:+e",
            "f68cbe44428e",
            "é6:8c:be:44:42:8e",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn local_is_unicast_and_locally_administered() {
        for first in 0..=255 {
            let mac = Mac::local([first, 0, 0, 0, 0, 0]);
            assert!(mac.is_unicast());
            assert_eq!(mac.0[0] & 0x03, 0x02);
        }
    }
}
