//! Tests against the real kernel, each in network namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod filter;
mod kernel;
mod lab;
