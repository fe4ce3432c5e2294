//! How fast a fabric converges, and what it costs: real agents, a real etcd, the real kernel, in network namespaces.
//!
//! - *start*: leases are in etcd; from the start of the agent's process until all of them are in the kernel and
//!   `subnet.env` is written, with the process's peak memory and CPU time.
//! - *put*: one lease is written to etcd; until its route is in the kernel of every one of three hosts.
//! - *large*: one agent with as many leases: one more, all entries lost, `twill status`.
//! - *steady*: nothing changes; what the agent does all the same.
//! - *probes*: all peers of one agent answer probes, and send some; what that costs, and a scrape.
//! - *crowd*: many agents on one etcd: all start, one joins, one leaves, etcd starts again, nothing happens.
//!
//! `cargo bench --bench convergence [-- NAME]` measures; with `--test` each runs once, small.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

mod answering;
mod crowd;
mod datagram;
mod fabric;
mod large;
mod probes;
mod put;
mod start;
mod steady;

use std::time::Duration;

use twill::lab::Lab;

fn main() {
    if let Err(error) = Lab::available() {
        println!("SKIP: {error}");
        return;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let test = args.iter().any(|arg| arg == "--test");
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| named.is_empty() || named.contains(&name);
    let size = |full, small| if test { small } else { full };
    if chosen("start") {
        start::run(size(5_000, 100), size(7, 1) as usize);
        start::run(size(10_000, 100), size(5, 1) as usize);
    }
    if chosen("put") {
        put::run(size(50, 3));
    }
    if chosen("large") {
        large::run(size(10_000, 100), size(100, 3));
    }
    if chosen("steady") {
        let window = Duration::from_secs(size(180, 1).into());
        steady::run(size(1_000, 50), window);
        steady::run(size(10_000, 50), window);
    }
    if chosen("probes") {
        probes::run(size(1_000, 20), Duration::from_secs(size(90, 2).into()));
    }
    if chosen("crowd") {
        crowd::run(size(300, 3), size(5, 2), Duration::from_secs(size(120, 1).into()));
    }
}
