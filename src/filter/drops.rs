//! A way to ask what the guard dropped, for those who do not have the firewall.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Counts by reason; empty where the guard is not loaded.
pub type Dropped = BTreeMap<String, u64>;

/// Asks how many packets the guard dropped, on whatever thread, while the firewall is looked after on another.
#[derive(Clone)]
pub struct Drops(Arc<dyn Fn() -> BoxFuture<'static, Dropped> + Send + Sync>);

impl Drops {
    /// What `ask` answers.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Dropped> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// How many packets the guard dropped so far.
    pub async fn count(&self) -> Dropped {
        (self.0)().await
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Drops")
    }
}
