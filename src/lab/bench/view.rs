//! How the bench looks: progress while it works, then one table for each pair of ends.

use std::io::{self, Write};
use std::time::Duration;

use super::report::{Report, Row};
use crate::config::BenchConfig;
use crate::lab::view::{BOLD, DIM, GREEN, View};

impl View {
    pub(super) fn bench_title(&mut self, config: &BenchConfig, time: Duration) -> io::Result<()> {
        let family = if config.ipv6 { "IPv6" } else { "IPv4" };
        let (runs, seconds, minutes) =
            (config.runs, config.duration.as_secs_f64(), time.as_secs_f64() / 60.0);
        let title = format!("Twill bench: {runs} alternating runs, {seconds} s each measure, {family}");
        let title = self.paint(BOLD, &title);
        writeln!(self.out, "{title}, about {minutes:.1} minutes\n")
    }

    pub(super) fn bench_tables(&mut self, report: &Report) -> io::Result<()> {
        for rows in report.rows.chunk_by(|a, b| a.endpoints == b.endpoints) {
            let ends = rows.first().map_or("", |row| row.endpoints);
            let heading = self.paint(BOLD, &format!("Endpoints: {ends}"));
            let head = self.paint(DIM, &line(["", "median", "min", "max", "÷ by-hand"]));
            writeln!(self.out, "\n{heading}\n  {head}")?;
            for rows in rows.chunk_by(|a, b| a.figure == b.figure) {
                self.figure(rows)?;
            }
        }
        let tcp =
            if report.congestion.is_empty() { String::new() } else { format!(", TCP {}", report.congestion) };
        let (runs, cpus, kernel, elapsed) = (report.runs, report.cpus, &report.kernel, report.elapsed_s);
        writeln!(
            self.out,
            "\n{runs} runs on {cpus} processors, kernel {kernel}{tcp}, {elapsed:.0} s in all"
        )?;
        self.out.flush()
    }

    fn figure(&mut self, rows: &[Row]) -> io::Result<()> {
        let (name, unit) = rows.first().map_or(("", ""), |row| (row.figure, row.unit));
        let name = self.paint(GREEN, name);
        writeln!(self.out, "  {name}, {unit}")?;
        for row in rows {
            let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let [median, min, max] = [row.median, row.min, row.max].map(digits);
            let text = line([&format!("  {}", row.subject), &median, &min, &max, &ratio]);
            writeln!(self.out, "  {text}")?;
        }
        Ok(())
    }
}

fn line([subject, numbers @ ..]: [&str; 5]) -> String {
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:>10}")).collect();
    format!("{subject:<13}{}", numbers.concat())
}

/// Three or more digits that matter.
pub(super) fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let texts = [1234.5, 12.34, 1.234, 0.1234, 0.0].map(digits);
        assert_eq!(texts, ["1234", "12.3", "1.23", "0.123", "0.000"]);
    }
}
