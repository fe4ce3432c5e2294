//! What was measured: one line for each scenario and backend, and the files that keep them.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::examine::Named;
use crate::traffic::Measured;

/// All outcomes of this process.
static OUTCOMES: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it has to.
    Held,
    /// It healed, and took longer than it may.
    Late(String),
    /// It did not heal, or what may not be lost was.
    Broken(String),
}

/// What became of one scenario on one backend.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) rows: &'static [u8],
    pub(crate) backend: &'static str,
    pub(crate) took: Duration,
    /// The longest time without a packet between pods, and without an answer from the outside.
    gap: Duration,
    outside: Duration,
    /// Of the packets between the pods.
    sent: u64,
    lost: u64,
    /// The longest time without a word over TCP; `None` if the connection broke.
    stall: Option<Duration>,
    /// What all agents logged meanwhile.
    lines: usize,
    /// What it was called, while it lasted or once it was mended.
    named: Vec<Named>,
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// One of which nothing is known but how long it took.
    pub(crate) fn new(name: String, rows: &'static [u8], backend: &'static str, took: Duration) -> Self {
        let (gap, outside, stall) = (Duration::ZERO, Duration::ZERO, None);
        let (sent, lost, lines, named, verdict) = (0, 0, 0, Vec::new(), Verdict::Held);
        Self { name, rows, backend, took, gap, outside, sent, lost, stall, lines, named, verdict }
    }

    pub(crate) fn measured(mut self, measured: &Measured, lines: usize) -> Self {
        (self.gap, self.outside) = (measured.main.longest_gap, measured.outside);
        (self.sent, self.lost) = (measured.main.sent, measured.main.lost());
        self.stall = measured.talk.broken.is_none().then_some(measured.talk.longest_stall);
        self.lines = lines;
        self
    }

    pub(crate) fn named(mut self, named: Vec<Named>) -> Self {
        self.named = named;
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

    fn cells(&self) -> [String; 9] {
        let rows: Vec<String> = self.rows.iter().map(u8::to_string).collect();
        let verdict = match &self.verdict {
            Verdict::Held => "held".to_owned(),
            Verdict::Late(why) => format!("LATE: {why}"),
            Verdict::Broken(why) => format!("BROKEN: {}", why.lines().next().unwrap_or_default()),
        };
        let measured = self.sent > 0;
        let number = |text: String| if measured { text } else { String::new() };
        let stall = self.stall.map_or_else(|| "broken".to_owned(), |stall| stall.as_millis().to_string());
        let name = |named: &Named| format!("{} {}", named.code, named.after.as_millis());
        [
            self.name.clone(),
            rows.join(", "),
            self.backend.to_owned(),
            number(self.gap.as_millis().to_string()),
            number(format!("{} of {}", self.lost, self.sent)),
            number(stall),
            number(self.outside.as_millis().to_string()),
            self.named.iter().map(name).collect::<Vec<_>>().join(", "),
            verdict,
        ]
    }

    fn json(&self) -> Value {
        let [.., verdict] = self.cells();
        let name = |named: &Named| json!({ "code": named.code, "after_ms": named.after.as_millis() });
        json!({
            "scenario": self.name, "rows": self.rows, "backend": self.backend, "seconds": self.took.as_secs_f64(),
            "gap_ms": self.gap.as_millis(), "outside_gap_ms": self.outside.as_millis(), "sent": self.sent,
            "lost": self.lost, "tcp_stall_ms": self.stall.map(|stall| stall.as_millis()), "log_lines": self.lines,
            "named": self.named.iter().map(name).collect::<Vec<_>>(), "verdict": verdict,
        })
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
        write!(f, "{} lines, {:.1} s, {verdict}", self.lines, self.took.as_secs_f64())
    }
}

/// Where the record goes, if one is made.
fn target() -> Option<PathBuf> {
    std::env::var_os("TWILL_RECORD").map(PathBuf::from)
}

/// Keeps an outcome, and writes the record anew: what was measured is there however the run ends.
pub(crate) fn add(outcome: Outcome) {
    let mut outcomes = OUTCOMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.push(outcome);
    if let Some(path) = target() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::write(&path, markdown(&outcomes)).unwrap();
        let values: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.json");
        std::fs::write(beside, serde_json::to_string_pretty(&values).unwrap()).unwrap();
    }
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
    let first = |name: &str| outcomes.iter().position(|outcome| outcome.name == name);
    sorted.sort_by_key(|outcome| first(&outcome.name));
    for outcome in sorted {
        writeln!(text, "| {} |", outcome.cells().map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    text
}
