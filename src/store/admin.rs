//! What an operator asks of a store: listing, reservations, the network configuration.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use twill_backends::backend::from_config;
use twill_backends::fault::Fault;
use twill_backends::lease::{Attrs, Lease, LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;

use super::guarded::Guarded;
use super::table::{Guard, Record, Table, Written, overlap, parse_config};
use super::{LeaseStore, StoreError, Term};

/// One key below `subnets/`, for people to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: LeaseKey,
    /// What it says, or why that does not decode.
    pub lease: Result<Lease, Fault>,
    /// Whether it is a reservation.
    pub permanent: bool,
    /// How long it lives unless renewed; `None` for a reservation.
    pub expires_in: Option<Duration>,
}

/// Whom a reservation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The node with this id, whatever its address is.
    Node(String),
    /// The host with this public address.
    Address(IpAddr),
}

/// What an operator asks of a store.
pub trait LeaseAdmin: Send + Sync {
    /// All leases, reservations, and what is neither.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn entries(&self) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// Keeps these subnets for one host, for ever. A lease this host already has of them becomes the reservation.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if they do not fit the network configuration, overlap another lease, or the host has a
    /// reservation already.
    fn reserve(
        &self,
        subnets: &Subnets,
        owner: &Owner,
    ) -> impl Future<Output = Result<LeaseKey, StoreError>> + Send;

    /// Deletes a lease or a reservation, whosever it is; `false` if there is none.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    fn revoke(&self, key: &LeaseKey) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The network configuration as it was written.
    ///
    /// # Errors
    /// [`StoreError::NoConfig`], or the store does not answer.
    fn config_text(&self) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Replaces the network configuration, if it is one that agents accept.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`], or the store does not answer.
    fn set_config_text(&self, text: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<T: Table> LeaseAdmin for Guarded<T> {
    async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let records = self.table.list().await?.records;
        let remaining = self.table.remaining(&records).await?;
        let entry = |(record, expires_in): (&Record, _)| Entry {
            key: record.key.clone(),
            lease: record.lease(),
            permanent: record.grant.is_none(),
            expires_in,
        };
        Ok(records.iter().zip(remaining).map(entry).collect())
    }

    async fn reserve(&self, subnets: &Subnets, owner: &Owner) -> Result<LeaseKey, StoreError> {
        let refuse = |cause| StoreError::Refused { store: self.table.name(), cause };
        let config = self.config().await?;
        fits(subnets, &config).map_err(refuse)?;
        let key = LeaseKey::of(subnets);
        let records = self.table.list().await?.records;
        let own = objections(&key, subnets, owner, &records).map_err(refuse)?;
        let (guard, attrs) = match own {
            Some(record) => {
                (Guard::Unchanged(record.revision), record.lease().map_err(StoreError::BadConfig)?.attrs)
            }
            None => (Guard::Absent, owner.attrs()),
        };
        let vacant = attrs.is_vacant();
        let lease = Lease { key: key.clone(), subnets: *subnets, attrs, vacant };
        if self.put(lease, guard, Term::Permanent).await? {
            Ok(key)
        } else {
            Err(refuse(format!("{key} was taken in this moment; next: try again")))
        }
    }

    async fn revoke(&self, key: &LeaseKey) -> Result<bool, StoreError> {
        let mut found = self.table.read(key).await?;
        while let Some(record) = found {
            match self.table.delete(key, record.revision).await? {
                Written::Done(_) | Written::Found(None) => return Ok(true),
                Written::Found(other) => found = other,
            }
        }
        Ok(false)
    }

    async fn config_text(&self) -> Result<String, StoreError> {
        let place = self.table.config_place();
        let text = self.table.read_config().await?.ok_or(StoreError::NoConfig { place })?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn set_config_text(&self, text: &str) -> Result<(), StoreError> {
        let config = parse_config(Some(text.as_bytes()), &self.table.config_place());
        config.and_then(|config| from_config(&config).map(drop)).map_err(StoreError::BadConfig)?;
        self.table.write_config(text).await
    }
}

impl Owner {
    /// What a reservation says before its host uses it.
    fn attrs(&self) -> Attrs {
        match self {
            Self::Node(id) => Attrs { node_id: Some(id.clone()), ..Attrs::default() },
            Self::Address(IpAddr::V4(addr)) => Attrs { public_ip: Some(*addr), ..Attrs::default() },
            Self::Address(IpAddr::V6(addr)) => Attrs { public_ipv6: Some(*addr), ..Attrs::default() },
        }
    }

    fn holds(&self, record: &Record) -> bool {
        let Ok(attrs) = Attrs::decode(&record.value) else { return false };
        match self {
            Self::Node(id) => attrs.node_id.as_ref() == Some(id),
            Self::Address(IpAddr::V4(addr)) => attrs.public_ip == Some(*addr),
            Self::Address(IpAddr::V6(addr)) => attrs.public_ipv6 == Some(*addr),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Address(addr) => write!(f, "the host at {addr}"),
        }
    }
}

/// Whether a lease of these subnets could be handed out by the pools of the configuration.
fn fits(subnets: &Subnets, config: &NetworkConfig) -> Result<(), String> {
    for (family, subnet) in subnets.iter() {
        let Some(pool) = config.pools.get(family) else {
            return Err(format!("{subnet} is {family}, which the network does not use; next: leave it out"));
        };
        if !pool.holds(subnet) {
            return Err(format!(
                "{subnet} is not in the pool; next: take a /{} between {} and {}",
                pool.subnet_len, pool.min, pool.max
            ));
        }
    }
    match config.pools.iter().find(|(family, _)| subnets.get(*family).is_none()) {
        Some((family, pool)) => {
            Err(format!("no {family} subnet is named; next: add a /{} of {}", pool.subnet_len, pool.network))
        }
        None => Ok(()),
    }
}

/// The record that becomes the reservation, if the host has one; or why there can be no reservation.
fn objections<'a>(
    key: &LeaseKey,
    subnets: &Subnets,
    owner: &Owner,
    records: &'a [Record],
) -> Result<Option<&'a Record>, String> {
    if let Some(record) = records.iter().find(|record| record.grant.is_none() && owner.holds(record)) {
        let held = &record.key;
        return Err(format!("{owner} has the reservation {held} already; next: twill lease release {held}"));
    }
    let overlaps = |record: &&Record| record.key.subnets().is_ok_and(|theirs| overlap(subnets, &theirs));
    let (own, others): (Vec<_>, Vec<_>) =
        records.iter().filter(overlaps).partition(|record| record.key == *key && owner.holds(record));
    match others.first() {
        // An agent that runs claims its lease again, unless it gave it back itself; which a reservation outlives.
        Some(Record { key: other, grant: Some(_), .. }) => Err(format!(
            "{key} overlaps the lease {other}; next: take another, or run on its host: twill lease release --own; by \
             its key only if that host is gone: twill lease release {other}"
        )),
        Some(Record { key: other, grant: None, .. }) => Err(format!(
            "{key} overlaps the reservation {other}; next: take another, or stop the agent of its host, if one runs, \
             and then: twill lease release {other}"
        )),
        None => Ok(own.first().copied()),
    }
}
