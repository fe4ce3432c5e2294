//! The real binary on real kernels: what is broken under it, what it does at a restart, what it takes over from
//! flanneld, and what its commands say. Each test has hosts of its own, in network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print what they measured"
)]

mod browser;
mod commands;
mod confine;
mod containers;
mod datapath;
mod doctor;
mod dump;
mod examine;
mod fabric;
mod faults;
mod flannel;
mod guard;
mod handover;
mod healing;
mod life;
mod looks;
mod migrate;
mod offload;
mod page;
mod probes;
mod queues;
mod relay;
mod restart;
mod strain;
mod takeover;
mod traffic;
mod watch;
mod wire;
