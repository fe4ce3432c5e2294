//! The pure half of Twill: leases in, desired host state out. No I/O, clock, randomness or logging.
//!
//! # How a packet finds its way
//!
//! A pod of host A sends to a pod of host B. The bridge hands the packet to host A's routing table, where the route
//! of B's subnet says: gateway `<B's subnet base>`, through the tunnel device, `onlink`. No such gateway answers
//! ARP; its permanent *neighbour* entry names the Ethernet address of B's tunnel device. The frame enters the tunnel
//! device, whose *FDB* entry for that Ethernet address names B's public address. The device wraps the frame in
//! VXLAN, UDP and IP, and the underlay carries it. On B the tunnel device unwraps it, and B's routing table knows
//! its own bridge. So each peer costs one route, one neighbour and one FDB entry: no flooding, no learning, no
//! upcall.
#![forbid(unsafe_code)]

pub mod allocate;
pub mod backend;
mod base;
pub mod checksums;
pub mod code;
pub mod diff;
pub mod errand;
pub mod family;
pub mod fault;
pub mod filter;
pub mod frame;
pub mod guard;
pub mod host;
pub mod host_gw;
pub mod icmp;
mod index;
mod json;
pub mod lease;
pub mod leases;
pub mod link_name;
pub mod mac;
pub mod network;
pub mod plan;
pub mod probe;
pub mod record;
#[cfg(test)]
mod samples;
pub mod state;
pub mod tenure;
pub mod udp;
pub mod vxlan;
