//! A scenario: what is done, and what may be lost over it; and how all of a family are run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::examine::Named;
use crate::record::{self, Outcome, Verdict};
use crate::traffic::{Measured, Traffic};
use crate::world::World;

/// The most lines that all agents together may log about one thing that does not last.
const LINES: usize = 150;
/// How long it may take from a fault to its name.
const NAMED: Duration = Duration::from_secs(5);

/// How much pods may feel of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Allowed {
    /// Not a packet is lost.
    Nothing,
    /// Not a packet between pods; the outside may be what cannot be reached.
    Inside,
    /// Packets are lost for at most this long.
    Gap(Duration),
    /// The fault is that packets cannot pass; what counts is what comes after.
    WhileItLasts,
}

/// What the table of issue 5 allows any single deletion or alteration, and one of firewall rules.
pub(crate) const SECOND: Allowed = Allowed::Gap(Duration::from_secs(1));
pub(crate) const FIREWALL: Allowed = Allowed::Gap(Duration::from_millis(200));

/// One thing that goes wrong.
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The rows of field-problems that it stands for.
    pub(crate) rows: &'static [u8],
    pub(crate) allowed: Allowed,
    /// Whether hosts that have no part in it may lose packets, too.
    pub(crate) everybody: bool,
    /// The most lines that all agents together may log about it, beside ten for each second.
    pub(crate) lines: usize,
    /// Does it, and waits for what has to hold. Whatever it changed for good it takes back: all hosts are to be as they
    /// were before.
    pub(crate) run: Box<dyn FnOnce(&mut World)>,
}

impl Scenario {
    pub(crate) fn new(
        name: impl Into<String>,
        rows: &'static [u8],
        allowed: Allowed,
        run: impl FnOnce(&mut World) + 'static,
    ) -> Self {
        Self { name: name.into(), rows, allowed, everybody: false, lines: LINES, run: Box::new(run) }
    }

    /// One that lasts until it is mended; meanwhile the doctor on the first host has to call it by its name.
    pub(crate) fn lasting(
        (name, rows, allowed): (impl Into<String>, &'static [u8], Allowed),
        code: &'static str,
        does: impl FnOnce(&mut World) + 'static,
        undoes: impl FnOnce(&mut World) + 'static,
    ) -> Self {
        Self::new(name, rows, allowed, move |world| {
            let since = Instant::now();
            does(world);
            world.name(0, code, since);
            undoes(world);
        })
    }

    /// It happens to all hosts.
    pub(crate) fn everybody(mut self) -> Self {
        self.everybody = true;
        self
    }

    /// It is many things that agents each have something to say of.
    pub(crate) fn saying(mut self, lines: usize) -> Self {
        self.lines += lines;
        self
    }

    /// Runs it under traffic.
    fn play(self, world: &mut World) -> Outcome {
        let (name, rows, backend) = (self.name, self.rows, world.backend.name());
        let (allowed, everybody, most, run) = (self.allowed, self.everybody, self.lines, self.run);
        let begin = Instant::now();
        world.named.clear();
        let played = catch_unwind(AssertUnwindSafe(|| {
            let before = world.state();
            let logged = world.logged();
            let traffic = Traffic::start(world);
            run(world);
            world.wait_as(&before);
            // A connection that was silent for long takes as long to try again.
            traffic.wait_flowing(allowed != Allowed::WhileItLasts);
            (traffic.stop(), world.logged() - logged)
        }));
        let took = begin.elapsed();
        let outcome = Outcome::new(name, rows, backend, took).allowed(allowed);
        match played {
            Err(panic) => outcome.judged(Verdict::Broken(said(&*panic))),
            Ok((measured, lines)) => {
                let named = std::mem::take(&mut world.named);
                let verdict = match verdict(&measured, allowed, everybody, took) {
                    Verdict::Held => manner((lines, most), took, &named),
                    worse @ (Verdict::Late(_) | Verdict::Broken(_)) => worse,
                };
                outcome.measured(&measured, lines).named(named).judged(verdict)
            }
        }
    }
}

fn verdict(measured: &Measured, allowed: Allowed, everybody: bool, took: Duration) -> Verdict {
    let (lost, others) = (measured.main.lost(), measured.others.lost());
    let gap = measured.main.longest_gap.max(measured.outside);
    if let Some(reason) = &measured.talk.broken
        && allowed != Allowed::WhileItLasts
    {
        return Verdict::Broken(format!("the TCP connection broke: {reason}"));
    }
    if others > 0 && !everybody {
        return Verdict::Broken(format!("{others} packets between other hosts were lost"));
    }
    match allowed {
        Allowed::Nothing | Allowed::Inside if lost > 0 => {
            Verdict::Broken(format!("{lost} packets were lost"))
        }
        Allowed::Nothing if !measured.outside.is_zero() => {
            Verdict::Broken(format!("for {} ms the outside did not answer", measured.outside.as_millis()))
        }
        Allowed::Gap(limit) if gap > limit => Verdict::Late(format!("allowed are {} ms", limit.as_millis())),
        Allowed::WhileItLasts if gap >= took => Verdict::Broken("nothing passed afterwards".into()),
        Allowed::Nothing | Allowed::Inside | Allowed::Gap(_) | Allowed::WhileItLasts => Verdict::Held,
    }
}

/// Whether it was told as it should be: in few lines, and soon.
fn manner((lines, most): (usize, usize), took: Duration, named: &[Named]) -> Verdict {
    if lines > most + took.as_secs() as usize * 10 {
        return Verdict::Late(format!("{lines} lines logged"));
    }
    match named.iter().find(|named| named.after > NAMED) {
        Some(late) => Verdict::Late(format!("{} took {} ms", late.code, late.after.as_millis())),
        None => Verdict::Held,
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Runs scenarios one after the other on a world that `build` makes; one that broke gets the next a new world. Fails
/// at the end with all that went wrong.
pub(crate) fn play(build: impl Fn() -> Result<World, String>, scenarios: impl Fn(&World) -> Vec<Scenario>) {
    let mut world = match build() {
        Ok(world) => world,
        Err(reason) => return println!("SKIP: {reason}"),
    };
    let (mut failed, mut left) = (Vec::new(), scenarios(&world).into_iter());
    while let Some(scenario) = left.next() {
        let outcome = scenario.play(&mut world);
        println!("FAULT {outcome}");
        if let Some(why) = outcome.failure() {
            failed.push(format!("{} on {}: {why}", outcome.scenario, outcome.backend));
        }
        if matches!(outcome.verdict, Verdict::Broken(_)) {
            // The names and addresses of the next world are others.
            let rest = left.len();
            world = build().unwrap();
            let mut all = scenarios(&world);
            left = all.split_off(all.len() - rest).into_iter();
        }
        record::add(outcome);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
