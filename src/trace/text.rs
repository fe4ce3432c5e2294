//! A trace as people read it: the answer first, then every hop.

use std::fmt;

use super::{Answer, Hop, Trace, Verdict};
use crate::style::{BAD, Cell, FAINT, GOOD, STRONG, Table, WARNING, paint};

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        let mut table = Table::default();
        for (at, hop) in (1..).zip(&self.hops) {
            table.row(row(at, hop));
        }
        write!(f, "\n{table}")?;
        if self.hops.iter().any(|hop| hop.verdict == Verdict::Told) {
            let told = "told: not seen; known from a lease alone, or not at all. twill trace on that host sees more.";
            writeln!(f, "\n{}", paint(FAINT, told))?;
        }
        Ok(())
    }
}

impl Trace {
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.hops.len();
        match self.answer() {
            Answer::Through => {
                let size =
                    self.mtu().map(|mtu| format!(", packets of up to {mtu} bytes")).unwrap_or_default();
                writeln!(
                    f,
                    "{}: {} to {}, {count} hops{size}",
                    paint(GOOD, "goes through"),
                    self.src,
                    self.dst
                )
            }
            Answer::But(at, hop, why) => writeln!(
                f,
                "{}, but hop {at} ({}, {}) is not as wanted: {why}",
                paint(WARNING, "goes through"),
                hop.host,
                hop.what
            ),
            Answer::Stops(at, hop, why) => writeln!(
                f,
                "{} ({}, {}): {why}",
                paint(BAD, format!("stops at hop {at}")),
                hop.host,
                hop.what
            ),
        }
    }
}

fn row(at: usize, hop: &Hop) -> [Cell; 6] {
    let verdict = match &hop.verdict {
        Verdict::Passes => paint(GOOD, "ok"),
        Verdict::Told => paint(FAINT, "told"),
        Verdict::Differs(_) => paint(WARNING, "differs"),
        Verdict::Stops(_) => paint(BAD, "stops"),
    };
    let entry = match (&hop.wanted, &hop.found) {
        (Some(wanted), Some(found)) if wanted != found => match hop.verdict {
            Verdict::Passes | Verdict::Told => format!("{wanted}: {found}"),
            Verdict::Differs(_) | Verdict::Stops(_) => format!("found {found}; wanted {wanted}"),
        },
        (_, Some(text)) | (Some(text), None) => text.clone(),
        (None, None) => String::new(),
    };
    let mtu = hop.mtu.map(|mtu| format!("mtu {mtu}")).unwrap_or_default();
    [
        format!("{at:>3}").into(),
        verdict,
        paint(STRONG, &*hop.host),
        hop.what.as_str().into(),
        mtu.into(),
        entry.into(),
    ]
}
