//! The guard: a table of its own, `inet twill-guard-<instance>`, that drops frames from whoever has no lease.
//!
//! ```text
//! input    udp dport 8472, our VNI --jump--> senders  ip saddr in from4 --goto--> inner4   others: strangers, drop
//!                                            inner4   ip saddr . inner saddr in carries4   others: forged, drop
//! forward  the same, from a pod to a host in from4: pods, drop
//! ```
//!
//! Elements of `from4` count what their host sent.
//!
//! # Why a table of its own
//! It only drops, so it goes with any rules, ours in iptables' chains and the operator's: what passes here meets theirs
//! next, and what they drop stays dropped. Its rules come after its sets are filled, so at no moment a live peer is shut
//! out, and a change of the other table leaves its counters alone. A peer that comes or goes costs a few elements.
//!
//! # Why nft alone
//! Neither iptables nor ipset can look up a pair of outer and inner address. Where nft is missing this is said.

mod counting;
mod echoes;
mod elements;
mod memory;
mod read;
mod render;
mod rules;
mod sets;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use twill_backends::guard::{Element, Guard, GuardRules};

use self::elements::{Elements, change};
use self::memory::{Belief, Memory};
use self::read::Found;
use self::render::{load, printed, probe};
use self::sets::Set;
use super::news::{Announced, Knows};
use super::nft::{Nft, canonical, difference};
use super::{Applied, Counters, FilterError, GUARD_TABLE};

/// The guard's table on this host.
#[derive(Debug)]
pub(super) struct GuardTable {
    nft: Nft,
    table: String,
    memory: Mutex<Memory>,
}

