//! `/metrics`: what the agent says of itself, and what this host counts, for Prometheus.
//!
//! # Why rendered from the status
//! Whatever is counted is counted where it happens and shown in the status. A registry beside that would say the same
//! twice; rendered at each scrape, the two cannot differ, and between scrapes nothing is spent.

mod figures;
mod probes;
mod sample;
mod table;
mod traffic;

use std::fmt::Write;

pub use self::figures::Figures;
pub use self::table::METRICS;
use crate::agent::status::Status;

/// The content type of what [`render`] makes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, until the agent starts again.
    Counter,
    /// How many fell below each of some bounds.
    Histogram,
}

/// A metric: all there is to know of it.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    read: fn(&Scrape) -> Vec<Sample>,
}

/// What a scrape is made of.
#[derive(Debug)]
pub struct Scrape {
    /// What the agent says of itself.
    pub status: Status,
    /// How long ago its loop last went on to something else, in seconds.
    pub turned_s: f64,
    /// What the host counts.
    pub figures: Figures,
    /// The places of the peers of whose probes is told one by one.
    worst: Vec<usize>,
    /// Those of the peers of whose traffic is told, and of whose losses.
    busiest: Vec<usize>,
    losing: Vec<usize>,
}

impl Scrape {
    /// Of these.
    #[must_use]
    pub fn new(status: Status, turned_s: f64, figures: Figures) -> Self {
        Self {
            worst: probes::worst(&status.peers),
            busiest: traffic::busiest(&status.peers),
            losing: traffic::losing(&status.peers),
            status,
            turned_s,
            figures,
        }
    }
}

/// A value, and what tells it from others of its metric.
#[derive(Debug)]
struct Sample {
    /// What follows the name: nothing, or `_bucket` and the like.
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Kind {
    /// As Prometheus spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// All metrics, in Prometheus' text format.
#[must_use]
pub fn render(scrape: &Scrape) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let samples = (metric.read)(scrape);
        if samples.is_empty() {
            continue;
        }
        let Metric { name, kind, help, .. } = metric;
        // Writing to a string does not fail.
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str()).unwrap_or_default();
        for sample in samples {
            let labels: Vec<String> =
                sample.labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            writeln!(text, "{name}{}{labels} {}", sample.suffix, sample.value).unwrap_or_default();
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests;
