//! What the probes of one peer mean.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::fault::Code;

/// What the probes of one peer mean. The later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It answers, in every way.
    Ok,
    /// Nothing is known, or not yet: its agent answers no probes.
    #[default]
    Unknown,
    /// It answers through the fabric, and not from host to host.
    UnderlayDown,
    /// Its agent answers nothing that arrives here, and its kernel does: packets to its pods pass.
    AgentDown,
    /// It answers from host to host, and not through the fabric, and one of the two hosts is not as it should be.
    OverlayDown,
    /// It answers from host to host, and not through the fabric, though both hosts are as they should be: something
    /// between them drops what goes to the tunnel's port.
    PortEaten,
    /// What it sends arrives, and what is sent to it does not.
    OneWay,
    /// Nothing comes from it.
    PeerDown,
}

impl Verdict {
    /// Whether packets to the peer's pods pass; `None` where nothing can tell.
    #[must_use]
    pub const fn passes(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Ok | Self::UnderlayDown | Self::AgentDown => Some(true),
            Self::OverlayDown | Self::PortEaten | Self::OneWay | Self::PeerDown => Some(false),
        }
    }

    /// What is complained of; `None` where nothing is.
    #[must_use]
    pub const fn code(self) -> Option<Code> {
        match self {
            Self::Ok | Self::Unknown => None,
            Self::UnderlayDown => Some(Code::UnderlayDown),
            Self::AgentDown => Some(Code::AgentDown),
            Self::OverlayDown => Some(Code::OverlayDown),
            Self::PortEaten => Some(Code::PortEaten),
            Self::OneWay => Some(Code::OneWay),
            Self::PeerDown => Some(Code::PeerUnreachable),
        }
    }
}

/// Whether a way works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Up {
    /// The last requests were answered.
    Yes,
    /// It is too early to say.
    Unknown,
    /// The last requests were not answered.
    No,
}

/// What is known of one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) up: Up,
    /// When the last answer came, and since when requests are not answered.
    pub(super) answered_at: Option<Instant>,
    pub(super) failing: Option<Instant>,
    /// Whether something came from the peer lately.
    pub(super) heard: bool,
    /// Whether the peer says that our last requests came; `None` if it says nothing.
    pub(super) reaches: Option<bool>,
    /// Whether the peer's kernel said lately that nobody listens.
    pub(super) refused: bool,
    /// Whether it answered an ICMP echo lately.
    pub(super) echoes: bool,
}

/// What is known of one peer, in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signs {
    /// Through the fabric; `None` where that is no other way.
    pub(super) overlay: Option<Sign>,
    /// From host to host.
    pub(super) underlay: Sign,
    /// Whether this host's kernel, and the peer's, are as they should be.
    pub(super) settled: [bool; 2],
}

impl Sign {
    /// Whether the peer's kernel answers.
    const fn kernel(&self) -> bool {
        self.refused || self.echoes
    }

    /// Whether this way worked when the other one no longer did: they may have failed together, and one is asked more often.
    fn outlived(&self, other: Self) -> bool {
        other.failing.is_none_or(|since| self.answered_at.is_some_and(|at| at >= since))
    }
}

impl Signs {
    /// What that means, and in words why.
    pub(super) fn judge(&self) -> (Verdict, &'static str) {
        let under = self.underlay;
        let over = self.overlay.unwrap_or(under);
        match (over.up, under.up) {
            (Up::Yes, Up::Yes) => (Verdict::Ok, ""),
            (Up::Unknown, _) | (_, Up::Unknown) => (Verdict::Unknown, "no answer has come yet"),
            (Up::Yes, Up::No) if !over.outlived(under) => (
                Verdict::Unknown,
                "no answer comes from host to host; whether it does through the fabric is not known yet",
            ),
            (Up::No, Up::Yes) if !under.outlived(over) => (
                Verdict::Unknown,
                "no answer comes through the fabric; whether it does from host to host is not known yet",
            ),
            (Up::Yes, Up::No) => (
                Verdict::UnderlayDown,
                "it answers through the fabric, but not from host to host at the probes' port",
            ),
            (Up::No, Up::Yes) => self.eaten(over),
            (Up::No, Up::No) => self.silent(over),
        }
    }

    /// No probe is answered.
    fn silent(&self, over: Sign) -> (Verdict, &'static str) {
        let under = self.underlay;
        match (over.kernel(), over.refused, over.heard || under.heard) {
            (true, true, _) => {
                (Verdict::AgentDown, "its agent does not run, and its kernel answers, through the fabric too")
            }
            (true, false, true) => (
                Verdict::AgentDown,
                "its kernel answers, through the fabric too, and what it sends to the probes' port arrives, but not what this \
                 host does: a firewall there drops it",
            ),
            (true, false, false) => (
                Verdict::AgentDown,
                "its kernel answers, through the fabric too, and its agent does not: it hangs, or a firewall drops what goes \
                 to the probes' port",
            ),
            (false, _, true) => (
                Verdict::OneWay,
                "what it sends arrives here, and what this host sends to it does not arrive",
            ),
            (false, ..) if under.kernel() => (
                Verdict::OverlayDown,
                "its kernel answers from host to host; its agent does not, and nothing passes through the fabric",
            ),
            (false, ..) => {
                (Verdict::PeerDown, "nothing comes from it: it is down or cut off, or what it sends is lost")
            }
        }
    }

