//! Another host, and what was measured of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use twill_backends::family::Family;
use twill_backends::probe::{Finding, Measured, Up, Verdict, Way};

use super::TrafficStatus;
use crate::style::duration;

/// Another host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerStatus {
    /// The key of its lease.
    pub key: String,
    /// Its node id; `None` if flanneld wrote the lease.
    pub node: Option<String>,
    /// Its public addresses.
    pub public: Vec<String>,
    /// Its backend.
    pub backend: String,
    /// Whether its lease is gone from the store, and its removal held back.
    pub held: bool,
    /// What was measured of it; `None` where this host probes nobody, and while nothing was measured yet.
    #[serde(default)]
    pub probe: Option<ProbeStatus>,
    /// What was carried to and from it; absent where nobody counts that: without a tunnel, and where the kernel carries it
    /// and the guard is off or tells peers behind one address not apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
}

/// What was measured of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeStatus {
    /// What it comes to: the worst of the address families.
    #[cfg_attr(test, schemars(with = "String"))]
    pub verdict: Verdict,
    /// Why, in words; empty if all is well.
    pub cause: String,
    /// How long it has come to that, in seconds; `None` where nobody counts.
    #[serde(default)]
    pub since_s: Option<u64>,
    /// How packets to its pods go: `direct`, `kernel` (in the kernel's tunnel) or `userspace` (in this program's).
    pub path: String,
    /// The largest packet in bytes that pods can send to it: the least of the address families.
    pub mtu: u32,
    /// What that would be if only this host's devices counted.
    pub mtu_wanted: u32,
    /// Each way to it.
    pub ways: Vec<WayStatus>,
    /// The same of each address family.
    #[serde(default)]
    pub families: Vec<FamilyStatus>,
}

/// What was measured of a peer in one address family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FamilyStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// What it comes to.
    #[cfg_attr(test, schemars(with = "String"))]
    pub verdict: Verdict,
    /// Why, in words; empty if all is well.
    pub cause: String,
    /// How long it has come to that, in seconds.
    pub since_s: u64,
    /// The largest packet in bytes that pods can send to it.
    pub mtu: u32,
    /// What that would be if only this host's devices counted.
    pub mtu_wanted: u32,
}

/// One way to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WayStatus {
    /// `overlay`, from tunnel address to tunnel address, or `underlay`, from public address to public address.
    pub way: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The peer's address.
    pub address: String,
    /// Whether the last requests were answered; `None` while it is too early to say.
    pub up: Option<bool>,
    /// The median round trip, in microseconds.
    pub rtt_p50_us: Option<u64>,
    /// The round trip that 99 of 100 do not exceed, in microseconds.
    pub rtt_p99_us: Option<u64>,
    /// The share of the last 64 requests that was not answered, 0 to 1.
    pub loss: Option<f64>,
    /// The share of the last 64 requests that did not come there, 0 to 1.
    pub loss_there: Option<f64>,
    /// The largest packet in bytes that arrives, its own headers included and those of the tunnel not.
    pub mtu: Option<u32>,
    /// Requests sent since the peer is known.
    pub sent: u64,
    /// Answers that came.
    pub answered: u64,
    /// The age of the last answer, in milliseconds.
    pub answer_age_ms: Option<u64>,
}

impl FamilyStatus {
    /// As `status` has it.
    pub(in crate::agent) fn of(family: Family, finding: &Finding) -> Self {
        Self {
            family: word(family),
            verdict: finding.verdict,
            cause: finding.cause.to_owned(),
            since_s: finding.since.as_secs(),
            mtu: finding.limit.unwrap_or(finding.mtu),
            mtu_wanted: finding.mtu,
        }
    }
}

/// A family as `status` has it.
fn word(family: Family) -> String {
    family.to_string().to_lowercase()
}

impl WayStatus {
    /// As `status` has it.
    pub(in crate::agent) fn of(family: Family, way: &Measured) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let name = match way.way {
            Way::Overlay => "overlay",
            Way::Underlay => "underlay",
        };
        Self {
            way: name.to_owned(),
            family: word(family),
            address: way.to.to_string(),
            up: match way.up {
                Up::Yes => Some(true),
                Up::No => Some(false),
                Up::Unknown => None,
            },
            rtt_p50_us: way.p50.map(us),
            rtt_p99_us: way.p99.map(us),
            loss: way.loss,
            loss_there: way.loss_there,
            mtu: way.mtu,
            sent: way.sent,
            answered: way.answered,
            answer_age_ms: way.age.map(|age| us(age) / 1_000),
        }
    }
}

impl ProbeStatus {
    /// The most that is lost on any way, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        self.ways.iter().filter_map(|way| way.loss).reduce(f64::max)
    }

    /// The same in millionths, which have an order.
    #[must_use]
    pub fn lost_ppm(&self) -> Option<u64> {
        self.loss().map(|share| (share.clamp(0.0, 1.0) * 1e6) as u64)
    }
}

impl PeerStatus {
    /// Whether packets to its pods pass; `None` where nothing can tell.
    #[must_use]
    pub fn is_reachable(&self) -> Option<bool> {
        self.probe.as_ref()?.verdict.passes()
    }
}

impl fmt::Display for PeerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = if self.held { "  gone from the store, held" } else { "" };
        let node = self.node.as_deref().unwrap_or("flanneld");
        writeln!(f, "  {:<24}{:<20}{:<9}{node}{held}", self.key, self.public.join(","), self.backend)?;
        match &self.probe {
            Some(probe) => writeln!(f, "  {:<24}{probe}", ""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ProbeStatus {
    /// In one line: `ok for 12m3s, 0.3 ms (p99 1.2), MTU 1450`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if let Some(since) = self.since_s {
            write!(f, " for {}", duration(since))?;
        }
        let overlay = self.ways.iter().find(|way| way.rtt_p50_us.is_some());
        if let Some((p50, p99)) = overlay.and_then(|way| way.rtt_p50_us.zip(way.rtt_p99_us)) {
            let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1e3;
            write!(f, ", {:.1} ms (p99 {:.1})", ms(p50), ms(p99))?;
        }
        if let Some(lost) = self.loss().filter(|lost| *lost > 0.0) {
            write!(f, ", {:.0} % lost", lost * 100.0)?;
        }
        write!(f, ", MTU {}", self.mtu)
    }
}
