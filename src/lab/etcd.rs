//! An etcd of the lab, in the underlay's namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::Process;
use super::site::Site;
use super::wait::{Seen, until};
use super::{LabError, Netns, Underlay, probe};

/// Free, because the namespace is the lab's own.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const START: Duration = Duration::from_secs(15);

/// A running etcd of one member. Dropping it ends it; its data are in the lab's folder.
#[derive(Debug)]
pub struct EtcdProcess {
    process: Process,
    address: IpAddr,
    data: PathBuf,
    log: PathBuf,
    net: Netns,
    site: Arc<Site>,
}

impl EtcdProcess {
    /// Starts it on the gateway's address, IPv4 if the lab has it, and waits until it is healthy.
    pub(super) fn start(underlay: &Underlay, site: &Arc<Site>) -> Result<Self, LabError> {
        let nowhere = || LabError::NoDevice { namespace: underlay.net.name().into(), device: "ub0".into() };
        let address = underlay.gateways(0).first().copied().ok_or_else(nowhere)?;
        let dir = site.folder("etcd")?;
        let (data, log) = (dir.join("data"), dir.join("log"));
        let process = Process::spawn(&underlay.net, "etcd", command(address, &data), &log);
        let process = process.map_err(missing)?;
        let (net, site) = (underlay.net.clone(), Arc::clone(site));
        let mut etcd = Self { process, address, data, log, net, site };
        etcd.wait_healthy()?;
        Ok(etcd)
    }

    /// Its URL, as hosts reach it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        url(self.address, CLIENT_PORT)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal: SIGSTOP and SIGCONT make it hang and answer again.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.process.signal(signal)
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<(), LabError> {
        self.process.stop(Duration::from_secs(5)).map(drop)
    }

    /// Starts it again with its data, ending it first if it runs, and waits until it is healthy.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.stop()?;
        self.process = Process::spawn(&self.net, "etcd", command(self.address, &self.data), &self.log)?;
        self.wait_healthy()
    }

    /// Ends it, loses all its data and starts it again: another cluster on the same address.
    pub fn wipe(&mut self) -> Result<(), LabError> {
        self.stop()?;
        std::fs::remove_dir_all(&self.data)
            .map_err(LabError::io(|| format!("remove {}", self.data.display())))?;
        self.restart()
    }

    /// Runs etcdctl (API 3) against it; for tests, the demo does without.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint()).args(args);
        self.net.output(command)
    }

    fn wait_healthy(&mut self) -> Result<(), LabError> {
        let socket = SocketAddr::new(self.address, CLIENT_PORT);
        let cancel = self.site.cancel.clone();
        until("etcd healthy", START, &cancel, || {
            self.process.check_alive()?;
            Ok(match probe::http_get(&self.net, socket, "/health") {
                Ok((200, _body)) => Seen::Yes(()),
                Ok((status, body)) => Seen::NotYet(format!("/health says {status}: {body}")),
                Err(error) => Seen::NotYet(error.to_string()),
            })
        })
    }
}

fn command(address: IpAddr, data: &std::path::Path) -> Command {
    let (client, peer) = (url(address, CLIENT_PORT), url(address, PEER_PORT));
    let mut command = Command::new("etcd");
    command.arg("--name").arg("lab").arg("--data-dir").arg(data);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg("--initial-cluster").arg(format!("lab={peer}"));
    command
}

fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

fn missing(error: LabError) -> LabError {
    let LabError::Io { source, .. } = &error else { return error };
    if source.kind() == io::ErrorKind::NotFound {
        return LabError::Missing { program: "etcd".into(), package: "etcd-server" };
    }
    error
}
