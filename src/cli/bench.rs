//! What was typed after `twill bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::{BenchConfig, Ends, Measure, Subject};

/// What a bench compares, and how.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// How often each measure is taken of each subject, 1 to 100
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) runs: u16,
    /// How long each measure takes, 0.1 to 60 s
    #[arg(long, default_value = "3", value_name = "S", value_parser = duration)]
    pub(super) seconds: Duration,
    /// Only these subjects: bare,by-hand,vxlan,host-gw,userspace,plain,ceiling
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) only: Vec<Subject>,
    /// Only these measures: tcp-1,tcp-8,udp-64,udp-1400,ping-100ms,ping-5ms,ping-loaded,idle
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) measure: Vec<Measure>,
    /// Where traffic begins and ends: hosts, pods or both
    #[arg(long, default_value = "hosts", value_parser = ends)]
    pub(super) endpoints: EndsList,
    /// The congestion control of TCP, for example bbr or cubic; the system's if not given
    #[arg(long, value_name = "NAME")]
    pub(super) congestion: Option<String>,
    /// How many UDP datagrams a system call sends, 1 to 64
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) batch: u16,
    /// How many queues the userspace datapath serves, 1 to 256; as many as help if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) queues: Option<u16>,
    /// IPv6, underlay and overlay, in place of IPv4
    #[arg(long)]
    pub(super) ipv6: bool,
    /// End stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Write report.html, bench.svg and bench.json into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

/// What `--endpoints` means.
pub(super) type EndsList = &'static [Ends];

impl BenchArgs {
    /// What it means.
    pub(super) fn resolve(self) -> BenchConfig {
        BenchConfig {
            subjects: chosen(self.only, Subject::ALL),
            ends: self.endpoints.to_vec(),
            measures: chosen(self.measure, Measure::ALL),
            runs: self.runs,
            duration: self.seconds,
            congestion: self.congestion,
            ipv6: self.ipv6,
            batch: self.batch.into(),
            queues: self.queues,
            json: self.json,
            out: self.out,
        }
    }
}

fn ends(text: &str) -> Result<EndsList, String> {
    match text {
        "hosts" => Ok(&[Ends::Hosts]),
        "pods" => Ok(&[Ends::Pods]),
        "both" => Ok(Ends::ALL),
        _ => Err("give hosts, pods or both".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.1 to 60 (seconds)".to_owned())
}

/// What was asked for, each once and in the order of tables; everything if nothing was.
fn chosen<T: Copy + Ord>(mut asked: Vec<T>, all: &[T]) -> Vec<T> {
    asked.sort_unstable();
    asked.dedup();
    if asked.is_empty() { all.to_vec() } else { asked }
}
