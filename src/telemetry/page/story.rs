//! What happened while nobody looked, so that who looks afterwards sees it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::unix_ms;
use crate::agent::board::{Sketch, View};
use crate::agent::status::{PeerStatus, Status};
use crate::views::watch::{Kind, begins, changes};

/// How long nobody looks after a look, whatever happens.
const REST: Duration = Duration::from_millis(500);
/// How many entries are kept.
const KEPT: usize = 200;
/// Of how many peers each is told to which something happened at once: what is told of thousands is more than all that is
/// known of them, and would leave no room for what happened before.
const PEERS: usize = 50;

/// What happened, the last of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Story {
    /// The latest comes last.
    pub(super) entries: VecDeque<Arc<Entry>>,
    told: u64,
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// One more than the entry before it.
    pub(super) number: u64,
    at_ms: u64,
    kind: Kind,
    text: String,
}

/// Follows what the agent says of itself, for as long as it says something.
pub(super) async fn follow(mut view: View, story: watch::Sender<Story>) {
    let mut before: Option<Sketch> = None;
    while let Some(after) = view.sketch().await {
        story.send_if_modified(|story| story.goes_on(before.as_ref(), &after, unix_ms()));
        before = Some(after);
        tokio::time::sleep(REST).await;
        if !view.changed().await {
            return;
        }
    }
}

impl Story {
    /// Takes down what happened between two looks. Returns whether anything did.
    pub(super) fn goes_on(&mut self, before: Option<&Sketch>, after: &Sketch, at_ms: u64) -> bool {
        let happened = match before {
            None => begins(&told(after, Vec::new()), after.roll.told(|_| true).iter()),
            Some(before) => {
                let moved = after.roll.moved(&before.roll);
                let others = moved.len().saturating_sub(PEERS);
                let some: BTreeSet<&str> = moved.into_iter().take(PEERS).collect();
                let told = |sketch: &Sketch| told(sketch, sketch.roll.told(|key| some.contains(key)));
                let mut all = changes(Some(&told(before)), &told(after));
                all.extend((others > 0).then(|| Kind::News.of(format!("as well as {others} other peers"))));
                all
            }
        };
        let before = self.told;
        for change in happened {
            self.told += 1;
            let (number, kind, text) = (self.told, change.kind, change.text);
            self.entries.push_back(Arc::new(Entry { number, at_ms, kind, text }));
        }
        self.entries.drain(..self.entries.len().saturating_sub(KEPT));
        self.told != before
    }
}

/// A status with some of its peers, as others are told it.
fn told(sketch: &Sketch, peers: Vec<PeerStatus>) -> Value {
    // Nothing in it has no JSON.
    serde_json::to_value(Status { peers, ..Status::clone(&sketch.status) }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use twill_backends::probe::Verdict;

    use super::*;
    use crate::agent::status::tests::status;

    fn sketch(change: impl Fn(&mut Status)) -> Sketch {
        let mut status = status();
        change(&mut status);
        status.into()
    }

    fn texts(story: &Story) -> Vec<&str> {
        story.entries.iter().map(|entry| entry.text.as_str()).collect()
    }

    #[test]
    fn what_happens_is_told_with_the_peers_that_it_happened_to() {
        let mut story = Story::default();
        let calm = sketch(|_| ());
        assert!(story.goes_on(None, &calm, 1));
        assert!(texts(&story)[0].starts_with("state degraded, 2 peers: 2 in need"), "{:?}", texts(&story));
        let begun = story.entries.len();
        let slower = sketch(|status| {
            status.peers[0].probe.as_mut().unwrap().ways[0].rtt_p50_us = Some(77);
            status.uptime_s += 1;
        });
        assert!(!story.goes_on(Some(&calm), &slower, 2), "{:?}", texts(&story));
        let cut = sketch(|status| {
            let probe = status.peers[0].probe.as_mut().unwrap();
            (probe.verdict, probe.cause) = (Verdict::OneWay, "nothing sent there arrives".to_owned());
            status.reconcile.repairs += 1;
            status.reconcile.repaired.insert("link".to_owned(), 1);
        });
        assert!(story.goes_on(Some(&slower), &cut, 3));
        let want = [
            "repaired 1, 2 since the start: link",
            "peer 10.5.2.0-24 one-way, was ok: nothing sent there arrives",
        ];
        assert_eq!(texts(&story)[begun..], want);
        let kinds: Vec<Kind> = story.entries.iter().skip(begun).map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Repair, Kind::Trouble]);
        assert!(story.goes_on(Some(&cut), &calm, 4));
        assert_eq!(story.entries.back().unwrap().kind, Kind::Better);
    }

    #[test]
    fn of_very_many_peers_that_come_at_once_some_are_told_and_the_others_counted() {
        let mut story = Story::default();
        let nobody = sketch(|status| status.peers.clear());
        let all = sketch(|status| {
            let one = status.peers[0].clone();
            let peer = |n| PeerStatus { key: format!("10.5.{n:03}.0-24"), ..one.clone() };
            status.peers = (0..PEERS + 7).map(peer).collect();
        });
        assert!(story.goes_on(Some(&nobody), &all, 1));
        let told = texts(&story);
        assert_eq!(told.len(), PEERS + 1);
        assert!(told[PEERS - 1].starts_with("peer 10.5.049.0-24 came, at "), "{told:?}");
        assert_eq!(told[PEERS], "as well as 7 other peers");
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_what_is_so_and_ends_with_the_agent() {
        let (tell, story) = watch::channel(Story::default());
        follow(View::of(status()), tell).await;
        assert!(texts(&story.borrow())[0].starts_with("state degraded"), "{:?}", texts(&story.borrow()));
    }

    #[test]
    fn the_last_of_it_is_kept_and_numbers_go_on() {
        let mut story = Story::default();
        let states = [sketch(|_| ()), sketch(|status| status.store.connected = false)];
        for turn in 0..KEPT + 10 {
            assert!(story.goes_on(Some(&states[turn % 2]), &states[(turn + 1) % 2], 1));
        }
        assert_eq!(story.entries.len(), KEPT);
        let numbers: Vec<u64> = story.entries.iter().map(|entry| entry.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    }
}
