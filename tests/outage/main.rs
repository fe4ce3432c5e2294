//! The real binary with a real etcd on hosts of the lab, while things go wrong: etcd fails, leases are lost or claimed
//! twice, and what is read from outside is garbage. Wherever packets flowed before, they flow on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and tests print what they measured"
)]

mod ask;
mod bundle;
mod fabric;

mod etcd;
mod fencing;
mod flannel;
mod handover;
mod host;
mod identity;
mod secrets;
mod start;
mod store;
