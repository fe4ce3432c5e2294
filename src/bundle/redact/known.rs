//! Secrets that were found on this host, wherever they stand.
//!
//! # Why only the beginnings are looked for
//! In a large fabric there are thousands of secrets, each in many forms, some of a hundred bytes and more. An automaton that
//! looks for all of them whole has a state for each of their bytes. What begins like one of them is rare enough to be
//! compared.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::{BadSieve, MARK, Removed, SHORTEST, Secrets, forms};

/// How many bytes of a form are looked for.
const HEAD: usize = 16;

/// What is looked for.
pub(super) struct Known {
    heads: AhoCorasick,
    /// The forms that begin like this, each with what it is; the longest first.
    forms: BTreeMap<Vec<u8>, Vec<(Vec<u8>, &'static str)>>,
}

impl Known {
    pub(super) fn new(secrets: &Secrets) -> Result<Self, BadSieve> {
        let mut forms: BTreeMap<Vec<u8>, Vec<(Vec<u8>, &'static str)>> = BTreeMap::new();
        for (secret, kind) in &secrets.0 {
            for form in forms::of(secret).into_iter().filter(|form| form.len() >= SHORTEST) {
                let head = form[..form.len().min(HEAD)].to_vec();
                forms.entry(head).or_default().push((form, *kind));
            }
        }
        for like in forms.values_mut() {
            like.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        }
        let heads = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms.keys());
        Ok(Self { heads: heads.map_err(|error| BadSieve(error.to_string()))?, forms })
    }

    /// How many forms there are.
    pub(super) fn len(&self) -> usize {
        self.forms.values().map(Vec::len).sum()
    }

    /// Without them: of those that begin at one place the longest goes.
    pub(super) fn clean(&self, bytes: &[u8], removed: &mut Removed) -> Vec<u8> {
        let mut left = Vec::with_capacity(bytes.len());
        let (mut taken, mut from) = (0, 0);
        while let Some(head) = self.heads.find(Input::new(bytes).range(from..)) {
            from = head.start() + 1;
            if let Some((length, kind)) = self.at(&bytes[head.start()..], head.len()) {
                *removed.entry(kind).or_default() += 1;
                left.extend_from_slice(&bytes[taken..head.start()]);
                left.extend_from_slice(MARK.as_bytes());
                from = head.start() + length;
                taken = from;
            }
        }
        left.extend_from_slice(&bytes[taken..]);
        left
    }

    /// What stands at the beginning, which is like that of a form for so many bytes. A form may be the beginning of
    /// another one's.
    fn at(&self, bytes: &[u8], head: usize) -> Option<(usize, &'static str)> {
        let like = (SHORTEST..=head).rev().filter_map(|length| self.forms.get(&bytes[..length]));
        let found = like.flatten().find(|(form, _)| bytes.starts_with(form));
        found.map(|(form, kind)| (form.len(), *kind))
    }
}
