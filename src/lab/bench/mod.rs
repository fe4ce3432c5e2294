//! `twill bench`: what each way of carrying packets costs, beside the underlay itself and beside kernel VXLAN that a
//! careful operator set up by hand.
//!
//! # What is fair
//!
//! All subjects stand at the same time, each two hosts of its own, and take turns; while one has its turn the agents of
//! the others are stopped (SIGSTOP), so that they cost nothing. Each run measures every subject once and begins with
//! another one, so that drift of the machine hits all alike; ratios are formed within a run.

mod ceiling;
mod cpu;
mod fabric;
mod figure;
mod page;
mod picture;
mod report;
mod view;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

pub use report::{Report, Row};

use super::LabError;
use super::command::{CommandError, Ready, ready};
use super::report::Machine;
use super::view::View;
use crate::config::BenchConfig;
use fabric::Fabric;
use report::Samples;

/// What a measure takes besides its duration, by experience.
const BESIDES: Duration = Duration::from_millis(650);

/// Runs the bench as a command: on stdout, with this program as the agent, ended by Ctrl-C. Returns the exit status.
/// Must be called while the process has one thread: a user namespace can only be entered then.
#[must_use]
pub fn command(config: &BenchConfig) -> u8 {
    let begin = Instant::now();
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut view = View::new(Box::new(stdout), terminal, begin);
    let machine = Machine::here();
    let mut bench = Bench { config, samples: Samples::default(), runs: 0, congestion: String::new() };
    let result = ready().and_then(|ready| bench.run(&ready, &mut view));
    let mut report = Report::new(config, &bench.samples, &bench.congestion);
    report.machine = machine;
    (report.runs, report.elapsed_s) = (bench.runs, begin.elapsed().as_secs_f64());
    let mut status = 0;
    if let Err(error) = result {
        status = error.report("twill bench", &mut view);
        report.error = Some(error.to_string());
    }
    finish(config, &report, &mut view)
        .map_or_else(|error| error.report("twill bench", &mut view), |()| status)
}

/// Shows what was measured, all of it or what there was time for.
fn finish(config: &BenchConfig, report: &Report, view: &mut View) -> Result<(), CommandError> {
    if !report.rows.is_empty() {
        view.bench_tables(report)?;
    }
    let kept = match &config.out {
        Some(out) if !report.rows.is_empty() => keep(out, report, view),
        Some(_) | None => Ok(()),
    };
    if config.json {
        view.json(report)?;
    }
    kept
}

/// Writes the files.
fn keep(out: &Path, report: &Report, view: &mut View) -> Result<(), CommandError> {
    let json = serde_json::to_string_pretty(report).map_err(io::Error::from)? + "\n";
    for (name, text) in
        [("bench.json", json), ("bench.svg", picture::svg(report)), ("report.html", page::html(report))]
    {
        let file = out.join(name);
        fs::write(&file, text).map_err(LabError::io(|| format!("write {}", file.display())))?;
    }
    view.done("out", &format!("report.html, bench.svg and bench.json in {}", out.display()))?;
    Ok(())
}

struct Bench<'a> {
    config: &'a BenchConfig,
    samples: Samples,
    /// How many are complete.
    runs: usize,
    congestion: String,
}

impl Bench<'_> {
    fn run(&mut self, ready: &Ready, view: &mut View) -> Result<(), CommandError> {
        if let Some(out) = &self.config.out {
            // Before the measuring, which takes minutes.
            fs::create_dir_all(out).map_err(LabError::io(|| format!("create {}", out.display())))?;
        }
        view.bench_title(self.config, estimate(self.config))?;
        let mut fabrics = Vec::new();
        for subject in &self.config.subjects {
            view.begin("build", subject.as_str())?;
            fabrics.push(Fabric::build(*subject, self.config, ready)?);
        }
        view.done("build", &format!("{} subjects, two hosts each", fabrics.len()))?;
        for run in 0..usize::from(self.config.runs) {
            for turn in 0..fabrics.len() {
                let which = (run + turn) % fabrics.len();
                self.turn(&mut fabrics[which], ready, view)?;
            }
            self.runs += 1;
            view.done("run", &format!("{} of {}", self.runs, self.config.runs))?;
        }
        Ok(())
    }

    /// Takes every measure of one subject.
    fn turn(&mut self, fabric: &mut Fabric, ready: &Ready, view: &mut View) -> Result<(), CommandError> {
        fabric.resume()?;
        for ends in &self.config.ends {
            for measure in &self.config.measures {
                let subject = fabric.subject.as_str();
                let (run, runs) = (self.runs + 1, self.config.runs);
                let what = format!("{run} of {runs}: {subject}, {}, {}", ends.as_str(), measure.as_str());
                view.begin("run", &what)?;
                let (figures, congestion) =
                    figure::take(*measure, fabric, *ends, self.config, &ready.cancel)?;
                self.samples.add(*ends, fabric.subject, &figures);
                if let Some(congestion) = congestion {
                    self.congestion = congestion;
                }
            }
        }
        Ok(fabric.pause()?)
    }
}

fn estimate(config: &BenchConfig) -> Duration {
    let measures = config.subjects.len() * config.ends.len() * config.measures.len();
    (config.duration + BESIDES) * u32::from(config.runs) * u32::try_from(measures).unwrap_or(u32::MAX)
}
