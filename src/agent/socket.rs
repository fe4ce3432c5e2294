//! The agent's unix socket: one JSON line per request, one JSON line back.
//!
//! A request is `{"version":1,"request":"status"}`. The answer is `{"version":1,"ok":…}` or
//! `{"version":1,"error":"…"}`. What follows on `hand-over` is told in [`handover`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::board::View;
use super::handover::{self, Doors, Heir};
use super::status::VERSION;

/// The longest request line in bytes: whoever sends more is not one of ours.
const LONGEST: u64 = 4096;
/// How long an agent may take to answer, and a caller to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the loop may take to write up what is so at this moment; then what it wrote before has to do.
const LOOP: Duration = Duration::from_secs(1);

/// What an agent answers that ends.
const ENDING: &str = "the agent is ending";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// The status. The loop writes it up; whoever asks reads it.
    Status,
    /// To let go of the own lease, and end.
    Release,
}

/// Who comes to the agent's loop.
#[derive(Debug)]
pub enum Visit {
    /// Somebody with a question.
    Asks(Request),
    /// A process that is to take over.
    Succeeds(Heir),
}

/// A question, and where the answer goes.
#[derive(Debug)]
pub struct Request {
    /// The question.
    pub ask: Ask,
    /// Where the answer goes: a value, or why not.
    pub reply: oneshot::Sender<Result<Value, String>>,
    /// Closes once the answer is written, or cannot be: an agent that ends waits for it.
    pub delivered: oneshot::Receiver<()>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    version: u32,
    request: Ask,
}

/// What is answered: of 10,000 peers some megabytes, which are written once, and not built up as values before.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Binds the socket, for its owner only, at no moment for others. A file left by an agent that died is replaced: whoever
/// calls this holds the instance's lock.
///
/// # Errors
/// As the file system answers.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let unready = path.with_extension("unready");
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unready, path)?;
    Ok(listener)
}

/// Where visitors go to.
#[derive(Debug, Clone)]
pub struct Hall {
    /// The agent's loop.
    pub visits: mpsc::Sender<Visit>,
    /// What the loop wrote up.
    pub view: View,
    /// What a process that takes over is given.
    pub doors: Arc<Doors>,
}

