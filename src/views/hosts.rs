//! All hosts of a fabric, one line each: what the store says of each, what its own agent says, and what this host's
//! probes say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::columns::{Column, STAYS, table};
use super::peers::Health;
use crate::agent::status::PeerStatus;
use crate::doctor::sign::Sign;
use crate::style::{Cell, FAINT, STRONG, paint};
use crate::verify::Deviation;

/// A host, as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The key of its lease.
    pub key: String,
    /// Its node id; `None` if flanneld wrote the lease.
    pub node: Option<String>,
    /// Its public addresses.
    pub public: Vec<String>,
    /// Its backend.
    pub backend: String,
    /// How long its lease lives unless renewed.
    pub left: String,
    /// Whether it is this host.
    pub here: bool,
    /// What its agent says.
    pub said: Said,
    /// What this host's agent knows of it as a peer.
    pub peer: Option<PeerStatus>,
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Its status.
    Status(Value),
    /// Nothing: the code of it, why, and what to do about it.
    Silent(&'static str, String, String),
    /// It was not asked.
    Unasked,
}

impl Said {
    /// Its state in one word.
    fn word(&self) -> &str {
        match self {
            Self::Status(status) => status["state"].as_str().unwrap_or("unknown"),
            Self::Silent(..) => "silent",
            Self::Unasked => "not asked",
        }
    }

    fn health(&self) -> Health {
        match self.word() {
            "ok" => Health::Good,
            "failed" => Health::Cut,
            "not asked" => Health::Unknown,
            _ => Health::Poor,
        }
    }

    /// What it complains of first.
    fn complaint(&self) -> Option<String> {
        match self {
            Self::Status(status) => first_fault(status).map(|(code, text)| format!("{code} {text}")),
            Self::Silent(code, cause, next) => Some(format!("{code}: {cause}; next: {next}")),
            Self::Unasked => None,
        }
    }
}

impl Host {
    /// The worst of what its agent says and of what was measured.
    #[must_use]
    pub fn health(&self) -> Health {
        let measured = self.peer.as_ref().map_or(Health::Unknown, PeerStatus::health);
        match (self.said.health(), measured) {
            (Health::Unknown, other) | (other, Health::Unknown) => other,
            (said, measured) => said.min(measured),
        }
    }

    fn row(&self) -> Vec<Cell> {
        let [probe, rtt, mtu] = match &self.peer {
            Some(peer) => peer.brief(),
            None => ["-".into(), "-".into(), "-".into()],
        };
        vec![
            if self.here { paint(STRONG, format!("{} (here)", self.key)) } else { self.key.as_str().into() },
            self.public.join(",").into(),
            self.backend.as_str().into(),
            paint(self.said.health().style(), self.said.word()),
            probe,
            rtt,
            mtu,
            self.left.as_str().into(),
            self.node.as_deref().unwrap_or("flanneld").into(),
        ]
    }
}

const COLUMNS: [Column; 9] = [
    Column { name: "HOST", weight: STAYS },
    Column { name: "PUBLIC", weight: 9 },
    Column { name: "BACKEND", weight: 3 },
    Column { name: "STATE", weight: STAYS },
    Column { name: "PROBE", weight: 8 },
    Column { name: "RTT ms", weight: 6 },
    Column { name: "MTU", weight: 4 },
    Column { name: "LEASE LEFT", weight: 5 },
    Column { name: "NODE", weight: 1 },
];

/// How many complaints are told below the table.
const COMPLAINTS: usize = 20;

