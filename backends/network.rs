//! The network configuration: the JSON that every host of the fabric shares.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::family::PerFamily;

/// The part of the configuration that concerns one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What subnets are taken from.
    pub network: IpNet,
    /// The prefix length of each subnet.
    pub subnet_len: u8,
    /// The base address of the first subnet that may be taken.
    pub min: IpAddr,
    /// The base address of the last.
    pub max: IpAddr,
}

/// The configuration of the network: validated, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The families that are enabled; at least one.
    pub pools: PerFamily<Pool>,
    /// `EnableNFTables`: whether it asks for nftables rather than leaving the choice to the host.
    pub nftables: bool,
    /// `Backend`, whose keys are the backend's own. `None` when absent.
    pub backend: Option<Map<String, Value>>,
}