/// Hands requests to the agent's loop until that is gone.
pub async fn serve(listener: UnixListener, hall: Hall) {
    // Whoever comes once the loop is gone is for the process that took over, if one did.
    while let Some(accepted) = accept(&listener, &hall.visits).await {
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, hall.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the agent's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn accept(
    listener: &UnixListener,
    visits: &mpsc::Sender<Visit>,
) -> Option<io::Result<(UnixStream, SocketAddr)>> {
    tokio::select! {
        biased;
        () = visits.closed() => None,
        accepted = listener.accept() => Some(accepted),
    }
}

async fn answer(mut stream: UnixStream, hall: Hall) {
    let mut line = Vec::new();
    let mut read = BufReader::new((&mut stream).take(LONGEST));
    if !matches!(tokio::time::timeout(PATIENCE, read.read_until(b'\n', &mut line)).await, Ok(Ok(_))) {
        return;
    }
    if handover::is_asked(&line) {
        // If the agent ends, the connection ends, and that is an answer.
        let Hall { visits, doors, .. } = hall;
        visits.send(Visit::Succeeds(Heir { stream, doors })).await.ok();
        return;
    }
    // Dropped when all is written.
    let (_delivery, delivered) = oneshot::channel();
    let said = ask_loop(&line, &hall, delivered).await;
    let (ok, error) = (said.as_deref().ok(), said.as_ref().err().map(String::as_str));
    // Nothing in it has no JSON.
    let mut answer = serde_json::to_vec(&Answer { version: VERSION, ok, error }).unwrap_or_default();
    answer.push(b'\n');
    if let Err(error) = stream.write_all(&answer).await {
        tracing::debug!(%error, "the caller did not wait for its answer");
    }
}

async fn ask_loop(
    line: &[u8],
    hall: &Hall,
    delivered: oneshot::Receiver<()>,
) -> Result<Box<RawValue>, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    if line.version != VERSION {
        return Err(format!("this agent speaks version {VERSION}, not {}", line.version));
    }
    let (reply, answer) = oneshot::channel();
    let gone = || ENDING.to_owned();
    let request = Request { ask: line.request, reply, delivered };
    let asked = async {
        hall.visits.send(Visit::Asks(request)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    };
    if line.request != Ask::Status {
        return raw(&asked.await?);
    }
    if let Ok(Err(error)) = tokio::time::timeout(LOOP, asked).await {
        return Err(error);
    }
    raw(&hall.view.status().await.ok_or_else(gone)?)
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, String> {
    to_raw_value(value).map_err(|error| error.to_string())
}

/// Asks the agent behind `path`. An agent that ends for another one to take over leaves the question to that.
///
/// # Errors
/// No agent listens there, it does not answer in time, or it answers with an error.
pub async fn ask(path: &Path, request: Ask) -> Result<Value, AskError> {
    match ask_once(path, request).await {
        Err(AskError::Refused(why)) if why == ENDING => ask_once(path, request).await,
        // It may have done what it was asked, and status may be asked twice.
        Err(AskError::Unreachable { cause, .. }) if request == Ask::Status && is_cut(&cause) => {
            ask_once(path, request).await
        }
        answer => answer,
    }
}

/// Whether the agent was there, and ended before it answered.
fn is_cut(cause: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(cause.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

async fn ask_once(path: &Path, request: Ask) -> Result<Value, AskError> {
    let unreachable = |cause: io::Error| AskError::Unreachable { path: path.display().to_string(), cause };
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        let line = serde_json::to_string(&Line { version: VERSION, request })?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        if BufReader::new(stream).read_line(&mut answer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
        }
        Ok(answer)
    };
    let answer = match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answer) => answer.map_err(unreachable)?,
        Err(_) => return Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))),
    };
    let mut answer: Value = serde_json::from_str(&answer).map_err(|error| unreachable(error.into()))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(AskError::Refused(error.to_owned())),
        None => Ok(answer["ok"].take()),
    }
}

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It is not there, or does not speak.
    #[error(
        "no agent answers at {path}: {cause}; next: start it (twill agent), or name its --store and --run-dir"
    )]
    Unreachable {
        /// Its socket.
        path: String,
        /// How it failed.
        cause: io::Error,
    },
    /// It refused.
    #[error("the agent refuses: {0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::status::Status;
    use crate::agent::status::tests::status;

    #[tokio::test]
    async fn a_question_is_answered_and_rubbish_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = bind(&path).unwrap();
        let (send, mut visits) = mpsc::channel(1);
        let door = || fs::File::open("/dev/null").unwrap().into();
        let doors = Arc::new(Doors { lock: door(), socket: door(), http: door(), health: None, page: None });
        tokio::spawn(serve(listener, Hall { visits: send, view: View::of(status()), doors }));
        let answering = async {
            let Some(Visit::Asks(request)) = visits.recv().await else { panic!("no question") };
            assert_eq!(request.ask, Ask::Release);
            request.reply.send(Ok(json!("10.5.1.0-24"))).unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&path, Ask::Release), answering);
        assert_eq!(answer.unwrap(), json!("10.5.1.0-24"));
        // The loop does not come to it: what it wrote up is shown.
        let answer = ask(&path, Ask::Status).await.unwrap();
        let shown: Status = serde_json::from_value(answer).unwrap();
        assert_eq!(Status { age_ms: 0, ..shown }, status());
        for line in ["", "{", "[1]", "{\"version\":9,\"request\":\"status\"}", &"x".repeat(100_000)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // The agent may hang up before it has read a line that is too long.
            drop(stream.write_all(format!("{line}\n").as_bytes()).await);
            let mut answer = String::new();
            if BufReader::new(&mut stream).read_line(&mut answer).await.is_ok_and(|read| read > 0) {
                assert!(answer.contains("\"error\""), "{answer}");
            }
        }
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(bind(&path).unwrap());
        let error = ask(&path, Ask::Status).await.unwrap_err().to_string();
        assert!(error.contains("agent.sock") && error.contains("twill agent"), "{error}");
        bind(&path).unwrap();
    }
}
