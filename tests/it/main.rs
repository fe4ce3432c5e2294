//! Tests that need neither privilege nor a kernel feature, but for a few that say so where they are left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why it is left out"
)]

mod agent;
mod cli;
mod codes;
mod golden;
mod install;
mod layering;
mod readme;
