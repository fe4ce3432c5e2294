//! The real world: a store, this host's kernel and its firewall.

use std::sync::Arc;

use crate::agent::World;
use crate::config::Config;
use crate::datapath::tap::Queues;
use crate::filter::{HostFirewall, Options};
use crate::kernel::KernelError;
use crate::kernel::netlink::Netlink;
use crate::store::LeaseStore;

/// The real world.
#[derive(Debug)]
pub(super) struct Real<S> {
    store: Arc<S>,
    kernel: Netlink,
}

impl<S: LeaseStore + 'static> Real<S> {
    /// This host, with its leases in `store`.
    pub(super) fn open(store: S, config: &Config) -> Result<Self, KernelError> {
        let queues = if config.datapath.queues > 1 { Queues::Several } else { Queues::One };
        Ok(Self { store: Arc::new(store), kernel: Netlink::open()?.with_queues(queues) })
    }
}

impl<S: LeaseStore + 'static> World for Real<S> {
    type Store = S;
    type Kernel = Netlink;
    type Firewall = HostFirewall;

    fn store(&self) -> Arc<S> {
        Arc::clone(&self.store)
    }

    fn kernel(&self) -> &Netlink {
        &self.kernel
    }

    async fn firewall(&self, options: Options) -> HostFirewall {
        HostFirewall::open(options).await
    }
}
