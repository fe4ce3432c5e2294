//! Taking over from flanneld: what a host runs, and whether anything would break if Twill took its place.
//!
//! ```text
//! /proc or unit --flags--> Config --+-- store: Network, lease -- Preview (what an agent would do) --+
//! subnet.env, CNI files, devices ---+---------------------------------------------------------------+-- Seen
//!                                                                                                    |
//!                                                                judge::findings (pure) --> Report <-+
//! ```

mod about;
pub mod cni;
pub mod judge;
pub mod unit;
mod words;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use twill_backends::network::NetworkConfig;

pub use self::about::About;
use self::cni::Cni;
use crate::agent::flanneld::Flanneld;
use crate::agent::preview::Preview;
use crate::cni::fabric::Fabric;
use crate::config::Config;

/// Everything that was read on a host and in the store.
#[derive(Debug)]
pub struct Seen {
    /// flannelds that run.
    pub running: Vec<Flanneld>,
    /// Where the flags that are judged come from.
    pub source: Source,
    /// What they mean, or why an agent would not start with them.
    pub config: Result<Config, String>,
    /// Whether an agent of the same fabric runs already.
    pub agent: bool,
    /// What subnet.env says; `None` if there is none.
    pub env: Result<Option<Fabric>, String>,
    /// The configuration in the store, or why there is none to be had; `None` if it was not looked for.
    pub network: Option<Result<NetworkConfig, String>>,
    /// What an agent would do, or each reason why it would not start; `None` if that could not be asked.
    pub preview: Option<Result<Preview, Vec<String>>>,
    /// Devices that flanneld may have made.
    pub devices: Vec<Device>,
    /// What CNI plugins have.
    pub cni: Cni,
    /// Whether the firewall and other processes may be read.
    pub privileged: bool,
}

/// A device with a name as flanneld gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

/// Where flanneld's flags were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Given,
    /// A running flanneld, by its process id.
    Process(u32),
    /// A unit of systemd.
    Unit(PathBuf),
    /// Nowhere: flanneld's defaults.
    Defaults,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It stays as it is.
    Ok,
    /// It differs, or is to be done first; containers do not notice.
    Note,
    /// Containers would lose something, or an agent would not start.
    Breaks,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub about: About,
    /// What was found.
    pub cause: String,
    /// What to do about it.
    pub next: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the findings.
    pub verdict: Severity,
    /// Where flanneld's flags come from.
    pub source: String,
    /// What was found, in the order in which a packet of reasons would go: flanneld, store, host, containers.
    pub findings: Vec<Finding>,
    /// What an agent would do, as `twill plan` prints it.
    pub plan: Vec<String>,
}

impl Finding {
    /// It stays as it is.
    fn ok(about: About, cause: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, about, cause: cause.into(), next: "nothing".to_owned() }
    }

    /// Containers do not notice.
    fn note(about: About, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { severity: Severity::Note, about, cause: cause.into(), next: next.into() }
    }

    /// Something would be lost.
    fn breaks(about: About, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { severity: Severity::Breaks, about, cause: cause.into(), next: next.into() }
    }
}

impl Report {
    /// Judges what was seen.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let findings = judge::findings(seen);
        let verdict = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
        let plan = match &seen.preview {
            Some(Ok(preview)) => preview.lines(),
            Some(Err(_)) | None => Vec::new(),
        };
        Self { verdict, source: seen.source.to_string(), findings, plan }
    }

    /// As an object for programs.
    ///
    /// # Errors
    /// None in practice: every value has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "flanneld's flags are taken from {}\n", self.source)?;
        let width =
            self.findings.iter().map(|finding| finding.about.entry().code.len()).max().unwrap_or_default();
        for finding in &self.findings {
            let Finding { severity, about, cause, next } = finding;
            writeln!(f, "{severity:<6}  {about:<width$}  {cause}")?;
            if *severity != Severity::Ok {
                writeln!(f, "{:8}{:width$}  next: {next}", "", "")?;
            }
        }
        if !self.plan.is_empty() {
            writeln!(f, "\nan agent would do:")?;
            self.plan.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let (breaks, notes) = (count(Severity::Breaks), count(Severity::Note));
        if breaks > 0 {
            writeln!(f, "\nverdict: {breaks} of these would break")
        } else {
            writeln!(f, "\nverdict: nothing would break; notes: {notes}")
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Breaks => "breaks",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("this command line"),
            Self::Process(pid) => write!(f, "the process {pid}"),
            Self::Unit(path) => write!(f, "the unit {}", path.display()),
            Self::Defaults => f.write_str("its defaults: none runs here, and there is no unit of it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_aligned_and_says_what_to_do() {
        let findings = vec![
            Finding::ok(About::Lease, "it stays"),
            Finding::note(About::SubnetEnv, "the MTU differs", "restart pods"),
            Finding::breaks(About::Flags, "refused", "leave it out"),
        ];
        let report = Report {
            verdict: Severity::Breaks,
            source: Source::Process(7).to_string(),
            findings,
            plan: vec!["ip link".to_owned()],
        };
        let text = "flanneld's flags are taken from the process 7\n\n\
            ok      lease       it stays\n\
            note    subnet.env  the MTU differs\n                    next: restart pods\n\
            breaks  flags       refused\n                    next: leave it out\n\n\
            an agent would do:\n    ip link\n\n\
            verdict: 1 of these would break\n";
        assert_eq!(report.to_string(), text);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!((&json["verdict"], &json["findings"][0]["next"]), (&"breaks".into(), &"nothing".into()));
    }
}
