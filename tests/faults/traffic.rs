//! What flows while something is broken: packets between pods, a TCP connection, and pods that ask the outside.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twill::lab::probe::{Stream, StreamReport, Talk, TalkReport};
use twill::lab::{LabError, Netns};

use crate::fabric::wait_for;
use crate::world::World;

/// Packets a second.
const RATE: u32 = 1000;
/// What has to pass until traffic counts as flowing.
const RUNS: u64 = 10;
/// How often a pod asks the outside, and how long it waits for the answer.
const KNOCK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_millis(20);
/// A machine that has much to do answers later than that: how many questions are kept open, and how long at the end.
const OPEN: usize = 200;
const LATE: Duration = Duration::from_millis(100);

/// Everything that flows.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// From the first host's pod to the second's and back.
    main: Stream,
    talk: Talk,
    /// Between the last two hosts' pods, which have no part in what happens to the first host.
    others: Stream,
    outside: Knocks,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) main: StreamReport,
    pub(crate) talk: TalkReport,
    pub(crate) others: StreamReport,
    /// The longest time in which no pod got an answer from the outside.
    pub(crate) outside: Duration,
}

impl Traffic {
    pub(crate) fn start(world: &World) -> Self {
        let pods = &world.fabric.pods;
        let target = |pod: usize| pods[pod].addresses[0];
        let stream =
            |from: usize, to: usize| Stream::start(&pods[from].net, &pods[to].net, target(to), RATE).unwrap();
        let underlay = &world.fabric.lab.underlay;
        let traffic = Self {
            main: stream(0, 1),
            others: stream(pods.len() - 2, pods.len() - 1),
            talk: Talk::start(&pods[0].net, &pods[1].net, target(1)).unwrap(),
            outside: Knocks::start(&pods[0].net, &underlay.net, underlay.gateways(0)[0]),
        };
        traffic.wait_flowing(true);
        traffic
    }

    /// Waits until more has come back on every way, over TCP if that is asked for. A connection that broke counts as
    /// settled: the report tells.
    pub(crate) fn wait_flowing(&self, tcp: bool) {
        let look = || {
            let heard = if !tcp || self.talk.is_broken() { u64::MAX / 2 } else { self.talk.heard() };
            [self.main.answered(), self.others.answered(), self.outside.answered(), heard]
        };
        let goal = look().map(|passed| passed + RUNS);
        wait_for("traffic to flow", || {
            let passed = look();
            let reached = |(passed, goal): (&u64, &u64)| passed >= goal || *passed >= u64::MAX / 2;
            passed.iter().zip(&goal).all(reached).then_some(()).ok_or((passed, goal))
        });
    }

    pub(crate) fn stop(self) -> Measured {
        Measured {
            talk: self.talk.stop().unwrap(),
            outside: self.outside.stop(),
            others: self.others.stop().unwrap(),
            main: self.main.stop().unwrap(),
        }
    }
}

/// A pod that asks somebody outside, from another port each time: each is a flow of its own, which the rules of the
/// moment decide about. Dropping it ends it.
#[derive(Debug)]
struct Knocks {
    shared: Arc<Shared>,
    knocks: Option<JoinHandle<Result<Duration, LabError>>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Nobody asks any more.
    quiet: AtomicBool,
    /// Nobody answers any more: only after that, so that the last question is answered, too.
    stop: AtomicBool,
    answered: std::sync::atomic::AtomicU64,
}

impl Knocks {
    fn start(from: &Netns, to: &Netns, target: IpAddr) -> Self {
        let far = to.run(|| UdpSocket::bind(SocketAddr::new(target, 0))).unwrap().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let server = far.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let flag = Arc::clone(&shared);
        drop(to.thread(move || echo(&far, &flag)).unwrap());
        let flag = Arc::clone(&shared);
        let knocks = Some(from.thread(move || knock(server, &flag)).unwrap());
        Self { shared, knocks }
    }

    fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    fn stop(mut self) -> Duration {
        self.shared.quiet.store(true, Ordering::SeqCst);
        self.knocks.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        self.shared.quiet.store(true, Ordering::SeqCst);
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn echo(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 8];
    while !shared.stop.load(Ordering::SeqCst) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    }
}

/// The longest time in which no question was answered, however late; nothing if all were.
fn knock(server: SocketAddr, shared: &Shared) -> Duration {
    let (mut asked, mut late) = (Vec::new(), VecDeque::new());
    while !shared.quiet.load(Ordering::SeqCst) {
        let begin = Instant::now();
        let (answered, socket) = match ask(server) {
            Ok((answered, socket)) => (answered, Some(socket)),
            Err(_refused) => (false, None),
        };
        if answered {
            shared.answered.fetch_add(1, Ordering::SeqCst);
        } else {
            late.extend(socket.map(|socket| (asked.len(), socket)));
            late.drain(..late.len().saturating_sub(OPEN));
        }
        asked.push((begin, answered));
        thread::sleep(KNOCK.saturating_sub(begin.elapsed()));
    }
    thread::sleep(LATE);
    for (number, socket) in late {
        asked[number].1 = heard(&socket);
    }
    let mut longest = Duration::ZERO;
    for outage in asked.chunk_by(|a, b| a.1 == b.1).filter(|outage| !outage[0].1) {
        let after = outage[outage.len() - 1].0 + KNOCK.max(PATIENCE);
        longest = longest.max(after - outage[0].0);
    }
    longest
}

/// Whether the answer came at once, and where else it may come.
fn ask(server: SocketAddr) -> io::Result<(bool, UdpSocket)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"anybody?", server)?;
    Ok((heard(&socket), socket))
}

fn heard(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 8]).is_ok()
}
