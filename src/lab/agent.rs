//! Real agent processes on hosts of the lab.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::pod::PodSubnet;
use super::process::Process;
use super::site::Site;
use super::wait::{Seen, until};
use super::{Host, LabError, Netns, probe};

/// The first agent of a host answers here, the next one port further.
const HEALTHZ_PORT: u16 = 10254;
/// How long an agent that is to end may take, on a machine that has much else to do.
const ENDING: Duration = Duration::from_secs(30);

/// Where the leases of a lab are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// A folder, shared by all agents.
    File(PathBuf),
    /// An etcd.
    Etcd {
        /// Comma-separated URLs.
        endpoints: String,
    },
}

impl StoreAt {
    /// The flags that name the store, for any `twill` command.
    #[must_use]
    pub fn flags(&self) -> Vec<OsString> {
        match self {
            Self::File(dir) => {
                let mut store = OsString::from("file:");
                store.push(dir);
                vec!["--store".into(), store]
            }
            Self::Etcd { endpoints } => {
                vec!["--store".into(), "etcd".into(), "--etcd-endpoints".into(), endpoints.into()]
            }
        }
    }
}

/// How to start an agent. What is not here (files, ports, log) the lab chooses.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The `twill` binary.
    pub program: PathBuf,
    /// Where the leases are.
    pub store: StoreAt,
    /// More flags, after those of the lab.
    pub args: Vec<OsString>,
    /// Environment variables, on top of the caller's.
    pub env: Vec<(OsString, OsString)>,
}

impl AgentOptions {
    /// An agent without further flags.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, store: StoreAt) -> Self {
        Self { program: program.into(), store, args: Vec::new(), env: Vec::new() }
    }

    /// Adds a flag, or a flag's value.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}

/// The files of one agent, below the lab's folder. They outlive restarts.
#[derive(Debug, Clone)]
pub struct AgentFiles {
    /// `--state-dir`.
    pub state: PathBuf,
    /// `--run-dir`.
    pub run: PathBuf,
    /// `--subnet-file`.
    pub subnet: PathBuf,
    /// What the agent writes to stdout and stderr, all runs of it.
    pub log: PathBuf,
}

/// A `twill agent` process. Dropping it ends the process; its kernel state stays in the host's namespace.
#[derive(Debug)]
pub struct AgentProcess {
    /// Its files.
    pub files: AgentFiles,
    process: Process,
    what: String,
    options: AgentOptions,
    healthz: SocketAddr,
    net: Netns,
    site: Arc<Site>,
}

impl AgentProcess {
    pub(super) fn start(
        host: &Host,
        options: &AgentOptions,
        site: &Arc<Site>,
        number: u32,
    ) -> Result<Self, LabError> {
        let dir = site.folder(format!("{}/agent{number}", host.name))?;
        let files = AgentFiles {
            state: dir.join("state"),
            run: dir.join("run"),
            subnet: dir.join("subnet.env"),
            log: dir.join("log"),
        };
        let port = HEALTHZ_PORT.saturating_add(u16::try_from(number).unwrap_or(u16::MAX));
        let healthz = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let what = format!("the agent on {}", host.name);
        let process = Process::spawn(&host.net, &what, command(options, &files, healthz), &files.log)?;
        let (options, net, site) = (options.clone(), host.net.clone(), Arc::clone(site));
        Ok(Self { files, process, what, options, healthz, net, site })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it answers `/healthz`, `/readyz` and the like, in the host's namespace.
    #[must_use]
    pub fn healthz(&self) -> SocketAddr {
        self.healthz
    }

    /// Waits until the subnet file exists and `/readyz` says 200.
    ///
    /// # Errors
    /// The agent ended (with the end of its log), the time is over (with what it said), or the lab is cancelled.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), LabError> {
        let what = format!("{} ready", self.what);
        let cancel = self.site.cancel.clone();
        let waited = until(&what, limit, &cancel, || {
            self.process.check_alive()?;
            Ok(match self.look() {
                None => Seen::Yes(()),
                Some(detail) => Seen::NotYet(detail),
            })
        });
        waited.map_err(|mut error| {
            if let LabError::Timeout { detail, .. } = &mut error {
                detail.push_str("; its log ends:");
                detail.push_str(&super::tail(&self.log()));
            }
            error
        })
    }

    /// What keeps it from being ready; `None` if it is.
    fn look(&self) -> Option<String> {
        if !self.files.subnet.exists() {
            return Some(format!("{} does not exist", self.files.subnet.display()));
        }
        match self.get("/readyz") {
            Ok((200, _body)) => None,
            Ok((status, body)) => Some(format!("/readyz says {status}: {}", body.trim())),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Asks its HTTP endpoint: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String), LabError> {
        probe::http_get(&self.net, self.healthz, path)
    }

    /// What it told the CNI plugins.
    pub fn subnet(&self) -> Result<PodSubnet, LabError> {
        let path = &self.files.subnet;
        let text = fs::read_to_string(path).map_err(LabError::io(|| format!("read {}", path.display())))?;
        PodSubnet::from_subnet_env(&text)
    }

    /// All it has written, all runs of it.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends it a signal: SIGTERM, SIGKILL, SIGSTOP, SIGCONT, ….
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.process.signal(signal)
    }

