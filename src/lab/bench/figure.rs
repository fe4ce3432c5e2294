//! What is measured, one figure at a time: a number with a name and a unit.

use std::thread;
use std::time::{Duration, Instant};

use super::cpu::Cpu;
use super::fabric::Fabric;
use crate::config::{BenchConfig, Ends, Measure};
use crate::lab::probe::{Load, Passed, Path, round_trips};
use crate::lab::{Cancel, LabError};

/// How often a wait looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);
/// What is let pass before counting begins: congestion windows grow, processors wake up.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long what is left of one measure may trouble the next.
const SETTLE: Duration = Duration::from_millis(100);

/// A number that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

/// Takes one measure of a fabric whose agents run. Also returns the congestion control TCP used.
pub(super) fn take(
    measure: Measure,
    fabric: &Fabric,
    ends: Ends,
    config: &BenchConfig,
    cancel: &Cancel,
) -> Result<(Vec<Figure>, Option<String>), LabError> {
    let Some(path) = fabric.path(ends) else { return Ok((Vec::new(), None)) };
    let taker = Taker { path, fabric, config, cancel };
    pause(SETTLE, cancel)?;
    let name = measure.as_str();
    match measure {
        Measure::Tcp1 => taker.tcp(["tcp-1", "tcp-1-cpu", "tcp-1-agent-cpu"], 1),
        Measure::Tcp8 => taker.tcp(["tcp-8", "tcp-8-cpu", "tcp-8-agent-cpu"], 8),
        Measure::Udp64 => Ok((taker.udp(["udp-64", "udp-64-loss"], 64)?, None)),
        Measure::Udp1400 => Ok((taker.udp(["udp-1400", "udp-1400-loss"], 1400)?, None)),
        Measure::Ping100 => Ok((taker.ping([name, "ping-100ms-p99"], 100)?, None)),
        Measure::Ping5 => Ok((taker.ping([name, "ping-5ms-p99"], 5)?, None)),
        Measure::PingLoaded => taker.loaded([name, "ping-loaded-p99"]),
        Measure::Idle => Ok((taker.idle(name)?, None)),
    }
}

struct Taker<'a> {
    path: Path<'a>,
    fabric: &'a Fabric,
    config: &'a BenchConfig,
    cancel: &'a Cancel,
}

/// What passed in a stretch of time, and what it cost.
struct Window {
    seconds: f64,
    passed: Passed,
    cpu: Cpu,
}

impl Taker<'_> {
    fn tcp(
        &self,
        [rate, cpu, agent]: [&'static str; 3],
        streams: usize,
    ) -> Result<(Vec<Figure>, Option<String>), LabError> {
        let load = Load::tcp(self.path, streams, self.config.congestion.as_deref())?;
        let window = self.window(&load)?;
        let congestion = load.congestion.clone();
        load.stop()?;
        let bytes = count(window.passed.received);
        let per_gigabyte = |spent: Duration| spent.as_secs_f64() / (bytes / 1e9).max(f64::MIN_POSITIVE);
        let mut figures = vec![
            Figure { name: rate, unit: "Gbit/s", value: bytes * 8.0 / 1e9 / window.seconds },
            Figure { name: cpu, unit: "CPU s/GB", value: per_gigabyte(window.cpu.machine) },
        ];
        if !self.fabric.agents.is_empty() {
            let value = per_gigabyte(window.cpu.agents);
            figures.push(Figure { name: agent, unit: "CPU s/GB", value });
        }
        Ok((figures, Some(congestion)))
    }

    fn udp(&self, [rate, loss]: [&'static str; 2], size: usize) -> Result<Vec<Figure>, LabError> {
        let load = Load::udp(self.path, size, self.config.batch)?;
        let window = self.window(&load)?;
        load.stop()?;
        let (sent, received) = (count(window.passed.sent), count(window.passed.received));
        // What was under way at the beginning may make up for losses of a share too small to tell.
        let lost = (1.0 - received / sent.max(1.0)).max(0.0) * 100.0;
        Ok(vec![
            Figure { name: rate, unit: "kpps", value: received / 1e3 / window.seconds },
            Figure { name: loss, unit: "%", value: lost },
        ])
    }

    fn ping(&self, names: [&'static str; 2], millis: u64) -> Result<Vec<Figure>, LabError> {
        let interval = Duration::from_millis(millis);
        let Path { from, target, .. } = self.path;
        let mut trips = round_trips(from, target, interval, self.config.duration, self.cancel)?;
        trips.sort_unstable();
        let at = |hundredths: usize| {
            trips.get((trips.len() * hundredths / 100).min(trips.len().saturating_sub(1)))
        };
        let (Some(median), Some(late)) = (at(50), at(99)) else {
            let (what, limit) = (format!("an echo of {target}"), self.config.duration);
            return Err(LabError::Timeout { what, limit, detail: "no answer at all".into() });
        };
        let micros = |name, trip: &Duration| Figure { name, unit: "µs", value: trip.as_secs_f64() * 1e6 };
        Ok(vec![micros(names[0], median), micros(names[1], late)])
    }

    fn loaded(&self, names: [&'static str; 2]) -> Result<(Vec<Figure>, Option<String>), LabError> {
        let load = Load::tcp(self.path, 1, self.config.congestion.as_deref())?;
        pause(self.warm_up(), self.cancel)?;
        let figures = self.ping(names, 5)?;
        let congestion = load.congestion.clone();
        load.stop()?;
        Ok((figures, Some(congestion)))
    }

    /// The agents' share of a processor without traffic, each.
    fn idle(&self, name: &'static str) -> Result<Vec<Figure>, LabError> {
        if self.fabric.agents.is_empty() {
            return Ok(Vec::new());
        }
        let (before, begin) = (Cpu::read(&self.fabric.agents)?, Instant::now());
        pause(self.config.duration, self.cancel)?;
        let spent = Cpu::read(&self.fabric.agents)?.since(before).agents;
        let share = spent.as_secs_f64() / begin.elapsed().as_secs_f64();
        let each = count(self.fabric.agents.len() as u64);
        Ok(vec![Figure { name, unit: "% of a CPU", value: share * 100.0 / each }])
    }

    fn window(&self, load: &Load) -> Result<Window, LabError> {
        pause(self.warm_up(), self.cancel)?;
        let cpu = Cpu::read(&self.fabric.agents)?;
        let (before, begin) = (load.passed(), Instant::now());
        pause(self.config.duration, self.cancel)?;
        let (after, took) = (load.passed(), begin.elapsed());
        let cpu = Cpu::read(&self.fabric.agents)?.since(cpu);
        let (sent, received) = (after.sent - before.sent, after.received - before.received);
        Ok(Window { seconds: took.as_secs_f64(), passed: Passed { sent, received }, cpu })
    }

    fn warm_up(&self) -> Duration {
        WARM_UP.min(self.config.duration)
    }
}

fn pause(duration: Duration, cancel: &Cancel) -> Result<(), LabError> {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        cancel.check()?;
        thread::sleep(left.min(LOOK));
    }
    cancel.check()
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people, three digits of it")]
fn count(number: u64) -> f64 {
    number as f64
}
