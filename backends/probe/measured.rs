//! What was found out, for those who look.

use std::net::IpAddr;
use std::time::Duration;

use super::{Up, Verdict, Way};

/// What was measured on one way to one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The way.
    pub way: Way,
    /// The peer's address.
    pub to: IpAddr,
    /// Whether it works.
    pub up: Up,
    /// The median round trip.
    pub p50: Option<Duration>,
    /// The round trip that 99 of 100 do not exceed.
    pub p99: Option<Duration>,
    /// The share of the last requests that were not answered, 0 to 1.
    pub loss: Option<f64>,
    /// The same for the way there, as the peer says.
    pub loss_there: Option<f64>,
    /// The largest packet in bytes that arrives in both directions.
    pub mtu: Option<u32>,
    /// Requests since the peer is known, and answers.
    pub sent: u64,
    /// Answers since the peer is known.
    pub answered: u64,
    /// The age of the last answer.
    pub age: Option<Duration>,
}

/// What was found out about a peer, in one address family.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Finding {
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in words; empty if all is well.
    pub cause: &'static str,
    /// How long it has come to that.
    pub since: Duration,
    /// What is known of each way.
    pub ways: Vec<Measured>,
    /// The largest packet in bytes that arrives, where it is less than what the devices take.
    pub limit: Option<u32>,
    /// What the devices take.
    pub mtu: u32,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub const fn nothing(way: Way, to: IpAddr) -> Self {
        Self {
            way,
            to,
            up: Up::Unknown,
            p50: None,
            p99: None,
            loss: None,
            loss_there: None,
            mtu: None,
            sent: 0,
            answered: 0,
            age: None,
        }
    }
}
