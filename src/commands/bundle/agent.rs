//! What the agent says of itself, how it was started, and what it logged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Found, Running, text};
use crate::agent::status::Status;
use crate::bundle::redact::{Rules, Secrets};
use crate::bundle::{Part, take};
use crate::cli::VERSION;
use crate::commands::{Failure, http};
use crate::config::Site;
use crate::views::{peers, status};

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a log's end is taken, in bytes and in lines.
const LOG: u64 = 1 << 20;
const LINES: &str = "10000";

/// This program and the agent's.
pub(super) fn version(found: &Found) -> Part {
    let agents =
        found.facts.as_ref().ok().and_then(|facts| facts.status()).map(|status| status.build.as_str());
    let program = |path: PathBuf| fs::read_link(&path).unwrap_or(path).display().to_string();
    let pid = found.running.as_ref().map(|running| running.pid);
    let text = format!(
        "this program: {VERSION}, {}\nthe agent: {}, {}\n",
        program("/proc/self/exe".into()),
        agents.unwrap_or("it does not say"),
        pid.map_or_else(|| "none is found".to_owned(), |pid| program(format!("/proc/{pid}/exe").into())),
    );
    Part::new("version.txt", "the programs that run", Ok::<_, String>(text))
}

/// The words of the agent's command line and its variables, a line each.
pub(super) fn command_line(found: &Found, rules: &Rules, secrets: &mut Secrets) -> Part {
    let content = found.running.as_ref().map(|running| {
        let args: Vec<String> = running.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (args, variables) = (rules.words(&args, secrets), rules.variables(&running.env, secrets));
        format!("pid {}\n\n{}\n\n{}\n", running.pid, args.join("\n"), variables.join("\n"))
    });
    let content = content.ok_or("no agent of this fabric runs, or it may not be looked at");
    Part::new("agent/command.txt", "the agent's command line and its TWILL_ or FLANNELD_ variables", content)
}

/// What it answers over HTTP, and what commands make of it.
pub(super) async fn answers(site: &Site) -> Vec<Part> {
    let socket = site.http_socket();
    let mut parts = Vec::new();
    for (name, path) in [
        ("agent/status.json", "/v1/status"),
        ("agent/metrics.txt", "/metrics"),
        ("agent/healthz.txt", "/healthz"),
        ("agent/readyz.txt", "/readyz"),
    ] {
        let source = format!("GET {path} at {}", socket.display());
        parts.push(Part::new(name, source, ask(&socket, path).await));
    }
    let status = parts[0].content.as_ref().map_err(ToString::to_string);
    let readable = status.and_then(|json| readable(json));
    parts.push(text("agent/status.txt", "twill status; twill peers", readable));
    parts
}

async fn ask(socket: &Path, path: &str) -> Result<Vec<u8>, String> {
    let asked = async {
        let stream = UnixStream::connect(socket).await?;
        let (_code, body) = http::get(stream, "agent", path).await?;
        Ok::<_, Failure>(body.to_vec())
    };
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| crate::chain(&*error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn readable(json: &[u8]) -> Result<String, String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let read: Status = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    Ok(format!("{}\n{}", status::text(&read), peers::text(&peers::read(&value), None)))
}

/// What the agent logged, wherever that goes, and the units that start it.
pub(super) async fn logs(running: Option<&Running>) -> Vec<Part> {
    let none = || "no agent of this fabric is found".to_owned();
    let process = running.map(|running| PathBuf::from(format!("/proc/{}", running.pid)));
    let status = process
        .as_ref()
        .ok_or_else(none)
        .and_then(|process| fs::read(process.join("status")).map_err(|error| error.to_string()));
    let mut words = vec!["journalctl", "--no-pager", "-o", "short-iso-precise", "-n", LINES];
    words.extend(["_SYSTEMD_UNIT=twill.service", "+", "_SYSTEMD_UNIT=flanneld.service"]);
    let pid = running.map(|running| format!("_PID={}", running.pid));
    words.extend(pid.iter().flat_map(|pid| ["+", pid]));
    let units = ["systemctl", "--no-pager", "cat", "twill*.service", "flanneld*.service"];
    vec![
        Part::new("agent/process.txt", "/proc/PID/status of the agent", status),
        Part::new(
            "agent/log.txt",
            "the end of the file that the agent logs to",
            process.ok_or_else(none).and_then(|process| stderr(&process)),
        ),
        take::command("agent/journal.txt", &words).await,
        take::command("agent/units.txt", &units).await,
    ]
}

/// The end of what a process writes to stderr, if that is a file.
fn stderr(process: &Path) -> Result<Vec<u8>, String> {
    let fd = process.join("fd/2");
    let told = |error: std::io::Error| error.to_string();
    let target = fs::read_link(&fd).map_err(told)?;
    if !fs::metadata(&fd).map_err(told)?.is_file() {
        return Err(format!("it logs to {}, which cannot be read again", target.display()));
    }
    take::tail(&fd, LOG).map_err(told)
}
