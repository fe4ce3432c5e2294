//! A lease store made of any table: runs the errands that [`twill_backends::errand`] decides.

use async_stream::stream;
use futures::{Stream, StreamExt};
use twill_backends::allocate::Claim;
use twill_backends::errand::{Answer, Errand, Question, Setback, Turn};
use twill_backends::lease::{Attrs, Lease};
use twill_backends::network::NetworkConfig;

use super::table::{Guard, Table, parse_config};
use super::{Held, LeaseStore, StoreError, StoreEvent, Term};

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
        self.run_to_hold(Errand::acquire(claim.clone(), config.clone())).await
    }

    async fn renew(&self, held: &Held) -> Result<Held, StoreError> {
        self.run_to_hold(Errand::renew(held.clone())).await
    }

    async fn publish(&self, held: &Held, attrs: &Attrs) -> Result<Held, StoreError> {
        self.run_to_hold(Errand::publish(held.clone(), attrs.clone())).await
    }

    async fn release(&self, held: Held) -> Result<(), StoreError> {
        self.run(Errand::release(held)).await.map(drop)
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

    fn moved(&self) {
        self.table.moved();
    }
}

impl<T: Table> Guarded<T> {
    /// Writes a lease unless somebody stands in its way; whether it did.
    pub(super) async fn put(&self, lease: Lease, guard: Guard, term: Term) -> Result<bool, StoreError> {
        match self.run(Errand::write(lease, guard, term)).await {
            Ok(_) => Ok(true),
            Err(StoreError::Lost { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn run_to_hold(&self, errand: (Errand, Question)) -> Result<Held, StoreError> {
        let held = self.run(errand).await?;
        held.ok_or_else(|| self.unavailable("the lease was given up".to_owned()))
    }

    /// Runs an errand to its end: asks the table whatever it wants to know.
    async fn run(&self, (mut errand, mut question): (Errand, Question)) -> Result<Option<Held>, StoreError> {
        let mut failure = None;
        loop {
            let answer = self.ask(question).await.unwrap_or_else(|error| {
                let refused = matches!(error, StoreError::Refused { .. });
                failure = Some(error);
                if refused { Answer::Refusal } else { Answer::Silence }
            });
            match errand.answered(answer, &mut |below| fastrand::u64(..below)) {
                Turn::Ask(next) => question = next,
                Turn::Done(Ok(held)) => return Ok(held),
                Turn::Done(Err(Setback::Lost { key, holder, cause })) => {
                    return Err(StoreError::Lost { key, holder, cause });
                }
                Turn::Done(Err(Setback::Claim(error))) => return Err(error.into()),
                Turn::Done(Err(Setback::Failed(cause))) => {
                    return Err(failure.unwrap_or_else(|| self.unavailable(cause)));
                }
            }
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        Ok(match question {
            Question::List => Answer::Listing(self.table.list().await?),
            Question::Read(key) => Answer::Record(self.table.read(&key).await?),
            Question::Begin => Answer::Term(self.table.begin().await?),
            Question::Extend(key, revision, term) => {
                Answer::Extended(self.table.extend(&key, revision, term).await?)
            }
            Question::Write(write) => Answer::Written(self.table.write(&write).await?),
            Question::Older(key, revision) => Answer::Record(self.table.older(&key, revision).await?),
            Question::Delete(key, revision) => Answer::Written(self.table.delete(&key, revision).await?),
            Question::End(grant) => {
                self.table.end(grant).await;
                Answer::Ended
            }
        })
    }

    fn unavailable(&self, cause: String) -> StoreError {
        StoreError::Unavailable { store: self.table.name(), cause }
    }
}
