//! The fault lab: what breaks such fabrics in the field, done to real agents on real kernels with a real etcd, while
//! packets flow and are counted. Every scenario runs on kernel VXLAN, on host-gw and on the userspace datapath.
//!
//! `cargo test --test faults` runs each once and asks for the outcome: it healed, and nothing is lost where nothing may
//! be. `make faults` runs them one after the other, the long ones too, asks how long it took as well, and writes
//! `benches/faults.md` and `benches/faults.json`, and for people who were not there `faults.html` below the target directory.
//!
//! | variable | |
//! |---|---|
//! | `TWILL_LONG=1` | chaos, outages and partitions last ten minutes, restarts are a hundred |
//! | `TWILL_RECORD=FILE` | what was measured is written there, and what took too long fails |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print what they measured"
)]

#[path = "../heal/faults.rs"]
#[allow(dead_code, reason = "what the tests of healing have beyond this")]
mod breaks;
#[path = "../heal/dump.rs"]
#[allow(dead_code, reason = "what the tests of healing have beyond this")]
mod dump;
#[path = "../heal/examine.rs"]
#[allow(dead_code, reason = "what the tests of healing have beyond this")]
mod examine;
#[path = "../heal/fabric.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "what the tests of healing have beyond this")]
mod fabric;

mod page;
mod record;
mod scenario;
mod traffic;
mod world;

mod agent;
mod chaos;
mod cluster;
mod deletions;
mod halves;
mod hosts;
mod many;
mod names;
mod paths;
mod peers;
mod segments;
mod store;