impl GuardTable {
    pub(super) fn new(nft: Nft, instance: &str) -> Self {
        Self { nft, table: format!("{GUARD_TABLE}{instance}"), memory: Mutex::default() }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Somebody may have changed the table.
    pub(super) fn doubt(&self) {
        self.memory().belief = Belief::Doubt;
    }

    /// Makes the table what `want` says, which differs at most at the addresses `touched` from what it said before.
    /// Elements that are not wanted stay unless `removals` may be made.
    pub(super) async fn keep(
        &self,
        want: Option<&Guard>,
        touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> Result<Applied, FilterError> {
        self.memory().senders = want.map(|want| Set::senders(&want.rules)).unwrap_or_default();
        let Some(want) = want else { return self.remove().await };
        let want = self.sighted(want);
        match self.try_keep(&want, touched, removals).await {
            Err(error @ FilterError::Failed { .. }) if want.rules.inner => {
                // Who flushes rules while they are loaded makes that fail once, and it is tried again.
                let less = without_inner(&want);
                let Ok(Some(refusal)) = self.blindness(&want.rules, &less.rules).await else {
                    return Err(error);
                };
                self.memory().blind = Some(refusal);
                // The rest is worth having.
                self.try_keep(&less, None, removals).await.map(|applied| self.with_warning(applied))
            }
            Ok(applied) => Ok(self.with_warning(applied)),
            error => error,
        }
    }

    /// What [`keep`](Self::keep) would do.
    pub(super) async fn describe(&self, want: Option<&Guard>) -> Result<Vec<String>, FilterError> {
        let Some(want) = want else {
            let line = format!("delete nftables table inet {}: nothing is checked", self.table);
            return Ok(if self.is_there().await? { vec![line] } else { Vec::new() });
        };
        let want = self.sighted(want);
        let found = self.read(&want.rules).await?;
        if let Some(why) = self.damage(&want.rules, found.as_ref()) {
            return Ok(vec![self.loading(&want.rules, &why)]);
        }
        let have = found.map(|found| found.elements).unwrap_or_default();
        let wanted = want.elements();
        let verb = |verb: &str, change: BTreeSet<Element>| {
            (!change.is_empty())
                .then(|| format!("{verb} {} elements of nftables table inet {}", change.len(), self.table))
        };
        Ok(verb("add", &wanted - &have).into_iter().chain(verb("delete", &have - &wanted)).collect())
    }

    /// Who of these is shut out: nobody, where there is no table.
    pub(super) async fn shut_out(&self, want: &Guard) -> Result<BTreeSet<Element>, FilterError> {
        let found = self.read(&want.rules).await?;
        Ok(found.map(|found| &self.sighted(want).elements() - &found.elements).unwrap_or_default())
    }

    /// How to learn what is counted; nothing where the table is not loaded.
    pub(super) fn counters(&self) -> Counters {
        counting::counters(self.nft.again(), self.table.clone(), self.memory().senders.clone())
    }

    /// Why inner sources cannot be looked up on this host; `None` if they can.
    async fn blindness(&self, full: &GuardRules, plain: &GuardRules) -> Result<Option<String>, FilterError> {
        let [full, plain] = [full, plain].map(|rules| probe(&format!("{}-probe", self.table), rules));
        self.nft.refusal(&[], &full, &plain).await
    }

    async fn try_keep(
        &self,
        want: &Guard,
        touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> Result<Applied, FilterError> {
        // Until all is done nothing is sure.
        let belief = std::mem::take(&mut self.memory().belief);
        if let Belief::Loaded(rules, have) = belief
            && rules == want.rules
            && self.follow(want, touched, have, removals).await.is_ok()
        {
            return Ok(Applied::default());
        }
        let found = self.read(&want.rules).await?;
        if let Some(why) = self.damage(&want.rules, found.as_ref()) {
            return self.load(want, found, &why, removals).await;
        }
        let (have, elements) = (found.map(|found| found.elements).unwrap_or_default(), want.elements());
        let amiss = !elements.is_subset(&have) || (removals && elements != have);
        self.follow(want, None, Elements::found(have), removals).await?;
        let line = format!("mend nftables table inet {}: elements are missing or not ours", self.table);
        Ok(Applied { loaded: amiss.then_some(line).into_iter().collect(), ..Applied::default() })
    }

    /// Adds and deletes what differs, in one transaction.
    async fn follow(
        &self,
        want: &Guard,
        touched: Option<&BTreeSet<IpAddr>>,
        mut have: Elements,
        removals: bool,
    ) -> Result<(), FilterError> {
        let (gone, new) = have.become_wanted(want, touched, removals);
        // What comes may take the place of what goes.
        let lines = change(&self.table, "delete", &gone, &want.rules)
            + &change(&self.table, "add", &new, &want.rules);
        if !lines.is_empty() {
            self.write(&lines).await?;
            tracing::debug!(%lines, "guard");
        }
        self.memory().belief = Belief::Loaded(want.rules.clone(), have);
        Ok(())
    }

    async fn load(
        &self,
        want: &Guard,
        found: Option<Found>,
        why: &str,
        removals: bool,
    ) -> Result<Applied, FilterError> {
        let Found { elements: had, counts, .. } = found.unwrap_or_default();
        let mut elements = Elements::found(had);
        elements.become_wanted(want, None, removals);
        for input in load(&self.table, &want.rules, elements.all(), &counts) {
            self.write(&input).await?;
        }
        let back = self.print(&["-t"], &want.rules).await?;
        if back.objects != canonical(&printed(&self.table, &want.rules)) {
            tracing::debug!(objects = ?back.objects, "this nft spells the guard's rules in its own way");
            self.memory().odd = Some((want.rules.clone(), back.objects));
        }
        self.memory().belief = Belief::Loaded(want.rules.clone(), elements);
        Ok(Applied { loaded: vec![self.loading(&want.rules, why)], ..Applied::default() })
    }

    /// Has a transaction made, whose echo is no news.
    async fn write(&self, lines: &str) -> Result<(), FilterError> {
        let begun = |writer| self.memory().echoes.expect(writer);
        self.nft.tools().run_as("nft", &["-f", "-"], Some(lines), &begun).await.map(drop)
    }

    async fn remove(&self) -> Result<Applied, FilterError> {
        let mut applied = Applied::default();
        if self.memory().belief != Belief::Absent && self.is_there().await? {
            let step = super::nft::delete("inet", &self.table, "nothing is checked");
            self.nft.tools().step(&step).await?;
            applied.removed.push(step.to_string());
        }
        self.memory().belief = Belief::Absent;
        Ok(applied)
    }

    async fn is_there(&self) -> Result<bool, FilterError> {
        let ours = ("inet".to_owned(), self.table.clone());
        Ok(self.nft.installed() && self.nft.tables().await?.contains(&ours))
    }

    /// The table as it is, where these are its rules.
    async fn read(&self, rules: &GuardRules) -> Result<Option<Found>, FilterError> {
        if !self.nft.tables().await?.contains(&("inet".to_owned(), self.table.clone())) {
            return Ok(None);
        }
        match self.print(&[], rules).await {
            Ok(found) => Ok(Some(found)),
            // Whatever makes it unreadable goes with it.
            Err(FilterError::Failed { .. } | FilterError::Unreadable { .. }) => Ok(Some(Found::default())),
            Err(error) => Err(error),
        }
    }

    async fn print(&self, flags: &[&str], rules: &GuardRules) -> Result<Found, FilterError> {
        let args = [flags, &["list", "table", "inet", &self.table]].concat();
        let printed = self.nft.print(&args).await?;
        Found::read(&printed, rules)
            .map_err(|error| FilterError::Unreadable { command: args.join(" "), detail: error.to_string() })
    }

    /// Why the table has to be loaded, if it has.
    fn damage(&self, rules: &GuardRules, found: Option<&Found>) -> Option<String> {
        let Some(found) = found else { return Some("the table is missing".to_owned()) };
        let wanted = match &self.memory().odd {
            Some((odd, objects)) if odd == rules => objects.clone(),
            _ => canonical(&printed(&self.table, rules)),
        };
        if found.objects != wanted {
            return Some(difference(&wanted, &found.objects));
        }
        found.strays.then(|| "there are elements that are not ours".to_owned())
    }

    fn loading(&self, rules: &GuardRules, why: &str) -> String {
        format!("load nftables table inet {} (UDP port {}): {why}", self.table, rules.port)
    }

    /// What can be had of it on this host.
    fn sighted<'g>(&self, want: &'g Guard) -> Cow<'g, Guard> {
        match self.memory().blind {
            Some(_) => Cow::Owned(without_inner(want)),
            None => Cow::Borrowed(want),
        }
    }

    fn with_warning(&self, mut applied: Applied) -> Applied {
        let said = self.memory().blind.as_ref().map(|cause| {
            format!(
                "inner sources are not checked, because this nft or kernel cannot look them up ({cause}); next: upgrade \
                 the package nftables and the kernel, or start with --inner-source-check off"
            )
        });
        applied.warnings.extend(said);
        applied
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Knows for GuardTable {
    fn wrote(&self, writer: u32) -> bool {
        self.memory().echoes.is_of(writer)
    }

    fn knows(&self, news: Announced<'_>) -> bool {
        self.memory().knows(news)
    }
}

fn without_inner(want: &Guard) -> Guard {
    let rules = GuardRules { inner: false, ..want.rules.clone() };
    Guard { rules, senders: want.senders.clone() }
}
