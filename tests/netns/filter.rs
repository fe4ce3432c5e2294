//! The firewall against the real kernel: silent when right, back at once when broken, no gap when switched.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails loudly, and says so when it cannot run"
)]

mod failing;
mod guard;
mod guard_failing;
mod lab;
mod repair;
mod switch;
mod truth;
mod upgrade;
