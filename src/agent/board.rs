//! What the loop writes up for all who ask, and how they read it: without a turn of the loop.
//!
//! # Why
//! Who asks whether an agent is well must get an answer from one that is not. So the loop writes up what it would say,
//! and when it last took a turn; those who ask look at that, on threads of their own. Writing it up costs the loop as
//! much as answering one question, and is done as often as a fiftieth of its time allows.

mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

pub use self::view::{Glance, Sketch, Stuck, View};
use super::carried::Carried;
use super::census::{Joined, Roll};
use super::input::Input;
use super::status::Status;
use super::{Agent, World};
use crate::filter::{Counted, Counters, Firewall};
use crate::probe::Outlook;

/// How soon something that happened is written up at the earliest.
const SOON: Duration = Duration::from_millis(100);
/// How often all is written up though nothing happened: ages, counters.
const ANYWAY: Duration = Duration::from_secs(1);
/// What part of its time the loop spends on writing up, at most: one in this many.
const SHARE: u32 = 50;

/// The loop's side.
#[derive(Debug)]
pub(super) struct Board {
    notice: watch::Sender<Notice>,
    asked: Arc<Asked>,
    joined: Joined,
    /// Whether something happened since all was written up.
    moved: bool,
    /// When all was written up, and how long the loop may not spend on it again.
    last: Instant,
    rest: Duration,
}

/// What is written up.
#[derive(Debug, Clone)]
struct Notice {
    /// Everything but the peers and what the firewall and the datapath count; `None` before the first turn.
    status: Option<Arc<Status>>,
    roll: Roll,
    carried: Carried,
    outlook: Option<Outlook>,
    counters: Option<Counters>,
    written: Instant,
    /// When the loop last went on to something else, and to what.
    turned: Instant,
    doing: &'static str,
}

/// What the firewall counted.
#[derive(Debug, Default)]
struct Asked {
    /// When it was asked last, in the hand of whoever asks it.
    turn: Arc<Mutex<Option<Instant>>>,
    /// What it counted when it last answered.
    counted: watch::Sender<Arc<Counted>>,
}

impl Board {
    pub(super) fn new(now: Instant) -> Self {
        let notice = Notice {
            status: None,
            roll: Roll::default(),
            carried: Carried::default(),
            outlook: None,
            counters: None,
            written: now,
            turned: now,
            doing: "its start",
        };
        let (notice, _) = watch::channel(notice);
        Self {
            notice,
            asked: Arc::default(),
            joined: Joined::default(),
            moved: true,
            last: now,
            rest: Duration::ZERO,
        }
    }

    /// The loop goes on to something that may take long.
    pub(super) fn begins(&self, doing: &'static str) {
        self.notice.send_if_modified(|notice| {
            (notice.turned, notice.doing) = (crate::now(), doing);
            false
        });
    }

    /// Something happened, unless it is only time.
    pub(super) const fn hears(&mut self, input: &Input) {
        self.moved |= !matches!(input, Input::Time);
    }

    /// Something was done.
    pub(super) const fn moved(&mut self) {
        self.moved = true;
    }

    /// When to write up what happened; `None` if nothing did.
    pub(super) fn due(&self) -> Option<Instant> {
        self.moved.then(|| self.last + self.rest)
    }
}

impl<W: World> Agent<W> {
    /// For those who ask what this agent says of itself.
    #[must_use]
    pub fn view(&self) -> View {
        self.board.view()
    }

    /// Writes up what may have changed in this turn, if it is time to.
    pub(super) fn write_up(&mut self, now: Instant) {
        let rest = if self.board.moved { self.board.rest } else { self.board.rest.max(ANYWAY) };
        if now >= self.board.last + rest {
            self.write_up_at_once(now);
        }
    }

    /// Writes up what is so, whatever it costs.
    pub(super) fn write_up_at_once(&mut self, now: Instant) {
        let began = Instant::now();
        let status = Arc::new(self.status(now));
        let counters = self.firewall.as_ref().map(Firewall::counters);
        let roll = Roll { known: Arc::clone(&self.census().peers), probed: self.probing.findings() };
        let (carried, outlook) = (self.carrying.carried(), self.probing.outlook());
        self.board.notice.send_if_modified(|notice| {
            let news = !roll.is(&notice.roll)
                || notice.status.as_ref().is_none_or(|before| status.is_news_after(before));
            (notice.status, notice.counters) = (Some(status), counters);
            notice.roll = roll;
            (notice.carried, notice.outlook) = (carried, outlook);
            (notice.written, notice.turned) = (now, now);
            news
        });
        self.board.moved = false;
        self.board.last = now;
        self.board.rest = SOON.max(began.elapsed() * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_by_what_is_written_up_and_not_by_turns() {
        let board = Board::new(crate::now());
        let mut view = board.view();
        board.begins("a test");
        assert!(timeout(ANYWAY, view.changed()).await.is_err());
        board.notice.send_modify(|notice| notice.written = crate::now());
        assert_eq!(timeout(ANYWAY, view.changed()).await, Ok(true));
        assert!(timeout(ANYWAY, view.changed()).await.is_err());
        drop(board);
        assert_eq!(timeout(ANYWAY, view.changed()).await, Ok(false));
    }
}
