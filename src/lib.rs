//! Twill: a self-healing VXLAN overlay fabric for containers, and a drop-in replacement for flanneld.
//!
//! `twill_backends` decides, this crate does. Desired state is a value; one loop makes it true, whatever
//! happened before:
//!
//! ```text
//! store --watch--> StoreEvent --Leases::apply--> Leases --+
//!                                    Facts (measured) ----+-- Backend::base / peer          pure
//!                                                         v
//!                  Desired { net, filter, faults } --> faults: logged, counted, shown in status
//!                     |        +-- filter --> one transaction, if it differs
//!                     |  diff(want, have)                                                   pure
//!                     v
//!                  Vec<Op> --Kernel::apply--> netlink
//!                     |  ok: have.apply(op)     error: keep going, have = None, retry soon
//!                     v
//!                  have: Option<NetState>   None means observe first
//! ```

pub mod agent;
pub mod cli;
pub mod config;
pub mod files;
pub mod filter;
pub mod kernel;
pub mod lab;
pub mod reconcile;
pub mod store;
pub mod subnet_env;
pub mod telemetry;
