//! Where a secret stands, whatever it is.

use std::collections::BTreeMap;
use std::ops::Range;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::{BadSieve, MARK, Removed, Secrets};

/// What makes a name that of a secret.
const NAMES: &str =
    "(?:passw(?:or)?d|passphrase|secret|token|credential|private[_-]?key|api[_-]?key|client[_-]key-data)";

/// Each with what it removes: the groups of each match. `NAME` is a name with one of [`NAMES`] in it.
///
/// A value in quotes ends at a quote that is not escaped. Inside a text that is itself escaped that is the outer one's, so
/// that more goes than has to.
const RULES: &[(&str, &str)] = &[
    (
        "private keys",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----((?s:.*?))(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)",
    ),
    // The key of probes in a lease's value, and where the machine's id is kept.
    (VALUES, r#""(?:NAME|(?-i:Key)|machine)\\*"\s*:\s*\\*"((?s:[^"\\]|\\.)*)"#),
    (VALUES, r#""NAME\\*"\s*:\s*([0-9.+-]+)"#),
    // Variables, in files of services too: to the end of the line, since they may have spaces in them.
    (VALUES, r#"(?-i:\b[A-Z0-9_]*VARIABLE[A-Z0-9_]*)=([^"'\r\n\\]+)"#),
    (VALUES, r#"NAME[ \t]*[=:][ \t]*(?:\\*"((?s:[^"\\]|\\.)*)|'([^']*)|([^\s"'&,;\\)}\]]+))"#),
    (VALUES, r#"--?NAME[ \t\x00]+(?:\\*"((?s:[^"\\]|\\.)*)|'([^']*)|([^\s"'\\\x00]+))"#),
    ("passwords of users", r#"(?:^|[\s"'\x00])(?:-u|--user)[=\s\x00]["']?[^\s:"'\x00]+:([^\s"'\\\x00]+)"#),
    ("users in URLs", r#"[a-z][a-z0-9+.-]*://([^\s"'<>,\\]+)@"#),
    (TOKENS, r#"authorization\\*"?\s*[:=]\s*\\*"?([^\r\n"\\]+)"#),
    (TOKENS, r"\bbearer\s+([a-z0-9._~+/=-]+)"),
    (TOKENS, r"\b(eyJ[a-z0-9_-]{8,}\.[a-z0-9_-]+\.[a-z0-9_-]*)"),
];
/// `VARIABLE`, of which capitals are the mark.
const VARIABLE: &str = "(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|API_KEY)";

const VALUES: &str = "values named as secrets";
const TOKENS: &str = "tokens";
/// What flags and variables hide.
const TYPED: &str = "passwords of the command line or its variables";

/// Where secrets stand.
#[derive(Debug, Clone)]
pub struct Rules {
    name: Regex,
    rules: Vec<(&'static str, Regex)>,
}

impl Rules {
    /// All of them.
    ///
    /// # Errors
    /// None in practice: the tests make them.
    pub fn new() -> Result<Self, BadSieve> {
        let name = format!("[a-z0-9_.-]*{NAMES}[a-z0-9_.-]*");
        let rule = |(kind, pattern): &(&'static str, &str)| {
            let pattern = pattern.replace("NAME", &name).replace("VARIABLE", VARIABLE);
            Ok((*kind, compiled(&pattern)?))
        };
        Ok(Self { name: compiled(NAMES)?, rules: RULES.iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// A command line without the values of flags that are named as secrets, which are taken note of.
    #[must_use]
    pub fn words(&self, words: &[String], secrets: &mut Secrets) -> Vec<String> {
        let mut hides = false;
        let mut word = |word: &String| {
            if std::mem::take(&mut hides) {
                secrets.add(TYPED, word);
                return MARK.to_owned();
            }
            match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') && self.is_secret(name) => {
                    secrets.add(TYPED, value);
                    format!("{name}={MARK}")
                }
                None if word.starts_with('-') && self.is_secret(word) => {
                    hides = true;
                    word.clone()
                }
                Some(_) | None => word.clone(),
            }
        };
        words.iter().map(&mut word).collect()
    }

    /// Variables without the values of those that are named as secrets, which are taken note of.
    #[must_use]
    pub fn variables(&self, env: &BTreeMap<String, String>, secrets: &mut Secrets) -> Vec<String> {
        let mut line = |(name, value): (&String, &String)| {
            if self.is_secret(name) {
                secrets.add(TYPED, value);
                return format!("{name}={MARK}");
            }
            format!("{name}={value}")
        };
        env.iter().map(&mut line).collect()
    }

    /// Whether something of this name is not to be shown.
    fn is_secret(&self, name: &str) -> bool {
        self.name.is_match(name.as_bytes())
    }

    pub(super) fn clean(&self, bytes: Vec<u8>, removed: &mut Removed) -> Vec<u8> {
        self.rules.iter().fold(bytes, |bytes, (kind, rule)| {
            let found: Vec<Range<usize>> =
                rule.captures_iter(&bytes).filter_map(|found| secret(&found)).collect();
            if found.is_empty() {
                return bytes;
            }
            *removed.entry(kind).or_default() += found.len();
            without(&bytes, &found)
        })
    }
}

fn compiled(pattern: &str) -> Result<Regex, BadSieve> {
    // By bytes: a secret need not be UTF-8.
    let built = RegexBuilder::new(pattern).case_insensitive(true).unicode(false).build();
    built.map_err(|error| BadSieve(error.to_string()))
}

/// What a rule found, unless it is gone already.
fn secret(found: &Captures<'_>) -> Option<Range<usize>> {
    let secret = found.iter().skip(1).flatten().next()?;
    let gone = secret.as_bytes().is_empty() || secret.as_bytes() == MARK.as_bytes();
    (!gone).then(|| secret.range())
}

fn without(bytes: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let (mut left, mut from) = (Vec::with_capacity(bytes.len()), 0);
    for range in ranges {
        left.extend_from_slice(&bytes[from..range.start]);
        left.extend_from_slice(MARK.as_bytes());
        from = range.end;
    }
    left.extend_from_slice(&bytes[from..]);
    left
}
