//! How a command that builds a lab looks: one line per step while it works. Escape codes only on a terminal.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use serde::Serialize;

pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Where a command writes, and how.
pub(super) struct View {
    pub(super) out: Box<dyn Write>,
    terminal: bool,
    begin: Instant,
    /// Whether an unfinished line is on the terminal.
    unfinished: bool,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl View {
    /// Writes to `out`; times count from `begin`.
    pub(super) fn new(out: Box<dyn Write>, terminal: bool, begin: Instant) -> Self {
        Self { out, terminal, begin, unfinished: false }
    }

    /// Says what is being done; on a terminal only, where the line can be replaced.
    pub(super) fn begin(&mut self, step: &str, what: &str) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let elapsed = self.elapsed();
        self.unfinished = true;
        write!(self.out, "{CLEAR_LINE}{DIM}{elapsed}  {step:<7} {what} …{PLAIN}")?;
        self.out.flush()
    }

    /// Says what was done.
    pub(super) fn done(&mut self, step: &str, what: &str) -> io::Result<()> {
        let elapsed = self.elapsed();
        let step = self.paint(GREEN, &format!("{step:<7}"));
        let clear = if self.terminal { CLEAR_LINE } else { "" };
        self.unfinished = false;
        writeln!(self.out, "{clear}{elapsed}  {step} {what}")?;
        self.out.flush()
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_string(value)?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Ends an unfinished line, so that a message on stderr begins a line of its own.
    pub(super) fn broken_off(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            drop(writeln!(self.out));
        }
        drop(self.out.flush());
    }

    pub(super) fn elapsed(&self) -> String {
        format!("{:>7.1} s", self.begin.elapsed().as_secs_f64())
    }

    pub(super) fn paint(&self, colour: &str, text: &str) -> String {
        if self.terminal { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}
