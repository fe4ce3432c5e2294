//! Twill: a self-healing VXLAN overlay fabric for containers, and a drop-in replacement for flanneld.
//!
//! `twill_backends` decides, this crate does. Desired state is a value; one loop makes it true, whatever
//! happened before:
//!
//! ```text
//! store --watch--> StoreEvent --Leases::apply--> Leases --+
//!                                    Facts (measured) ----+-- Backend::base / peer          pure
//!                                                         v
//!                  Desired { net, filter, tunnels, faults } --> faults: logged, counted, shown in status
//!                     |        +-- filter --> one transaction, if it differs
//!                     |  diff(want, have)                                                   pure
//!                     v
//!                  Vec<Op> --Kernel::apply--> netlink
//!                     |  ok: have.apply(op)     error: keep going, doubt have, retry soon
//!                     v
//!                  have: Belief             in doubt means observe first
//! ```

pub mod agent;
mod buffers;
pub mod bundle;
pub mod catalogue;
pub mod cli;
pub mod cni;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod doctor;
pub mod files;
pub mod filter;
pub mod kernel;
pub mod lab;
pub mod migrate;
pub mod probe;
pub mod reconcile;
pub mod store;
pub mod style;
pub mod subnet_env;
pub mod telemetry;
pub mod trace;
pub mod verify;
pub mod views;

use std::error::Error;
use std::time::Instant;

/// The time, as tokio's clock has it: tests that pause that clock pause everything.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// An error with everything that caused it, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
