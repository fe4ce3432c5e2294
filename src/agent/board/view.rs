//! How those who ask read what the loop wrote up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use twill_backends::probe::hearsay::Matrix;

use super::{Asked, Board, Notice};
use crate::agent::carried;
use crate::agent::census::{Joined, Roll};
use crate::agent::status::{PeerStatus, Status};
use crate::filter::{Counted, Counters};
use crate::probe::Outlook;

/// How long the loop may take for one thing. What it runs is given up after 20 s.
const STUCK: Duration = Duration::from_secs(30);
/// How long what the firewall counts is good for.
const FRESH: Duration = Duration::from_secs(2);
/// How long it may take to tell that; then what it told before has to do.
const BRIEF: Duration = Duration::from_secs(1);

/// The side of those who ask.
#[derive(Debug, Clone)]
pub struct View {
    notice: watch::Receiver<Notice>,
    joined: Joined,
    asked: Arc<Asked>,
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

/// The same, with the peers as they are on the roll.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// Everything but the peers and what the firewall counts.
    pub status: Arc<Status>,
    /// The other hosts.
    pub roll: Roll,
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
    pub(in crate::agent) fn view(&self) -> View {
        View { notice: self.notice.subscribe(), joined: self.joined.clone(), asked: Arc::clone(&self.asked) }
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
    pub fn of_fabric(status: Status, matrix: Option<Matrix>) -> Self {
        let board = Board::new(crate::now());
        board.begins("a test");
        board.notice.send_modify(|notice| {
            notice.outlook = matrix.map(Outlook::of);
            let Sketch { status, roll } = status.into();
            (notice.status, notice.roll) = (Some(status), roll);
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
            carried::take(&mut status.peers, &notice.roll.known, &counted.received);
        }
        notice.carried.tell(&mut status.peers, &notice.roll.known);
        Some(status)
    }

    /// The same without a copy of it, and without asking who counts.
    pub async fn glance(&self) -> Option<Glance> {
        self.look_at(&self.written().await?)
    }

    /// The same without having the peers put together.
    pub async fn sketch(&self) -> Option<Sketch> {
        let notice = self.written().await?;
        Some(Sketch { status: notice.status?, roll: notice.roll })
    }

    /// Waits until something is written up that had not happened yet when this last returned. Returns whether it was, or
    /// the agent ended.
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
        Some(Glance { status, peers: self.joined.peers(&notice.roll), age })
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

    /// What the firewall counted. However many ask, it is asked every few seconds, and again only once it answered; who asked
    /// in vain finds the answer the next time.
    async fn counted(&self, counters: &Counters) -> Arc<Counted> {
        let Asked { turn, counted } = &*self.asked;
        let fresh = |at: Instant| crate::now().saturating_duration_since(at) < FRESH;
        if let Ok(mut asked) = Arc::clone(turn).try_lock_owned()
            && !asked.is_some_and(fresh)
        {
            let (counters, counted) = (counters.clone(), counted.clone());
            tokio::spawn(async move {
                if let Some(read) = counters.read().await {
                    counted.send_replace(Arc::new(read));
                }
                *asked = Some(crate::now());
            });
        }
        timeout(BRIEF, turn.lock()).await.ok();
        counted.borrow().clone()
    }
}

impl From<Status> for Sketch {
    /// What another agent says of itself.
    fn from(mut status: Status) -> Self {
        let roll = std::mem::take(&mut status.peers).into();
        Self { status: Arc::new(status), roll }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::agent::status::tests::status;

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_is_told_until_more_is_known() {
        // What is answered: nothing yet, that it could not be learnt, or a number.
        let (answer, answers) = watch::channel(Some(Some(7)));
        let asked = Arc::new(AtomicUsize::new(0));
        let times = Arc::clone(&asked);
        let counters = Counters::new(move || {
            times.fetch_add(1, Ordering::Relaxed);
            let mut answers = answers.clone();
            async move {
                let strangers = (*answers.wait_for(Option::is_some).await.ok()?)??;
                Some(Counted { dropped: [("strangers".to_owned(), strangers)].into(), ..Counted::default() })
            }
        });
        let view = View::of(status());
        let told = async |told, times| {
            assert_eq!(view.counted(&counters).await.dropped["strangers"], told);
            assert_eq!(asked.load(Ordering::Relaxed), times);
        };
        told(7, 1).await;
        answer.send_replace(None);
        told(7, 1).await;
        tokio::time::advance(FRESH).await;
        told(7, 2).await;
        told(7, 2).await;
        answer.send_replace(Some(Some(9)));
        told(9, 2).await;
        answer.send_replace(Some(None));
        tokio::time::advance(FRESH).await;
        told(9, 3).await;
    }
}
