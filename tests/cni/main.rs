//! The CNI plugin as a runtime calls it: the real `twill-cni` on a host in a namespace, with the real bridge and
//! host-local plugins, and with shell scripts in their place where they are to fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and tests print what they measured"
)]

mod agent;
mod cost;
mod failures;
mod gc;
mod golden;
mod lifecycle;
mod rig;
mod stale;
