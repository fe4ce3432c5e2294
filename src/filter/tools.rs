//! Running `nft` and the iptables programs: input in, output or a typed error out.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::FilterError;
use super::step::Step;

/// Longer than any of them takes that does its work.
const LIMIT: Duration = Duration::from_secs(20);

/// Where the programs are.
#[derive(Debug, Clone, Default)]
pub(super) struct Tools {
    path: Option<OsString>,
}

impl Tools {
    /// `path` replaces this process's `PATH`.
    pub(super) fn new(path: Option<OsString>) -> Self {
        Self { path }
    }

    /// Whether `program` is on the path.
    pub(super) fn has(&self, program: &str) -> bool {
        let path = self.path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    }

    /// Runs one planned transaction.
    pub(super) async fn step(&self, step: &Step) -> Result<(), FilterError> {
        self.run(&step.program, step.args, Some(&step.input)).await.map(drop)
    }

    /// Runs `program`, feeds it `input`, returns what it printed.
    pub(super) async fn run(
        &self,
        program: &str,
        args: &[&str],
        input: Option<&str>,
    ) -> Result<String, FilterError> {
        self.run_as(program, args, input, &|_| ()).await
    }

    /// The same; `begun` is told the number of the process before it is fed anything.
    pub(super) async fn run_as(
        &self,
        program: &str,
        args: &[&str],
        input: Option<&str>,
        begun: &(dyn Fn(u32) + Sync),
    ) -> Result<String, FilterError> {
        let command = || format!("{program} {}", args.join(" "));
        let output = match tokio::time::timeout(LIMIT, self.spawn(program, args, input, begun)).await {
            Ok(Ok(output)) => output,
            Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => return Err(missing(program)),
            Ok(Err(source)) => return Err(FilterError::Run { command: command(), source }),
            Err(_) => {
                return Err(FilterError::Timeout { command: command(), seconds: LIMIT.as_secs() });
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        if let Some(signal) = output.status.signal() {
            let source = io::Error::other(format!("it was ended by signal {signal}"));
            return Err(FilterError::Run { command: command(), source });
        }
        let detail = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        Err(match ["Operation not permitted", "Permission denied", "must be root"] {
            denied if denied.iter().any(|text| detail.contains(text)) => {
                FilterError::Denied { command: command(), detail }
            }
            _ if detail.contains("xtables lock") => FilterError::Locked { command: command() },
            _ => FilterError::Failed { command: command(), detail },
        })
    }

    async fn spawn(
        &self,
        program: &str,
        args: &[&str],
        input: Option<&str>,
        begun: &(dyn Fn(u32) + Sync),
    ) -> io::Result<Output> {
        let mut command = Command::new(program);
        command.args(args).env("LC_ALL", "C").kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let mut child = command.spawn()?;
        child.id().into_iter().for_each(begun);
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A program that ends before it has read everything says why through its status.
            if let Err(e) = stdin.write_all(input.as_bytes()).await
                && e.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(e);
            }
        }
        child.wait_with_output().await
    }
}

fn missing(program: &str) -> FilterError {
    let package = if program == "nft" { "nftables" } else { "iptables" };
    FilterError::Missing { program: program.to_owned(), package }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_failure_names_its_next_step() {
        let tools = Tools::new(Some("/nonexistent".into()));
        assert!(!tools.has("nft"));
        let error = tools.run("nft", &["-v"], None).await.unwrap_err().to_string();
        assert!(error.contains("`nft` is not installed") && error.contains("nftables"), "{error}");

        let tools = Tools::default();
        let error = tools.run("sh", &["-c", "echo Operation not permitted >&2; exit 1"], None).await;
        assert!(matches!(error, Err(FilterError::Denied { .. })), "{error:?}");
        let held = "Another app is currently holding the xtables lock. Stopped waiting after 4s.";
        let error = tools.run("sh", &["-c", &format!("echo {held} >&2; exit 4")], None).await.unwrap_err();
        assert!(error.is_wait() && error.to_string().contains("fuser /run/xtables.lock"), "{error}");
        let error = tools.run("sh", &["-c", "echo nonsense >&2; exit 1"], None).await;
        assert!(matches!(error, Err(FilterError::Failed { detail, .. }) if detail == "nonsense"));
        let error = tools.run("sh", &["-c", "kill -9 $$"], None).await.unwrap_err();
        assert!(crate::chain(&error).contains("ended by signal 9"), "{error:?}");
    }

    #[tokio::test]
    async fn input_reaches_the_program_and_unread_input_is_no_error() {
        let tools = Tools::default();
        assert_eq!(tools.run("cat", &[], Some("one\ntwo\n")).await.unwrap(), "one\ntwo\n");
        assert_eq!(tools.run("true", &[], Some(&"x".repeat(1 << 20))).await.unwrap(), "");
    }
}
