//! The side of the running agent: it offers, and goes on as before unless the successor takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::offer::{Known, Offer, Thing};
use super::{Heir, PATIENCE, TAKEN, line, says, wire};
use crate::agent::socket::{Ask, Request, Visit};
use crate::agent::status::VERSION;
use crate::agent::{Agent, Calling, End, World};
use crate::store::StoreError;

/// How long a call to the store under way may still take.
const CALL: Duration = Duration::from_secs(2);

impl<W: World> Agent<W> {
    /// Lets a process take over. Returns how this one ends, or `None` if it goes on.
    pub(in crate::agent) async fn hand_over(
        &mut self,
        heir: Heir,
        calling: &mut Option<Calling>,
        visits: &mut mpsc::Receiver<Visit>,
        stop: &CancellationToken,
    ) -> Option<End> {
        let pid = heir.pid();
        tracing::info!(pid, "another process asks to take over");
        self.finish(calling).await;
        match self.part(&heir, visits, stop).await {
            Ok(true) => Some(End::HandedOver(heir)),
            Ok(false) => Some(End::Told),
            Err(why) => {
                tracing::warn!(pid, why, "it did not take over; going on");
                heir.refuse(&why).await;
                // Nobody listened meanwhile.
                self.reconciler.doubt(crate::now());
                None
            }
        }
    }

    /// Waits for a call to the store, so that it does not take effect after the successor's. One that takes too long
    /// is given up: its revision guards it, and the session tells whose it was.
    async fn finish(&mut self, calling: &mut Option<Calling>) {
        let Some(call) = calling.take() else { return };
        let cause = "given up, because another process takes over".to_owned();
        let store = self.config.site.store.to_string();
        let answer = tokio::time::timeout(CALL, call).await;
        self.answered(answer.unwrap_or_else(|_| Err(StoreError::Unavailable { store, cause })));
    }

    /// Offers, and waits for the successor's word: whether it took over before this process was told to end. An error
    /// says why it must not go on.
    async fn part(
        &self,
        heir: &Heir,
        visits: &mut mpsc::Receiver<Visit>,
        stop: &CancellationToken,
    ) -> Result<bool, String> {
        let gone = |error: io::Error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                "it ended".to_owned()
            } else {
                error.to_string()
            }
        };
        let exchange = async {
            self.offer(heir).await?;
            wire::receive(&heir.stream).await
        };
        let mut exchange = std::pin::pin!(tokio::time::timeout(PATIENCE, exchange));
        let word = loop {
            tokio::select! {
                biased;
                word = &mut exchange => break word,
                // The successor has all it needs, or another start will do.
                () = stop.cancelled() => return Ok(false),
                Some(visit) = visits.recv() => self.put_off(visit).await,
            }
        };
        let word = word.map_err(|_| format!("not ready within {} s", PATIENCE.as_secs()))?;
        let (word, _) = word.map_err(gone)?;
        if !says(&word, TAKEN) {
            return Err("it says what is not understood".to_owned());
        }
        let ok = json!({ "version": VERSION, "ok": null });
        wire::send(&heir.stream, &line(&ok), &[]).await.map_err(gone)?;
        tracing::info!(pid = heir.pid(), "handed over; ending");
        Ok(true)
    }

    async fn offer(&self, heir: &Heir) -> io::Result<()> {
        let ready = *self.ready.borrow();
        let mut offer = Offer::new(&self.identity, ready, self.to_be_known()?);
        let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
        let doors = &heir.doors;
        let single = [
            (Thing::Lock, Some(&doors.lock)),
            (Thing::Socket, Some(&doors.socket)),
            (Thing::Http, Some(&doors.http)),
            (Thing::Health, doors.health.as_ref()),
            (Thing::Page, doors.page.as_ref()),
        ];
        for (thing, fd) in single {
            if let Some(fd) = fd {
                offer.things.push(thing);
                descriptors.push(fd.as_fd());
            }
        }
        for (dev, parts) in self.carrying.parts() {
            offer.things.extend(parts.taps.iter().map(|_| Thing::Tap(dev.to_string())));
            offer.things.extend(parts.sockets.iter().map(|_| Thing::Udp(dev.to_string())));
            descriptors.extend(parts.descriptors());
        }
        let answer = json!({ "version": VERSION, "ok": offer });
        wire::send(&heir.stream, &line(&answer), &descriptors).await
    }

    /// What a plan is made of, if there is one. While deletions are held, it comes with the revision of the store as
    /// it was before, by which the successor notices the same.
    fn to_be_known(&self) -> io::Result<Option<Known>> {
        let now = crate::now();
        let Some(mut memory) = self.plan.as_ref().and_then(|_| self.known(now)) else { return Ok(None) };
        if self.leases.held_because().is_some() {
            let before = self.papers.recall(&self.identity.node.to_string());
            memory.revision = before.map_or(memory.revision, |before| before.revision);
        }
        Known::new(&memory, &self.tenure, now).map(Some)
    }

    /// Answers what can be answered while nothing may change.
    async fn put_off(&self, visit: Visit) {
        let busy = "another process is taking over; ask again in a moment";
        match visit {
            Visit::Succeeds(heir) => heir.refuse(busy).await,
            // What was written up before is as good: nothing changes.
            Visit::Asks(Request { ask: Ask::Status, reply, .. }) => drop(reply.send(Ok(Value::Null))),
            Visit::Asks(request) => drop(request.reply.send(Err(busy.to_owned()))),
        }
    }
}
