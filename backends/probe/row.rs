//! A host's row of the fabric: what it found out of each other host; and the part of it that one probe carries.
//!
//! # Why probes carry it
//! Every host's page is to show the whole fabric, though agents serve HTTP to nobody but their own host. Hosts talk to
//! each other by probes all the time, with tags that prove who speaks, so that a row goes along with them, for
//! [`ENTRIES`] × [`ENTRY`] bytes more each. No packet more is sent, and there is nobody to ask. What a host hears of
//! others it does not pass on: who cannot be heard is not known here.
//!
//! # Which part
//! Peers that fail go first, and how many fail is always told. Where they are too many for one probe, and for the others,
//! each next probe of a direction of a way has the next ones: its number says which, so that nothing has to be remembered
//! of anybody. Up to nine hosts, each probe has all of the row; among 500 of which up to six fail, each has all that fail.

use std::collections::BTreeMap;

use super::echo::HEADER;
use super::{Finding, Measured, Up, Verdict, Way};

/// How many entries a probe carries.
pub const ENTRIES: usize = 8;
/// Bytes of an entry: a name, what is said of it, and the round trip.
pub const ENTRY: usize = 6;
/// How many of them are for the peers that do not fail, where there are more that do.
pub(super) const SPARED: usize = 2;
/// Where the entries begin, and where it stands how many of the peers fail.
pub(super) const AT: usize = HEADER - ENTRIES * ENTRY;
const FAILING: usize = 22;
/// How many steps of round trips there are to one that is twice as long, and that of a microsecond.
const STEPS: f64 = 4.0;
const FIRST: f64 = 1.0;

/// How a host is called where eight bytes are too many: by the first four of its name. Two hosts can be called the same;
/// of neither of them anything is told then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Short(u32);

impl Short {
    /// What a host of this name is called.
    #[must_use]
    pub const fn of(name: u64) -> Self {
        Self((name >> 32) as u32)
    }
}

/// What becomes of packets in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leg {
    /// It is not known.
    #[default]
    Unknown,
    /// They arrive.
    Passes,
    /// Some are lost.
    Lossy,
    /// None arrives.
    Cut,
}

/// What a host says of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// What its probes mean.
    pub verdict: Verdict,
    /// What becomes of what it sends there.
    pub there: Leg,
    /// What becomes of what comes from there.
    pub back: Leg,
    /// The median round trip in steps; 0 where there is none.
    rtt: u8,
}

/// What a host says of all others.
#[derive(Debug, Clone, Default)]
pub struct Row {
    failing: Vec<(Short, Said)>,
    others: Vec<(Short, Said)>,
}

/// What one probe carries of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// How many peers of the sender fail.
    pub failing: u16,
    /// Some of them, and some others.
    pub entries: Vec<(Short, Said)>,
}

impl Said {
    /// What a finding comes to.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        let pods = |way: &&Measured| way.way == Way::Overlay;
        let way = finding.ways.iter().find(pods).or(finding.ways.first());
        let time = way.filter(|way| way.up != Up::No).and_then(|way| way.p50);
        let steps = |us: f64| (us.max(1.0).log2() * STEPS + FIRST).round().min(u8::MAX.into()) as u8;
        let [there, back] = way.map(|way| legs(finding.verdict, way)).unwrap_or_default();
        let rtt = time.map_or(0, |time| steps(time.as_secs_f64() * 1e6));
        Self { verdict: finding.verdict, there, back, rtt }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.verdict > Verdict::Unknown
    }

    /// The median round trip in microseconds, to a tenth of it.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u64> {
        (self.rtt > 0).then(|| ((f64::from(self.rtt) - FIRST) / STEPS).exp2().round() as u64)
    }

    fn state(self) -> u8 {
        let verdict = match self.verdict {
            Verdict::Ok => 1,
            Verdict::Unknown => 2,
            Verdict::UnderlayDown => 3,
            Verdict::AgentDown => 4,
            Verdict::OverlayDown => 5,
            Verdict::PortEaten => 6,
            Verdict::OneWay => 7,
            Verdict::PeerDown => 8,
        };
        let leg = |leg| match leg {
            Leg::Unknown => 0,
            Leg::Passes => 1,
            Leg::Lossy => 2,
            Leg::Cut => 3,
        };
        verdict | leg(self.there) << 4 | leg(self.back) << 6
    }

    /// `None` if there is nothing, or what only later versions know.
    fn read(state: u8, rtt: u8) -> Option<Self> {
        let verdict = match state & 15 {
            1 => Verdict::Ok,
            2 => Verdict::Unknown,
            3 => Verdict::UnderlayDown,
            4 => Verdict::AgentDown,
            5 => Verdict::OverlayDown,
            6 => Verdict::PortEaten,
            7 => Verdict::OneWay,
            8 => Verdict::PeerDown,
            _ => return None,
        };
        let leg = |bits: u8| match bits & 3 {
            0 => Leg::Unknown,
            1 => Leg::Passes,
            2 => Leg::Lossy,
            _ => Leg::Cut,
        };
        Some(Self { verdict, there: leg(state >> 4), back: leg(state >> 6), rtt })
    }
}

