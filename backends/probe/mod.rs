//! What is measured of peers: what to send when, and what the answers mean. Packets are sent, and their tags checked, by
//! the shell.
//!
//! # What is sent
//! Each peer has, in each address family, two ways to it: the *overlay*, between the hosts' tunnel addresses, as pods'
//! packets go, and the *underlay*, between their public addresses. On each way small requests tell whether it works and
//! how long it takes; larger ones, which must not be fragmented, find the largest packet that arrives. Each probe also
//! says which of the other side's came, on both ways, so that each side learns which direction fails; and a part of what
//! its sender found out of other hosts ([`row`]), so that each host knows the whole fabric ([`hearsay`]).
//!
//! # What it costs
//! A host sends at most [`PER_SECOND`] requests a second, and about as many answers, however many peers there are: with
//! more of them each has its turn more seldom ([`Prober::pace`]), the overlay four times as often as the underlay. Peers
//! that carry packets have theirs every 2 s, as long as that is half of all turns at most. A way
//! on which something was lost is looked at every few hundred milliseconds, until it is sure that it fails. What is due
//! the longest goes first, so that many such ways slow the others down, but take nothing away from them.

mod agenda;
mod course;
pub mod echo;
pub mod hearsay;
mod lane;
mod line;
mod lines;
mod measured;
mod pace;
mod pending;
mod purse;
pub mod row;
mod search;
mod verdict;
mod window;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use agenda::{Agenda, Slot};
use course::smallest;
pub use course::{Course, Way, headers};
use lane::Lane;
use line::Line;
use lines::Lines;
pub use lines::Number;
pub use measured::{Finding, Measured};
use purse::Purse;
pub use verdict::{Up, Verdict};

use self::echo::{Echo, STRIDE};
pub use self::pace::ALIKE;
use self::pace::Pace;
use crate::family::Family;
use crate::lease::LeaseKey;

/// How many requests a host sends in a second, at most.
pub const PER_SECOND: u32 = 50;
/// The shortest time between two requests on one way.
const NEXT: Duration = Duration::from_millis(1);

/// A peer, in one address family.
pub type LineId = (LeaseKey, Family);

/// A probe to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The peer.
    pub line: Number,
    /// Where it listens.
    pub to: SocketAddr,
    /// What to say.
    pub echo: Echo,
    /// The length of the whole packet in bytes, IP and UDP headers included.
    pub size: u32,
    /// Whether the kernel there is to be asked as well, by an ICMP echo.
    pub ping: bool,
}

/// Probes all peers.
#[derive(Debug)]
pub struct Prober {
    lines: Lines,
    agenda: Agenda,
    /// The peers of which something was heard, or missed, since it was last decided what that comes to.
    touched: BTreeSet<Number>,
    /// Whether a way began to work, or no longer does, since that was last asked.
    turned: bool,
    /// How many peers carry packets.
    busy: usize,
    settled: bool,
    /// The number of the next line's first request: none that an earlier process or line used.
    first: u32,
    purse: Purse,
}

impl Prober {
    /// Probes nobody yet. `first` is the number of the first request of each peer, best a random one.
    #[must_use]
    pub fn new(first: u32, now: Instant) -> Self {
        Self {
            lines: Lines::default(),
            agenda: Agenda::default(),
            touched: BTreeSet::new(),
            turned: false,
            busy: 0,
            settled: false,
            first,
            purse: Purse::new(now),
        }
    }

    /// Whether this host's kernel is as it should be.
    pub fn settled(&mut self, settled: bool) {
        self.settled = settled;
    }

    /// This is how a peer is reached; `None` if it is no peer any more. Returns its number, which is another's once it is
    /// gone.
    pub fn follow(&mut self, id: &LineId, course: Option<Course>, now: Instant) -> Option<Number> {
        let known = self.lines.number(id);
        known.iter().for_each(|number| self.leave(*number));
        let Some(course) = course else {
            self.busy -= usize::from(self.lines.remove(id).is_some_and(|line| line.is_busy()));
            return None;
        };
        let number = known.unwrap_or_else(|| self.lines.add(id.clone(), Line::new(course, self.first, now)));
        let anew = self.lines.get_mut(number).is_some_and(|line| line.follow(course, self.first, now));
        if anew || known.is_none() {
            self.first = self.first.wrapping_add(STRIDE);
        }
        self.touched.insert(number);
        self.enter(number, None);
        Some(number)
    }

    /// The time between two requests to a peer on the overlay, while all is well and it carries nothing.
    #[must_use]
    pub fn pace(&self) -> Duration {
        self.paces().all
    }

    fn paces(&self) -> Pace {
        Pace::of(self.lines.len(), self.busy)
    }

    /// Frames were sent to these peers, when they were last; that was found out at `looked`.
    pub fn carry(&mut self, used: &BTreeMap<LineId, Instant>, looked: Instant) {
        let begins =
            self.lines.each(|id, number, line| line.carry(used.get(id).copied(), looked).then_some(number));
        let begin: Vec<Number> = begins.filter_map(|(_, number)| number).collect();
        begin.iter().for_each(|number| self.enter(*number, None));
        self.busy = self.lines.iter().filter(|(_, line)| line.is_busy()).count();
    }

