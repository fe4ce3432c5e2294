//! Calls to the store, one at a time, while the loop goes on.

use futures::future::BoxFuture;
use twill_backends::tenure::Call;

use super::{Agent, World};
use crate::store::{Held, LeaseStore, StoreError};

/// A call to the store under way.
pub(super) type Calling = BoxFuture<'static, Result<Held, StoreError>>;

impl<W: World> Agent<W> {
    /// Does what the tenure asks for, beside the loop.
    pub(super) fn call(&self, call: Call) -> Calling {
        let store = self.world.store();
        let network = self.network.clone();
        Box::pin(async move {
            match call {
                Call::Acquire(claim) => match network {
                    Some(network) => store.acquire(&claim, &network).await,
                    None => Err(StoreError::NoConfig { place: "the store".to_owned() }),
                },
                Call::Renew(held) => store.renew(&held).await,
                Call::Publish(held, attrs) => store.publish(&held, &attrs).await,
            }
        })
    }
}
