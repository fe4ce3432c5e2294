//! A TCP connection between two namespaces on which a word is said every few milliseconds and said back: whether it
//! lives through what is done to the fabric, and how long it stalls.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::{LabError, Netns};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a word is said. Less often than packets of a stream: what is asked is whether the connection lives.
const INTERVAL: Duration = Duration::from_millis(10);
/// How often a thread that reads looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// The bytes of a word.
const WORD: usize = 64;

/// A running conversation. Dropping it ends it without a report.
#[derive(Debug)]
pub struct Talk {
    shared: Arc<Shared>,
    /// Shut down at the end, so that nobody waits for the other side.
    ends: [TcpStream; 2],
    /// Who says, hears and repeats.
    parts: Vec<JoinHandle<Result<io::Result<()>, LabError>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Bytes that came back.
    heard: AtomicU64,
    /// The longest time in which nothing did, in microseconds.
    stall: AtomicU64,
}

/// What became of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TalkReport {
    /// Words that came back whole.
    pub heard: u64,
    /// The longest time in which nothing came back.
    pub longest_stall: Duration,
    /// Why the connection ended before it was to; `None` if it lived.
    pub broken: Option<String>,
}

impl Talk {
    /// Connects from `from` to `target`, an address of `to`, and begins.
    ///
    /// # Errors
    /// A connection that does not come about.
    pub fn start(from: &Netns, to: &Netns, target: IpAddr) -> Result<Self, LabError> {
        let attempt = || format!("talk from {} to {target}", from.name());
        let listener =
            to.run(|| TcpListener::bind(SocketAddr::new(target, 0)))?.map_err(LabError::io(attempt))?;
        let server = listener.local_addr().map_err(LabError::io(attempt))?;
        let near = from.run(|| TcpStream::connect_timeout(&server, PATIENCE))?;
        let near = near.map_err(LabError::io(attempt))?;
        // The handshake is done, so accept does not wait.
        let (far, _peer) = listener.accept().map_err(LabError::io(attempt))?;
        for end in [&near, &far] {
            end.set_nodelay(true).map_err(LabError::io(attempt))?;
            end.set_read_timeout(Some(LOOK)).map_err(LabError::io(attempt))?;
        }
        let copy = |end: &TcpStream| end.try_clone().map_err(LabError::io(attempt));
        let ends = [copy(&near)?, copy(&far)?];
        let mut talk = Self { shared: Arc::default(), ends, parts: Vec::new() };
        let (said, shared) = (copy(&near)?, || Arc::clone(&talk.shared));
        let [repeats, hears, says] = [shared(), shared(), shared()];
        talk.parts.push(to.thread(move || repeat(far, &repeats))?);
        talk.parts.push(from.thread(move || hear(near, &hears))?);
        talk.parts.push(from.thread(move || say(said, &says))?);
        Ok(talk)
    }

    /// How many words have come back so far.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::SeqCst) / WORD as u64
    }

    /// Whether the connection has ended although it was not to.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.parts.iter().any(JoinHandle::is_finished)
    }

    /// Ends it, and reports.
    ///
    /// # Errors
    /// A namespace that its threads could not enter.
    pub fn stop(mut self) -> Result<TalkReport, LabError> {
        self.end();
        let mut broken = None;
        for part in self.parts.drain(..) {
            let ended = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            broken = broken.or(ended.err().map(|error| error.to_string()));
        }
        let longest_stall = Duration::from_micros(self.shared.stall.load(Ordering::SeqCst));
        Ok(TalkReport { heard: self.heard(), longest_stall, broken })
    }

    fn end(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for end in &self.ends {
            if let Err(error) = end.shutdown(Shutdown::Both) {
                tracing::trace!(%error, "an end of the conversation was closed already");
            }
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn ends(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Reads what there is: `None` if nothing came for a while, or the end was asked for.
    fn read(&self, mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match stream.read(buffer) {
            _ if self.ends() => Ok(None),
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What a failure is worth: nothing once the end was asked for.
    fn judge(&self, done: io::Result<()>) -> io::Result<()> {
        if self.ends() { Ok(()) } else { done }
    }
}

fn say(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    while !shared.ends() {
        shared.judge(stream.write_all(&[0x55; WORD]))?;
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn repeat(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while !shared.ends() {
        if let Some(length) = shared.read(&stream, &mut buffer)? {
            shared.judge(stream.write_all(&buffer[..length]))?;
        }
    }
    Ok(())
}

/// Keeps the longest time without a word, that until the end included.
fn hear(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut buffer, mut last) = ([0; 4096], Instant::now());
    while !shared.ends() {
        let read = shared.read(&stream, &mut buffer);
        let silent = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.stall.fetch_max(silent, Ordering::SeqCst);
        if let Some(length) = read? {
            last = Instant::now();
            shared.heard.fetch_add(length as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Cancel, Seen, until};

    /// One namespace that talks to itself.
    fn alone() -> Option<(Netns, Talk)> {
        let net = Netns::new("talk", false).map_err(|reason| println!("SKIP: {reason}")).ok()?;
        let talk = Talk::start(&net, &net, "127.0.0.1".parse().unwrap()).unwrap();
        until("words", PATIENCE, &Cancel::default(), || {
            Ok(if talk.heard() > 5 { Seen::Yes(()) } else { Seen::NotYet(talk.heard().to_string()) })
        })
        .unwrap();
        Some((net, talk))
    }

    #[test]
    fn a_conversation_that_lives_says_so() {
        let Some((_net, talk)) = alone() else { return };
        assert!(!talk.is_broken());
        let report = talk.stop().unwrap();
        assert!(report.heard > 5 && report.broken.is_none(), "{report:?}");
    }

    #[test]
    fn a_connection_that_ends_early_is_broken() {
        let Some((_net, talk)) = alone() else { return };
        talk.ends[1].shutdown(Shutdown::Both).unwrap();
        until("the end", PATIENCE, &Cancel::default(), || {
            Ok(if talk.is_broken() { Seen::Yes(()) } else { Seen::NotYet("it lives".into()) })
        })
        .unwrap();
        assert!(talk.stop().unwrap().broken.is_some());
    }
}
