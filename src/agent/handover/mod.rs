//! One process takes over from another: an upgrade without a gap.
//!
//! ```text
//! running agent                          successor
//!                 <- hand-over ---------  asks on the agent's socket
//! writes nothing
//! any more        -- offer, descriptors ->
//!                                         plans, and carries frames as well
//!                 <- taken -------------
//! ends            -- ok --------------->  writes from here on
//! ```
//!
//! # Why
//! Nobody else may write the lease, the kernel or the firewall meanwhile, and somebody must at the end. So the running
//! agent stops writing before it offers, the successor writes only once it was told to, and the lock goes from one to
//! the other without being free in between: both hold the same open file. Until the last answer the running agent goes
//! on as before if the successor fails, ends or takes too long. If it is the running agent that ends, the successor
//! has all it needs. Frames may be carried by both at once: each goes to one of them.
//!
//! The successor keeps the session, so that what either of them wrote counts as its own.

mod give;
mod offer;
mod succeed;
mod take;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;

pub use self::take::{Inheritance, TakeOverError, ask};

use super::status::VERSION;

/// The version of an offer; grows with every change of it, as a successor must understand all of it, and of what the
/// descriptors are set to, as both processes use them for a while.
const OFFER: u32 = 2;
/// How long either side waits for the other before it changes its mind.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a successor may take to read that it must not go on.
const REFUSAL: Duration = Duration::from_secs(1);
/// What a process says that asks to take over.
const ASK: &str = "hand-over";
/// What it says when it is able to go on alone.
const TAKEN: &str = "taken";

/// What others reach an agent through, and what keeps others away: the process has it, the loop has not.
#[derive(Debug)]
pub struct Doors {
    /// The instance's lock.
    pub lock: OwnedFd,
    /// The listener of the agent's socket.
    pub socket: OwnedFd,
    /// The listener of the unix socket of the HTTP endpoints.
    pub http: OwnedFd,
    /// The listener for health, where there is one.
    pub health: Option<OwnedFd>,
    /// The listener for the page, where there is one.
    pub page: Option<OwnedFd>,
}

/// A process that asks to take over.
#[derive(Debug)]
pub struct Heir {
    /// The connection it asked on.
    pub stream: UnixStream,
    /// What it is to be given besides what the agent's loop has.
    pub doors: Arc<Doors>,
}

impl Heir {
    /// Its process id, where it can be told.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid = self.stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0)
    }

    /// Tells it that it must not go on.
    pub(super) async fn refuse(&self, why: &str) {
        let answer = line(&json!({ "version": VERSION, "error": why }));
        // One that has not read its offer has nothing to go on from.
        match tokio::time::timeout(REFUSAL, wire::send(&self.stream, &answer, &[])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the successor is gone"),
            Err(_) => tracing::debug!("the successor does not read"),
        }
    }
}

/// Whether this line asks to take over.
pub(super) fn is_asked(line: &[u8]) -> bool {
    says(line, ASK)
}

fn says(line: &[u8], word: &str) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|value| value == request(word))
}

fn request(word: &str) -> Value {
    json!({ "version": VERSION, "request": word })
}

/// The network namespace of this process: what is handed over belongs to one. 0 where `/proc` does not say.
fn network_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |file| file.ino())
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// What an answer says: its value, or its error.
fn answer(line: &[u8]) -> io::Result<Result<Value, String>> {
    let mut answer: Value = serde_json::from_slice(line)?;
    Ok(match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["ok"].take()),
    })
}
