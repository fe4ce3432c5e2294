//! How an agent ends.

use twill_backends::fault::Fault;

use super::handover::{Heir, TakeOverError};

/// Why an agent ends though nobody told it to. Nothing on the host was touched.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be run.
    #[error("{0}")]
    Refused(Fault),
    /// The host is not fit for the network.
    #[error("refusing to touch this host:\n  {}\nnext: choose another Network, or start with --force", causes(.0))]
    Preflight(Vec<Fault>),
    /// Another process does not let this one take over.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
}

fn causes(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.cause.as_str()).collect::<Vec<_>>().join("\n  ")
}

/// How an agent ends that was told to.
#[derive(Debug)]
pub enum End {
    /// By a signal, or because its lease was released.
    Told,
    /// This process took over. It waits for the end of its connection.
    HandedOver(Heir),
}