/// What becomes of packets in each direction of a way, there and back.
fn legs(verdict: Verdict, way: &Measured) -> [Leg; 2] {
    let some = |share: Option<f64>| match share {
        None => Leg::Unknown,
        Some(share) if share > 0.0 => Leg::Lossy,
        Some(_) => Leg::Passes,
    };
    let there = way.loss_there;
    match (verdict, way.up, way.loss) {
        (Verdict::OneWay, ..) => [Leg::Cut, Leg::Passes],
        (Verdict::PeerDown, ..) => [Leg::Unknown, Leg::Cut],
        // Its kernel answers.
        (Verdict::AgentDown, ..) => [Leg::Passes; 2],
        (_, Up::No, Some(loss)) => match there {
            Some(there) if there >= loss / 2.0 => [Leg::Cut, Leg::Unknown],
            Some(_) => [Leg::Passes, Leg::Cut],
            None => [Leg::Unknown, Leg::Cut],
        },
        (_, _, Some(0.0)) => [Leg::Passes; 2],
        // Of what did not come there, nothing could come back.
        (_, _, Some(loss)) => {
            let back = there.filter(|there| *there < 1.0).map(|there| 1.0 - (1.0 - loss) / (1.0 - there));
            [some(there), some(back)]
        }
        (_, _, None) => [Leg::Unknown; 2],
    }
}

impl FromIterator<(Short, Said)> for Row {
    /// Of what is said of one host, the worst counts.
    fn from_iter<T: IntoIterator<Item = (Short, Said)>>(all: T) -> Self {
        let mut worst: BTreeMap<Short, Said> = BTreeMap::new();
        for (about, said) in all {
            let before = worst.entry(about).or_insert(said);
            if said.verdict > before.verdict {
                *before = said;
            }
        }
        let (failing, others) = worst.into_iter().partition(|(_, said)| said.fails());
        Self { failing, others }
    }
}

impl Row {
    /// The part that the probe of this number carries.
    #[must_use]
    pub fn part(&self, seq: u32) -> Part {
        let first = self.failing.len().min(ENTRIES - self.others.len().min(SPARED));
        let then = self.others.len().min(ENTRIES - first);
        let turns = [(&self.failing, first), (&self.others, then)].into_iter().flat_map(|(all, count)| {
            let from = (seq as usize).wrapping_mul(count) % all.len().max(1);
            let (before, after) = all.split_at(from);
            after.iter().chain(before).take(count)
        });
        Part {
            failing: u16::try_from(self.failing.len()).unwrap_or(u16::MAX),
            entries: turns.copied().collect(),
        }
    }
}

impl Part {
    /// Puts it into the bytes before a probe's tag.
    pub fn write(&self, header: &mut [u8; HEADER]) {
        header[FAILING..FAILING + 2].copy_from_slice(&self.failing.to_be_bytes());
        for (entry, (about, said)) in header[AT..].chunks_exact_mut(ENTRY).zip(&self.entries) {
            entry[..4].copy_from_slice(&about.0.to_be_bytes());
            entry[4..].copy_from_slice(&[said.state(), said.rtt]);
        }
    }

    /// Reads it from a whole probe. What is not understood is left out.
    #[must_use]
    pub fn read(probe: &[u8]) -> Self {
        let Some(header) = probe.first_chunk::<HEADER>() else { return Self::default() };
        let entry = |entry: &[u8]| {
            let about = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            Some((Short(about), Said::read(entry[4], entry[5])?))
        };
        Self {
            failing: u16::from_be_bytes([header[FAILING], header[FAILING + 1]]),
            entries: header[AT..].chunks_exact(ENTRY).filter_map(entry).collect(),
        }
    }

