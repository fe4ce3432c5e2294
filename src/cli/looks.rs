//! What was typed after the commands that look at a fabric.

use std::net::IpAddr;

use clap::{Args, ValueEnum};

use super::args::{AgentArgs, SiteArgs};
use super::command::Fabric;
use super::{go, resolve};
use crate::config::ConfigError;
use crate::views::peers::Order;

/// What to show of this host, or of all.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) site: SiteArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Show every host of the fabric, one line each
    #[arg(long)]
    pub(super) all: bool,
    #[arg(long, value_parser = go::int)]
    pub(super) healthz_port: i64,
}

/// How to list the peers.
#[derive(Debug, Args)]
pub(super) struct PeersArgs {
    #[command(flatten)]
    pub(super) site: SiteArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// What comes first
    #[arg(long, default_value = "worst", value_name = "ORDER")]
    pub(super) sort: OrderArg,
}

/// Spellings of [`Order`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OrderArg {
    Worst,
    Key,
    Rtt,
    Loss,
    Mtu,
}

/// How to compare this host with its leases.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Have every other host's agent compare, too: it is asked at --healthz-port
    #[arg(long)]
    pub(super) all: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

/// Between which addresses.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Where packets come from: a pod, a host, or an address outside
    pub(super) src: IpAddr,
    /// Where they go
    pub(super) dst: IpAddr,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Worst => Self::Worst,
            OrderArg::Key => Self::Key,
            OrderArg::Rtt => Self::Rtt,
            OrderArg::Loss => Self::Loss,
            OrderArg::Mtu => Self::Mtu,
        }
    }
}

/// All hosts, asked at this port; this host's agent says which, if none is given.
pub(super) fn fabric(all: bool, port: i64) -> Result<Option<Fabric>, ConfigError> {
    let port = resolve::healthz_port(port)?;
    Ok(all.then_some(Fabric { port }))
}
