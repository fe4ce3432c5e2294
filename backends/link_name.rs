//! Names of network interfaces.

use std::fmt;

use serde::{Serialize, Serializer};

/// A network interface name, at most 15 bytes (`IFNAMSIZ` less its terminator). `Copy`, because every entry of a
/// large fabric names one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    len: u8,
    bytes: [u8; 15],
}

/// A name the kernel would not take for an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLinkName(String);

impl LinkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl TryFrom<&str> for LinkName {
    type Error = BadLinkName;

    fn try_from(name: &str) -> Result<Self, BadLinkName> {
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let mut bytes = [0; 15];
        if name.is_empty()
            || name.len() > bytes.len()
            || matches!(name, "." | "..")
            || name.contains(forbidden)
        {
            return Err(BadLinkName(name.to_owned()));
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { len: u8::try_from(name.len()).unwrap_or(15), bytes })
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for LinkName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for BadLinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot name an interface: 1 to 15 bytes without `/`, `:` and white space", self.0)
    }
}

impl std::error::Error for BadLinkName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_follow_the_kernel() {
        assert_eq!(LinkName::try_from("flannel.1").unwrap().as_str(), "flannel.1");
        assert_eq!(LinkName::try_from("123456789012345").unwrap().as_str(), "123456789012345");
        for name in ["", "1234567890123456", "a/b", "a b", ".", "..", "a:b"] {
            assert!(LinkName::try_from(name).is_err(), "{name}");
        }
    }
}
