//! A way to ask what the guard counted, for those who do not have the firewall.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::datapath::peers::Amount;

/// What the guard counted; empty where it is not loaded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counted {
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What was taken from each address, since it may send. Packets that the kernel put together count as one.
    pub received: BTreeMap<IpAddr, Amount>,
}

/// Asks what the guard counted, on whatever thread, while the firewall is looked after on another.
#[derive(Clone)]
pub struct Counters(Arc<dyn Fn() -> BoxFuture<'static, Option<Counted>> + Send + Sync>);

impl Counters {
    /// What `ask` answers.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Counted>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// What was counted so far; `None` if that could not be learnt.
    pub async fn read(&self) -> Option<Counted> {
        (self.0)().await
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}
