//! The kernel through rtnetlink.
#![allow(clippy::wildcard_enum_match_arm, reason = "netlink messages and attributes are open-ended")]

mod apply;
mod build;
mod hear;
mod known;
mod link;
mod monitor;
mod observe;
mod parse;
mod request;
mod sysctl;
mod trial;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use twill_backends::checksums::Trial;
use twill_backends::diff::Op;

use self::known::Known;
use self::monitor::Monitor;
use self::request::Requests;
use self::trial::Tools;
use super::facts::HostFacts;
use super::trial::Bench;
use super::{Change, Kernel, KernelError, Observed, Scope, Used};
use crate::datapath::tap::Queues;

/// The network stack of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    requests: Requests,
    /// Held by the one who waits for a change.
    monitor: tokio::sync::Mutex<Monitor>,
    /// Held for moments: written by observations, read and kept up to date by the monitor.
    known: Mutex<Known>,
    /// What TAP devices are made with.
    queues: Queues,
}

impl Netlink {
    /// Opens the kernel's sockets in the network namespace of the calling thread. Changes are heard from here on, so
    /// none falls between the first observation and the first wait. Settings below `/proc/sys` are those of the
    /// thread that observes or applies: in a process of several namespaces that must be this thread.
    ///
    /// # Errors
    /// Netlink sockets cannot be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, KernelError> {
        let failed = |error: std::io::Error| KernelError::Unreachable {
            attempt: "open a netlink socket",
            cause: format!("{error}; is AF_NETLINK allowed here (seccomp, RestrictAddressFamilies)?"),
        };
        let monitor = Monitor::open().map_err(failed)?;
        let requests = Requests::open().map_err(failed)?;
        Ok(Self {
            requests,
            monitor: tokio::sync::Mutex::new(monitor),
            known: Mutex::default(),
            queues: Queues::One,
        })
    }

    /// Makes TAP devices with so many queues.
    #[must_use]
    pub fn with_queues(self, queues: Queues) -> Self {
        Self { queues, ..self }
    }
}

impl Kernel for Netlink {
    async fn observe(&self, scope: &Scope) -> Result<Observed, KernelError> {
        let (observed, known) = observe::observe(&self.requests, scope).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).observed(known);
        Ok(observed)
    }

    async fn apply(&self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        apply::apply(&self.requests, ops, self.queues).await
    }

    async fn changed(&self, scope: &Scope) -> Change {
        self.monitor.lock().await.changed(scope, &self.known).await
    }

    async fn vxlan(&self) -> Result<(), String> {
        link::probe_vxlan(&self.requests).await
    }

    async fn used(&self, within: Duration) -> Result<Used, KernelError> {
        let links = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let tunnels = known.links.iter().filter(|(_, (_, link))| link.vxlan().is_some());
            tunnels.map(|(index, (name, _))| (*index, *name)).collect::<Vec<_>>()
        };
        observe::used(&self.requests, links, within).await
    }

    fn trial(&self, bench: Bench) -> BoxFuture<'static, Result<Vec<Trial>, String>> {
        match Tools::open() {
            Ok(tools) => Box::pin(async move { tools.run(&bench).await }),
            Err(error) => Box::pin(std::future::ready(Err(format!("cannot open a socket: {error}")))),
        }
    }

    async fn facts(&self, reach: Option<IpAddr>) -> Result<HostFacts, KernelError> {
        observe::facts(&self.requests, reach).await
    }
}
