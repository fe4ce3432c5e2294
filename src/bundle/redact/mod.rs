//! What is removed from a bundle before anybody sees it. Pure.
//!
//! Two sieves, one after the other, over every byte of the archive:
//!
//! - *known*: secrets that were found on this host (the probes' keys, the store's password, …) go wherever they stand, in
//!   any of the `forms` in which programs write them;
//! - *named*: what stands where a secret stands (`rules`: a flag, a variable, a JSON key, the user part of a URL, a PEM
//!   block) goes whatever it is.
//!
//! # Why both
//! A rule cannot know that a hexadecimal number in a log is a password, and a list of the known cannot have what another
//! program's configuration holds. What is removed too much costs a maintainer a question; too little cannot be undone.

mod forms;
mod known;
mod rules;

use std::collections::BTreeMap;

use known::Known;
pub use rules::Rules;

/// What stands in the place of a secret.
pub const MARK: &str = "***";
/// The shortest secret in bytes that is looked for by itself: any text has shorter ones by chance. Those go where they are
/// named.
const SHORTEST: usize = 4;

/// How many secrets of each kind were removed.
pub type Removed = BTreeMap<&'static str, usize>;

/// Secrets of this host, with what each is.
#[derive(Default)]
pub struct Secrets(BTreeMap<Vec<u8>, &'static str>);

/// Removes them.
pub struct Redactor {
    known: Known,
    rules: Rules,
}

/// The sieves could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the secrets cannot be looked for: {0}; next: report this, with the version")]
pub struct BadSieve(String);

/// Without what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// What is left.
    pub bytes: Vec<u8>,
    /// What is not.
    pub removed: Removed,
}

impl Secrets {
    /// Takes note of a secret of this kind: in the plural, for people.
    pub fn add(&mut self, kind: &'static str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        if secret.len() >= SHORTEST {
            self.0.insert(secret.to_vec(), kind);
        }
    }

    /// Takes note of each line of a PEM file: whoever prints it may print a part.
    pub fn add_pem(&mut self, kind: &'static str, text: &str) {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        lines.for_each(|line| self.add(kind, line));
    }
}

impl Redactor {
    /// Looks for these, and for what `rules` say.
    ///
    /// # Errors
    /// There are too many.
    pub fn new(secrets: &Secrets, rules: Rules) -> Result<Self, BadSieve> {
        Ok(Self { known: Known::new(secrets)?, rules })
    }

    /// Removes every secret.
    #[must_use]
    pub fn clean(&self, bytes: &[u8]) -> Cleaned {
        let mut removed = Removed::new();
        let left = self.known.clean(bytes, &mut removed);
        let bytes = self.rules.clean(left, &mut removed);
        Cleaned { bytes, removed }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a redactor of {} forms", self.known.len())
    }
}

#[cfg(test)]
mod tests;
