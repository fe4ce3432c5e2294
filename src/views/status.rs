//! A status in colours. Its words are those of the status itself.

use std::fmt::Write;

use anstyle::Style;

use crate::agent::status::{State, Status};
use crate::style::{BAD, GOOD, STRONG, WARNING, paint};

/// How many peers are listed; of more, only those that need attention.
const LISTED: usize = 20;
/// How wide the first column is.
const LABEL: usize = 10;

/// What `twill status` shows.
#[must_use]
pub fn text(status: &Status) -> String {
    let all = status.peers.len();
    let mut shown = status.clone();
    if all > LISTED {
        shown.peers.retain(|peer| peer.held);
        shown.peers.truncate(LISTED);
    }
    let mut text = String::new();
    for line in shown.to_string().lines() {
        let (label, rest) = line.split_at_checked(LABEL).unwrap_or((line, ""));
        let style = style(label.trim_end(), status);
        // Writing to a string does not fail.
        match label.trim_end() {
            "peers" if shown.peers.len() < all => {
                let held = shown.peers.len();
                writeln!(text, "{label}{all}; the {held} that are held follow, twill peers shows all").ok()
            }
            // Lines that go on, or stand below others.
            "" if rest.starts_with("next:") => writeln!(text, "{label}{}", paint(STRONG, rest)).ok(),
            "" => writeln!(text, "{line}").ok(),
            _ if label.starts_with(' ') => writeln!(text, "{line}").ok(),
            "state" => {
                let (word, more) = rest.split_once(',').unwrap_or((rest, ""));
                writeln!(text, "{label}{},{more}", paint(style, word)).ok()
            }
            _ => writeln!(text, "{}{}", paint(STRONG, label), paint(style, rest)).ok(),
        };
    }
    text
}

fn style(label: &str, status: &Status) -> Style {
    let good = |good: bool| if good { Style::new() } else { WARNING };
    match label {
        "state" => match status.state {
            State::Ok => GOOD,
            State::Degraded => WARNING,
            State::Failed => BAD,
        },
        "store" => good(status.store.connected),
        "kernel" => good(status.reconcile.converged),
        "lease" => good(status.lease.as_ref().is_some_and(|lease| lease.standing == "held")),
        "fault" => BAD,
        _ => Style::new(),
    }
}
