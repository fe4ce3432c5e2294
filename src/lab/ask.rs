//! Asking an agent of the lab over its socket, without a process: tests look often.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{AgentProcess, LabError};

/// How long an answer may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

impl AgentProcess {
    /// What `twill status --json` prints.
    ///
    /// # Errors
    /// No socket yet, no answer, or one that is no status.
    pub fn status(&self) -> Result<Value, LabError> {
        let text = self.ask(b"{\"version\":1,\"request\":\"status\"}\n")?;
        let unreadable =
            |_error| LabError::Unreadable { what: "the agent's status".into(), text: text.clone() };
        let mut answer: Value = serde_json::from_str(&text).map_err(unreadable)?;
        Ok(answer["ok"].take())
    }

    /// Writes bytes to its socket and reads one line.
    ///
    /// # Errors
    /// No socket, or no answer within half a minute.
    pub fn ask(&self, bytes: &[u8]) -> Result<String, LabError> {
        let exchange = || -> io::Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(bytes)?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        exchange().map_err(LabError::io(|| "the agent's socket".into()))
    }

    /// Where its socket is: there is one instance in each run directory.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let instance = std::fs::read_dir(&self.files.run).into_iter().flatten().flatten().next();
        instance.map(|dir| dir.path().join("agent.sock")).unwrap_or_default()
    }

    /// Where the socket of its HTTP endpoints is.
    #[must_use]
    pub fn http_socket(&self) -> PathBuf {
        self.socket().with_file_name("http.sock")
    }
}
