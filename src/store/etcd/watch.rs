//! Following etcd: list at a revision, watch from the next one, and start over whenever anything is amiss.
//!
//! # Why
//! There is one way back from every failure. A compacted revision, a cancelled watch, a token that is not valid any
//! more and a broken connection all end in a fresh listing, which is one range.

use std::time::Duration;

use async_stream::stream;
use etcd_client::{Client, Error, Event, EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures::Stream;
use tokio::time::{sleep, timeout};

use super::failure::classify;
use super::keys::{ANSWER_LIMIT, Keys, config, list};
use super::pool::Pool;
use crate::store::backoff::Backoff;
use crate::store::table::{Change, Listing};
use crate::store::{Revision, StoreError};

/// How long the watch may be silent before the member is asked whether it is still there, at least.
const SILENCE: Duration = Duration::from_secs(2);
/// The same, for each lease there is: all hosts together ask etcd no more than 500 times a second.
const SILENCE_PER_LEASE: Duration = Duration::from_millis(2);
/// How long it may take to say so.
const ANSWER: Duration = Duration::from_secs(2);

/// A watch that is up, and what came with its making.
struct Feed {
    client: Client,
    stream: WatchStream,
    /// What came while the watch was being made.
    early: Vec<WatchResponse>,
    keys: Keys,
    cluster: u64,
    silence: Duration,
}

/// See [`crate::store::table::Table::follow`].
pub(super) fn follow(pool: &Pool, keys: &Keys) -> impl Stream<Item = Change> + Send {
    stream! {
        let mut backoff = Backoff::default();
        let mut down = false;
        loop {
            let failure = match open(pool, keys).await {
                Err(error) => Some(error),
                Ok((config, listing, mut feed)) => {
                    if std::mem::take(&mut down) {
                        yield Change::Up;
                    }
                    yield Change::Listing(config, listing);
                    loop {
                        let next = tokio::select! {
                            () = pool.moved() => break None,
                            next = feed.next() => next,
                        };
                        match next {
                            Ok(changes) => {
                                backoff.reset();
                                for change in changes {
                                    yield change;
                                }
                                pool.refresh().await;
                            }
                            Err(cause) => {
                                pool.forget().await;
                                let cause = format!("the watch ended: {cause}");
                                break Some(StoreError::Unavailable { store: pool.name(), cause });
                            }
                        }
                    }
                }
            };
            let Some(failure) = failure else { continue };
            let pause = backoff.after(&failure);
            if !std::mem::replace(&mut down, true) {
                yield Change::Down(failure);
            }
            sleep(pause).await;
        }
    }
}

/// Lists and starts to watch, both on one member.
async fn open(pool: &Pool, keys: &Keys) -> Result<(Option<Vec<u8>>, Listing, Feed), StoreError> {
    let call = |client: Client| {
        let keys = keys.clone();
        async move { start(client, keys).await }
    };
    pool.call("watch the leases", call).await
}

async fn start(client: Client, keys: Keys) -> Result<(Option<Vec<u8>>, Listing, Feed), Error> {
    let (config, at) = config(&client, keys.config.clone()).await?;
    let listing = list(&client, &keys).await?;
    let mut watch = client.watch_client().max_decoding_message_size(ANSWER_LIMIT);
    let leases = after(listing.revision).with_range(keys.end()).with_fragment();
    let mut stream = watch.watch(keys.subnets.clone(), Some(leases)).await?;
    stream.watch(keys.config.clone(), Some(after(at))).await?;
    let mut early = Vec::new();
    let mut created = 0;
    while created < 2 {
        let Some(message) = stream.message().await? else {
            return Err(Error::WatchError("etcd closed the watch".to_owned()));
        };
        if message.canceled() {
            return Err(Error::WatchError(format!("etcd cancelled the watch: {}", message.cancel_reason())));
        }
        created += u8::from(message.created());
        early.push(message);
    }
    early.reverse();
    let cluster = listing.revision.cluster;
    let silence = silence_among(listing.records.len());
    Ok((config, listing, Feed { client, stream, early, keys, cluster, silence }))
}

fn silence_among(leases: usize) -> Duration {
    SILENCE_PER_LEASE.saturating_mul(u32::try_from(leases).unwrap_or(u32::MAX)).max(SILENCE)
}

fn after(revision: Revision) -> WatchOptions {
    WatchOptions::new().with_start_revision(i64::try_from(revision.number).unwrap_or(i64::MAX - 1) + 1)
}

impl Feed {
    /// The changes of the next message; none if there was no need for one. An error ends the watch.
    async fn next(&mut self) -> Result<Vec<Change>, String> {
        if let Some(message) = self.early.pop() {
            return self.read(&message);
        }
        match timeout(self.silence, self.stream.message()).await {
            Ok(Ok(Some(message))) => self.read(&message),
            Ok(Ok(None)) => Err("etcd closed it".to_owned()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => self.probe().await.map(|()| Vec::new()),
        }
    }

    /// Asks for something small over the same connection. Neither etcd's progress messages nor HTTP/2 pings do: some
    /// versions leave the former out, and ping more often than every 5 s and etcd hangs up.
    async fn probe(&self) -> Result<(), String> {
        let small = GetOptions::new().with_serializable().with_keys_only();
        let mut client = self.client.clone();
        match timeout(ANSWER, client.get(self.keys.config.clone(), Some(small))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err(format!("no sign of life for {} s", (self.silence + ANSWER).as_secs())),
        }
    }

    fn read(&self, message: &WatchResponse) -> Result<Vec<Change>, String> {
        if message.compact_revision() != 0 {
            return Err(format!("its history before {} is compacted", message.compact_revision()));
        }
        if message.canceled() {
            return Err(format!("etcd cancelled it: {}", message.cancel_reason()));
        }
        Ok(message.events().iter().filter_map(|event| self.change(event)).collect())
    }

    fn change(&self, event: &Event) -> Option<Change> {
        let kv = event.kv()?;
        let revision = Revision { cluster: self.cluster, number: kv.mod_revision().unsigned_abs() };
        let put = event.event_type() == EventType::Put;
        Some(if kv.key() == self.keys.config.as_bytes() {
            Change::Config(put.then(|| kv.value().to_vec()))
        } else if put {
            Change::Put(self.keys.record(kv), revision)
        } else {
            Change::Delete(self.keys.strip(kv.key()), revision)
        })
    }
}

fn words(error: &Error) -> String {
    classify(error).into_cause()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_hosts_the_less_often_each_asks() {
        for (leases, seconds) in [(0, 2), (3, 2), (1_000, 2), (5_000, 10), (10_000, 20)] {
            assert_eq!(silence_among(leases), Duration::from_secs(seconds));
        }
    }
}
