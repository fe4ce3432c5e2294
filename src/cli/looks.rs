//! What was typed after the commands that look at a fabric.

use std::net::IpAddr;

use clap::Args;

use super::args::AgentArgs;

/// How to compare this host with its leases.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
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
