//! What is wrong with a host's fabric, and what to do about it.
//!
//! ```text
//! agent's status, store, netlink, /proc, firewall, files --look--> Facts --checks (pure)--> Findings --> Report
//! ```

pub mod checks;
pub mod facts;
pub mod look;
pub mod sign;

use std::fmt;

use serde::Serialize;
use twill_backends::code::{Entry, Severity};

use crate::style::{FAINT, STRONG, Table, paint, severity};

/// The version of [`Report`]'s JSON.
const VERSION: u32 = 1;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind: stable, for scripts.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a setting, a device, a file.
    pub subject: String,
    /// What it breaks, in a sentence.
    pub breaks: &'static str,
    /// What was found.
    pub found: String,
    /// What was wanted in its place; empty where that goes without saying.
    pub wanted: String,
    /// The command that mends it.
    pub next: String,
}

/// All that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this form.
    pub version: u32,
    /// The worst of the findings; `None` if there are none.
    pub verdict: Option<Severity>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Something of this kind; what to do is what is always done about it.
    fn new(entry: Entry, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            code: entry.code,
            severity: entry.severity,
            subject: subject.into(),
            breaks: entry.breaks,
            found: found.into(),
            wanted: String::new(),
            next: entry.next.to_owned(),
        }
    }

    fn wanted(self, wanted: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), ..self }
    }

    fn next(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }
}

impl Report {
    /// Sorts what was found.
    #[must_use]
    pub fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { version: VERSION, verdict: findings.first().map(|finding| finding.severity), findings }
    }

    /// The exit code: 0 nothing, 1 warnings, 2 something broken.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self.verdict {
            None => 0,
            Some(Severity::Warning) => 1,
            Some(Severity::Broken) => 2,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return writeln!(f, "nothing to complain of");
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let (broken, warnings) = (count(Severity::Broken), count(Severity::Warning));
        writeln!(f, "{broken} broken, {warnings} warnings; twill explain CODE says more")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = severity(self.severity);
        writeln!(f, "{severity:<7}  {}  {}", paint(STRONG, self.code), self.subject)?;
        let mut table = Table::default();
        for (name, text) in [
            ("found", self.found.as_str()),
            ("wanted", &self.wanted),
            ("breaks", self.breaks),
            ("next", &self.next),
        ] {
            if !text.is_empty() {
                table.row(["       ".into(), paint(FAINT, name), text.into()]);
            }
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::sign::Sign;
    use super::*;

    #[test]
    fn a_report_is_aligned_and_the_worst_comes_first() {
        let managed = Finding::new(Sign::Managed.entry(), "dhcpcd", "it runs (pid 7)");
        let off = Finding::new(Sign::ForwardingOff.entry(), "net.ipv4.ip_forward", "0")
            .wanted("1")
            .next("sysctl -w net.ipv4.ip_forward=1");
        let report = Report::of(vec![managed, off]);
        let text = "\
broken   forwarding-off  net.ipv4.ip_forward
         found   0
         wanted  1
         breaks  No packet passes between the pods here and other hosts.
         next    sysctl -w net.ipv4.ip_forward=1

warning  managed-devices  dhcpcd
         found   it runs (pid 7)
         breaks  It takes their addresses away or gives them new ones, whenever it likes.
         next    tell it to leave them alone; manifests/ has the file (make install puts it in place)

1 broken, 1 warnings; twill explain CODE says more
";
        assert_eq!(anstream::adapter::strip_str(&report.to_string()).to_string(), text);
        assert_eq!(report.exit(), 2);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["verdict"], &json["findings"][1]["code"]),
            (&"broken".into(), &"managed-devices".into())
        );
    }

    #[test]
    fn nothing_is_one_line() {
        let report = Report::of(Vec::new());
        assert_eq!((report.to_string().as_str(), report.exit()), ("nothing to complain of\n", 0));
        assert_eq!(Report::of(vec![Finding::new(Sign::Managed.entry(), "x", "y")]).exit(), 1);
    }
}
