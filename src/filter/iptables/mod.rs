//! iptables: flanneld's chains, one `iptables-restore --noflush` per table and family.

mod rules;
#[cfg(test)]
mod rules_tests;

use ipnet::IpNet;
use tokio::sync::OnceCell;
use twill_backends::filter::Filter;

use super::step::{Plan, Step};
use super::tools::Tools;
use super::{FilterError, PolicyDrop};
use rules::{Found, HOOKS, Hook, policy};

/// The first iptables that knows `--random-fully`, and `--wait` for restore.
const MODERN: (u64, u64, u64) = (1, 6, 2);

/// How to load: waiting 4 s for whoever holds the xtables lock, who may be writing many rules, and no longer, as the agent does
/// nothing else meanwhile.
const RESTORE: &[&str] = &["--noflush", "--wait=4"];

/// Which kernel interface the programs of a name drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// The compatible front end of nf_tables: announced like every nft change.
    Nft,
    /// The older kernel interface: announces nothing.
    Legacy,
}

/// One set of iptables programs: those on the path by their plain names, or one flavour by its suffix.
#[derive(Debug)]
pub(super) struct Iptables {
    tools: Tools,
    suffix: &'static str,
    about: OnceCell<About>,
}

#[derive(Debug, Clone, Copy)]
struct About {
    modern: bool,
    flavour: Flavour,
}

impl Iptables {
    /// `suffix` is empty, `-nft` or `-legacy`.
    pub(super) fn new(tools: Tools, suffix: &'static str) -> Self {
        Self { tools, suffix, about: OnceCell::new() }
    }

    pub(super) fn installed(&self, v6: bool) -> bool {
        self.tools.has(&format!("{}-save", self.program(v6)))
    }

    pub(super) async fn flavour(&self) -> Result<Flavour, FilterError> {
        self.about().await.map(|about| about.flavour)
    }

    /// The transactions that make flanneld's chains what `want` says. `nets` are the networks whose rules are
    /// ours. Where nothing is wanted, absent programs and unreadable tables are no failure, and elsewhere they keep no
    /// other table or family out.
    pub(super) async fn plan(&self, want: &Filter, nets: &[IpNet]) -> Plan {
        let mut plan = Plan::default();
        for (v6, hook) in hooks() {
            match self.hook(hook, v6, want, nets).await {
                Ok(step) => plan.steps.extend(step),
                Err(error) => {
                    // The others would wait for the same, and are not looked at.
                    let last = error.is_wait();
                    let wanted =
                        if last { want.wants_rules() } else { !hook.rules(want, v6, false).is_empty() };
                    match wanted {
                        true => plan.failure = plan.failure.or(Some(error)),
                        false => plan.warnings.push(error.to_string()),
                    }
                    if last {
                        break;
                    }
                }
            }
        }
        plan
    }

    /// Whether flanneld's chains are there.
    pub(super) async fn has_chains(&self) -> bool {
        for (v6, hook) in hooks() {
            if self.visible(v6, hook.table)
                && self.found(hook, v6).await.is_ok_and(|found| found.chain.is_some())
            {
                return true;
            }
        }
        false
    }

    /// FORWARD policies that drop. Only asked of legacy tables: nft knows the others.
    pub(super) async fn forward_drops(&self) -> Vec<PolicyDrop> {
        let mut drops = Vec::new();
        for v6 in [false, true] {
            if !self.visible(v6, "filter") {
                continue;
            }
            if let Ok(saved) = self.save(v6, "filter").await
                && policy(&saved, "FORWARD") == Some("DROP")
            {
                drops.push(PolicyDrop { v6, chain: format!("{} FORWARD", self.program(v6)), iptables: true });
            }
        }
        drops
    }

    /// Rules and policies that do something, whosever they are, with their table. A table that is not there is not made.
    pub(super) async fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        for v6 in [false, true] {
            for table in
                ["filter", "nat", "mangle", "raw"].into_iter().filter(|table| self.visible(v6, table))
            {
                let saved = self.save(v6, table).await.unwrap_or_default();
                let own = saved.lines().filter(|line| line.starts_with("-A ") || line.contains(" DROP ["));
                rules.extend(own.map(|line| format!("{} -t {table}: {line}", self.program(v6))));
            }
        }
        rules
    }

    async fn hook(
        &self,
        hook: &Hook,
        v6: bool,
        want: &Filter,
        nets: &[IpNet],
    ) -> Result<Option<Step>, FilterError> {
        let wanted = hook.rules(want, v6, false);
        if wanted.is_empty() && !self.visible(v6, hook.table) {
            return Ok(None);
        }
        let about = self.about().await?;
        let random = about.modern && want.masquerade.as_ref().is_some_and(|m| m.random_fully);
        let rules = hook.rules(want, v6, random);
        let found = self.found(hook, v6).await?;
        let program = self.program(v6);
        let what = match rules.is_empty() {
            true => format!("remove chain {} from {program} table {}", hook.chain, hook.table),
            false => format!("load chain {} into {program} table {}", hook.chain, hook.table),
        };
        Ok(hook.repair(&rules, &found, nets).map(|repair| Step {
            load: !rules.is_empty(),
            what,
            why: repair.why,
            seen: format!("{found:?}"),
            close: repair.close,
            program: format!("{program}-restore"),
            args: if about.modern { RESTORE } else { &["--noflush"] },
            input: repair.input,
        }))
    }

    async fn found(&self, hook: &Hook, v6: bool) -> Result<Found, FilterError> {
        Ok(hook.parse(&self.save(v6, hook.table).await?))
    }

    async fn save(&self, v6: bool, table: &str) -> Result<String, FilterError> {
        self.tools.run(&format!("{}-save", self.program(v6)), &["-t", table], None).await
    }

    /// Whether looking costs nothing: asking iptables-legacy about a table that is not there creates it.
    fn visible(&self, v6: bool, table: &str) -> bool {
        self.installed(v6) && (self.suffix != "-legacy" || legacy_has(v6, table))
    }

    fn program(&self, v6: bool) -> String {
        format!("{}{}", if v6 { "ip6tables" } else { "iptables" }, self.suffix)
    }

    async fn about(&self) -> Result<About, FilterError> {
        let asked = self.about.get_or_try_init(|| async {
            // The two families come in one package; a host may have hidden one of them.
            let program = self.program(!self.installed(false) && self.installed(true));
            let printed = self.tools.run(&program, &["--version"], None).await?;
            let modern = version(&printed).is_some_and(|found| found >= MODERN);
            let flavour = if printed.contains("nf_tables") { Flavour::Nft } else { Flavour::Legacy };
            Ok(About { modern, flavour })
        });
        asked.await.copied()
    }
}

/// flanneld's chains of both families; `true` is IPv6.
fn hooks() -> impl Iterator<Item = (bool, &'static Hook)> {
    [false, true].into_iter().flat_map(|v6| HOOKS.iter().map(move |hook| (v6, hook)))
}

/// Whether iptables-legacy has `table` in this network namespace.
fn legacy_has(v6: bool, table: &str) -> bool {
    let name = if v6 { "ip6_tables_names" } else { "ip_tables_names" };
    // A thread may have a network namespace of its own, and /proc/net shows the process's.
    let names = std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    names.is_ok_and(|names| names.lines().any(|line| line == table))
}

/// The first `a.b.c` or `a.b` in what a tool prints about itself.
pub(super) fn version(printed: &str) -> Option<(u64, u64, u64)> {
    printed.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut numbers = word.split('.').map(str::parse::<u64>);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    })
}
