//! Containers of a real containerd: hosts as namespaces, each with its own containerd, agent and CNI directory, on a real
//! etcd; containers started by `ctr run --cni` from an image that the tests build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print why they skip"
)]

mod churn;
mod fabric;
mod image;
mod loss;
mod machine;
mod sources;
