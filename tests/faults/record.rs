//! What was measured: one line for each scenario and backend, and the files that keep them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::examine::Named;
use crate::page;
use crate::scenario::Allowed;
use crate::traffic::Measured;

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub(crate) enum Verdict {
    /// As it has to.
    Held,
    /// It healed, and took longer than it may.
    Late(String),
    /// It did not heal, or what may not be lost was.
    Broken(String),
}

/// What became of one scenario on one backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    pub(crate) rows: Vec<u8>,
    pub(crate) backend: String,
    /// What pods may feel of it; `None` in records of before it was kept.
    #[serde(default)]
    pub(crate) allowed: Option<Allowed>,
    pub(crate) seconds: f64,
    /// The longest time without a packet between pods, and without an answer from the outside.
    pub(crate) gap_ms: u64,
    pub(crate) outside_gap_ms: u64,
    /// Of the packets between the pods.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// The longest time without a word over TCP; `None` if the connection broke.
    tcp_stall_ms: Option<u64>,
    /// What all agents logged meanwhile.
    pub(crate) log_lines: usize,
    /// What it was called, while it lasted or once it was mended, and after how many milliseconds.
    pub(crate) named: Vec<(String, u64)>,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl Outcome {
    /// One of which nothing is known but how long it took.
    pub(crate) fn new(scenario: String, rows: &[u8], backend: &str, took: Duration) -> Self {
        Self {
            scenario,
            rows: rows.to_vec(),
            backend: backend.to_owned(),
            allowed: None,
            seconds: took.as_secs_f64(),
            gap_ms: 0,
            outside_gap_ms: 0,
            sent: 0,
            lost: 0,
            tcp_stall_ms: None,
            log_lines: 0,
            named: Vec::new(),
            verdict: Verdict::Held,
        }
    }

    pub(crate) fn measured(mut self, measured: &Measured, lines: usize) -> Self {
        (self.gap_ms, self.outside_gap_ms) = (millis(measured.main.longest_gap), millis(measured.outside));
        (self.sent, self.lost) = (measured.main.sent, measured.main.lost());
        self.tcp_stall_ms = measured.talk.broken.is_none().then_some(millis(measured.talk.longest_stall));
        self.log_lines = lines;
        self
    }

    pub(crate) fn allowed(self, allowed: Allowed) -> Self {
        Self { allowed: Some(allowed), ..self }
    }

    pub(crate) fn named(mut self, named: Vec<Named>) -> Self {
        self.named = named.into_iter().map(|named| (named.code, millis(named.after))).collect();
        self
    }

    pub(crate) fn judged(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self
    }

    /// Why a test is to fail: what is late counts only where a record is made, as other machines may be slow.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Held => None,
            Verdict::Late(why) => target().is_some().then_some(why),
            Verdict::Broken(why) => Some(why),
        }
    }

    /// What the record says of it, in the order of its columns.
    pub(crate) fn cells(&self) -> [String; 9] {
        let rows: Vec<String> = self.rows.iter().map(u8::to_string).collect();
        let verdict = match &self.verdict {
            Verdict::Held => "held".to_owned(),
            Verdict::Late(why) => format!("LATE: {why}"),
            Verdict::Broken(why) => format!("BROKEN: {}", why.lines().next().unwrap_or_default()),
        };
        let measured = self.sent > 0;
        let number = |text: String| if measured { text } else { String::new() };
        let stall = self.tcp_stall_ms.map_or_else(|| "broken".to_owned(), |stall| stall.to_string());
        let names: Vec<String> = self.named.iter().map(|(code, after)| format!("{code} {after}")).collect();
        [
            self.scenario.clone(),
            rows.join(", "),
            self.backend.clone(),
            number(self.gap_ms.to_string()),
            number(format!("{} of {}", self.lost, self.sent)),
            number(stall),
            number(self.outside_gap_ms.to_string()),
            names.join(", "),
            verdict,
        ]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, rows, backend, gap, lost, stall, outside, named, verdict] = self.cells();
        write!(
            f,
            "{name} ({rows}) {backend}: gap {gap} ms, lost {lost}, TCP {stall} ms, outside {outside} ms, "
        )?;
        if !named.is_empty() {
            write!(f, "named {named} ms, ")?;
        }
        write!(f, "{} lines, {:.1} s, {verdict}", self.log_lines, self.seconds)
    }
}

/// Where the record goes, if one is made.
fn target() -> Option<PathBuf> {
    std::env::var_os("TWILL_RECORD").map(PathBuf::from)
}

/// Puts an outcome into the record: what was measured is there however the run ends. What the record has of other
/// scenarios and backends stays, so that a part can be measured again; several processes may write at once.
pub(crate) fn add(outcome: Outcome) {
    let Some(path) = target() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.with_extension("json"))
        .unwrap();
    file.lock().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let mut outcomes: Vec<Outcome> =
        if text.is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() };
    let same =
        |other: &&mut Outcome| (&other.scenario, &other.backend) == (&outcome.scenario, &outcome.backend);
    match outcomes.iter_mut().find(same) {
        Some(before) => *before = outcome,
        None => outcomes.push(outcome),
    }
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(serde_json::to_string_pretty(&outcomes).unwrap().as_bytes()).unwrap();
    std::fs::write(path, markdown(&outcomes)).unwrap();
    std::fs::write(page::path(), page::html(&outcomes)).unwrap();
}

const HEAD: &str = "\
# What was broken, and what pods felt of it

`make faults` writes this. Three hosts with real agents over a real etcd, as namespaces of one machine; something is done to the first of them
while its pod sends 1,000 packets a second to the next host's pod and back, talks to it over TCP, and asks the outside from a new port every
5 ms. Two other hosts send 1,000 packets a second to each other, and may not lose one, unless it happens to all.

- rows: those of the list of what breaks such fabrics in the field that the scenario stands for
- gap: the longest outage between the pods in milliseconds, from the last packet before it to the first after it
- TCP: the longest time without a word on the connection, which has one every 10 ms; `broken` if it did not live
- outside: the longest time without an answer to a masqueraded question
- named: what `twill doctor` called it while it lasted, and after how many milliseconds; for what is mended before anybody can ask, what the
  agent then counted as repaired
- held: all hosts are exactly as they were before, all agents content, the gap within what is allowed (nothing where the kernel carries
  and the agent or the store is what fails, 200 ms for firewall rules, a second for everything else), and it was named within 5 s

";

fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = HEAD.to_owned();
    let held = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Held).count();
    writeln!(text, "{held} of {} held.\n", outcomes.len()).unwrap();
    text.push_str("| scenario | rows | backend | gap ms | lost | TCP ms | outside ms | named, ms | verdict |\n|---|---|---|---|---|---|---|---|---|\n");
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    let first = |name: &str| outcomes.iter().position(|outcome| outcome.scenario == name);
    sorted.sort_by_key(|outcome| first(&outcome.scenario));
    for outcome in sorted {
        writeln!(text, "| {} |", outcome.cells().map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    text
}
