//! Traffic as fast as it goes, counted at both ends while it flows: TCP streams, or UDP datagrams.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{flood, stream};
use crate::lab::{LabError, Netns};

/// How long connecting, or any single write or read of TCP, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The bytes of one write and of one read.
const CHUNK: usize = 256 * 1024;

/// Running traffic. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Load {
    flow: Arc<Flow>,
    threads: Vec<JoinHandle<Result<io::Result<()>, LabError>>>,
    /// Shut down at the end, so that nobody waits for the other side.
    streams: Vec<TcpStream>,
    /// What uses the connection, for messages.
    what: String,
    /// The congestion control in use; empty for UDP.
    pub congestion: String,
}

/// What the threads of a load share.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) stop: AtomicBool,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What has passed so far: bytes of TCP, or datagrams of UDP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Handed to the kernel at the sender.
    pub sent: u64,
    /// Taken by the receiver.
    pub received: u64,
}

/// From where to where: an address of `to`.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// The sender's namespace.
    pub from: &'a Netns,
    /// The receiver's.
    pub to: &'a Netns,
    /// The receiver's address.
    pub target: IpAddr,
}

impl Load {
    /// Starts `streams` TCP connections, each sending without a pause; `congestion` is the kernel's name of a congestion
    /// control, set on both ends.
    ///
    /// # Errors
    /// A congestion control the kernel does not have or does not allow; a connection that does not come about.
    pub fn tcp(path: Path<'_>, streams: usize, congestion: Option<&str>) -> Result<Self, LabError> {
        let what = format!("TCP from {} to {}", path.from.name(), path.target);
        let attempt = || what.clone();
        let listener = path.to.run(|| listen(path.target, congestion))?.map_err(LabError::io(attempt))?;
        let server = listener.local_addr().map_err(LabError::io(attempt))?;
        let mut load = Self::new(what.clone());
        for _stream in 0..streams {
            let near = path.from.run(|| connect(server, congestion))?.map_err(LabError::io(attempt))?;
            // The handshake is done, so accept does not wait.
            let (far, _peer) = listener.accept().map_err(LabError::io(attempt))?;
            load.congestion = used(&near).map_err(LabError::io(attempt))?;
            load.streams.push(near.try_clone().map_err(LabError::io(attempt))?);
            let flow = Arc::clone(&load.flow);
            load.threads.push(path.to.thread(move || receive(far, &flow))?);
            let flow = Arc::clone(&load.flow);
            load.threads.push(path.from.thread(move || send(near, &flow))?);
        }
        Ok(load)
    }

    /// Starts sending datagrams of `size` bytes without a pause, `batch` of them in one system call.
    pub fn udp(path: Path<'_>, size: usize, batch: usize) -> Result<Self, LabError> {
        let mut load = Self::new(format!("UDP from {} to {}", path.from.name(), path.target));
        let attempt = || load.what.clone();
        let far = path.to.run(|| stream::open(path.target))?.map_err(LabError::io(attempt))?;
        let server = far.local_addr().map_err(LabError::io(attempt))?;
        let near = path.from.run(|| flood::connect(server))?.map_err(LabError::io(attempt))?;
        let flow = Arc::clone(&load.flow);
        load.threads.push(path.to.thread(move || flood::receive(&far, size, &flow))?);
        let flow = Arc::clone(&load.flow);
        load.threads.push(path.from.thread(move || flood::send(&near, size, batch, &flow))?);
        Ok(load)
    }

    fn new(what: String) -> Self {
        let (flow, threads, streams) = (Arc::default(), Vec::new(), Vec::new());
        Self { flow, threads, streams, what, congestion: String::new() }
    }

    /// What has passed so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        Passed {
            sent: self.flow.sent.load(Ordering::Relaxed),
            received: self.flow.received.load(Ordering::Relaxed),
        }
    }

    /// Ends it and waits for its threads.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn stop(mut self) -> Result<(), LabError> {
        self.end();
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ended.map_err(LabError::io(|| self.what.clone()))?;
        }
        Ok(())
    }

    fn end(&self) {
        self.flow.stop.store(true, Ordering::SeqCst);
        for stream in &self.streams {
            if let Err(error) = stream.shutdown(Shutdown::Both) {
                tracing::trace!(%error, "a stream was closed already");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn socket(like: SocketAddr, congestion: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(like), Type::STREAM, None)?;
    if let Some(name) = congestion {
        let why = |error: io::Error| {
            io::Error::new(error.kind(), format!("congestion control {name}: {error}; see tcp_congestion(7)"))
        };
        socket.set_tcp_congestion(name.as_bytes()).map_err(why)?;
    }
    Ok(socket)
}

/// What is accepted has the listener's congestion control.
fn listen(address: IpAddr, congestion: Option<&str>) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, 0);
    let socket = socket(address, congestion)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

fn connect(server: SocketAddr, congestion: Option<&str>) -> io::Result<TcpStream> {
    let socket = socket(server, congestion)?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    Ok(socket.into())
}

fn used(stream: &TcpStream) -> io::Result<String> {
    let name = socket2::SockRef::from(stream).tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

fn send(mut stream: TcpStream, flow: &Flow) -> io::Result<()> {
    let chunk = vec![0x55_u8; CHUNK];
    stream.set_write_timeout(Some(PATIENCE))?;
    while !flow.stop.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Ok(length) => flow.sent.fetch_add(length as u64, Ordering::Relaxed),
            Err(_closed) if flow.stop.load(Ordering::SeqCst) => break,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

fn receive(mut stream: TcpStream, flow: &Flow) -> io::Result<()> {
    let mut chunk = vec![0_u8; CHUNK];
    stream.set_read_timeout(Some(PATIENCE))?;
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => flow.received.fetch_add(length as u64, Ordering::Relaxed),
            Err(_closed) if flow.stop.load(Ordering::SeqCst) => return Ok(()),
            Err(error) => return Err(error),
        };
    }
}
