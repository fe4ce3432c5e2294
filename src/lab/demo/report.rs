//! The demo's result in numbers: the JSON line.

use std::time::Duration;

use serde::Serialize;

use super::check::Matrix;
use crate::config::DemoConfig;

/// What a demo came to. Serialized, it is the last line of `twill demo --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Hosts.
    pub nodes: u16,
    /// `file` or `etcd`.
    pub store: &'static str,
    /// `vxlan` or `host-gw`.
    pub backend: &'static str,
    /// Ordered pairs of pods.
    pub pairs: usize,
    /// Pairs that answer, in every family asked for.
    pub reachable: usize,
    /// One TCP stream from the first pod to the second, in Gbit/s; 0 if it could not be measured.
    pub throughput_gbps: f64,
    /// From the command's start to its result, in seconds.
    pub elapsed_s: f64,
    /// Why there is no result; absent if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    pub(super) fn new(config: &DemoConfig, matrix: &Matrix, gbps: f64, elapsed: Duration) -> Self {
        Self {
            pairs: matrix.pairs(),
            reachable: matrix.reachable(),
            throughput_gbps: rounded(gbps),
            ..Self::empty(config, elapsed)
        }
    }

    pub(super) fn failed(config: &DemoConfig, error: &str, elapsed: Duration) -> Self {
        Self { error: Some(error.to_owned()), ..Self::empty(config, elapsed) }
    }

    fn empty(config: &DemoConfig, elapsed: Duration) -> Self {
        let hosts = usize::from(config.hosts);
        Self {
            nodes: config.hosts,
            store: config.store.as_str(),
            backend: config.backend.as_str(),
            pairs: hosts * hosts.saturating_sub(1),
            reachable: 0,
            throughput_gbps: 0.0,
            elapsed_s: rounded(elapsed.as_secs_f64()),
            error: None,
        }
    }

    /// Whether the demo shows a working fabric: every pair reachable, and TCP moved.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error.is_none() && self.reachable == self.pairs && self.throughput_gbps > 0.0
    }
}

/// Three digits behind the point are what such a measurement is good for.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::CONFIG;
    use super::*;

    #[test]
    fn the_json_line_has_exactly_the_promised_keys() {
        let report = Report {
            reachable: 6,
            throughput_gbps: 9.5,
            ..Report::empty(&CONFIG, Duration::from_millis(1234))
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"nodes":3,"store":"file","backend":"host-gw","pairs":6,"reachable":6,"throughput_gbps":9.5,"elapsed_s":1.234}"#
        );
        assert!(report.passed());
    }

    #[test]
    fn a_lost_pair_or_an_error_fails() {
        let good = Report { reachable: 6, throughput_gbps: 1.0, ..Report::empty(&CONFIG, Duration::ZERO) };
        assert!(!Report { reachable: 5, ..good.clone() }.passed());
        assert!(!Report { throughput_gbps: 0.0, ..good }.passed());
        let failed = Report::failed(&CONFIG, "etcd is not installed", Duration::ZERO);
        assert!(!failed.passed());
        assert!(serde_json::to_string(&failed).unwrap().contains("etcd is not installed"));
    }
}
