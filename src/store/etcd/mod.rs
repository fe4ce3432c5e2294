//! Leases in etcd, at flannel's keys: `<prefix>/config`, and `<prefix>/subnets/<key>` on an etcd lease.

mod certificates;
mod failure;
mod keys;
mod pool;
mod watch;

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use twill_backends::lease::LeaseKey;

use self::failure::has_ended;
use self::keys::{Keys, config, kv_client, list, number};
use self::pool::Pool;
use super::guarded::Guarded;
use super::table::{Change, Guard, Listing, Record, Table, Write, Written, overlapping};
use super::{LEASE_TTL, StoreError, Term};
use crate::config::EtcdConfig;

/// A lease store in etcd.
pub type EtcdStore = Guarded<EtcdTable>;

/// How many questions about single keys are under way at once.
const IN_FLIGHT: usize = 64;

/// The keys below one prefix of an etcd cluster.
#[derive(Debug)]
pub struct EtcdTable {
    pool: Pool,
    keys: Keys,
    ttl: Duration,
}

impl EtcdTable {
    /// Nothing is connected to before the first call.
    #[must_use]
    pub fn new(config: EtcdConfig) -> Self {
        Self::with_ttl(config, LEASE_TTL)
    }

    /// With leases that live for `ttl` (whole seconds; etcd has a minimum of its own) unless renewed.
    #[must_use]
    pub fn with_ttl(config: EtcdConfig, ttl: Duration) -> Self {
        let keys = Keys::below(&config.prefix);
        Self { pool: Pool::new(config), keys, ttl }
    }
}

impl Table for EtcdTable {
    fn name(&self) -> String {
        self.pool.name()
    }

    fn config_place(&self) -> String {
        format!("key {} of {} (API v3)", self.keys.config, self.pool.name())
    }

    async fn read_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let key = &self.keys.config;
        let call = |client: Client| {
            let key = key.clone();
            async move { config(&client, key).await }
        };
        Ok(self.pool.call("read the network configuration", call).await?.0)
    }

    async fn write_config(&self, text: &str) -> Result<(), StoreError> {
        let call = |mut client: Client| {
            let (key, text) = (self.keys.config.clone(), text.to_owned());
            async move { client.put(key, text, None).await }
        };
        self.pool.call("write the network configuration", call).await.map(drop)
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        let call = |client: Client| {
            let keys = self.keys.clone();
            async move { list(&client, &keys).await }
        };
        self.pool.call("list the leases", call).await
    }

    async fn read(&self, key: &LeaseKey) -> Result<Option<Record>, StoreError> {
        let call = |mut client: Client| {
            let key = self.keys.of(key);
            async move { client.get(key, None).await }
        };
        let found = self.pool.call("read a lease", call).await?;
        Ok(self.first(&found))
    }

    async fn begin(&self) -> Result<Term, StoreError> {
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let call = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        let granted = self.pool.call("start an etcd lease", call).await?;
        let ttl = Duration::from_secs(granted.ttl().unsigned_abs());
        Ok(Term::Renewable { grant: granted.id(), ttl })
    }

    async fn extend(&self, _: &LeaseKey, _: u64, term: Term) -> Result<bool, StoreError> {
        let Term::Renewable { grant, .. } = term else { return Ok(true) };
        let call = |client: Client| async move {
            match client.lease_client().keep_alive(grant).await {
                Ok(_) => Ok(true),
                Err(error) if has_ended(&error) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.pool.call("renew the etcd lease", call).await
    }

    async fn end(&self, grant: i64) {
        let call = |mut client: Client| async move { client.lease_revoke(grant).await };
        if let Err(error) = self.pool.call("end an unused etcd lease", call).await {
            tracing::debug!(grant, %error, "an unused etcd lease is left to expire");
        }
    }

    async fn write(&self, write: &Write) -> Result<Written, StoreError> {
        let key = self.keys.of(&write.key);
        let guard = match write.guard {
            Guard::Absent => Compare::version(key.clone(), CompareOp::Equal, 0),
            Guard::Unchanged(revision) => unchanged(&key, revision),
        };
        let options = match write.term {
            Term::Permanent => PutOptions::new(),
            Term::Renewable { grant, .. } => PutOptions::new().with_lease(grant),
        };
        let put = TxnOp::put(key.clone(), write.value.clone(), Some(options));
        self.guarded("write a lease", guard, put, key).await
    }

    async fn older(&self, key: &LeaseKey, revision: u64) -> Result<Option<Record>, StoreError> {
        let call = |client: Client| {
            let options = GetOptions::new().with_range(self.keys.end()).with_keys_only();
            let start = self.keys.subnets.clone();
            async move { kv_client(&client).get(start, Some(options)).await }
        };
        let found = self.pool.call("list the keys of leases", call).await?;
        let is_older = |kv: &&KeyValue| kv.create_revision().unsigned_abs() < revision;
        let older: Vec<_> = found.kvs().iter().filter(is_older).map(|kv| self.keys.record(kv)).collect();
        Ok(overlapping(key, older.iter().filter(|record| record.key != *key)).cloned())
    }

    async fn delete(&self, key: &LeaseKey, revision: u64) -> Result<Written, StoreError> {
        let key = self.keys.of(key);
        let guard = unchanged(&key, revision);
        self.guarded("delete a lease", guard, TxnOp::delete(key.clone(), None), key).await
    }

    async fn remaining(&self, records: &[Record]) -> Result<Vec<Option<Duration>>, StoreError> {
        let grants: Vec<_> = records.iter().map(|record| record.grant).collect();
        stream::iter(grants).map(|grant| self.time_left(grant)).buffered(IN_FLIGHT).try_collect().await
    }

    fn follow(&self) -> impl Stream<Item = Change> + Send {
        watch::follow(&self.pool, &self.keys)
    }

    fn moved(&self) {
        self.pool.leave();
    }
}

impl EtcdTable {
    /// The answer to a failed guard comes with what stands there, read in the same transaction: so a second attempt
    /// finds out whether the first one, whose reply was lost, took effect.
    async fn guarded(
        &self,
        what: &str,
        guard: Compare,
        action: TxnOp,
        key: String,
    ) -> Result<Written, StoreError> {
        let txn = Txn::new().when([guard]).and_then([action]).or_else([TxnOp::get(key, None)]);
        let call = |mut client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        let answer = self.pool.call(what, call).await?;
        Ok(if answer.succeeded() {
            Written::Done(number(answer.header()))
        } else {
            Written::Found(self.found(&answer))
        })
    }

    fn found(&self, answer: &TxnResponse) -> Option<Record> {
        answer.op_responses().iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => self.first(found),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        })
    }

    fn first(&self, found: &GetResponse) -> Option<Record> {
        found.kvs().first().map(|kv| self.keys.record(kv))
    }

    async fn time_left(&self, grant: Option<i64>) -> Result<Option<Duration>, StoreError> {
        let Some(grant) = grant else { return Ok(None) };
        let call = |mut client: Client| async move { client.lease_time_to_live(grant, None).await };
        let answer = self.pool.call("read the time to live of a lease", call).await?;
        Ok(u64::try_from(answer.ttl()).ok().map(Duration::from_secs))
    }
}

fn unchanged(key: &str, revision: u64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, i64::try_from(revision).unwrap_or(i64::MAX))
}
