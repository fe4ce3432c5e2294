//! The outcome of looking at one host: what `twill verify` says.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Deviation, Difference};
use crate::doctor::sign::Sign;
use crate::style::{BAD, GOOD, STRONG, WARNING, paint};

/// One host, compared with what its leases want of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The key of the host's lease; `None` if it has none.
    pub lease: Option<String>,
    /// How many leases there are.
    pub leases: usize,
    /// Whether the store did not answer, so that the leases are those of the agent's last snapshot.
    pub remembered: bool,
    /// How many entries the host's kernel should have.
    pub entries: usize,
    /// Those that are not as wanted.
    pub differences: Vec<Difference>,
    /// What would be loaded into the firewall, and removed from it.
    pub firewall: Vec<String>,
    /// Leases that are left out, and what is in the way of the others: code and text.
    pub faults: Vec<(String, String)>,
}

/// Another host, as its own agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    /// The key of its lease.
    pub key: String,
    /// In one word.
    pub outcome: Outcome,
    /// What differs, or why it could not be asked: code and text.
    pub words: Vec<(String, String)>,
}

/// What another host's agent said, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its host is as the same leases want it.
    Same,
    /// It is not, or its agent knows other leases.
    Differs,
    /// It did not answer.
    Silent,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (style, word) = match self.outcome {
            Outcome::Same => (GOOD, "as its leases want it, says its agent"),
            Outcome::Differs => (BAD, "not as its leases want it"),
            Outcome::Silent => (WARNING, "could not be asked"),
        };
        writeln!(f, "{}: {}", self.key, paint(style, word))?;
        self.words.iter().try_for_each(|(code, text)| writeln!(f, "  {code}: {text}"))
    }
}

impl Report {
    /// Whether the host is as its leases want it.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.lease.is_some()
            && self.differences.is_empty()
            && self.firewall.is_empty()
            && self.faults.is_empty()
    }

    /// The codes of everything that is not as wanted.
    #[must_use]
    pub fn codes(&self) -> BTreeSet<String> {
        let differences = self.differences.iter().map(|one| one.code.to_owned());
        let firewall = (!self.firewall.is_empty()).then(|| Deviation::FirewallDiffers.to_string());
        let lease = self.lease.is_none().then(|| Sign::NoLease.to_string());
        let faults = self.faults.iter().map(|(code, _)| code.clone());
        differences.chain(firewall).chain(lease).chain(faults).collect()
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(lease) = &self.lease else {
            return writeln!(
                f,
                "{}: this host has no lease; next: start its agent (twill agent), or see twill status",
                Sign::NoLease
            );
        };
        let (count, all) = (self.differences.len(), self.entries);
        let leases = self.leases;
        let counted = match count {
            0 => format!("{all} entries are as {leases} leases want them"),
            1 => format!("1 difference in {all} entries that {leases} leases want"),
            more => format!("{more} differences in {all} entries that {leases} leases want"),
        };
        let rest = match (self.firewall.len(), self.faults.len()) {
            (0, 0) => String::new(),
            (rules, 0) => format!("; firewall: {rules} to do"),
            (0, faults) => format!("; {faults} faults"),
            (rules, faults) => format!("; firewall: {rules} to do; {faults} faults"),
        };
        let style = if self.is_same() { GOOD } else { BAD };
        writeln!(f, "{lease}: {}", paint(style, counted + &rest))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        if self.remembered {
            writeln!(f, "the store does not answer: these are the leases of the agent's last snapshot")?;
        }
        for one in &self.differences {
            let entry = paint(STRONG, format!("{}: {}", one.code, one.entry));
            match &one.peer {
                Some(peer) => writeln!(f, "\n{entry}, for {peer}")?,
                None => writeln!(f, "\n{entry}")?,
            }
            let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
            writeln!(f, "  wanted  {}", or_nothing(&one.wanted))?;
            writeln!(f, "  found   {}", or_nothing(&one.found))?;
            writeln!(f, "  fix     {}", one.fix)?;
        }
        if !self.firewall.is_empty() {
            writeln!(f, "\n{}", paint(STRONG, format!("{}: firewall", Deviation::FirewallDiffers)))?;
            self.firewall.iter().try_for_each(|line| writeln!(f, "  to do   {line}"))?;
        }
        for (code, text) in &self.faults {
            writeln!(f, "\n{}\n  {text}", paint(STRONG, format!("fault {code}")))?;
        }
        if self.lease.is_some() && !self.is_same() {
            writeln!(
                f,
                "\nnext: a running agent repairs its entries within a second; twill status says what keeps it"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Peer;

    fn plain(text: &impl fmt::Display) -> String {
        anstream::adapter::strip_str(&text.to_string()).to_string()
    }

    fn same() -> Report {
        Report { lease: Some("10.5.1.0-24".to_owned()), leases: 3, entries: 9, ..Report::default() }
    }

    #[test]
    fn a_host_as_wanted_takes_one_line() {
        assert_eq!(plain(&same()), "10.5.1.0-24: 9 entries are as 3 leases want them\n");
        assert!(same().is_same());
    }

    #[test]
    fn a_host_without_lease_is_not_as_wanted() {
        let report = Report { lease: None, ..same() };
        assert!(!report.is_same() && report.to_string().contains("next: start its agent"), "{report}");
    }

    #[test]
    fn each_difference_has_its_entry_both_values_and_a_fix() {
        let peer = Peer { key: "10.5.2.0-24".to_owned(), public: "192.0.2.2".parse().ok() };
        let route = Difference {
            code: Deviation::RouteMissing.entry().code,
            entry: "route 10.5.2.0/24".to_owned(),
            peer: Some(peer),
            wanted: Some("via 10.5.2.0 dev flannel.1".to_owned()),
            found: None,
            fix: "ip route replace 10.5.2.0/24".to_owned(),
        };
        let report = Report {
            differences: vec![route],
            firewall: vec!["nft -f: load table  # missing".to_owned()],
            faults: vec![("foreign-route".to_owned(), "10.5.3.0/24: a route".to_owned())],
            remembered: true,
            ..same()
        };
        let text = "\
10.5.1.0-24: 1 difference in 9 entries that 3 leases want; firewall: 1 to do; 1 faults
the store does not answer: these are the leases of the agent's last snapshot

route-missing: route 10.5.2.0/24, for 10.5.2.0-24 at 192.0.2.2
  wanted  via 10.5.2.0 dev flannel.1
  found   nothing
  fix     ip route replace 10.5.2.0/24

firewall-differs: firewall
  to do   nft -f: load table  # missing

fault foreign-route
  10.5.3.0/24: a route

next: a running agent repairs its entries within a second; twill status says what keeps it
";
        assert_eq!(plain(&report), text);
        assert_eq!(
            report.codes().iter().map(String::as_str).collect::<Vec<_>>(),
            ["firewall-differs", "foreign-route", "route-missing"]
        );
        assert_eq!((same().codes().len(), Report { lease: None, ..same() }.codes().len()), (0, 1));
    }

    #[test]
    fn another_host_is_told_in_its_agents_words() {
        let other = |outcome, words: &[&str]| {
            let words = words.iter().map(|word| ("c".to_owned(), (*word).to_owned())).collect();
            plain(&Other { key: "10.5.2.0-24".to_owned(), outcome, words })
        };
        assert_eq!(other(Outcome::Same, &[]), "10.5.2.0-24: as its leases want it, says its agent\n");
        assert_eq!(other(Outcome::Differs, &["x"]), "10.5.2.0-24: not as its leases want it\n  c: x\n");
        assert!(other(Outcome::Silent, &["refused"]).contains("could not be asked\n  c: refused\n"));
    }
}
