//! flanneld's iptables rules as text: what they must read like, what they do read like, and the repair. Pure.
//!
//! Rules are in the form `iptables-save` prints, without `-A CHAIN`, so that wanted and found compare.

use ipnet::IpNet;
use twill_backends::filter::{Filter, multicast};

/// One of flanneld's chains and where it is jumped to from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) table: &'static str,
    pub(super) parent: &'static str,
    pub(super) chain: &'static str,
    pub(super) comment: &'static str,
}

/// flanneld's chains. Names and comments are known to scripts, to Calico's migration and to test suites.
pub(super) const HOOKS: [Hook; 2] = [
    Hook { table: "nat", parent: "POSTROUTING", chain: "FLANNEL-POSTRTG", comment: "flanneld masq" },
    Hook { table: "filter", parent: "FORWARD", chain: "FLANNEL-FWD", comment: "flanneld forward" },
];

/// What one save output says about a hook.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The rules of the chain; `None`: no such chain.
    pub(super) chain: Option<Vec<String>>,
    /// The rules of the parent that lead to it.
    pub(super) jumps: Vec<String>,
}

/// A repair: the input of one `iptables-restore --noflush`, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) input: String,
    pub(super) why: String,
    /// Whether as many rules are there as wanted.
    pub(super) close: bool,
}

impl Hook {
    pub(super) fn jump(&self) -> String {
        format!("-m comment --comment \"{}\" -j {}", self.comment, self.chain)
    }

    /// The rules of the chain for one address family; empty when nothing is wanted.
    pub(super) fn rules(&self, want: &Filter, v6: bool, random: bool) -> Vec<String> {
        let masquerade = self.table == "nat";
        let wanted = if masquerade { want.masquerade.is_some() } else { want.forward };
        let nets: Vec<_> = want.family(v6).filter(|_| wanted).collect();
        let mut rules = if nets.is_empty() { Vec::new() } else { self.preamble() };
        let comment = format!("-m comment --comment \"{}\"", self.comment);
        let how = if random { "MASQUERADE --random-fully" } else { "MASQUERADE" };
        for net in nets {
            let (n, p) = (net.network.trunc(), net.subnet.trunc());
            if masquerade {
                rules.extend([
                    format!("-s {p} -d {n} {comment} -j RETURN"),
                    format!("-s {n} -d {p} {comment} -j RETURN"),
                    format!("! -s {n} -d {p} {comment} -j RETURN"),
                    format!("-s {n} ! -d {} {comment} -j {how}", multicast(&n)),
                    format!("! -s {n} -d {n} {comment} -j {how}"),
                ]);
            } else {
                rules.extend([format!("-s {n} {comment} -j ACCEPT"), format!("-d {n} {comment} -j ACCEPT")]);
            }
        }
        rules
    }

    /// What stands before the rules of any fabric: packets with kube-proxy's mark are left alone.
    fn preamble(&self) -> Vec<String> {
        match self.table {
            "nat" => {
                vec![format!(
                    "-m mark --mark 0x4000/0x4000 -m comment --comment \"{}\" -j RETURN",
                    self.comment
                )]
            }
            _ => Vec::new(),
        }
    }

    /// Reads what `iptables-save -t <table>` printed.
    pub(super) fn parse(&self, saved: &str) -> Found {
        let mut found = Found::default();
        for line in saved.lines() {
            if let Some(declared) = line.strip_prefix(':') {
                if declared.split_whitespace().next() == Some(self.chain) {
                    found.chain.get_or_insert_default();
                }
            } else if let Some(rule) = self.appended(self.chain, line) {
                found.chain.get_or_insert_default().push(rule);
            } else if let Some(rule) = self.appended(self.parent, line)
                && leads_to(&rule, self.chain)
            {
                found.jumps.push(rule);
            }
        }
        found
    }

    fn appended(&self, chain: &str, line: &str) -> Option<String> {
        Some(line.strip_prefix("-A ")?.strip_prefix(chain)?.strip_prefix(' ')?.to_owned())
    }

