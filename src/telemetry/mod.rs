//! Logs, the HTTP endpoints, and the page.

pub mod http;
pub mod metrics;
mod page;
mod routes;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts an agent's log on stderr. Verbosity 0 is INFO, 1 to 4 DEBUG, 5 and more TRACE, as klog's `-v`; `RUST_LOG`
/// refines it. Called once; a second call changes nothing.
pub fn log_to_stderr(verbosity: u8) {
    start(match verbosity {
        0 => "info",
        1..=4 => "info,twill=debug",
        _ => "info,twill=trace",
    });
}

/// The same for a command, whose output is on stdout: only what somebody should look at, unless asked for more.
pub fn warnings_to_stderr(verbosity: u8) {
    match verbosity {
        0 => start("warn"),
        asked => log_to_stderr(asked),
    }
}

fn start(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Only a second call fails, and then logging is on.
    drop(subscriber.try_init());
}
