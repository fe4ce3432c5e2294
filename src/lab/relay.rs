//! A port of the machine that leads to a unix socket: a browser on the machine reaches neither sockets nor namespaces.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use super::LabError;

/// A port of 127.0.0.1 in the network namespace it was made in, whatever namespace the process enters afterwards.
#[derive(Debug)]
pub(super) struct Relay(TcpListener);

impl Relay {
    /// Takes a free port.
    pub(super) fn new() -> Result<Self, LabError> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        bound.map(Self).map_err(LabError::io(|| "take a port of 127.0.0.1".into()))
    }

    /// Leads whoever comes to the socket, for as long as the process lives. Returns where they come to.
    pub(super) fn lead_to(self, socket: PathBuf) -> Result<SocketAddr, LabError> {
        let Self(listener) = self;
        let serve = || {
            let addr = listener.local_addr()?;
            let accept = move || {
                for comer in listener.incoming() {
                    let joined = comer.and_then(|comer| join(comer, &socket));
                    if let Err(error) = joined {
                        tracing::debug!(%error, "nobody is led to the socket");
                    }
                }
            };
            thread::Builder::new().name("relay".to_owned()).spawn(accept)?;
            Ok(addr)
        };
        serve().map_err(LabError::io(|| "lead a port to a socket".into()))
    }
}

/// Passes on what comes from either side, each on a thread of its own.
fn join(comer: TcpStream, socket: &Path) -> io::Result<()> {
    let host = UnixStream::connect(socket)?;
    let (mut from_host, mut to_comer) = (host.try_clone()?, comer.try_clone()?);
    let (mut from_comer, mut to_host) = (comer, host);
    thread::Builder::new().name("relay".to_owned()).spawn(move || {
        // However it ends, the other side is to learn of it, and is gone if it cannot.
        drop(io::copy(&mut from_comer, &mut to_host));
        drop(to_host.shutdown(Shutdown::Write));
    })?;
    thread::Builder::new().name("relay".to_owned()).spawn(move || {
        drop(io::copy(&mut from_host, &mut to_comer));
        drop(to_comer.shutdown(Shutdown::Both));
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn both_sides_hear_each_other_and_of_each_others_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let addr = Relay::new().unwrap().lead_to(path.clone()).unwrap();
        let mut early = TcpStream::connect(addr).unwrap();
        assert_eq!(early.read(&mut [0]).unwrap(), 0, "nobody is there yet");
        let host = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let mut comer = TcpStream::connect(addr).unwrap();
            let (mut inside, _) = host.accept().unwrap();
            comer.write_all(b"ask").unwrap();
            comer.shutdown(Shutdown::Write).unwrap();
            let mut heard = String::new();
            inside.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "ask");
            inside.write_all(b"answer").unwrap();
            drop(inside);
            heard.clear();
            comer.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "answer");
        }
    }
}
