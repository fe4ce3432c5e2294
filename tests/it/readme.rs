//! README.md names every flag with its fate, and the commands of the Makefile. Its table of flags is made from the program's.

use twill::catalogue;
use twill::cli::{FLANNELD_FLAGS, Fate, FlagRow, TWILL_FLAGS};
use twill::telemetry::metrics::{METRICS, Metric};

/// A row of the table: name, default, fate, and what it does or why it does not.
fn line(row: &FlagRow) -> String {
    let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
    let (fate, text) = match row.fate {
        Fate::Works => ("works", row.help),
        Fate::Ignored(why) => ("ignored", why),
        Fate::Refused(advice) => ("refused", advice),
    };
    format!("| `--{}` | {default} | {fate} | {text} |", row.name)
}

#[test]
fn every_flag_stands_in_the_readme_with_its_fate() {
    let readme = include_str!("../../README.md");
    let rows = || FLANNELD_FLAGS.iter().chain(TWILL_FLAGS).map(line);
    let missing: Vec<String> = rows().filter(|row| !readme.lines().any(|line| line == row)).collect();
    assert!(missing.is_empty(), "README.md lacks these lines:\n{}", missing.join("\n"));
    let shown = readme
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .filter(|line| line.matches(" | ").count() == 3);
    let obsolete: Vec<&str> = shown.filter(|line| !rows().any(|row| row == **line)).collect();
    assert!(obsolete.is_empty(), "README.md has lines that no flag stands behind:\n{}", obsolete.join("\n"));
}

#[test]
fn the_readme_names_the_commands() {
    let readme = include_str!("../../README.md");
    let makefile = include_str!("../../Makefile");
    for target in ["demo", "test", "faults"] {
        assert!(readme.contains(&format!("make {target}")), "README.md does not mention `make {target}`");
        assert!(makefile.contains(&format!("\n{target}:")), "the Makefile has no target `{target}`");
    }
}

#[test]
fn every_code_of_trace_and_verify_stands_in_the_readme() {
    let readme = include_str!("../../README.md");
    let theirs = |variant: &str| variant.starts_with("Deviation::") || variant.starts_with("Hitch::");
    let codes = catalogue::all().into_iter().filter(|entry| theirs(entry.variant)).map(|entry| entry.code);
    let (named, missing): (Vec<&str>, Vec<&str>) =
        codes.partition(|code| readme.contains(&format!("`{code}`")));
    assert!(!named.is_empty() && missing.is_empty(), "README.md lacks {missing:?}");
}

#[test]
fn every_metric_stands_in_the_readme() {
    let readme = include_str!("../../README.md");
    let rows: Vec<String> = METRICS
        .iter()
        .map(|Metric { name, kind, labels, help, .. }| {
            format!("| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", "))
        })
        .collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !readme.lines().any(|line| line == **row)).collect();
    assert!(missing.is_empty(), "README.md lacks these lines:\n{missing:#?}");
    let shown =
        readme.lines().filter(|line| line.starts_with("| `twill_") || line.starts_with("| `process_"));
    let obsolete: Vec<&str> = shown.filter(|line| !rows.iter().any(|row| row == line)).collect();
    assert!(obsolete.is_empty(), "README.md has lines that no metric stands behind:\n{obsolete:#?}");
}
