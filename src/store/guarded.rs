//! The rules of holding a lease, on any table.
//!
//! # Why
//! A lease is held, not remembered: each write names the revision it replaces, so a host that was away while its
//! lease expired and went to another cannot take it back by writing. When a guard does not hold, what stands there
//! decides: our own node id and session mean that an earlier attempt took effect and its reply was lost, or that an
//! operator moved the key; anything else means that the lease is lost.

use async_stream::stream;
use futures::{Stream, StreamExt};
use twill_backends::allocate::{Choice, Claim, choose};
use twill_backends::lease::{Attrs, Lease, LeaseKey};
use twill_backends::network::NetworkConfig;

use super::table::{Guard, Listing, Record, Table, Write, Written, parse_config};
use super::{Held, LeaseStore, StoreError, StoreEvent, Term};

/// How many races a claim may lose before it gives up.
const RACES: usize = 100;

/// A lease store made of a table.
#[derive(Debug, Clone)]
pub struct Guarded<T> {
    pub(super) table: T,
}

impl<T: Table> Guarded<T> {
    /// Nothing is read or connected to yet.
    pub const fn new(table: T) -> Self {
        Self { table }
    }

    /// The table below, with what only it can do.
    pub const fn table(&self) -> &T {
        &self.table
    }
}

impl<T: Table> LeaseStore for Guarded<T> {
    async fn config(&self) -> Result<NetworkConfig, StoreError> {
        let place = self.table.config_place();
        match self.table.read_config().await? {
            None => Err(StoreError::NoConfig { place }),
            found => parse_config(found.as_deref(), &place).map_err(StoreError::BadConfig),
        }
    }

    async fn acquire(&self, claim: &Claim, config: &NetworkConfig) -> Result<Held, StoreError> {
        for _ in 0..RACES {
            let listing = self.table.list().await?;
            let taken: Vec<_> = listing.records.iter().filter_map(Record::taken).collect();
            let choice = choose(claim, config, &taken, &mut |below| fastrand::u64(..below))?;
            if let Some(held) = self.take(choice, &listing, &claim.attrs).await? {
                return Ok(held);
            }
        }
        let cause = format!("cannot claim a lease: lost {RACES} races in a row");
        Err(StoreError::Unavailable { store: self.table.name(), cause })
    }

    async fn renew(&self, held: &Held) -> Result<Held, StoreError> {
        let key = &held.lease.key;
        let Some(record) = self.table.read(key).await? else { return Err(lost(held, None)) };
        if record.revision != held.revision && !is_ours(held, &record) {
            return Err(lost(held, Some(&record)));
        }
        let lease = record.lease().unwrap_or_else(|_| held.lease.clone());
        let kept = match (record.grant, held.term) {
            (None, _) => Some(Term::Permanent),
            (Some(theirs), term @ Term::Renewable { grant, .. }) if theirs == grant => {
                self.table.extend(key, record.revision, term).await?.then_some(term)
            }
            (Some(_), Term::Renewable { .. } | Term::Permanent) => None,
        };
        match kept {
            Some(term) => Ok(Held { lease, revision: record.revision, term }),
            None => self.rehang(held, &record, lease).await,
        }
    }

    async fn publish(&self, held: &Held, attrs: &Attrs) -> Result<Held, StoreError> {
        let lease = Lease { attrs: attrs.clone(), ..held.lease.clone() };
        let found = match self.put(lease.clone(), Guard::Unchanged(held.revision), held.term).await? {
            Ok(held) => return Ok(held),
            Err(found) => found,
        };
        let Some(record) = found.filter(|record| is_ours(held, record)) else {
            return Err(self.lost_now(held).await);
        };
        let term = if record.grant.is_none() { Term::Permanent } else { held.term };
        match self.put(lease, Guard::Unchanged(record.revision), term).await? {
            Ok(held) => Ok(held),
            Err(found) => Err(lost(held, found.as_ref())),
        }
    }

    async fn release(&self, held: Held) -> Result<(), StoreError> {
        let Term::Renewable { grant, .. } = held.term else { return self.give_back(&held).await };
        let key = &held.lease.key;
        let mut revision = held.revision;
        for _ in 0..2 {
            match self.table.delete(key, revision).await? {
                Written::Done(_) | Written::Found(None) => {
                    self.table.end(grant).await;
                    return Ok(());
                }
                Written::Found(Some(record)) if is_ours(&held, &record) => revision = record.revision,
                Written::Found(Some(record)) => return Err(lost(&held, Some(&record))),
            }
        }
        Err(self.lost_now(&held).await)
    }

    fn watch(&self) -> impl Stream<Item = StoreEvent> + Send {
        stream! {
            let place = self.table.config_place();
            let mut changes = std::pin::pin!(self.table.follow());
            while let Some(change) = changes.next().await {
                for event in change.decoded(&place) {
                    yield event;
                }
            }
        }
    }
}

