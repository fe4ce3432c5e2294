//! Masquerade and forward rules, applied as one transaction, and who may send: rendered (pure), then loaded.
//!
//! ```text
//! Filter --render--> what the rules must read like --+-- equal: nothing is written, nothing is announced
//! nft / iptables-save --> what they do read like  ---+-- else: ours in one transaction, then the leftovers
//! ```
//!
//! Two engines make the same promises. *nftables*: one table of our own, `inet twill-<instance>`. *iptables*:
//! flanneld's chains, rules and comments, because scripts and test suites know them by name.
//!
//! # Why two engines
//!
//! A FORWARD policy DROP (every Docker host) can only be lifted inside the table that has it: `accept` in a
//! table of our own passes nothing there. And a fabric that flanneld ran in iptables mode keeps its chains.

mod counters;
mod error;
pub mod fake;
mod generation;
mod guard;
mod host;
mod iptables;
pub mod look;
mod monitor;
mod news;
mod nft;
mod step;
mod tools;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use twill_backends::filter::Filter;
use twill_backends::guard::{Element, Guard};

use crate::config::FirewallMode;

pub use counters::{Counted, Counters};
pub use error::FilterError;
pub use host::HostFirewall;

/// How the name of the guard's table begins.
pub const GUARD_TABLE: &str = "twill-guard-";

/// This host's firewall, as far as Twill owns it.
pub trait Firewall: Send + Sync {
    /// The engine in use.
    fn engine(&self) -> Engine;

    /// Makes the firewall do what `want` says, and nothing when it does already. Ours are loaded in one
    /// transaction per table; what the other engine or flanneld left goes only after that.
    ///
    /// # Errors
    /// When some of ours could not be read or loaded; the rest is loaded. Leftovers that resist are
    /// [`Applied::warnings`].
    fn apply(&self, want: &Filter) -> impl Future<Output = Result<Applied, FilterError>> + Send;

    /// Lets nobody but these send to the tunnel's port, none of whom is shut out meanwhile; `None` lets everybody. Who
    /// is not wanted any more may still send unless `removals` may be made. Where `touched` is given, nothing else is
    /// wanted of any other address than the time before.
    ///
    /// # Errors
    /// When the guard could not be read or loaded. What it cannot check on this host is among [`Applied::warnings`].
    fn guard(
        &self,
        want: Option<&Guard>,
        touched: Option<&BTreeSet<IpAddr>>,
        removals: bool,
    ) -> impl Future<Output = Result<Applied, FilterError>> + Send;

    /// How to learn what the guard counts.
    fn counters(&self) -> Counters;

    /// What [`apply`](Self::apply) and [`guard`](Self::guard) would do, one line per transaction, each with its reason.
    /// Writes nothing.
    ///
    /// # Errors
    /// When the present state could not be read.
    fn describe(
        &self,
        want: &Filter,
        guard: Option<&Guard>,
    ) -> impl Future<Output = Result<Vec<String>, FilterError>> + Send;

    /// Who should be able to send, and is shut out by the guard as it is.
    ///
    /// # Errors
    /// When the guard could not be read.
    fn shut_out(&self, guard: &Guard) -> impl Future<Output = Result<BTreeSet<Element>, FilterError>> + Send;

    /// Resolves when something of ours may have changed, or when it is time to look. Cancel-safe: what was
    /// heard is kept for the next call. Bursts are coalesced; our own writes of rules are heard as well, so `apply` and
    /// expect [`Applied::is_unchanged`].
    fn changed(&self) -> impl Future<Output = Heard> + Send;

    /// What on this host defeats `want` and is not ours to change; each item says what to run.
    fn obstacles(&self, want: &Filter) -> impl Future<Output = Vec<PolicyDrop>> + Send;

    /// Removes everything of ours, in both engines, and what flanneld left.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn remove(&self) -> impl Future<Output = Result<Applied, FilterError>> + Send {
        async {
            let guard = self.guard(None, None, true).await?;
            let mut applied = self.apply(&Filter::default()).await?;
            applied.removed.extend(guard.removed);
            Ok(applied)
        }
    }
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// What [`Firewall::apply`] makes.
    pub rules: bool,
    /// What [`Firewall::guard`] makes.
    pub guard: bool,
}

/// The engine in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A table of our own.
    Nftables,
    /// flanneld's chains.
    Iptables,
}

/// How to reach this host's firewall.
#[derive(Debug, Clone)]
pub struct Options {
    /// Scopes our nftables table: `twill-<instance>`.
    pub instance: String,
    /// The engine asked for.
    pub mode: FirewallMode,
    /// How often iptables-legacy, which announces nothing, is looked at.
    pub resync: Duration,
    /// Networks of earlier runs: their rules in flanneld's chains are ours as well.
    pub previous: Vec<IpNet>,
    /// Where the tools are looked for; `None` is this process's `PATH`.
    pub path: Option<OsString>,
}

/// What one pass did, as lines for logs and status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Transactions that loaded or repaired ours.
    pub loaded: Vec<String>,
    /// What was removed: leftovers, or ours when nothing is wanted.
    pub removed: Vec<String>,
    /// What could not be cleaned up or read back, with its reason.
    pub warnings: Vec<String>,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl Heard {
    /// Everything may have changed.
    pub const ALL: Self = Self { rules: true, guard: true };
}

impl std::ops::BitOrAssign for Heard {
    fn bitor_assign(&mut self, other: Self) {
        self.rules |= other.rules;
        self.guard |= other.guard;
    }
}

impl Applied {
    /// Whether everything was right already and nothing was written.
    pub fn is_unchanged(&self) -> bool {
        self.loaded.is_empty() && self.removed.is_empty()
    }
}

/// A chain whose policy drops forwarded packets, whatever a table of ours accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDrop {
    /// Whether IPv6 is the family hit; a table of both families is reported under IPv4.
    pub v6: bool,
    /// The chain as its tool spells it: `ip filter FORWARD`.
    pub chain: String,
    /// Whether it is iptables' own FORWARD chain: iptables mode gets past that one.
    pub iptables: bool,
}

impl fmt::Display for PolicyDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain `{}` has policy DROP, which rules in a table of ours cannot lift: ", self.chain)?;
        if self.iptables {
            let tool = if self.v6 { "ip6tables" } else { "iptables" };
            write!(f, "run twill with --firewall iptables, or run `{tool} -P FORWARD ACCEPT`")
        } else {
            write!(
                f,
                "accept the fabric's network there, or run `nft list chain {}` to see whose it is",
                self.chain
            )
        }
    }
}
