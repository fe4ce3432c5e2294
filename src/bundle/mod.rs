//! One archive for a bug report: what can be known of a host's fabric, secrets removed.
//!
//! ```text
//! agent, kernel, store, files, log --take--> Parts --Redactor (pure)--> Parts --pack--> tar.gz
//! ```
//!
//! A part that could not be had is there with the reason in its place, and listed in `MANIFEST.txt`: a bundle is made when
//! something is broken, and what is broken is a part of it.

pub mod manifest;
pub mod pack;
pub mod redact;
pub mod take;

use std::fmt;

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its path in the archive.
    pub name: String,
    /// Where it is from, for people: a command, a file, a question.
    pub source: String,
    /// What it says, or why it could not be had.
    pub content: Result<Vec<u8>, String>,
}

/// What a bundle is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The host's name.
    pub host: String,
    /// When it was made.
    pub made: jiff::Timestamp,
    /// The version of the program that made it.
    pub version: &'static str,
}

impl Part {
    /// A file of this name.
    pub fn new<T: Into<Vec<u8>>, E: fmt::Display>(
        name: impl Into<String>,
        source: impl Into<String>,
        content: Result<T, E>,
    ) -> Self {
        let content = content.map(Into::into).map_err(|error| error.to_string());
        Self { name: name.into(), source: source.into(), content }
    }
}

impl About {
    /// What the archive, and the folder in it, are called.
    #[must_use]
    pub fn name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
        let host: String = self.host.chars().map(plain).collect();
        format!("twill-bundle-{host}-{}", self.made.strftime("%Y%m%dT%H%M%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_bundle_is_one_of_a_file() {
        let made = jiff::Timestamp::from_second(1_764_000_000).unwrap();
        let about = About { host: "n1/../".to_owned(), made, version: "0" };
        assert_eq!(about.name(), "twill-bundle-n1_.._-20251124T160000Z");
    }
}