    /// When there is something to do; `None` while there is nobody to probe.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.agenda.due(self.paces().wait())?;
        Some(due.max(self.purse.due()).max(now))
    }

    /// The requests that are due, if there is one that cannot wait.
    pub fn requests(&mut self, now: Instant) -> Vec<Outgoing> {
        let (mut out, pace, settled) = (Vec::new(), self.paces(), self.settled);
        let due = self.agenda.due(pace.wait()).is_some_and(|due| due <= now);
        if !self.purse.open(now) || !due {
            return out;
        }
        while self.purse.has_one()
            && let Some((number, way)) = self.agenda.take(now)
        {
            let before = out.len();
            self.change(number, Some((way, now + NEXT)), |line| {
                line.expire(way, now);
                let (every, echo, port) = (line.every(pace), line.echo(way, settled), line.course.port);
                let Some(lane) = line.lane_mut(way) else { return };
                lane.slot = None;
                // A large one and the small one beside it go together, whatever else waits.
                while let Some((seq, size)) = lane.request(every, now) {
                    let (to, echo) = (SocketAddr::new(lane.to, port), Echo { seq, ..echo });
                    out.push(Outgoing { line: number, to, echo, size, ping: lane.failing() });
                }
            });
            self.purse.pay(out[before..].iter().map(|out| if out.ping { 2 } else { 1 }).sum());
        }
        self.purse.close();
        out
    }

    /// A probe came from a peer, whose tag was right. Returns the answer if it asks for one. `size` is that of the whole
    /// packet.
    pub fn hear(&mut self, number: Number, echo: &Echo, size: u32, now: Instant) -> Option<Outgoing> {
        let (pace, settled) = (self.paces(), self.settled);
        let answer = |line: &mut Line| {
            line.hear(echo, line.every(pace), now);
            if echo.answer {
                return None;
            }
            let answer = Echo { answer: true, seq: echo.seq, ..line.echo(echo.way, settled) };
            let port = line.course.port;
            let lane = line.lane_mut(echo.way)?;
            lane.spoke_at = Some(now);
            Some(Outgoing {
                line: number,
                to: SocketAddr::new(lane.to, port),
                echo: answer,
                size,
                ping: false,
            })
        };
        self.change(number, None, answer).flatten()
    }

    /// A request was not sent: it is `oversized` for this host, or nothing can be sent at all.
    pub fn unsent(&mut self, out: &Outgoing, oversized: bool, now: Instant) {
        self.change(out.line, None, |line| {
            let lane = line.lane_mut(out.echo.way).into_iter();
            lane.for_each(|lane| lane.unsent(out.echo.seq, oversized, now));
        });
    }

    /// The kernel at `addr` said that nobody listens there.
    pub fn refused(&mut self, addr: IpAddr, now: Instant) {
        self.at(addr).for_each(|lane| lane.refused_at = Some(now));
    }

    /// The kernel at `addr` answered an ICMP echo.
    pub fn echoed(&mut self, addr: IpAddr, now: Instant) {
        self.at(addr).for_each(|lane| lane.echoed_at = Some(now));
    }

    /// The ways that lead to this address.
    fn at(&mut self, addr: IpAddr) -> impl Iterator<Item = &mut Lane> {
        self.lines.iter_mut().filter_map(move |line| line.lane_mut(line.way_to(addr)?))
    }

    /// Decides anew what the largest packet to each peer is. Returns whether that of any changed.
    pub fn decide(&mut self) -> bool {
        let touched = std::mem::take(&mut self.touched);
        touched.iter().filter(|line| self.lines.get_mut(**line).is_some_and(Line::decide)).count() > 0
    }

    /// Whether a way to any peer began to work, or no longer does, since this was last asked.
    pub fn turned(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    /// The largest packet to each peer for which it is less than what the devices take.
    pub fn limits(&self) -> impl Iterator<Item = (&LineId, u32)> {
        self.lines.iter().filter_map(|(id, line)| Some((id, line.limit()?)))
    }

    /// What was found out. How long it has been so counts from when this was first asked.
    pub fn findings(&mut self, now: Instant) -> impl Iterator<Item = (&LineId, Finding)> {
        let (every, settled) = (self.pace(), self.settled);
        self.lines.each(move |_, _, line| line.finding(settled, every, now))
    }

    /// Changes a line, and what is on the agenda of its ways; of `resting`, nothing before that time.
    fn change<T>(
        &mut self,
        number: Number,
        resting: Option<(Way, Instant)>,
        change: impl FnOnce(&mut Line) -> T,
    ) -> Option<T> {
        let line = self.lines.get_mut(number)?;
        let before = line.up();
        let done = change(line);
        self.turned |= line.up() != before;
        self.touched.insert(number);
        self.enter(number, resting);
        Some(done)
    }

    /// Puts the ways of a line on the agenda, for when there is something to do; `resting`, not before that time.
    fn enter(&mut self, number: Number, resting: Option<(Way, Instant)>) {
        let Some(line) = self.lines.get_mut(number) else { return };
        let busy = line.is_busy();
        for (way, lane) in line.lanes_mut() {
            let earliest = resting.filter(|(rests, _)| *rests == way).map(|(_, until)| until);
            let due = earliest.map_or(lane.due(), |earliest| lane.due().max(earliest));
            let slot = Slot { due, waits: lane.is_calm() && !busy };
            let before = lane.slot.replace(slot);
            if before != Some(slot) {
                before.into_iter().for_each(|before| self.agenda.leave(before, number, way));
                self.agenda.enter(slot, number, way);
            }
        }
    }

    /// Takes the ways of a line from the agenda.
    fn leave(&mut self, number: Number) {
        for (way, lane) in self.lines.get_mut(number).into_iter().flat_map(Line::lanes_mut) {
            lane.slot.take().into_iter().for_each(|slot| self.agenda.leave(slot, number, way));
        }
    }
}
