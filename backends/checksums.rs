//! Who finishes the checksums of what a VXLAN device sends: decided by a trial on the host's own underlay.
//!
//! # The choice
//! A packet in a tunnel has two transport checksums. The one inside is the sender's. With `tx-checksum-ip-generic` on,
//! the VXLAN device takes it unfinished, and packets of up to 64 KiB with it: they are wrapped as one, and cut and summed
//! up by the underlay's network card, or just before it. That costs least, and there are cards, drivers and hypervisors
//! that get it wrong for packets in packets: every one arrives with a wrong checksum and is dropped in silence, or only
//! those that were cut are, so that ping works and TCP crawls. With it off, the kernel finishes each packet before it is
//! wrapped, which is always right. The checksum outside, of UDP over IPv4, may be left out. A receiver joins packets of
//! one connection (GRO) if it can tell cheaply that they are whole: by the outer checksum, which its card has verified.
//!
//! # How it is found out
//! Which card is at fault is in no list, and a fault on the way to one host is none on the way to another. So TCP
//! packets without a connection ([`crate::frame::syn`]) are sent through a device of the same kind, once with each
//! setting: a small one, and a large one to be cut. The kernel of any host answers each piece that is whole, whoever runs
//! the fabric there, and answers no other. What arrives decides first, and then how fast packets leave.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::state::Checksums;

/// A setting that packets leave faster with than with the better known one is taken if it is faster by this much, in
/// percent: less may be chance.
const CLEARLY: u64 = 100;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// What a trial shows to be best.
    #[default]
    Auto,
    /// Checksums are left to the device, whatever a trial shows.
    On,
    /// They are finished before.
    Off,
}

/// How many packets were sent, and how many of them answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Sent.
    pub sent: u32,
    /// Answered.
    pub answered: u32,
}

/// What became of packets to one place with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Where to: what a person knows it by.
    pub to: String,
    /// The setting.
    pub with: Checksums,
    /// Packets that fit the wire.
    pub small: Count,
    /// Packets that had to be cut: those of which all pieces arrived.
    pub large: Count,
    /// How fast large packets left, in Mbit/s; 0 if that was not measured.
    pub rate: u64,
}

/// What is to be, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What was asked for when it was made.
    pub wish: Wish,
    /// What is to be.
    pub checksums: Checksums,
    /// Why checksums inside are left to the device, or not.
    pub because: String,
    /// Why packets have an outer checksum, or not.
    pub udp_because: String,
    /// What shows that checksums left to the device are spoilt, if something does.
    pub spoilt: Option<String>,
    /// Whether a trial had anything to say.
    pub tested: bool,
}

impl Count {
    const fn plus(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, answered: self.answered + other.answered }
    }

    /// Whether so many came that the rest is loss as networks have it.
    const fn arrived(self) -> bool {
        self.answered > 0 && self.answered * 2 >= self.sent
    }
}

impl Trial {
    fn arrived(&self) -> bool {
        self.small.arrived() && self.large.arrived()
    }
}

impl Choice {
    /// Before anything was tried: as the device has it, or as the kernel makes one.
    #[must_use]
    pub fn untested(wish: Wish, device: Option<Checksums>) -> Self {
        let have = device.unwrap_or_default();
        let found = if device.is_some() { "as the device was found" } else { "as the kernel makes a device" };
        let because = format!("{found}; no other host has answered a trial yet");
        Self {
            wish,
            checksums: Checksums { offload: wish.decided().unwrap_or(have.offload), ..have },
            because: wish.decided().map_or(because, flag),
            udp_because: found.to_owned(),
            spoilt: None,
            tested: false,
        }
    }
}

impl Wish {
    const fn decided(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::On => Some(true),
            Self::Off => Some(false),
        }
    }
}