    /// What makes `found` into `rules` and one jump; `None` when it is that already.
    ///
    /// Rules of flanneld's form for a network that is not among `nets` belong to another fabric on this host and
    /// stay; with `nets` empty everything in the chain is ours.
    pub(super) fn repair(&self, rules: &[String], found: &Found, nets: &[IpNet]) -> Option<Repair> {
        let have = found.chain.as_deref().unwrap_or_default();
        let (kept, ours): (Vec<&String>, Vec<&String>) =
            have.iter().partition(|rule| self.is_anothers(rule, nets));
        if rules.is_empty() && kept.is_empty() {
            return self.removal(found);
        }
        let preamble = self.preamble();
        let wanted = if rules.is_empty() { &preamble } else { rules };
        let chain_is_right = found.chain.is_some()
            && ours.iter().map(|r| canonical(r)).eq(wanted.iter().map(|r| canonical(r)));
        let right_jumps =
            found.jumps.iter().filter(|jump| canonical(jump) == canonical(&self.jump())).count();
        if chain_is_right && right_jumps == 1 && found.jumps.len() == 1 {
            return None;
        }
        let mut lines = Vec::new();
        if !chain_is_right {
            // Declaring an existing chain empties it, within the transaction.
            lines.push(format!(":{} - [0:0]", self.chain));
            lines.extend(wanted.iter().chain(kept).map(|rule| format!("-A {} {rule}", self.chain)));
        }
        lines.extend(self.one_jump(found, right_jumps));
        let why = match (&found.chain, chain_is_right) {
            (None, _) => "the chain is missing".to_owned(),
            (Some(_), false) => "the rules of the chain differ".to_owned(),
            (Some(_), true) => format!("{} jumps to it {right_jumps} times", self.parent),
        };
        Some(Repair { input: self.block(&lines), why, close: ours.len() == wanted.len() && right_jumps == 1 })
    }

    /// Exactly one right jump, keeping the place of the one that is there.
    fn one_jump(&self, found: &Found, right: usize) -> Vec<String> {
        let odd = found.jumps.iter().filter(|jump| canonical(jump) != canonical(&self.jump()));
        let mut lines: Vec<String> = odd.map(|jump| format!("-D {} {jump}", self.parent)).collect();
        lines.extend((1..right).map(|_| format!("-D {} {}", self.parent, self.jump())));
        if right == 0 {
            lines.push(format!("-A {} {}", self.parent, self.jump()));
        }
        lines
    }

    fn removal(&self, found: &Found) -> Option<Repair> {
        if found.chain.is_none() && found.jumps.is_empty() {
            return None;
        }
        let mut lines: Vec<String> =
            found.jumps.iter().map(|jump| format!("-D {} {jump}", self.parent)).collect();
        if found.chain.is_some() {
            lines.extend([format!("-F {}", self.chain), format!("-X {}", self.chain)]);
        }
        Some(Repair { input: self.block(&lines), why: "no rule is wanted there".to_owned(), close: false })
    }

    fn block(&self, lines: &[String]) -> String {
        format!("*{}\n{}\nCOMMIT\n", self.table, lines.join("\n"))
    }

    fn is_anothers(&self, rule: &str, nets: &[IpNet]) -> bool {
        let words = words(rule);
        let mut named = words
            .windows(2)
            .filter(|pair| pair[0] == "-s" || pair[0] == "-d")
            .filter_map(|pair| pair[1].parse::<IpNet>().ok())
            .peekable();
        !nets.is_empty()
            && words.contains(&self.comment)
            && named.peek().is_some()
            && !named.any(|named| nets.iter().any(|net| net.trunc() == named))
    }
}

/// The policy of a built-in chain in a save output.
pub(super) fn policy<'a>(saved: &'a str, chain: &str) -> Option<&'a str> {
    saved
        .lines()
        .find_map(|line| line.strip_prefix(':')?.strip_prefix(chain)?.strip_prefix(' ')?.split(' ').next())
}

fn leads_to(rule: &str, chain: &str) -> bool {
    words(rule).windows(2).any(|pair| (pair[0] == "-j" || pair[0] == "-g") && pair[1] == chain)
}

/// A rule with its matches in one order: versions print them as they were given, or by kind.
fn canonical(rule: &str) -> Vec<Vec<&str>> {
    let words = words(rule);
    let mut groups: Vec<Vec<&str>> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let negated = i > 0 && words[i - 1] == "!";
        let opens = match *word {
            "!" => words.get(i + 1).is_some_and(|next| !next.starts_with("--")),
            _ => word.starts_with('-') && !word.starts_with("--") && !negated,
        };
        match groups.last_mut() {
            Some(group) if !opens => group.push(word),
            Some(_) | None => groups.push(vec![word]),
        }
    }
    groups.sort();
    groups
}

/// Words of a rule, a quoted comment being one.
fn words(rule: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (i, part) in rule.split('"').enumerate() {
        if i % 2 == 1 {
            words.push(part);
        } else {
            words.extend(part.split_whitespace());
        }
    }
    words
}