    /// Whether it has all that fail.
    #[must_use]
    pub fn has_all_that_fail(&self) -> bool {
        self.entries.iter().filter(|(_, said)| said.fails()).count() == usize::from(self.failing)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::probe::echo::{Echo, SHORTEST, Seen};

    prop_compose! {
        pub(in crate::probe) fn said()(state: u8, rtt: u8) -> Said {
            Said::read((1 + state % 8) | (state & 0xf0), rtt).unwrap()
        }
    }

    prop_compose! {
        fn entries(most: usize)(entries in prop::collection::btree_map(any::<u32>(), said(), 0..=most))
            -> Vec<(Short, Said)> {
            entries.into_iter().map(|(about, said)| (Short(about), said)).collect()
        }
    }

    /// Said of a host by which nothing but a verdict is known.
    pub(in crate::probe) fn verdict(verdict: Verdict) -> Said {
        Said { verdict, there: Leg::Unknown, back: Leg::Unknown, rtt: 0 }
    }

    fn echo() -> Echo {
        Echo {
            answer: true,
            way: Way::Overlay,
            settled: true,
            seq: 7,
            mtu: Some(1450),
            seen: [Seen { high: 9, mask: 3 }; 2],
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_changes_nothing_else(entries in entries(ENTRIES), failing: u16) {
            let part = Part { failing, entries };
            let mut header = echo().encode(5, SHORTEST as u16);
            part.write(&mut header);
            let mut probe = header.to_vec();
            probe.resize(SHORTEST, 0);
            prop_assert_eq!(Part::read(&probe), part);
            prop_assert_eq!(Echo::decode(&probe), Some((5, echo())));
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Part::read(&bytes).entries.len() <= ENTRIES);
        }

        /// Whatever number a direction begins with, as many probes as the longer part needs have everything, and each of
        /// them has as much as there is room for, nothing twice.
        #[test]
        fn all_has_its_turn(entries in entries(80), begin in 0..u32::MAX / 2) {
            let row = Row::from_iter(entries.iter().copied());
            let failing = entries.iter().filter(|(_, said)| said.fails()).count();
            let probes = failing.div_ceil(ENTRIES - SPARED).max(entries.len().div_ceil(SPARED));
            let mut told = BTreeMap::new();
            for seq in begin..begin + u32::try_from(probes).unwrap() {
                let part = row.part(seq);
                let names: BTreeSet<Short> = part.entries.iter().map(|(about, _)| *about).collect();
                prop_assert_eq!(names.len(), entries.len().min(ENTRIES));
                prop_assert_eq!(part.failing as usize, failing);
                prop_assert_eq!(part.has_all_that_fail(), failing <= ENTRIES - SPARED.min(entries.len() - failing));
                told.extend(part.entries);
            }
            prop_assert_eq!(told, entries.into_iter().collect::<BTreeMap<_, _>>());
        }
    }

    #[test]
    fn what_later_versions_say_is_left_out() {
        let mut header = echo().encode(5, SHORTEST as u16);
        header[AT..AT + ENTRY].copy_from_slice(&[0, 0, 0, 9, 15, 1]);
        header[AT + ENTRY..AT + 2 * ENTRY].copy_from_slice(&[0, 0, 0, 8, 0xf1, 1]);
        let read = Part::read(&[&header[..], &[0; 16]].concat());
        assert_eq!(
            read.entries,
            [(Short(8), Said { verdict: Verdict::Ok, there: Leg::Cut, back: Leg::Cut, rtt: 1 })]
        );
    }

    fn found(verdict: Verdict, up: Up, loss: Option<f64>, there: Option<f64>) -> Said {
        let way = |way, p50| Measured {
            up,
            p50: Some(Duration::from_micros(p50)),
            loss,
            loss_there: there,
            ..Measured::nothing(way, [192, 0, 2, 1].into())
        };
        // The way that pods' packets take counts, wherever it stands.
        let ways = vec![way(Way::Underlay, 7), way(Way::Overlay, 180)];
        Said::of(&Finding { verdict, ways, ..Finding::default() })
    }

    #[test]
    fn each_direction_is_told_by_itself() {
        use Leg::{Cut, Lossy, Passes, Unknown};
        for (verdict, up, loss, there, want) in [
            (Verdict::Ok, Up::Yes, Some(0.0), None, [Passes, Passes]),
            (Verdict::Ok, Up::Yes, Some(0.5), Some(0.5), [Lossy, Passes]),
            (Verdict::Ok, Up::Yes, Some(0.5), Some(0.0), [Passes, Lossy]),
            (Verdict::Ok, Up::Yes, Some(0.5), None, [Unknown, Unknown]),
            (Verdict::Unknown, Up::Unknown, None, None, [Unknown, Unknown]),
            (Verdict::AgentDown, Up::No, Some(1.0), None, [Passes, Passes]),
            (Verdict::OneWay, Up::No, Some(1.0), None, [Cut, Passes]),
            (Verdict::PeerDown, Up::No, Some(1.0), Some(0.1), [Unknown, Cut]),
            (Verdict::PortEaten, Up::No, Some(0.5), Some(0.5), [Cut, Unknown]),
            (Verdict::PortEaten, Up::No, Some(0.5), Some(0.0), [Passes, Cut]),
            (Verdict::OverlayDown, Up::No, Some(0.5), None, [Unknown, Cut]),
        ] {
            let said = found(verdict, up, loss, there);
            assert_eq!([said.there, said.back], want, "{verdict} {loss:?} {there:?}");
            assert_eq!(said.rtt_us().is_some(), up != Up::No, "{verdict}");
        }
    }

    #[test]
    fn round_trips_are_told_to_a_tenth() {
        assert_eq!(found(Verdict::Ok, Up::Yes, Some(0.0), None).rtt_us(), Some(181));
        for us in [1_u64, 2, 99, 180, 1_000, 77_777, 3_000_000] {
            let steps = ((us as f64).log2() * STEPS + FIRST).round() as u8;
            let told = Said { rtt: steps, ..found(Verdict::Ok, Up::Yes, None, None) }.rtt_us().unwrap();
            assert!(told.abs_diff(us) * 10 <= us, "{us} {told}");
        }
    }
}
