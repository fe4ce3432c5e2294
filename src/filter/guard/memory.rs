//! What is known of the guard's table without reading it.

use serde_json::Value;
use twill_backends::guard::GuardRules;

use super::echoes::Echoes;
use super::elements::Elements;
use super::read::from_keys;
use super::sets::Set;
use crate::filter::news::Announced;

/// What earlier passes of this process found out.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) belief: Belief,
    /// The sets of those who may send, as last wanted.
    pub(super) senders: Vec<Set>,
    /// How these rules read back, if not as expected: another nft than those known may spell them otherwise.
    pub(super) odd: Option<(GuardRules, Vec<Value>)>,
    /// Why inner sources cannot be looked up here.
    pub(super) blind: Option<String>,
    pub(super) echoes: Echoes,
}

/// What the table is like.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Belief {
    /// It has to be read.
    #[default]
    Doubt,
    /// It is not there.
    Absent,
    /// These rules with these elements.
    Loaded(GuardRules, Elements),
}

impl Memory {
    /// Whether the element that was announced is as it is believed to be.
    pub(super) fn knows(&self, news: Announced<'_>) -> bool {
        match (&self.belief, from_keys(news.set, news.key, news.end)) {
            (Belief::Loaded(rules, have), Some((set, element))) => {
                have.all().contains(&element) == news.added && Set::of(&element, rules) == set
            }
            _ => false,
        }
    }
}
