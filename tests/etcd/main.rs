//! The stores: one contract for all three, and what only a real etcd can show.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and says on stdout why it was skipped"
)]

mod admin;
mod auth;
mod contract;
mod file;
mod harness;
#[path = "../model/history.rs"]
mod history;
mod members;
mod memory;
mod outage;
mod proxy;
mod size;
mod stress;
mod tls;
