//! `twill explain`: what a code means, what it breaks, what to do.

use std::error::Error;

use twill_backends::code::Entry;

use crate::catalogue;
use crate::cli::{Exit, Stream};
use crate::style::{FAINT, STRONG, Table, paint, severity};

/// The exit code for a code that does not exist.
const UNKNOWN: u8 = 2;

/// Explains a code, or lists all of them.
pub(super) fn run(code: Option<&str>, json: bool) -> Result<Exit, Box<dyn Error + Send + Sync>> {
    let entries = match code {
        None => catalogue::all(),
        Some(code) => match catalogue::find(code) {
            Some(entry) => vec![entry],
            None => return Ok(Exit { text: unknown(code), stream: Stream::Stderr, code: UNKNOWN }),
        },
    };
    let text = match entries.as_slice() {
        _ if json => lines(&entries)?,
        [entry] if code.is_some() => explained(entry),
        _ => listed(&entries),
    };
    Ok(Exit { text, stream: Stream::Stdout, code: 0 })
}

fn lines(entries: &[&Entry]) -> serde_json::Result<String> {
    entries.iter().map(|entry| Ok(serde_json::to_string(entry)? + "\n")).collect()
}

fn explained(entry: &Entry) -> String {
    let head = format!("{}  {}\n\n", paint(STRONG, entry.code), severity(entry.severity));
    let mut table = Table::default();
    for (name, text) in [("means", entry.means), ("breaks", entry.breaks), ("next", entry.next)] {
        table.row([paint(FAINT, name), text.into()]);
    }
    format!("{head}{table}")
}

fn listed(entries: &[&Entry]) -> String {
    let mut table = Table::default();
    for entry in entries {
        table.row([paint(STRONG, entry.code), severity(entry.severity), entry.means.into()]);
    }
    table.to_string()
}

/// As clap says it of a subcommand.
fn unknown(code: &str) -> String {
    let tip = catalogue::nearest(code)
        .map(|entry| format!("  tip: a similar code exists: '{}'\n\n", entry.code))
        .unwrap_or_default();
    format!("error: unrecognized code '{code}'\n\n{tip}For all of them, try 'twill explain'.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: Option<&str>, json: bool) -> (String, u8) {
        let exit = run(code, json).unwrap();
        (anstream::adapter::strip_str(&exit.text).to_string(), exit.code)
    }

    #[test]
    fn a_code_is_explained() {
        let (text, code) = plain(Some("peer-off-link"), false);
        let want = "peer-off-link  broken\n\n\
            means   A peer is not on a network of this host, though host-gw needs that.\n\
            breaks  Pods of that host cannot be reached from here.\n\
            next    use the vxlan backend, or put the hosts on one network\n";
        assert_eq!((text.as_str(), code), (want, 0));
        let (text, _) = plain(Some("peer-off-link"), true);
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&entry["code"], &entry["severity"]), (&"peer-off-link".into(), &"broken".into()));
    }

    #[test]
    fn all_are_listed_with_a_line_each() {
        for json in [false, true] {
            let (text, code) = plain(None, json);
            assert_eq!((text.lines().count(), code), (catalogue::all().len(), 0));
        }
    }

    #[test]
    fn a_code_that_does_not_exist_names_the_nearest() {
        let want = "error: unrecognized code 'deletion-held'\n\n  tip: a similar code exists: 'deletions-held'\n\n\
            For all of them, try 'twill explain'.\n";
        assert_eq!(plain(Some("deletion-held"), false), (want.to_owned(), 2));
        assert!(!plain(Some("xyzzy"), true).0.contains("tip"));
    }
}