/// What is best by these trials, where `before` is in force. Places that answered nothing, whatever the setting, say
/// nothing of it; if there are no others, nothing changes.
#[must_use]
pub fn choose(wish: Wish, before: &Choice, trials: &[Trial]) -> Choice {
    let answering: BTreeSet<&str> =
        trials.iter().filter(|trial| trial.arrived()).map(|trial| trial.to.as_str()).collect();
    if answering.is_empty() {
        return before.clone();
    }
    let seen = Seen(trials.iter().filter(|trial| answering.contains(trial.to.as_str())).collect());
    let have = before.checksums;
    let with = |offload, udp| Checksums { offload, udp };
    let either = |udp| [true, false].iter().any(|offload| seen.arrived(with(*offload, udp)));
    // To change it, the device has to be made anew; that harms nothing where nothing arrives.
    let udp = if either(have.udp) || !either(!have.udp) { have.udp } else { !have.udp };
    let (on, off) = (with(true, udp), with(false, udp));
    let spoilt = (!seen.arrived(on) && seen.arrived(off)).then(|| seen.loss(on, off));
    let (offload, because) = match (wish.decided(), &spoilt) {
        (Some(wanted), _) => (wanted, flag(wanted)),
        (None, Some(loss)) => (false, loss.clone()),
        (None, None) if !seen.arrived(on) => {
            (have.offload, "some hosts answer one way and some the other; as before".to_owned())
        }
        (None, None) => seen.faster(on, off),
    };
    Choice {
        wish,
        checksums: with(offload, udp),
        because,
        udp_because: seen.udp(have.udp, with(offload, udp)),
        spoilt,
        tested: true,
    }
}

/// The trials that say something.
struct Seen<'a>(Vec<&'a Trial>);

impl Seen<'_> {
    fn with(&self, checksums: Checksums) -> impl Iterator<Item = &Trial> {
        self.0.iter().copied().filter(move |trial| trial.with == checksums)
    }

    /// Whether packets with this setting arrived everywhere.
    fn arrived(&self, checksums: Checksums) -> bool {
        self.with(checksums).next().is_some() && self.with(checksums).all(Trial::arrived)
    }

    /// What shows that `bad` is bad: where the least of it arrived.
    fn loss(&self, bad: Checksums, good: Checksums) -> String {
        let total = |trial: &Trial| trial.small.plus(trial.large);
        let Some(worst) = self.with(bad).min_by_key(|trial| total(trial).answered) else {
            return String::new();
        };
        let best = self.with(good).find(|trial| trial.to == worst.to).map(total).unwrap_or_default();
        let what = if worst.small.arrived() { "large packets" } else { "packets" };
        let Count { sent, answered } = if worst.small.arrived() { worst.large } else { total(worst) };
        format!(
            "{what} whose checksum is left to the device do not arrive at {} ({answered} of {sent}), those with a finished \
             one do ({} of {})",
            worst.to, best.answered, best.sent
        )
    }

    /// The better of two settings that are both right.
    fn faster(&self, on: Checksums, off: Checksums) -> (bool, String) {
        let places = self.with(on).count();
        let hosts = if places == 1 { "1 host".to_owned() } else { format!("{places} hosts") };
        let (fast, slow) = (self.rate(on), self.rate(off));
        if !self.arrived(off) || fast == 0 || slow == 0 {
            return (true, format!("what is left to the device arrives whole at {hosts}"));
        }
        let rates = format!("{} with it, {} without", gigabits(fast), gigabits(slow));
        let offload = slow * 100 < fast * (100 + CLEARLY);
        let because = if offload { "arrives whole at" } else { "leaves slower, though it arrives whole at" };
        (offload, format!("what is left to the device {because} {hosts}; packets leave at {rates}"))
    }

    /// Why there is an outer checksum, or none.
    fn udp(&self, had: bool, chosen: Checksums) -> String {
        let other = Checksums { udp: !chosen.udp, ..chosen };
        if chosen.udp != had {
            return format!("{}, and the device was made anew", self.loss_of_udp(other));
        }
        let kept = if chosen.udp { "receivers can join packets by it" } else { "as the device was made" };
        let (with, without) = (self.rate(chosen), self.rate(other));
        if with == 0 || without == 0 || !self.arrived(other) {
            return kept.to_owned();
        }
        format!("{kept}; packets leave at {} so, {} otherwise", gigabits(with), gigabits(without))
    }

    fn loss_of_udp(&self, bad: Checksums) -> String {
        let which = if bad.udp { "with" } else { "without" };
        format!("packets {which} an outer checksum do not arrive")
    }

    fn rate(&self, checksums: Checksums) -> u64 {
        self.with(checksums).map(|trial| trial.rate).max().unwrap_or_default()
    }
}

fn flag(on: bool) -> String {
    format!("--checksum-offload {}", if on { "on" } else { "off" })
}

fn gigabits(megabits: u64) -> String {
    format!("{}.{} Gbit/s", megabits / 1000, megabits % 1000 / 100)
}

#[cfg(test)]
mod tests;
