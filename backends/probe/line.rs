//! One peer, in one address family: both ways to it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::echo::Echo;
use super::lane::Lane;
use super::pace::{Pace, seldom};
use super::search::Search;
use super::verdict::{Signs, Up, Verdict};
use super::{Course, Finding, Way};

/// How long after this host's last probe a frame has to be sent to be none of its own.
const APART: Duration = Duration::from_millis(200);
/// How many looks in a row have to find no frame until a peer carries packets no more.
const IDLE: u8 = 3;

/// One peer, in one address family.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) course: Course,
    overlay: Option<Lane>,
    underlay: Lane,
    /// Whether the peer's kernel is as it should be, as far as it said so.
    settled: bool,
    /// The largest packet in use.
    mtu: Option<u32>,
    /// Whether it carries packets, and how many looks in a row found none.
    busy: bool,
    idle: u8,
    /// What it last came to, and since when.
    came_to: (Verdict, Instant),
}

impl Line {
    pub(super) fn new(course: Course, seq: u32, now: Instant) -> Self {
        let search = |floor, ceiling, known| Search::new(floor, ceiling, known, now);
        let known = course.known;
        let overlay = course.overlay.map(|to| {
            let search = search(course.floor(), course.mtu, known);
            Lane::new(Way::Overlay, to, search, seq, now)
        });
        let wide = |mtu: u32| mtu + course.overhead;
        let search = search(wide(course.floor()), wide(course.mtu), known.map(wide));
        let underlay = Lane::new(Way::Underlay, course.underlay, search, seq, now).beside(overlay.is_some());
        Self {
            course,
            overlay,
            underlay,
            settled: true,
            mtu: known,
            busy: false,
            idle: 0,
            came_to: (Verdict::Unknown, now),
        }
    }

    /// The peer is to be reached like this. What was measured stays as far as that is the same. Returns whether it begins
    /// anew.
    pub(super) fn follow(&mut self, course: Course, seq: u32, now: Instant) -> bool {
        let same = |a: &Course, b: &Course| {
            (a.overlay, a.underlay, a.overhead, a.port) == (b.overlay, b.underlay, b.overhead, b.port)
        };
        if !same(&self.course, &course) {
            *self = Self::new(Course { known: self.mtu.or(course.known), ..course }, seq, now);
            return true;
        }
        self.overlay.iter_mut().for_each(|lane| lane.search.limit(course.mtu, now));
        self.underlay.search.limit(course.mtu + course.overhead, now);
        self.course = course;
        false
    }

    pub(super) fn lane(&self, way: Way) -> Option<&Lane> {
        match way {
            Way::Overlay => self.overlay.as_ref(),
            Way::Underlay => Some(&self.underlay),
        }
    }

    pub(super) fn lane_mut(&mut self, way: Way) -> Option<&mut Lane> {
        match way {
            Way::Overlay => self.overlay.as_mut(),
            Way::Underlay => Some(&mut self.underlay),
        }
    }

    /// Takes note of what was not answered in time on this way.
    pub(super) fn expire(&mut self, way: Way, now: Instant) {
        self.with(way, now, |lane| lane.expire(now));
    }

    /// Does this to a way. Where it begins to fail by that, or to work again, the other is asked at once.
    fn with(&mut self, way: Way, now: Instant, change: impl FnOnce(&mut Lane)) {
        let Some(lane) = self.lane_mut(way) else { return };
        let before = lane.passing();
        change(lane);
        if before != lane.passing() {
            self.lane_mut(way.other()).into_iter().for_each(|other| other.hurry(now));
        }
    }

    /// Whether it carries packets.
    pub(super) const fn is_busy(&self) -> bool {
        self.busy
    }

    /// The time between two requests on the overlay, while all is well.
    pub(super) const fn every(&self, pace: Pace) -> Duration {
        if self.busy { pace.busy } else { pace.all }
    }