    /// Sends it a signal that ends it, and waits for the end.
    pub fn kill(&mut self, signal: Signal) -> Result<ExitStatus, LabError> {
        self.process.signal(signal)?;
        self.process.wait(ENDING)
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        self.process.wait(limit)
    }

    /// Starts it again with the same flags and files, ending it first if it still runs; does not wait until ready.
    pub fn restart(&mut self) -> Result<(), LabError> {
        let again = self.options.clone();
        self.restart_with(again)
    }

    /// [`AgentProcess::restart`] with another binary, store or flags: an upgrade, or a move.
    pub fn restart_with(&mut self, options: AgentOptions) -> Result<(), LabError> {
        self.process.stop(ENDING)?;
        self.options = options;
        let command = command(&self.options, &self.files, self.healthz);
        self.process = Process::spawn(&self.net, &self.what, command, &self.files.log)?;
        Ok(())
    }

    /// Starts a process with the same files that is to take over, beside the one that runs.
    pub fn successor(&self, options: &AgentOptions) -> Result<Process, LabError> {
        let mut command = command(options, &self.files, self.healthz);
        command.arg("--take-over");
        Process::spawn(&self.net, &self.what, command, &self.files.log)
    }

    /// Has another process take over, and waits for the end of the one that ran. Returns how that ended.
    pub fn take_over(&mut self, options: AgentOptions) -> Result<ExitStatus, LabError> {
        let mut successor = self.successor(&options)?;
        let what = format!("the end of {}, or of its successor", self.what);
        let status = until(&what, ENDING, &self.site.cancel, || {
            successor.check_alive()?;
            Ok(self.process.exited()?.map_or_else(|| Seen::NotYet("both run".into()), Seen::Yes))
        })?;
        self.replace(successor, options);
        Ok(status)
    }

    /// Counts a successor as the agent from here on; the one before is ended if it still runs.
    pub fn replace(&mut self, successor: Process, options: AgentOptions) {
        (self.process, self.options) = (successor, options);
    }

    /// Runs another `twill` command on the same host for the same store and folders (`status`, `plan`, …); `args` come
    /// last. Returns its stdout.
    pub fn twill(&self, command: &[&str], args: &[&str]) -> Result<String, LabError> {
        let mut run = Command::new(&self.options.program);
        without_flags(&mut run);
        run.args(command).args(self.options.store.flags());
        run.arg("--state-dir").arg(&self.files.state).arg("--run-dir").arg(&self.files.run).args(args);
        self.net.output(run)
    }
}

fn command(options: &AgentOptions, files: &AgentFiles, healthz: SocketAddr) -> Command {
    let mut command = Command::new(&options.program);
    command.arg("agent").args(options.store.flags());
    let folders: [(&str, &Path); 3] =
        [("--state-dir", &files.state), ("--run-dir", &files.run), ("--subnet-file", &files.subnet)];
    for (flag, path) in folders {
        command.arg(flag).arg(path);
    }
    let ip: IpAddr = healthz.ip();
    command.arg("--healthz-ip").arg(ip.to_string()).arg("--healthz-port").arg(healthz.port().to_string());
    without_flags(&mut command);
    command.args(&options.args).envs(options.env.iter().map(|(key, value)| (key, value)));
    command
}

/// Takes the variables that mean flags away: the caller's environment is about the caller's fabric.
pub(super) fn without_flags(command: &mut Command) {
    let names = std::env::vars_os().map(|(name, _value)| name);
    let meant = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("TWILL_") || name.starts_with("FLANNELD_")
    };
    for name in names.filter(meant) {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_named_in_flags() {
        let file = StoreAt::File("/tmp/x".into());
        assert_eq!(file.flags(), ["--store", "file:/tmp/x"]);
        let etcd = StoreAt::Etcd { endpoints: "http://192.168.77.254:2379".into() };
        assert_eq!(etcd.flags(), ["--store", "etcd", "--etcd-endpoints", "http://192.168.77.254:2379"]);
    }

    #[test]
    fn further_flags_come_last() {
        let options = AgentOptions::new("/bin/twill", StoreAt::File("/s".into())).arg("--force");
        let files =
            AgentFiles { state: "/a".into(), run: "/b".into(), subnet: "/c".into(), log: "/d".into() };
        let command = command(&options, &files, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9));
        let line = format!("{command:?}");
        assert!(
            line.contains(
                r#""--subnet-file" "/c" "--healthz-ip" "127.0.0.1" "--healthz-port" "9" "--force""#
            )
        );
    }
}
