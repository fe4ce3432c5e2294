//! What is shipped in `manifests/`, as an operator would use it: the units under a real systemd, the etcd cluster with
//! its certificates and users, the files for Kubernetes against its schema, the CNI configuration with real plugins.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and tests say why they are skipped"
)]

mod certificates;
mod cluster;
mod cni;
mod image;
mod kubernetes;
mod machine;
mod monitoring;
mod pod;
mod quiet;
mod service;
mod shipped;
mod site;
mod units;
