//! Every code that Twill can print, with its explanation. An enum made by [`codes!`](twill_backends::codes) is a line
//! of `TABLES`; a test holds that each is there, and that the program uses every row of it.

pub mod refusal;
pub mod unserved;

use twill_backends::code::Entry;
use twill_backends::fault;

use crate::config::BadLine;
use crate::doctor::sign::Sign;
use crate::migrate::About;
use crate::trace::Hitch;
use crate::verify::Deviation;

/// The enums' tables.
const TABLES: &[&[Entry]] = &[
    fault::Code::ENTRIES,
    Sign::ENTRIES,
    Deviation::ENTRIES,
    Hitch::ENTRIES,
    refusal::Refusal::ENTRIES,
    unserved::Unserved::ENTRIES,
    BadLine::ENTRIES,
    About::ENTRIES,
];

/// How alike two names have to be for one to be taken for the other misspelt, as in clap.
const ALIKE: f64 = 0.7;

/// All of them, by name.
#[must_use]
pub fn all() -> Vec<&'static Entry> {
    let mut all: Vec<&Entry> = TABLES.iter().copied().flatten().collect();
    all.sort_by_key(|entry| entry.code);
    all
}

/// The one of this name.
#[must_use]
pub fn find(code: &str) -> Option<&'static Entry> {
    TABLES.iter().copied().flatten().find(|entry| entry.code == code)
}

/// The one that was probably meant.
#[must_use]
pub fn nearest(code: &str) -> Option<&'static Entry> {
    let alike = |entry: &'static Entry| (strsim::jaro(code, entry.code), entry);
    let best = all().into_iter().map(alike).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_kebab_case_and_there_once() {
        let names: BTreeSet<&str> = all().iter().map(|entry| entry.code).collect();
        assert_eq!(names.len(), all().len(), "two codes have one name");
        for name in names {
            let word = |word: &str| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            };
            assert!(name.split(['-', '.']).all(word), "{name}");
        }
    }

    #[test]
    fn each_explanation_is_whole() {
        for Entry { code, means, breaks, next, .. } in all() {
            for text in [means, breaks] {
                assert!(text.ends_with('.') && text.chars().next().unwrap().is_uppercase(), "{code}: {text}");
            }
            assert!(!next.is_empty() && !next.ends_with('.'), "{code}: {next}");
        }
    }

    #[test]
    fn a_misspelt_code_is_recognized_and_rubbish_is_not() {
        assert_eq!(nearest("deletion-held").unwrap().code, "deletions-held");
        assert_eq!(nearest("xyzzy"), None);
        assert_eq!(nearest(""), None);
        assert!(find("deletion-held").is_none() && find("deletions-held").is_some());
    }
}