impl<T: Table> Guarded<T> {
    /// Does what was chosen; `None` if another host was faster.
    async fn take(
        &self,
        choice: Choice,
        listing: &Listing,
        attrs: &Attrs,
    ) -> Result<Option<Held>, StoreError> {
        let (key, record) = match choice {
            Choice::Rewrite(key) => {
                let record = listing.get(&key);
                (key, record)
            }
            Choice::Create(subnets) => (LeaseKey::of(&subnets), None),
        };
        let Ok(subnets) = key.subnets() else { return Ok(None) };
        let guard = record.map_or(Guard::Absent, |record| Guard::Unchanged(record.revision));
        let permanent = record.is_some_and(|record| record.grant.is_none());
        let term = if permanent { Term::Permanent } else { self.table.begin().await? };
        let lease = Lease { key, subnets, attrs: attrs.clone() };
        let put = self.put(lease, guard, term).await;
        // What the key hung on before may go if it was ours; flanneld's etcd leases are left alone.
        let obsolete = match (&put, term) {
            (Ok(Ok(_)), _) => record.filter(|record| of_node(record, attrs)).and_then(|record| record.grant),
            (Ok(Err(_)) | Err(StoreError::Refused { .. }), Term::Renewable { grant, .. }) => Some(grant),
            _ => None,
        };
        if let Some(grant) = obsolete {
            self.table.end(grant).await;
        }
        Ok(put?.ok())
    }

    /// Writes a lease. `Err` inside `Ok` is what stands there in its stead.
    pub(super) async fn put(
        &self,
        lease: Lease,
        guard: Guard,
        term: Term,
    ) -> Result<Result<Held, Option<Record>>, StoreError> {
        let write = Write { key: lease.key.clone(), guard, value: lease.attrs.encode(), term };
        Ok(match self.table.write(&write).await? {
            Written::Done(revision) => Ok(Held { lease, revision, term }),
            Written::Found(Some(record)) if write.left(&record) => {
                Ok(Held { lease, revision: record.revision, term })
            }
            Written::Found(found) => Err(found),
        })
    }

    /// Puts our value, which hangs on a term that is not ours or has ended, on one that is.
    async fn rehang(&self, held: &Held, record: &Record, lease: Lease) -> Result<Held, StoreError> {
        let term = self.table.begin().await?;
        match self.put(lease, Guard::Unchanged(record.revision), term).await? {
            Ok(held) => Ok(held),
            Err(found) => {
                if let Term::Renewable { grant, .. } = term {
                    self.table.end(grant).await;
                }
                Err(lost(held, found.as_ref()))
            }
        }
    }

    /// A reservation outlives its use: the key stays, and says only for whom.
    async fn give_back(&self, held: &Held) -> Result<(), StoreError> {
        let Attrs { public_ip, public_ipv6, ref node_id, .. } = held.lease.attrs;
        let attrs = Attrs { public_ip, public_ipv6, node_id: node_id.clone(), ..Attrs::default() };
        self.publish(held, &attrs).await.map(drop)
    }

    async fn lost_now(&self, held: &Held) -> StoreError {
        match self.table.read(&held.lease.key).await {
            Ok(found) => lost(held, found.as_ref()),
            Err(error) => error,
        }
    }
}

/// Whether this process wrote the record.
fn is_ours(held: &Held, record: &Record) -> bool {
    let ours = &held.lease.attrs;
    match Attrs::decode(&record.value) {
        Ok(theirs) if ours.node_id.is_some() => {
            theirs.node_id == ours.node_id && theirs.session == ours.session
        }
        Ok(theirs) => theirs == *ours,
        Err(_) => false,
    }
}

/// Whether a process of the same node wrote the record.
fn of_node(record: &Record, attrs: &Attrs) -> bool {
    attrs.node_id.is_some()
        && Attrs::decode(&record.value).is_ok_and(|theirs| theirs.node_id == attrs.node_id)
}

fn lost(held: &Held, found: Option<&Record>) -> StoreError {
    let holder = found.and_then(|record| Attrs::decode(&record.value).ok());
    let cause = match (&holder, found) {
        (None, None) => "it expired or was deleted, and nobody holds it".to_owned(),
        (None, Some(_)) => "something that is no lease was written over it".to_owned(),
        (Some(attrs), _) if attrs.node_id.is_some() && attrs.node_id == held.lease.attrs.node_id => {
            format!("another process with this host's node id, at {}, wrote it", address(attrs))
        }
        (Some(attrs), _) => {
            let node = attrs.node_id.as_deref().unwrap_or("without id (flanneld)");
            format!("node {node} at {} holds it", address(attrs))
        }
    };
    StoreError::Lost { key: held.lease.key.clone(), holder: holder.map(Box::new), cause }
}

fn address(attrs: &Attrs) -> String {
    match (attrs.public_ip, attrs.public_ipv6) {
        (Some(addr), _) => addr.to_string(),
        (None, Some(addr)) => addr.to_string(),
        (None, None) => "an unknown address".to_owned(),
    }
}
