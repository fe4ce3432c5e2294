//! One hop, and what a chain of them amounts to.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use twill_backends::code::Entry;
use twill_backends::lease::LeaseKey;

use super::{Probe, Trace};

/// One thing on a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The key of the host's lease; `here` for this host.
    pub host: String,
    /// The entry, device or rule.
    pub what: String,
    /// What it must be.
    pub wanted: Option<String>,
    /// What it is; of another host nothing can be found.
    pub found: Option<String>,
    /// The largest packet in bytes, less the tunnel's overhead.
    pub mtu: Option<u32>,
    /// What was measured, where that is what the hop says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What becomes of the packet.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What becomes of a packet at a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Passes,
    /// It should pass: what is known of it was told, not seen.
    Told,
    /// It passes, though not everything is as wanted.
    Differs(Cause),
    /// It does not pass.
    Stops(Cause),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What kind: stable, for scripts, and explained by `twill explain`.
    pub code: Cow<'static, str>,
    /// The cause.
    pub cause: String,
    /// What to do about it.
    pub next: String,
}

/// What all hops amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'t> {
    /// Packets go through.
    Through,
    /// They do, though something is not as wanted at this hop, counted from 1.
    But(usize, &'t Hop, &'t Cause),
    /// They do not get past this hop.
    Stops(usize, &'t Hop, &'t Cause),
}

impl Hop {
    /// A hop on this host.
    pub(super) fn here(what: impl Into<String>) -> Self {
        let (host, what) = ("here".to_owned(), what.into());
        Self { host, what, wanted: None, found: None, mtu: None, probe: None, verdict: Verdict::Passes }
    }

    /// A hop on another host.
    pub(super) fn at(lease: &LeaseKey, what: impl Into<String>) -> Self {
        Self { host: lease.to_string(), verdict: Verdict::Told, ..Self::here(what) }
    }

    pub(super) fn wants(self, wanted: impl Into<String>) -> Self {
        Self { wanted: Some(wanted.into()), ..self }
    }

    pub(super) fn finds(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    pub(super) fn carries(self, mtu: Option<u32>) -> Self {
        Self { mtu, ..self }
    }

    pub(super) fn measured(self, probe: Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    pub(super) fn told(self, wanted: impl Into<String>) -> Self {
        Self { verdict: Verdict::Told, ..self.wants(wanted) }
    }

    /// It is as found, and was seen, by whoever it is.
    pub(super) fn passes(self, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Passes, ..self.finds(found) }
    }

    pub(super) fn differs(self, code: Entry, cause: impl Into<String>, next: impl Into<String>) -> Self {
        self.because(Cause::new(code, cause, next))
    }

    pub(super) fn because(self, cause: Cause) -> Self {
        Self { verdict: Verdict::Differs(cause), ..self }
    }

    pub(super) fn stops(self, code: Entry, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Stops(Cause::new(code, cause, next)), ..self }
    }
}

impl Cause {
    /// One of this kind.
    pub fn new(code: Entry, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code: code.code.into(), cause: cause.into(), next: next.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; next: {}", self.code, self.cause, self.next)
    }
}

impl Trace {
    /// What becomes of packets.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        let hops = || (1..).zip(&self.hops);
        let stops = hops().find_map(|(at, hop)| match &hop.verdict {
            Verdict::Stops(cause) => Some(Answer::Stops(at, hop, cause)),
            Verdict::Passes | Verdict::Told | Verdict::Differs(_) => None,
        });
        let but = || {
            hops().find_map(|(at, hop)| match &hop.verdict {
                Verdict::Differs(cause) => Some(Answer::But(at, hop, cause)),
                Verdict::Passes | Verdict::Told | Verdict::Stops(_) => None,
            })
        };
        stops.or_else(but).unwrap_or(Answer::Through)
    }

    /// The largest packet in bytes that gets through.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.hops.iter().filter_map(|hop| hop.mtu).min()
    }
}

impl<'t> Answer<'t> {
    /// Why not, or not quite.
    #[must_use]
    pub const fn cause(&self) -> Option<&'t Cause> {
        match self {
            Self::Through => None,
            Self::But(_, _, cause) | Self::Stops(_, _, cause) => Some(cause),
        }
    }

    /// The exit code that says it.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Through => 0,
            Self::But(..) => 1,
            Self::Stops(..) => 2,
        }
    }
}
