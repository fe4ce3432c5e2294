//! A counted UDP stream between two namespaces: what was lost while something was done to the fabric.
//!
//! Packets carry their number; the far end sends each one back. A packet counts as answered when it is back, so both
//! directions are under test; `received` tells which direction lost it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::buffers::widen;
use crate::lab::{LabError, Netns};

/// How long [`Stream::stop`] waits for the answers to the last packets.
const GRACE: Duration = Duration::from_secs(5);
/// How long it waits for others once the last packet is back: one processor may overtake another.
const STRAGGLERS: Duration = Duration::from_millis(50);
/// How often a receiving thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// The receive buffer in bytes: what comes in seconds.
const ROOM: usize = 4 << 20;
/// The bytes of a packet's number, and the packet's length: small, as what is counted is packets.
const NUMBER: usize = 8;

/// A running stream. Dropping it stops it without a report.
#[derive(Debug)]
pub struct Stream {
    flags: Arc<Flags>,
    interval: Duration,
    sender: Option<JoinHandle<Result<Vec<Instant>, LabError>>>,
    answers: Option<JoinHandle<Result<Vec<bool>, LabError>>>,
    echo: Option<JoinHandle<Result<(), LabError>>>,
}

#[derive(Debug, Default)]
struct Flags {
    stop_sending: AtomicBool,
    stop_all: AtomicBool,
    received: AtomicU64,
    answered: AtomicU64,
    /// One more than the highest number that came back.
    reached: AtomicU64,
}

/// What became of a stream's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReport {
    /// Packets sent, those included that found no route.
    pub sent: u64,
    /// Packets that reached the far end, duplicates included.
    pub received: u64,
    /// Packets that came back.
    pub answered: u64,
    /// How long the longest outage was: from the last answered packet before it to the first after it, by the time of
    /// sending (or the stream's begin and end). Zero if nothing was lost.
    pub longest_gap: Duration,
}

impl StreamReport {
    /// Packets that did not come back.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.answered
    }

    fn new(sent: &[Instant], answered: &[bool], received: u64, interval: Duration) -> Self {
        let back = |number: usize| answered.get(number).copied().unwrap_or(false);
        let answered = (0..sent.len()).filter(|number| back(*number)).count();
        let mut longest_gap = Duration::ZERO;
        let mut good = None;
        let mut lost_since = false;
        for (number, at) in sent.iter().enumerate() {
            if back(number) {
                if lost_since {
                    longest_gap = longest_gap.max(at.duration_since(good.unwrap_or(sent[0])));
                }
                good = Some(*at);
                lost_since = false;
            } else {
                lost_since = true;
            }
        }
        if let (true, Some(first), Some(last)) = (lost_since, sent.first(), sent.last()) {
            longest_gap = longest_gap.max(last.duration_since(good.unwrap_or(*first)) + interval);
        }
        Self { sent: sent.len() as u64, received, answered: answered as u64, longest_gap }
    }
}

impl Stream {
    /// Starts sending `per_second` packets a second from `from` to `target`, an address of `to`.
    pub fn start(from: &Netns, to: &Netns, target: IpAddr, per_second: u32) -> Result<Self, LabError> {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let attempt = || format!("open a stream from {} to {target}", from.name());
        let far = to.run(|| open(target))?.map_err(LabError::io(attempt))?;
        let near = from.run(|| open(any(target)))?.map_err(LabError::io(attempt))?;
        let server = far.local_addr().map_err(LabError::io(attempt))?;
        let near_too = near.try_clone().map_err(LabError::io(attempt))?;
        let flags = Arc::new(Flags::default());
        let mut stream = Self { flags, interval, sender: None, answers: None, echo: None };
        let flags = Arc::clone(&stream.flags);
        stream.echo = Some(to.thread(move || echo(&far, &flags))?);
        let flags = Arc::clone(&stream.flags);
        stream.answers = Some(from.thread(move || collect(&near_too, &flags))?);
        let flags = Arc::clone(&stream.flags);
        stream.sender = Some(from.thread(move || send(&near, server, interval, &flags))?);
        Ok(stream)
    }

