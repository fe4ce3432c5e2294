//! The result in numbers: every single value, medians, and ratios within a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figure::Figure;
use crate::config::{BenchConfig, Ends, Subject};
use crate::lab::report::Machine;

/// What all are divided by.
const BASE: Subject = Subject::ByHand;

/// What a bench came to. Serialized, it is the last line of `twill bench --json`, and `bench.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// The version of this program.
    pub twill: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// How many processors did everything.
    pub cpus: usize,
    /// The machine, before anything was measured.
    pub machine: Machine,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The congestion control TCP used; empty if TCP was not measured.
    pub congestion: String,
    /// How long each measure took, in seconds.
    pub seconds: f64,
    /// How many datagrams a system call sent.
    pub batch: usize,
    /// How many runs are complete.
    pub runs: usize,
    /// One for each figure, endpoints and subject.
    pub rows: Vec<Row>,
    /// From the command's start to its result, in seconds.
    pub elapsed_s: f64,
    /// Why there is no more; absent if it went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One figure of one subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `hosts` or `pods`.
    pub endpoints: &'static str,
    /// What was measured.
    pub figure: &'static str,
    /// In what.
    pub unit: &'static str,
    /// What carried the packets.
    pub subject: &'static str,
    /// The median of the values.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The median of the ratios; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The value of each run.
    pub values: Vec<f64>,
    /// Each value divided by that of kernel VXLAN by hand in the same run, where that is not zero.
    pub ratios: Vec<f64>,
}

/// What has been measured so far.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// In the order of tables: endpoints, then figures as they came, then subjects.
    values: BTreeMap<(Ends, usize, Subject), Vec<f64>>,
    figures: Vec<(&'static str, &'static str)>,
}

impl Samples {
    pub(super) fn add(&mut self, ends: Ends, subject: Subject, figures: &[Figure]) {
        for figure in figures {
            let kind = (figure.name, figure.unit);
            let known = self.figures.iter().position(|known| *known == kind);
            let index = known.unwrap_or(self.figures.len());
            if known.is_none() {
                self.figures.push(kind);
            }
            self.values.entry((ends, index, subject)).or_default().push(figure.value);
        }
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.values.iter().filter_map(|(key, values)| self.row(*key, values)).collect()
    }

    fn row(&self, (ends, index, subject): (Ends, usize, Subject), values: &[f64]) -> Option<Row> {
        let (figure, unit) = *self.figures.get(index)?;
        let base = self.values.get(&(ends, index, BASE)).map_or(&[][..], Vec::as_slice);
        let pairs = values.iter().zip(base).filter(|(_value, base)| **base > 0.0);
        let ratios: Vec<f64> = pairs.map(|(value, base)| value / base).collect();
        Some(Row {
            endpoints: ends.as_str(),
            figure,
            unit,
            subject: subject.as_str(),
            median: median(values)?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ratio: median(&ratios),
            values: values.to_vec(),
            ratios,
        })
    }
}

impl Row {
    /// Whether it is a cost.
    pub(super) fn less_is_better(&self) -> bool {
        !["Gbit/s", "kpps"].contains(&self.unit)
    }
}

impl Report {
    pub(super) fn new(config: &BenchConfig, samples: &Samples, congestion: &str) -> Self {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Self {
            twill: env!("CARGO_PKG_VERSION"),
            kernel: release.unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            family: if config.ipv6 { "ipv6" } else { "ipv4" },
            congestion: congestion.to_owned(),
            seconds: config.duration.as_secs_f64(),
            batch: config.batch,
            rows: samples.rows(),
            ..Self::default()
        }
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(middle.wrapping_sub(1)).map(|lower| f64::midpoint(*lower, upper))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn figure(value: f64) -> [Figure; 1] {
        [Figure { name: "tcp-1", unit: "Gbit/s", value }]
    }

    /// Three runs of two subjects.
    pub(in crate::lab::bench) fn samples() -> Samples {
        let mut samples = Samples::default();
        for (base, other) in [(10.0, 5.0), (8.0, 6.0), (20.0, 18.0)] {
            samples.add(Ends::Hosts, Subject::Userspace, &figure(other));
            samples.add(Ends::Hosts, Subject::ByHand, &figure(base));
        }
        samples
    }

    #[test]
    fn a_ratio_is_that_of_one_run() {
        let rows = samples().rows();
        let [base, other] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((base.subject, base.median, base.ratio), ("by-hand", 10.0, Some(1.0)));
        assert_eq!(other.ratios, [0.5, 0.75, 0.9]);
        assert_eq!((other.median, other.min, other.max, other.ratio), (6.0, 5.0, 18.0, Some(0.75)));
    }

    #[test]
    fn nothing_is_divided_by_zero_or_by_nothing() {
        let mut samples = Samples::default();
        samples.add(Ends::Pods, Subject::Plain, &figure(3.0));
        assert_eq!(samples.rows()[0].ratio, None);
        samples.add(Ends::Pods, Subject::ByHand, &figure(0.0));
        assert!(samples.rows().iter().all(|row| row.ratio.is_none()));
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }
}
