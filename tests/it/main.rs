//! Tests that need neither privilege nor a kernel feature.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod cli;
mod golden;
mod layering;
mod readme;