    /// How many packets have come back so far: to wait until a stream runs, or runs again.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.flags.answered.load(Ordering::SeqCst)
    }

    /// Stops sending, waits at most 5 s for the last answers, and reports.
    pub fn stop(mut self) -> Result<StreamReport, LabError> {
        self.flags.stop_sending.store(true, Ordering::SeqCst);
        let sent = join(self.sender.take())?.unwrap_or_default();
        let mut deadline = Instant::now() + GRACE;
        while self.answered() < sent.len() as u64 && Instant::now() < deadline {
            if self.flags.reached.load(Ordering::SeqCst) >= sent.len() as u64 {
                deadline = deadline.min(Instant::now() + STRAGGLERS);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.flags.stop_all.store(true, Ordering::SeqCst);
        let answered = join(self.answers.take())?.unwrap_or_default();
        join(self.echo.take())?;
        let received = self.flags.received.load(Ordering::SeqCst);
        Ok(StreamReport::new(&sent, &answered, received, self.interval))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flags.stop_sending.store(true, Ordering::SeqCst);
        self.flags.stop_all.store(true, Ordering::SeqCst);
    }
}

fn join<T>(thread: Option<JoinHandle<Result<T, LabError>>>) -> Result<Option<T>, LabError> {
    thread.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).transpose()
}

/// A receiver that has to wait for a processor must not lose what the network delivered.
pub(super) fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
    socket.set_read_timeout(Some(LOOK))?;
    widen(&socket, ROOM)?;
    Ok(socket)
}

pub(super) fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Sends packet `n` at begin + n intervals, at once if that is past. A refusal by the kernel is a lost packet.
fn send(socket: &UdpSocket, server: SocketAddr, interval: Duration, flags: &Flags) -> Vec<Instant> {
    let mut sent = Vec::new();
    let mut due = Instant::now();
    while !flags.stop_sending.load(Ordering::SeqCst) {
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        let number = (sent.len() as u64).to_be_bytes();
        sent.push(Instant::now());
        if let Err(error) = socket.send_to(&number, server) {
            tracing::trace!(%server, %error, "a packet of the stream was refused");
        }
        due += interval;
    }
    sent
}

/// Sends everything back until told to end.
fn echo(socket: &UdpSocket, flags: &Flags) {
    let mut buffer = [0_u8; NUMBER];
    while !flags.stop_all.load(Ordering::SeqCst) {
        if let Ok((NUMBER, from)) = socket.recv_from(&mut buffer) {
            flags.received.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = socket.send_to(&buffer, from) {
                tracing::trace!(%from, %error, "an answer of the stream was refused");
            }
        }
    }
}

/// Which numbers came back, until told to end.
fn collect(socket: &UdpSocket, flags: &Flags) -> Vec<bool> {
    let mut answered = Vec::new();
    let mut buffer = [0_u8; NUMBER];
    while !flags.stop_all.load(Ordering::SeqCst) {
        let Ok((NUMBER, _from)) = socket.recv_from(&mut buffer) else { continue };
        let Ok(number) = usize::try_from(u64::from_be_bytes(buffer)) else { continue };
        if answered.len() <= number {
            answered.resize(number + 1, false);
        }
        if !answered[number] {
            answered[number] = true;
            flags.reached.fetch_max(number as u64 + 1, Ordering::SeqCst);
            flags.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn report(pattern: &str) -> StreamReport {
        let begin = Instant::now();
        let sent: Vec<Instant> = (0..).map(|n| begin + STEP * n).take(pattern.len()).collect();
        let answered: Vec<bool> = pattern.chars().map(|c| c == '+').collect();
        StreamReport::new(&sent, &answered, 0, STEP)
    }

    #[test]
    fn nothing_lost_is_no_gap() {
        let report = report("++++++");
        assert_eq!((report.sent, report.lost(), report.longest_gap), (6, 0, Duration::ZERO));
    }

    #[test]
    fn a_gap_reaches_from_the_last_good_packet_to_the_next() {
        let report = report("++---+-+");
        assert_eq!((report.lost(), report.longest_gap), (4, STEP * 4));
    }

    #[test]
    fn a_gap_at_either_end_counts() {
        assert_eq!(report("---++").longest_gap, STEP * 3);
        assert_eq!(report("++---").longest_gap, STEP * 4);
        assert_eq!(report("-----").longest_gap, STEP * 5);
        assert_eq!(report("").longest_gap, Duration::ZERO);
    }

    #[test]
    fn answers_shorter_than_the_stream_are_losses() {
        let begin = Instant::now();
        let report = StreamReport::new(&[begin, begin + STEP], &[true], 1, STEP);
        assert_eq!((report.lost(), report.longest_gap), (1, STEP * 2));
    }
}
