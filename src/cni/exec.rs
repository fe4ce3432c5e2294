//! Running another plugin, for a bounded time.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::call::Call;
use super::error::{self, CniError};

/// The most that a plugin can say, in bytes.
const MOST: u64 = 1 << 20;

/// Another plugin.
#[derive(Debug)]
pub(super) struct Plugin {
    program: PathBuf,
    patience: Duration,
}

/// How a run ended: with a status, and what was written to stdout.
type Run = io::Result<(ExitStatus, Vec<u8>)>;

impl Plugin {
    /// Looks for it where `CNI_PATH` says.
    ///
    /// # Errors
    /// Code 7 if it is not there.
    pub(super) fn find(kind: &str, call: &Call, patience: Duration) -> Result<Self, CniError> {
        let runs = |path: &PathBuf| {
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let plain = !kind.is_empty() && !kind.contains('/');
        let mut places = call.path.split(':').filter(|dir| plain && !dir.is_empty());
        let found = places.find_map(|dir| Some(Path::new(dir).join(kind)).filter(runs));
        let missing = || {
            let text = format!("no delegate {kind:?} in CNI_PATH {}; next: install it there", call.path);
            CniError::new(error::CONFIG, text)
        };
        Ok(Self { program: found.ok_or_else(missing)?, patience })
    }

    /// The same plugin with another limit.
    #[must_use]
    pub(super) fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Runs it and returns what it wrote to stdout. Its stderr is the caller's. After the limit it is killed, with all
    /// that it started.
    ///
    /// # Errors
    /// What it said, or how it ended.
    pub(super) fn run(&self, call: &Call, config: &Value) -> Result<Vec<u8>, CniError> {
        let shown = self.program.display();
        let failed = |how: String| CniError::new(error::OTHER, format!("delegate {shown}: {how}"));
        let mut child =
            self.command(call).spawn().map_err(|cause| failed(format!("cannot start: {cause}")))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let (tell, told) = mpsc::channel();
        if let Some(mut stdin) = child.stdin.take() {
            let text = config.to_string();
            // A plugin that ends without reading says why itself.
            thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
        }
        thread::spawn(move || tell.send(finish(child)));
        let Ok(ended) = told.recv_timeout(self.patience) else {
            killpg(group, Signal::SIGKILL).ok();
            // Reaps it.
            drop(told.recv_timeout(Duration::from_secs(1)));
            let limit = self.patience.as_secs();
            return Err(failed(format!("{} did not end within {limit} s; it was killed", call.verb)));
        };
        let (status, printed) = ended.map_err(|cause| failed(format!("cannot be waited for: {cause}")))?;
        if status.success() {
            return Ok(printed);
        }
        let said = || String::from_utf8_lossy(&printed).trim().chars().take(200).collect::<String>();
        Err(CniError::parse(&printed)
            .unwrap_or_else(|| failed(format!("{} failed ({status}) {}", call.verb, said()))))
    }

    fn command(&self, call: &Call) -> Command {
        let mut command = Command::new(&self.program);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let vars = [
            ("CNI_COMMAND", &call.verb),
            ("CNI_CONTAINERID", &call.container),
            ("CNI_NETNS", &call.netns),
            ("CNI_IFNAME", &call.ifname),
            ("CNI_PATH", &call.path),
        ];
        for (name, value) in vars {
            command.env(name, value);
        }
        command
    }
}

fn finish(mut child: Child) -> Run {
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MOST).read_to_end(&mut printed)?;
    }
    Ok((child.wait()?, printed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    /// A shell script in a folder of its own, and a request that finds it.
    fn plugin(script: &str) -> (tempfile::TempDir, Call) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fake");
        // Written by another process: a descriptor open for writing that a fork of another test inherits would make
        // the exec fail with ETXTBSY.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\"; chmod 755 \"$2\"", "sh", script])
            .arg(&path);
        assert!(shell.status().unwrap().success());
        let call = Call {
            verb: "ADD".to_owned(),
            container: "c1".to_owned(),
            path: format!("/nowhere::{}", dir.path().display()),
            ..Call::default()
        };
        (dir, call)
    }

    fn run(script: &str, patience: Duration) -> Result<String, CniError> {
        let (_dir, call) = plugin(script);
        let printed = Plugin::find("fake", &call, patience)?.run(&call, &json!({ "a": 1 }))?;
        Ok(String::from_utf8(printed).unwrap())
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn it_gets_the_request_and_its_answer_comes_back() {
        assert_eq!(run("echo $CNI_COMMAND $CNI_CONTAINERID; cat", SOON).unwrap(), "ADD c1\n{\"a\":1}");
    }

    #[test]
    fn its_own_error_is_passed_on() {
        let error = run(r#"echo '{"code":11,"msg":"later","details":"d"}'; exit 1"#, SOON).unwrap_err();
        assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (11, "later", "d"));
        let error = run("echo oops; exit 3", SOON).unwrap_err();
        assert!(
            error.code == error::OTHER && error.msg.contains("oops") && error.msg.contains("fake"),
            "{error}"
        );
        assert!(run("kill -9 $$", SOON).unwrap_err().msg.contains("signal: 9"));
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children_and_named() {
        let begin = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! >{}; wait", pid.display());
        let error = run(&script, Duration::from_secs(1)).unwrap_err();
        assert!(error.msg.contains("fake: ADD did not end within 1 s"), "{error}");
        assert!(begin.elapsed() < SOON);
        let child = fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(begin.elapsed() < SOON, "the child of the delegate lives on");
            thread::yield_now();
        }
    }

    #[test]
    fn one_that_is_not_there_is_named_with_the_path() {
        let (_dir, call) = plugin("");
        for kind in ["none", "", "../fake", "."] {
            let error = Plugin::find(kind, &call, SOON).unwrap_err();
            assert!(error.code == error::CONFIG && error.msg.contains(&call.path), "{error}");
        }
    }
}
