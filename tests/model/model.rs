//! The lease protocol, tried in every order: every reply lost, every write late, every host ended at any step.
//!
//! The hosts are the program's own: [`Tenure`] decides what to call, [`Errand`] decides what to ask and what follows
//! from each answer. Only the store is a model, of etcd as far as leases know it. No time passes: whatever waits for a
//! time may happen at any, so what holds here holds however slow, fast or wrong the clocks are.
//!
//! [`Tenure`]: twill_backends::tenure::Tenure
//! [`Errand`]: twill_backends::errand::Errand

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and says on stdout what it tried"
)]

mod checks;
mod fabric;
mod fair;
mod flaws;
mod history;
mod host;
mod store;
