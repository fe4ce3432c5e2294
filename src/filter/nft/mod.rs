//! nftables: one table of our own. Rendered as JSON, loaded by `nft -j -f -`, compared structurally.
//!
//! # Why `serde_json::Value`
//!
//! The `nftables` crate cannot read back what nft 1.0.6 prints (`"flags": "fully-random"` where its type wants
//! a list), and comparing needs both directions in one form.
//!
//! # Why pod-to-outside only
//!
//! flannel also hides the source of traffic that enters the fabric, and of traffic between two other hosts'
//! pods. Here a source is rewritten only where the answer could not come back otherwise: from a pod to an
//! address outside the fabric. Multicast and packets that carry kube-proxy's mark are left alone.

mod read;
mod render;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use twill_backends::filter::Filter;

use super::step::Step;
use super::tools::Tools;
use super::{FilterError, PolicyDrop};
pub(super) use read::{canonical, difference, text};
use read::{comments, policy_drop};
use render::{probe, render, transaction};

/// flanneld's tables in its nftables mode: family and name.
pub(super) const FLANNELD: [(&str, &str); 2] = [("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6")];

/// The first nft that flanneld's nftables mode works with.
const OLDEST: (u64, u64, u64) = (1, 0, 1);
const LOAD: &[&str] = &["-j", "-f", "-"];

/// Our table on this host.
#[derive(Debug)]
pub(super) struct Nft {
    tools: Tools,
    table: String,
    version: OnceCell<()>,
    fully_random: OnceCell<bool>,
}

impl Nft {
    pub(super) fn new(tools: Tools, instance: &str) -> Self {
        Self {
            tools,
            table: format!("twill-{instance}"),
            version: OnceCell::new(),
            fully_random: OnceCell::new(),
        }
    }

    /// The same table, by other hands.
    pub(super) fn again(&self) -> Self {
        Self { table: self.table.clone(), ..Self::new(self.tools.clone(), "") }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    pub(super) fn installed(&self) -> bool {
        self.tools.has("nft")
    }

    /// Family and name of every table. As text: nft 1.0.6 prints random memory for the flags of a dormant table
    /// in JSON, or crashes, whosever table it is. With their flowtables, of which there are few: to list tables alone it
    /// reads all there is in them, 100 ms for the guard of 10,000 peers.
    pub(super) async fn tables(&self) -> Result<BTreeSet<(String, String)>, FilterError> {
        self.version.get_or_try_init(|| self.recent()).await?;
        let printed = self.tools.run("nft", &["list", "flowtables"], None).await?;
        let words = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(words
            .filter_map(|words| match *words {
                ["table", family, name, ..] => Some((family.to_owned(), name.trim_matches('"').to_owned())),
                _ => None,
            })
            .collect())
    }

    /// Refuses a tool that is too old.
    async fn recent(&self) -> Result<(), FilterError> {
        let printed = self.tools.run("nft", &["--version"], None).await?;
        match super::iptables::version(&printed) {
            Some(found) if found >= OLDEST => Ok(()),
            Some((a, b, c)) => Err(FilterError::TooOld { found: format!("{a}.{b}.{c}") }),
            None => Err(FilterError::Unreadable { command: "--version".to_owned(), detail: printed }),
        }
    }

    /// The transaction that makes our table what `want` says, unless it is.
    pub(super) async fn plan(
        &self,
        want: &Filter,
        tables: &BTreeSet<(String, String)>,
    ) -> Result<Option<Step>, FilterError> {
        let there = tables.contains(&("inet".to_owned(), self.table.clone()));
        if !want.wants_rules() {
            return Ok(there.then(|| delete("inet", &self.table, "no rule is wanted")));
        }
        let random = match &want.masquerade {
            Some(masquerade) if masquerade.random_fully => self.fully_random().await?,
            Some(_) | None => false,
        };
        let objects = render(&self.table, want, random);
        let wanted = canonical(&objects);
        let (found, why) = match there {
            false => (Vec::new(), "the table is missing".to_owned()),
            true => match self.list(&["list", "table", "inet", &self.table]).await {
                Ok(found) => {
                    let found = canonical(&found);
                    let why = difference(&wanted, &found);
                    (found, why)
                }
                Err(e @ FilterError::Denied { .. }) => return Err(e),
                // Whatever makes it unreadable goes with it.
                Err(e) => (Vec::new(), e.to_string()),
            },
        };
        if found == wanted {
            return Ok(None);
        }
        Ok(Some(Step {
            load: true,
            what: format!("load nftables table inet {}", self.table),
            why,
            close: comments(&found) == comments(&wanted),
            seen: Value::Array(found).to_string(),
            program: "nft".to_owned(),
            args: LOAD,
            input: transaction(&self.table, &objects),
        }))
    }

    /// Base chains of any table but ours whose policy drops what is forwarded.
    pub(super) async fn forward_drops(&self) -> Result<Vec<PolicyDrop>, FilterError> {
        let objects = self.list(&["list", "chains"]).await?;
        let chains = objects.iter().filter_map(|object| object.get("chain"));
        Ok(chains.filter(|chain| text(chain, "table") != self.table).filter_map(policy_drop).collect())
    }

    /// Whether kernel and tool take `fully-random`: tried once.
    async fn fully_random(&self) -> Result<bool, FilterError> {
        let answer = self.fully_random.get_or_try_init(|| async {
            let name = format!("{}-probe", self.table);
            let [random, plain] = [true, false].map(|random| transaction(&name, &probe(&name, random)));
            self.refusal(&["-j"], &random, &plain).await.map(|refusal| refusal.is_none())
        });
        answer.await.copied()
    }

    /// Why kernel and tool do not take `full`, tried as a dry run; `None` if they do. Only a host that takes `plain` is one
    /// that lacks just what that is without.
    pub(super) async fn refusal(
        &self,
        flags: &[&str],
        full: &str,
        plain: &str,
    ) -> Result<Option<String>, FilterError> {
        let args = [&["-c"], flags, &["-f", "-"]].concat();
        let check = async |input| self.tools.run("nft", &args, Some(input)).await;
        match check(full).await {
            Err(FilterError::Failed { detail, .. }) => check(plain).await.map(|_| Some(detail)),
            taken => taken.map(|_| None),
        }
    }

    /// What `nft -j` prints.
    pub(super) async fn print(&self, args: &[&str]) -> Result<String, FilterError> {
        self.tools.run("nft", &[&["-j"], args].concat(), None).await
    }

    /// The objects `nft -j` prints, without its own version line.
    pub(super) async fn list(&self, args: &[&str]) -> Result<Vec<Value>, FilterError> {
        let unreadable = |detail| FilterError::Unreadable { command: args.join(" "), detail };
        let printed = self.print(args).await?;
        let mut value: Value = serde_json::from_str(&printed).map_err(|e| unreadable(e.to_string()))?;
        let Some(Value::Array(objects)) = value.get_mut("nftables").map(Value::take) else {
            return Err(unreadable("no list `nftables`".to_owned()));
        };
        Ok(objects.into_iter().filter(|o| o.get("metainfo").is_none()).collect())
    }
}

/// The transaction that removes a table.
pub(super) fn delete(family: &str, name: &str, why: &str) -> Step {
    let input = json!({"nftables": [{"delete": {"table": {"family": family, "name": name}}}]});
    Step {
        load: false,
        what: format!("delete nftables table {family} {name}"),
        why: why.to_owned(),
        seen: String::new(),
        close: false,
        program: "nft".to_owned(),
        args: LOAD,
        input: input.to_string(),
    }
}
