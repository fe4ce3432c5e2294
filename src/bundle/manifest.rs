//! What is in a bundle, in words: its first file, and what the command prints.

use std::fmt::Write;

use super::redact::{MARK, Removed};
use super::{About, Part};
use crate::style::Table;

/// The name of its file.
pub const NAME: &str = "MANIFEST.txt";

/// The text of the file.
#[must_use]
pub fn manifest(about: &About, parts: &[Part], removed: &Removed) -> String {
    let mut text = format!(
        "twill bundle of {}, made {} by twill {}\n\n{}\n\n",
        about.host,
        about.made.strftime("%Y-%m-%d %H:%M:%S UTC"),
        about.version,
        hidden(removed)
    );
    text.push_str(&listed(parts));
    let missing: Vec<&Part> = parts.iter().filter(|part| part.content.is_err()).collect();
    if !missing.is_empty() {
        text.push_str("\nnot there, and why:\n");
        let mut table = Table::default();
        for part in missing {
            let why = part.content.as_ref().err().map(|why| one_line(why)).unwrap_or_default();
            table.row([part.name.as_str().into(), why.into()]);
        }
        write!(text, "{table}").ok();
    }
    text
}

/// Each part with its size in bytes and where it is from.
#[must_use]
pub fn listed(parts: &[Part]) -> String {
    let mut table = Table::default();
    for part in parts {
        let size = part.content.as_ref().map_or_else(|_| "-".to_owned(), |bytes| bytes.len().to_string());
        table.row([part.name.as_str().into(), size.into(), one_line(&part.source).into()]);
    }
    table.to_string()
}

/// What was removed, in a sentence.
#[must_use]
pub fn hidden(removed: &Removed) -> String {
    let counts: Vec<String> = removed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let counts = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    format!("removed as secret, with {MARK} in its place: {counts}")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_there_and_what_is_not() {
        let made = jiff::Timestamp::from_second(1_764_000_000).unwrap();
        let about = About { host: "n1".to_owned(), made, version: "0.1.0" };
        let parts = [
            Part::new("agent/status.json", "GET /v1/status", Ok::<_, &str>("{}")),
            Part::new("kernel/links.txt", "ip -d link", Err::<&str, _>("`ip` is not\ninstalled")),
        ];
        let removed = Removed::from([("keys of probes", 3), ("tokens", 1)]);
        let want = "\
twill bundle of n1, made 2025-11-24 16:00:00 UTC by twill 0.1.0

removed as secret, with *** in its place: 3 keys of probes, 1 tokens

agent/status.json  2  GET /v1/status
kernel/links.txt   -  ip -d link

not there, and why:
kernel/links.txt  `ip` is not installed
";
        assert_eq!(manifest(&about, &parts, &removed), want);
        assert!(
            manifest(&about, &parts[..1], &Removed::new())
                .ends_with(": nothing\n\nagent/status.json  2  GET /v1/status\n")
        );
    }
}
