//! The lab's etcd, of one member or several, in the underlay's namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::Process;
use super::site::Site;
use super::wait::{Seen, until};
use super::{LabError, Netns, Underlay, probe};

/// Those of the first member; the others' follow, ten further each. Free, because the namespace is the lab's own.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const START: Duration = Duration::from_secs(15);

/// A running member of an etcd. Dropping it ends it; its data are in the lab's folder.
#[derive(Debug)]
pub struct EtcdProcess {
    process: Process,
    member: Member,
    log: PathBuf,
    net: Netns,
    site: Arc<Site>,
}

/// Which member of which cluster.
#[derive(Debug, Clone)]
struct Member {
    address: IpAddr,
    /// From 0, and of how many.
    number: u16,
    count: u16,
    data: PathBuf,
}

impl EtcdProcess {
    /// Starts a cluster on the gateway's address, IPv4 if the lab has it, and waits until all members are healthy.
    pub(super) fn start(underlay: &Underlay, site: &Arc<Site>, count: u16) -> Result<Vec<Self>, LabError> {
        let nowhere = || LabError::NoDevice { namespace: underlay.net.name().into(), device: "ub0".into() };
        let address = underlay.gateways(0).first().copied().ok_or_else(nowhere)?;
        let mut members = Vec::new();
        for number in 0..count {
            let dir = site.folder(format!("etcd{number}"))?;
            let (member, log) = (Member { address, number, count, data: dir.join("data") }, dir.join("log"));
            let process = Process::spawn(&underlay.net, "etcd", member.command(), &log).map_err(missing)?;
            members.push(Self { process, member, log, net: underlay.net.clone(), site: Arc::clone(site) });
        }
        members.iter_mut().try_for_each(Self::wait_healthy)?;
        Ok(members)
    }

    /// Its URL, as hosts reach it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        url(self.member.client())
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
        self.process = Process::spawn(&self.net, "etcd", self.member.command(), &self.log)?;
        self.wait_healthy()
    }

    /// Ends it, loses all its data and starts it again: another cluster on the same address.
    pub fn wipe(&mut self) -> Result<(), LabError> {
        self.lose()?;
        self.restart()
    }

    /// Ends it, and starts it again with what `etcdctl snapshot save` once wrote to `backup`, as an operator would
    /// after the loss of all members.
    pub fn restore(&mut self, backup: &Path) -> Result<(), LabError> {
        self.lose()?;
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(backup);
        command.arg("--data-dir").arg(&self.member.data).args(self.member.cluster());
        self.net.output(command)?;
        self.restart()
    }

    fn lose(&mut self) -> Result<(), LabError> {
        self.stop()?;
        let data = &self.member.data;
        std::fs::remove_dir_all(data).map_err(LabError::io(|| format!("remove {}", data.display())))
    }

    /// Runs etcdctl (API 3) against it; for tests, the demo does without.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint()).args(args);
        self.net.output(command)
    }

    fn wait_healthy(&mut self) -> Result<(), LabError> {
        let socket = self.member.client();
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

impl Member {
    fn client(&self) -> SocketAddr {
        SocketAddr::new(self.address, CLIENT_PORT + 10 * self.number)
    }

    /// The name of a member, and where its peers reach it.
    fn peer(&self, number: u16) -> (String, String) {
        (format!("lab{number}"), url(SocketAddr::new(self.address, PEER_PORT + 10 * number)))
    }

    /// The flags that say which member of which cluster it is.
    fn cluster(&self) -> [String; 6] {
        let members = (0..self.count).map(|number| self.peer(number));
        let all: Vec<String> = members.map(|(name, url)| format!("{name}={url}")).collect();
        let (name, peer) = self.peer(self.number);
        [
            "--name".into(),
            name,
            "--initial-advertise-peer-urls".into(),
            peer,
            "--initial-cluster".into(),
            all.join(","),
        ]
    }

    fn command(&self) -> Command {
        let (client, (_name, peer)) = (url(self.client()), self.peer(self.number));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&self.data).args(self.cluster());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]);
        command
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn missing(error: LabError) -> LabError {
    let LabError::Io { source, .. } = &error else { return error };
    if source.kind() == io::ErrorKind::NotFound {
        return LabError::Missing { program: "etcd".into(), package: "etcd-server" };
    }
    error
}