    /// The fabric does not carry, the network does.
    fn eaten(&self, over: Sign) -> (Verdict, &'static str) {
        match (over.refused, self.settled, over.reaches, over.heard) {
            (true, ..) => (Verdict::Unknown, "its agent does not listen on its tunnel address yet"),
            (_, [false, _], ..) => {
                (Verdict::OverlayDown, "the tunnel fails, and this host is not as it should be yet")
            }
            (_, [_, false], ..) => {
                (Verdict::OverlayDown, "the tunnel fails, and its host is not as it should be yet")
            }
            _ if over.echoes => (
                Verdict::PortEaten,
                "UDP does not pass through the fabric, and ICMP does: a firewall drops what goes to the probes' port there, or \
                 checksums are not finished",
            ),
            (_, _, Some(true), false) => (
                Verdict::PortEaten,
                "what it sends to the tunnel's port here is lost, though hosts reach each other otherwise",
            ),
            (_, _, Some(false), true) => (
                Verdict::PortEaten,
                "what this host sends to its tunnel's port is lost, though hosts reach each other otherwise",
            ),
            _ => (
                Verdict::PortEaten,
                "what is sent to the tunnel's port is lost, though the hosts reach each other otherwise",
            ),
        }
    }
}

impl fmt::Display for Verdict {
    /// The name that is stable, for scripts, such as `port-eaten`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        f.pad(name.as_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sign(up: Up) -> Sign {
        Sign {
            up,
            answered_at: None,
            failing: None,
            heard: up == Up::Yes,
            reaches: None,
            refused: false,
            echoes: false,
        }
    }

    fn judge(overlay: Option<Sign>, underlay: Sign) -> Verdict {
        Signs { overlay, underlay, settled: [true, true] }.judge().0
    }

    #[test]
    fn each_fault_has_its_name() {
        let (yes, no, open) = (sign(Up::Yes), sign(Up::No), sign(Up::Unknown));
        let heard = Sign { heard: true, ..no };
        let refused = Sign { refused: true, ..no };
        let echoes = Sign { echoes: true, ..no };
        let filtered = Sign { heard: true, ..echoes };
        for (overlay, underlay, verdict) in [
            (Some(yes), yes, Verdict::Ok),
            (None, yes, Verdict::Ok),
            (Some(open), yes, Verdict::Unknown),
            (Some(no), open, Verdict::Unknown),
            (Some(yes), no, Verdict::UnderlayDown),
            (Some(no), yes, Verdict::PortEaten),
            (Some(refused), yes, Verdict::Unknown),
            (Some(no), no, Verdict::PeerDown),
            (None, no, Verdict::PeerDown),
            (Some(heard), no, Verdict::OneWay),
            (None, heard, Verdict::OneWay),
            (Some(refused), refused, Verdict::AgentDown),
            (Some(no), refused, Verdict::OverlayDown),
            (Some(echoes), no, Verdict::AgentDown),
            (Some(filtered), no, Verdict::AgentDown),
            (None, filtered, Verdict::AgentDown),
            (Some(heard), echoes, Verdict::OneWay),
            (Some(no), echoes, Verdict::OverlayDown),
            (Some(echoes), yes, Verdict::PortEaten),
            (None, refused, Verdict::AgentDown),
        ] {
            assert_eq!(judge(overlay, underlay), verdict, "{overlay:?} {underlay:?}");
        }
    }

    #[test]
    fn a_tunnel_of_a_host_that_is_not_as_it_should_be_is_not_eaten() {
        for settled in [[false, true], [true, false], [false, false]] {
            let signs = Signs { overlay: Some(sign(Up::No)), underlay: sign(Up::Yes), settled };
            assert_eq!(signs.judge().0, Verdict::OverlayDown);
        }
    }

    #[test]
    fn a_way_that_was_not_asked_since_the_other_failed_says_nothing() {
        let now = Instant::now();
        let failed = Sign { failing: Some(now), ..sign(Up::No) };
        let answered = |at| Sign { answered_at: Some(at), ..sign(Up::Yes) };
        let (before, after) = (answered(now - Duration::from_millis(1)), answered(now));
        assert_eq!(judge(Some(failed), before), Verdict::Unknown);
        assert_eq!(judge(Some(failed), after), Verdict::PortEaten);
        assert_eq!(judge(Some(before), failed), Verdict::Unknown);
        assert_eq!(judge(Some(after), failed), Verdict::UnderlayDown);
    }

    #[test]
    fn the_direction_that_is_eaten_is_named() {
        let words = |reaches, heard| {
            let overlay = Sign { reaches, heard, ..sign(Up::No) };
            let signs = Signs { overlay: Some(overlay), underlay: sign(Up::Yes), settled: [true, true] };
            signs.judge().1
        };
        assert!(words(Some(true), false).contains("port here"));
        assert!(words(Some(false), true).contains("this host sends"));
        assert!(words(Some(false), false).contains("what is sent"));
    }

    #[test]
    fn names_are_what_programs_read() {
        for (verdict, name) in
            [(Verdict::Ok, "ok"), (Verdict::PortEaten, "port-eaten"), (Verdict::OneWay, "one-way")]
        {
            assert_eq!(verdict.to_string(), name);
            assert_eq!(serde_json::from_value::<Verdict>(name.into()).unwrap(), verdict);
        }
    }
}
