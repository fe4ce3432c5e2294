//! SIGUSR2: this program is started again, as it was started, to take over from this process.
//!
//! # Why
//! A service manager restarts a service by ending it first. What stands at the program's path by then is the upgrade;
//! started from here it belongs to the same unit, with the same environment and privileges. The signal is the one that
//! web servers take for the same.

use std::io;
use std::process::ExitStatus;

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Starts a successor at each SIGUSR2 from here on. One that fails is reported; this process goes on.
pub(super) fn start_on_signal() -> io::Result<()> {
    let mut upgrade = signal(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        while upgrade.recv().await.is_some() {
            match start().await {
                Ok(status) if status.success() => {}
                Ok(status) => tracing::warn!(%status, "the successor ended; this process goes on"),
                Err(error) => tracing::warn!(%error, "no successor could be started; this process goes on"),
            }
        }
    });
    Ok(())
}

/// Starts a successor and waits for its end, which comes only if it fails: otherwise this process ends first.
async fn start() -> io::Result<ExitStatus> {
    command()?.status().await
}

fn command() -> io::Result<Command> {
    let mut line = std::env::args_os();
    let program = line.next().ok_or(io::ErrorKind::NotFound)?;
    tracing::info!(program = %program.display(), "starting a successor");
    let mut command = Command::new(program);
    command.args(line).arg("--take-over");
    Ok(command)
}
