//! What the loop writes up for all who ask, and how they read it: without a turn of the loop.
//!
//! # Why
//! Who asks whether an agent is well must get an answer from one that is not. So the loop writes up what it would say,
//! and when it last took a turn; those who ask look at that, on threads of their own. Writing it up costs the loop as
//! much as answering one question, and is done as often as a fiftieth of its time allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use twill_backends::probe::hearsay::Matrix;

use super::carried::{self, Carried};
use super::census::{Joined, Peer, Probed};
use super::input::Input;
use super::status::{PeerStatus, Status};
use super::{Agent, World};
use crate::filter::{Counted, Counters, Firewall};
use crate::probe::Outlook;

/// How soon something that happened is written up at the earliest.
const SOON: Duration = Duration::from_millis(100);
/// How often all is written up though nothing happened: ages, counters.
const ANYWAY: Duration = Duration::from_secs(1);
/// What part of its time the loop spends on writing up, at most: one in this many.
const SHARE: u32 = 50;
/// How long the loop may take for one thing. What it runs is given up after 20 s.
const STUCK: Duration = Duration::from_secs(30);
/// How long what the firewall counts is good for.
const FRESH: Duration = Duration::from_secs(2);

/// The loop's side.
#[derive(Debug)]
pub(super) struct Board {
    notice: watch::Sender<Notice>,
    asked: Arc<Mutex<Asked>>,
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
    peers: Arc<Vec<Peer>>,
    probed: Probed,
    carried: Carried,
    outlook: Option<Outlook>,
    counters: Option<Counters>,
    written: Instant,
    /// When the loop last went on to something else, and to what.
    turned: Instant,
    doing: &'static str,
}

/// What the firewall counted, and when.
type Asked = Option<(Instant, Arc<Counted>)>;

/// The side of those who ask.
#[derive(Debug, Clone)]
pub struct View {
    notice: watch::Receiver<Notice>,
    joined: Joined,
    asked: Arc<Mutex<Asked>>,
}

/// What was written up last, shared with all who look.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Everything but the peers and what the firewall counts.
    pub status: Arc<Status>,
    /// The other hosts.
    pub peers: Arc<Vec<PeerStatus>>,
    /// How old that is.
    pub age: Duration,
}

/// Why the loop makes no progress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent has been busy with {doing} for {seconds} s; packets flow, and nothing is repaired; next: look at its log, \
     then restart it"
)]
pub struct Stuck {
    /// What it does not come back from.
    pub doing: &'static str,
    /// For how long.
    pub seconds: u64,
}

impl Board {
    pub(super) fn new(now: Instant) -> Self {
        let notice = Notice {
            status: None,
            peers: Arc::default(),
            probed: Probed::default(),
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

    pub(super) fn view(&self) -> View {
        View { notice: self.notice.subscribe(), joined: self.joined.clone(), asked: Arc::clone(&self.asked) }
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

impl View {
    /// A view of what no agent goes on with: of a status from elsewhere.
    #[must_use]
    pub fn of(status: Status) -> Self {
        Self::of_fabric(status, None)
    }

    /// The same, with what all hosts found out.
    #[must_use]
    pub fn of_fabric(mut status: Status, matrix: Option<Matrix>) -> Self {
        let board = Board::new(crate::now());
        board.begins("a test");
        board.notice.send_modify(|notice| {
            notice.outlook = matrix.map(Outlook::of);
            notice.peers = Arc::new(std::mem::take(&mut status.peers).into_iter().map(Peer::from).collect());
            notice.status = Some(Arc::new(status));
        });
        board.view()
    }

    /// Looks at what all hosts found out, from now on; `None` while this host probes nobody.
    #[must_use]
    pub fn look(&self) -> Option<watch::Receiver<Option<Arc<Matrix>>>> {
        self.notice.borrow().outlook.as_ref().map(Outlook::look)
    }

    /// What the agent says of itself. Waits for its first turn; `None` if it ended before that.
    pub async fn status(&self) -> Option<Status> {
        let notice = self.written().await?;
        let Glance { status, peers, age } = self.look_at(&notice)?;
        let mut status = Status::clone(&status);
        status.peers.clone_from(&peers);
        status.age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        if let Some(guard) = status.network.as_mut().and_then(|network| network.guard.as_mut())
            && let Some(counters) = &notice.counters
        {
            let counted = self.counted(counters).await;
            guard.dropped.clone_from(&counted.dropped);
            carried::take(&mut status.peers, &notice.peers, &counted.received);
        }
        notice.carried.tell(&mut status.peers, &notice.peers);
        Some(status)
    }

    /// The same without a copy of it, and without asking who counts.
    pub async fn glance(&self) -> Option<Glance> {
        self.look_at(&self.written().await?)
    }

    /// Waits until something is written up that was not yet when this last returned. Returns whether it was, or the agent
    /// ended.
    pub async fn changed(&mut self) -> bool {
        self.notice.changed().await.is_ok()
    }

    /// What is written up, from the first turn on.
    async fn written(&self) -> Option<Notice> {
        let mut notices = self.notice.clone();
        let notice = notices.wait_for(|notice| notice.status.is_some()).await.ok()?;
        Some(notice.clone())
    }

    fn look_at(&self, notice: &Notice) -> Option<Glance> {
        let status = Arc::clone(notice.status.as_ref()?);
        let age = crate::now().saturating_duration_since(notice.written);
        Some(Glance { status, peers: self.joined.peers(&notice.peers, &notice.probed), age })
    }

    /// Why the agent is not ready; empty if it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let readiness =
            |notice: &Notice| notice.status.as_ref().map(|status| status.readiness.because.clone());
        let stuck = self.stuck().map(|stuck| stuck.to_string());
        let because = readiness(&self.notice.borrow()).unwrap_or_else(|| vec!["it is starting".to_owned()]);
        stuck.into_iter().chain(because).collect()
    }

    /// How long ago the loop last went on to something else.
    #[must_use]
    pub fn turned(&self) -> Duration {
        crate::now().saturating_duration_since(self.notice.borrow().turned)
    }

    /// Whether the loop makes no progress.
    #[must_use]
    pub fn stuck(&self) -> Option<Stuck> {
        let since = self.turned();
        (since >= STUCK).then(|| Stuck { doing: self.notice.borrow().doing, seconds: since.as_secs() })
    }

    /// What the firewall counted. However many ask, it is asked every few seconds.
    async fn counted(&self, counters: &Counters) -> Arc<Counted> {
        let mut asked = self.asked.lock().await;
        match &*asked {
            Some((at, counted)) if crate::now().saturating_duration_since(*at) < FRESH => Arc::clone(counted),
            _ => {
                let counted = Arc::new(counters.read().await);
                *asked = Some((crate::now(), Arc::clone(&counted)));
                counted
            }
        }
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
        let (peers, probed) = (Arc::clone(&self.census().peers), Probed(self.probing.findings()));
        let (carried, outlook) = (self.carrying.carried(), self.probing.outlook());
        self.board.notice.send_modify(|notice| {
            (notice.status, notice.counters) = (Some(status), counters);
            (notice.peers, notice.probed) = (peers, probed);
            (notice.carried, notice.outlook) = (carried, outlook);
            (notice.written, notice.turned) = (now, now);
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
