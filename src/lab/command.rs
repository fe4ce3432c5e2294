//! What the commands that build a lab have in common: how they begin, and how they fail.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::agent::without_flags;
use super::unprivileged::{Refusal, enter_user_namespace};
use super::view::View;
use super::{Cancel, Lab, LabError, StoreAt, signals};

/// The exit status after Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;

/// Why a command came to no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Building, starting or probing failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Neither root nor a user namespace.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The output is gone.
    #[error("write the result: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Says on stderr why `command` failed, and returns its exit status.
    pub(super) fn report(&self, command: &str, view: &mut View) -> u8 {
        view.broken_off();
        // Nothing is left to tell a reader of stderr if stderr is gone, too.
        drop(writeln!(io::stderr(), "{command}: {self}"));
        if matches!(self, Self::Lab(LabError::Interrupted)) { INTERRUPTED } else { 1 }
    }
}

/// What a command has at hand once it may build a lab.
#[derive(Debug)]
pub(super) struct Ready {
    /// This program: it is also the agent.
    pub(super) program: PathBuf,
    /// Whether everything is inside a user namespace.
    pub(super) unprivileged: bool,
    /// Set by Ctrl-C.
    pub(super) cancel: Cancel,
}

/// Makes sure that a lab can be built, and that Ctrl-C takes it down. Must be called while the process has one thread:
/// a user namespace can only be entered then.
pub(super) fn ready() -> Result<Ready, CommandError> {
    let unprivileged = enter_user_namespace()?;
    let cancel = Cancel::default();
    signals::watch(&cancel)?;
    let program = std::env::current_exe().map_err(LabError::io(|| "find this program's own file".into()))?;
    Ok(Ready { program, unprivileged, cancel })
}

/// Writes the network config as an operator would.
pub(super) fn configure(lab: &Lab, program: &Path, store: &StoreAt, json: &str) -> Result<(), LabError> {
    let mut set = Command::new(program);
    without_flags(&mut set);
    set.args(["config", "set"]).args(store.flags()).arg(json);
    lab.underlay.net.output(set).map(drop)
}
