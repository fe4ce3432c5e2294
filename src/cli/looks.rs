//! What was typed after the commands that look at a fabric.

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
