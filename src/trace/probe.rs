//! What the agents at both ends say: of themselves, and of what they measured of each other.

use serde::Serialize;
use twill_backends::family::Family;
use twill_backends::fault::Code;
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::probe::Verdict;

use super::place::Side;
use super::{Asked, Cause, Hop, Walk};
use crate::doctor::sign::Sign;
use crate::style::duration;
use crate::verify::Deviation;

/// What an agent measured of a peer in one address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in words; empty if all is well.
    pub cause: String,
    /// How long it has come to that, in seconds.
    pub since_s: Option<u64>,
    /// The median round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// The age of the last answer, in milliseconds.
    pub answer_age_ms: Option<u64>,
    /// The largest packet in bytes that arrives, where that was measured.
    pub mtu: Option<u32>,
    /// What it would be if only the devices counted.
    pub mtu_wanted: u32,
}

impl Probe {
    /// Nothing was measured, and why.
    #[must_use]
    pub fn unknown(cause: impl Into<String>) -> Self {
        let (verdict, cause) = (Verdict::Unknown, cause.into());
        Self { verdict, cause, since_s: None, rtt_us: None, answer_age_ms: None, mtu: None, mtu_wanted: 0 }
    }

    /// In one line: `ok for 12m3s, 0.31 ms, answered 0.4 s ago`.
    fn words(&self) -> String {
        let since = self.since_s.map(|since| format!(" for {}", duration(since)));
        let rtt = self.rtt_us.map(|us| format!(", {:.2} ms", us as f64 / 1e3));
        let age = self.answer_age_ms.map(|ms| format!(", answered {:.1} s ago", ms as f64 / 1e3));
        let more: String = [since, rtt, age].into_iter().flatten().collect();
        format!("{}{more}", self.verdict)
    }

    /// What is amiss. Between two hosts' own addresses it is no matter what the tunnel does.
    fn amiss(&self, side: Side) -> Option<Code> {
        match (side, self.verdict) {
            (Side::Host, Verdict::PortEaten | Verdict::OverlayDown) => None,
            (Side::Pod, _) if self.verdict.passes() == Some(true) && self.is_narrow() => {
                self.verdict.code().or(Some(Code::PathMtu))
            }
            (Side::Host | Side::Pod, verdict) => verdict.code(),
        }
    }

    fn is_narrow(&self) -> bool {
        self.mtu.is_some_and(|mtu| mtu < self.mtu_wanted)
    }
}

impl Asked {
    /// Why it did not answer.
    const fn silence(&self) -> Option<&Cause> {
        match self {
            Self::Silent(cause) => Some(cause),
            Self::Says(_) => None,
        }
    }
}

impl<'a> Walk<'a> {
    /// What the agent of one host measured of another, in this packet's family.
    pub(super) fn probed(&mut self, by: &LeaseKey, of: &LeaseKey, side: Side) {
        let hop = self.at(by, format!("probe of {of}"));
        let unknown = |why: &str| hop.clone().told(format!("not known: {why}"));
        let Some(Asked::Says(agent)) = self.scene.agents.get(by) else {
            // That another host's agent says nothing is told by itself.
            if self.is_here(by) {
                let silent = self.scene.agents.get(by).and_then(Asked::silence);
                let why = silent.map(|cause| format!(": {}", cause.cause)).unwrap_or_default();
                self.hops.push(unknown(&format!("this host's agent does not answer{why}")));
            }
            return;
        };
        let Some(measured) = agent.peers.get(of) else {
            let cause = "its agent does not know that lease, so that its kernel has no way there";
            let next = Deviation::LeasesDiffer.entry().next;
            self.hops.push(hop.stops(Deviation::LeasesDiffer.entry(), cause, next));
            return;
        };
        let family = Family::of(&self.dst);
        self.hops.push(match measured.get(family) {
            None => unknown("nobody is probed, or nothing was measured yet"),
            Some(probe) if probe.verdict == Verdict::Unknown => unknown(&probe.cause),
            Some(probe) => self.measured(hop, by, probe, side),
        });
    }

    fn measured(&self, hop: Hop, by: &LeaseKey, probe: &Probe, side: Side) -> Hop {
        let hop = hop
            .measured(probe.clone())
            .passes(probe.words())
            .carries(probe.mtu.filter(|_| side == Side::Pod));
        let Some(code) = probe.amiss(side) else { return hop };
        let says = if self.is_here(by) { "" } else { "its agent says: " };
        let cause = if code == Code::PathMtu {
            format!(
                "packets of at most {} bytes arrive, where the devices take {}; routes say so to those who send",
                probe.mtu.unwrap_or_default(),
                probe.mtu_wanted
            )
        } else {
            probe.cause.clone()
        };
        let (entry, cause) = (code.entry(), format!("{says}{cause}"));
        let passes = probe.verdict.passes() != Some(false);
        if passes { hop.differs(entry, cause, entry.next) } else { hop.stops(entry, cause, entry.next) }
    }

    /// What a host's agent says of that host.
    pub(super) fn said(&mut self, lease: &'a Lease) {
        let hop = Hop::at(&lease.key, "agent");
        self.hops.push(match self.scene.agents.get(&lease.key) {
            None if lease.attrs.node_id.is_none() => hop.told("not asked: flanneld wrote its lease"),
            None => hop.told("not asked: no port is known (--healthz-port) at which agents serve HTTP"),
            Some(Asked::Silent(Cause { cause, next, .. })) => {
                hop.told(format!("silent: {cause}; next: {next}"))
            }
            Some(Asked::Says(agent)) => {
                let (hop, entry) = (hop.finds(&*agent.state), Sign::NotSettled.entry());
                match &agent.fault {
                    Some(fault) => hop.wants("ok").because(fault.clone()),
                    None if !agent.settled => {
                        hop.wants("ok").differs(entry, "its kernel is not as wanted yet", entry.next)
                    }
                    None if agent.state == "ok" => hop.passes("ok"),
                    None => hop.passes(format!("{}, though not for these two hosts", agent.state)),
                }
            }
        });
    }

    /// A hop on this host, or on another.
    fn at(&self, key: &LeaseKey, what: String) -> Hop {
        if self.is_here(key) { Hop::here(what) } else { Hop::at(key, what) }
    }

    fn is_here(&self, key: &LeaseKey) -> bool {
        *key == self.scene.plan.own().key
    }
}
