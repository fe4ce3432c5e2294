//! Where leases live.
//!
//! A store holds the network configuration and one lease per host. Every write is guarded by the revision that was
//! read before, so that two hosts never overwrite each other.
//!
//! ```text
//! LeaseStore, LeaseAdmin      what the agent and the commands ask
//!   Guarded<T: Table>         how: claim, settle lost replies, tell a lost lease from a kept one
//!     Table                   keyed values with guarded writes: EtcdTable, FileTable, MemoryTable
//! ```

mod admin;
mod backoff;
pub mod etcd;
pub mod file;
mod guarded;
pub mod memory;
pub mod table;

use std::future::Future;
use std::time::Duration;

use futures::Stream;
use twill_backends::allocate::{Claim, ClaimError};
use twill_backends::errand::Setback;
use twill_backends::fault::Fault;
use twill_backends::lease::{Attrs, Lease, LeaseKey};
use twill_backends::network::NetworkConfig;

pub use self::admin::{Entry, LeaseAdmin, Owner};
pub use self::etcd::{EtcdStore, EtcdTable};
pub use self::file::{FileStore, FileTable};
pub use self::guarded::Guarded;
pub use self::memory::{MemoryStore, MemoryTable};
pub use twill_backends::record::{Held, Revision, Term};

/// How long a lease lives without renewal: flannel's figure, so that mixed fabrics agree.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a store reports.
#[derive(Debug)]
pub enum StoreEvent {
    /// All leases there are. First of all, and again whenever single changes may have been missed.
    Snapshot {
        /// The leases that decode.
        leases: Vec<Lease>,
        /// The ones that do not.
        faults: Vec<(LeaseKey, Fault)>,
        /// What this is a snapshot of.
        revision: Revision,
    },
    /// A lease was written.
    Put(Lease, Revision),
    /// A lease is gone.
    Delete(LeaseKey, Revision),
    /// What was written under this key does not decode. A lease that was there before is no longer known.
    Bad(LeaseKey, Fault),
    /// The network configuration was read, or changed; or what stands there is no configuration.
    Config(Result<NetworkConfig, Fault>),
    /// The connection is lost; the store keeps trying.
    Down(StoreError),
    /// The connection is back. A [`StoreEvent::Snapshot`] follows.
    Up,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or answers that it cannot.
    #[error("{store} does not answer: {cause}; next: check that it runs and that this host reaches it")]
    Unavailable {
        /// Which store, in words.
        store: String,
        /// What was attempted, and how it failed.
        cause: String,
    },
    /// It answers, and refuses.
    #[error("{store} refuses: {cause}")]
    Refused {
        /// Which store, in words.
        store: String,
        /// What was attempted, the refusal, and the next step.
        cause: String,
    },
    /// There is no network configuration.
    #[error(
        "there is no network configuration at {place}; next: twill config set '{{\"Network\":\"10.244.0.0/16\",\"Backend\":{{\"Type\":\"vxlan\"}}}}'"
    )]
    NoConfig {
        /// The key or file that should hold it.
        place: String,
    },
    /// What stands there is no network configuration.
    #[error("{0}")]
    BadConfig(Fault),
    /// No lease can be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The lease is not ours any more: it is gone, or another host wrote it.
    #[error("the lease {key} is lost: {cause}")]
    Lost {
        /// Which.
        key: LeaseKey,
        /// What stands there: another host's lease, or that of another process with this host's node id. `None` if
        /// nobody holds it, or what stands there does not decode.
        holder: Option<Box<Attrs>>,
        /// Who has it, or that nobody has, in words.
        cause: String,
    },
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost { key, holder, cause } => Self::Lost { key, holder, cause },
            StoreError::Claim(error) => Self::Claim(error),
            StoreError::Unavailable { .. }
            | StoreError::Refused { .. }
            | StoreError::NoConfig { .. }
            | StoreError::BadConfig(_) => Self::Failed(error.to_string()),
        }
    }
}

/// Where leases live.
pub trait LeaseStore: Send + Sync {
    /// The network configuration.
    ///
    /// # Errors
    /// [`StoreError::NoConfig`], [`StoreError::BadConfig`], or the store does not answer.
    fn config(&self) -> impl Future<Output = Result<NetworkConfig, StoreError>> + Send;

    /// Claims a lease by the claim order of [`twill_backends::allocate`]; a race lost to another host is tried again.
    ///
    /// # Errors
    /// [`StoreError::Claim`], or the store does not answer.
    fn acquire(
        &self,
        claim: &Claim,
        config: &NetworkConfig,
    ) -> impl Future<Output = Result<Held, StoreError>> + Send;

    /// Keeps the lease alive. Nothing is rewritten, so watchers see nothing.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is not ours any more.
    fn renew(&self, held: &Held) -> impl Future<Output = Result<Held, StoreError>> + Send;

    /// Rewrites the value of the lease, guarded by its revision.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is not ours any more.
    fn publish(&self, held: &Held, attrs: &Attrs) -> impl Future<Output = Result<Held, StoreError>> + Send;

    /// Gives the lease up.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is not ours any more.
    fn release(&self, held: Held) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Follows leases and configuration. Begins with a configuration and a snapshot; never ends. A lost connection or
    /// a compaction becomes `Down`, `Up` and a fresh snapshot.
    fn watch(&self) -> impl Stream<Item = StoreEvent> + Send;

    /// This host's addresses changed, so connections that were made from the old ones are of no use. A watch goes on
    /// with a fresh snapshot.
    fn moved(&self) {}
}