/// The table, the complaints below it, and a line that sums it up. `width`: of the terminal, if it is one.
#[must_use]
pub fn text(hosts: &[Host], width: Option<usize>) -> String {
    let mut text = table(&COLUMNS, hosts.iter().map(Host::row).collect(), width).to_string();
    let complaints = hosts.iter().filter_map(|host| Some((host, host.said.complaint()?)));
    for (host, complaint) in complaints.take(COMPLAINTS) {
        text += &format!("{}: {complaint}\n", paint(host.said.health().style(), &*host.key));
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    hosts.iter().for_each(|host| *states.entry(host.said.word()).or_default() += 1);
    let states: Vec<String> = states.iter().map(|(word, count)| format!("{count} {word}")).collect();
    text += &format!("{} hosts: {}\n", hosts.len(), states.join(", "));
    if hosts.iter().any(|host| host.said == Said::Unasked) {
        let next =
            "other agents were not asked: give --healthz-port, the port at which they serve /v1/status";
        text += &format!("{}\n", paint(FAINT, next));
    }
    text
}

/// The same for programs.
#[must_use]
pub fn json(hosts: &[Host]) -> Value {
    let one = |host: &Host| {
        let (status, silent) = match &host.said {
            Said::Status(status) => (Some(status), None),
            Said::Silent(code, cause, next) => (None, Some([*code, cause, next])),
            Said::Unasked => (None, None),
        };
        let [code, cause, next] = silent.map_or([None; 3], |words| words.map(Some));
        json!({
            "key": host.key, "node": host.node, "public": host.public, "backend": host.backend, "here": host.here,
            "state": host.said.word(), "status": status, "code": code, "cause": cause, "next": next, "probe": host.peer.as_ref().map(PeerStatus::word),
        })
    };
    hosts.iter().map(one).collect()
}

/// 0 all well, 1 something needs attention, 2 a host has failed or is cut off.
#[must_use]
pub fn code(hosts: &[Host]) -> u8 {
    match hosts.iter().map(Host::health).min() {
        Some(Health::Cut) => 2,
        Some(Health::Poor) => 1,
        Some(Health::Unknown | Health::Good) | None => 0,
    }
}

/// Where the leases that another host's agent knows differ from these, and what else it says is not as wanted, as code
/// and text; empty if nothing.
#[must_use]
pub fn differences(status: &Value, leases: &BTreeSet<String>) -> Vec<(String, String)> {
    let known = status["peers"].as_array().into_iter().flatten();
    let known = known.filter(|peer| peer["held"] != true).filter_map(|peer| peer["key"].as_str());
    let known: BTreeSet<String> = known.chain(status["lease"]["key"].as_str()).map(str::to_owned).collect();
    let unknown = leases.difference(&known).map(|key| format!("it does not know the lease {key}"));
    let gone =
        known.difference(leases).map(|key| format!("it knows the lease {key}, which the store has not"));
    let differ = unknown.chain(gone).map(|text| (Deviation::LeasesDiffer.to_string(), text));
    let unsettled = (status["reconcile"]["converged"] != true)
        .then(|| (Sign::NotSettled.to_string(), "its kernel is not as wanted yet".to_owned()));
    differ.chain(unsettled).chain(first_fault(status)).collect()
}

/// What an agent complains of first, as code and text.
fn first_fault(status: &Value) -> Option<(String, String)> {
    let fault = status["faults"].get(0)?;
    let field = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    let text = format!("{}: {}; next: {}", field("subject"), field("cause"), field("next"));
    Some((field("code"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8, said: Said) -> Host {
        Host {
            key: format!("10.5.{n}.0-24"),
            node: Some(format!("node-{n}")),
            public: vec![format!("192.0.2.{n}")],
            backend: "vxlan".to_owned(),
            left: "23h10m".to_owned(),
            here: n == 1,
            said,
            peer: None,
        }
    }

    fn status(state: &str, peers: &[&str]) -> Value {
        let peers: Vec<Value> = peers.iter().map(|key| json!({ "key": key, "held": false })).collect();
        json!({ "state": state, "lease": { "key": "10.5.2.0-24" }, "peers": peers, "faults": [], "reconcile": { "converged": true } })
    }

    #[test]
    fn one_line_for_each_host_and_every_complaint_below() {
        let mut bad = status("degraded", &[]);
        bad["faults"] = json!([{ "code": "c", "subject": "s", "cause": "why", "next": "do" }]);
        let silent = Said::Silent("host-silent", "not reachable: refused".to_owned(), "open it".to_owned());
        let hosts = [host(1, Said::Status(status("ok", &[]))), host(2, Said::Status(bad)), host(3, silent)];
        let text = anstream::adapter::strip_str(&text(&hosts, None)).to_string();
        let want = "\
HOST                PUBLIC     BACKEND  STATE     PROBE  LEASE LEFT  NODE
10.5.1.0-24 (here)  192.0.2.1  vxlan    ok               23h10m      node-1
";
        assert!(
            text.starts_with(&want.replace("  PROBE", "").replace("ok               ", "ok        ")),
            "{text}"
        );
        assert!(
            text.contains(
                "10.5.2.0-24: c s: why; next: do\n10.5.3.0-24: host-silent: not reachable: refused; next: open it\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("3 hosts: 1 degraded, 1 ok, 1 silent\n"), "{text}");
        assert_eq!(code(&hosts), 1);
    }

    #[test]
    fn the_worst_host_counts() {
        let of = |state: &str| Said::Status(status(state, &[]));
        assert_eq!(code(&[host(1, of("ok"))]), 0);
        assert_eq!(code(&[host(1, of("ok")), host(2, Said::Unasked)]), 0);
        assert_eq!(code(&[host(1, of("ok")), host(2, of("failed")), host(3, of("degraded"))]), 2);
        assert!(text(&[host(2, Said::Unasked)], None).contains("--healthz-port"));
    }

    #[test]
    fn a_host_that_knows_other_leases_is_told() {
        let leases: BTreeSet<String> = (1..=3).map(|n| format!("10.5.{n}.0-24")).collect();
        assert_eq!(differences(&status("ok", &["10.5.1.0-24", "10.5.3.0-24"]), &leases), Vec::new());
        let mut other = status("ok", &["10.5.1.0-24", "10.5.9.0-24"]);
        other["reconcile"]["converged"] = json!(false);
        let words = differences(&other, &leases);
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(words[0].1.contains("10.5.3.0-24") && words[1].1.contains("10.5.9.0-24"), "{words:?}");
        let codes: Vec<&str> = words.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(codes, ["leases-differ", "leases-differ", "not-settled"]);
    }
}