    /// A frame was last sent to it then, as was found out at `looked`; `None` if that was long ago.
    /// Returns whether it begins to carry packets; it is asked at once then.
    pub(super) fn carry(&mut self, used: Option<Instant>, looked: Instant) -> bool {
        let before = self.busy;
        let Some(lane) = &mut self.overlay else { return false };
        let Some(spoke) = lane.spoke_at else { return false };
        if used.is_some_and(|at| at > spoke + APART) {
            (self.busy, self.idle) = (true, 0);
            if !before {
                lane.hurry(looked);
            }
        } else if looked > spoke + APART {
            self.idle = self.idle.saturating_add(1);
            self.busy &= self.idle < IDLE;
        }
        self.busy && !before
    }

    /// Whether each way works.
    pub(super) fn up(&self) -> [Option<Up>; 2] {
        Way::ALL.map(|way| self.lane(way).map(Lane::up))
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = (Way, &Lane)> {
        Way::ALL.into_iter().filter_map(|way| Some((way, self.lane(way)?)))
    }

    pub(super) fn lanes_mut(&mut self) -> impl Iterator<Item = (Way, &mut Lane)> {
        let overlay = self.overlay.iter_mut().map(|lane| (Way::Overlay, lane));
        overlay.chain([(Way::Underlay, &mut self.underlay)])
    }

    /// What this host tells the peer, on one way.
    pub(super) fn echo(&self, way: Way, settled: bool) -> Echo {
        let seen = |way| self.lane(way).map(|lane| lane.seen).unwrap_or_default();
        let mtu = self.lane(way).and_then(|lane| lane.search.mtu());
        Echo {
            answer: false,
            way,
            settled,
            seq: 0,
            mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()),
            seen: [seen(Way::Overlay), seen(Way::Underlay)],
        }
    }

    /// The peer said something.
    pub(super) fn hear(&mut self, echo: &Echo, every: Duration, now: Instant) {
        self.settled = echo.settled;
        for (way, seen) in Way::ALL.into_iter().zip(echo.seen) {
            self.lane_mut(way).into_iter().for_each(|lane| lane.told(seen, now));
        }
        let Some(lane) = self.lane_mut(echo.way) else { return };
        lane.heard(echo, now);
        if echo.answer {
            self.with(echo.way, now, |lane| lane.answer(echo.seq, every, now));
        } else {
            lane.seen.note(echo.seq);
        }
    }

    /// Decides the largest packet that is sent to the peer. Returns whether that changed.
    pub(super) fn decide(&mut self) -> bool {
        let inner = |lane: &Lane| Some(lane.agreed()?.saturating_sub(self.course.overhead));
        let over = self.overlay.as_ref().and_then(Lane::agreed);
        let under = inner(&self.underlay);
        // A packet that comes in pieces comes, too: where the network is too narrow for a whole one, the underlay knows.
        let least = [over, under].into_iter().flatten().min();
        let mtu = least.map(|mtu| mtu.clamp(self.course.floor(), self.course.mtu.max(self.course.floor())));
        let before = self.limit();
        self.mtu = mtu.or(self.mtu);
        self.limit() != before
    }

    /// What the largest packet is limited to, where it is less than what the devices take.
    pub(super) fn limit(&self) -> Option<u32> {
        self.mtu.filter(|mtu| *mtu < self.course.mtu)
    }

    fn judge(&self, settled: bool, every: Duration, now: Instant) -> (Verdict, &'static str) {
        let seldom = if self.overlay.is_some() { seldom(every) } else { every };
        let signs = Signs {
            overlay: self.overlay.as_ref().map(|lane| lane.sign(every, now)),
            underlay: self.underlay.sign(seldom, now),
            settled: [settled, self.settled],
        };
        signs.judge()
    }

    /// What was found out.
    pub(super) fn finding(&mut self, settled: bool, every: Duration, now: Instant) -> Finding {
        let (verdict, cause) = self.judge(settled, every, now);
        if self.came_to.0 != verdict {
            self.came_to = (verdict, now);
        }
        Finding {
            verdict,
            cause,
            since: now.saturating_duration_since(self.came_to.1),
            ways: self.lanes().map(|(_, lane)| lane.measured(now)).collect(),
            limit: self.limit(),
            mtu: self.course.mtu,
        }
    }

    /// Which way leads to this address.
    pub(super) fn way_to(&self, addr: IpAddr) -> Option<Way> {
        self.lanes().find(|(_, lane)| lane.to == addr).map(|(way, _)| way)
    }
}
