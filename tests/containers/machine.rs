//! A host with containerd: a mount and a process namespace beside its network namespace, so that it has its own
//! `/etc/cni/net.d`, `/opt/cni/bin` and `/var/lib/cni` (`ctr run --cni` knows no others), its own `/run`, and a first
//! process with which everything on it ends.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use twill::lab::probe::http_get;
use twill::lab::{AgentProcess, LabError, Netns, Process};

use crate::fabric::{PATIENCE, TWILL_CNI, wait_for};
use crate::image::IMAGE;

/// The CNI network.
pub(crate) const NETWORK: &str = "cbr0";
/// Where containers serve.
pub(crate) const PORT: u16 = 8000;
/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The page that says who asks.
pub(crate) const WHO: &str = "/cgi-bin/who";

/// A host's disk and what runs on it.
#[derive(Debug)]
pub(crate) struct Machine {
    containerd: Process,
    init: Process,
    /// The first process, as it is known outside.
    pid: u32,
    net: Netns,
    /// What outlives a reboot.
    disk: PathBuf,
    /// Unique on this machine: cgroups begin with it.
    name: String,
    execs: AtomicU32,
}

/// A container that runs, or has run: nobody waits for it, and nobody will detach it.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) address: IpAddr,
}

impl Machine {
    /// Boots a host: for the first time, or with the disk that an earlier one left. `archive` becomes the image of its
    /// containers.
    pub(crate) fn boot(net: &Netns, disk: &Path, archive: &Path) -> Self {
        fs::create_dir_all(disk).unwrap();
        fs::remove_file(disk.join("init")).ok();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            include_str!("init.sh"),
            "init",
        ]);
        command.arg(disk).arg(TWILL_CNI).arg(fastrand::u64(..).to_string());
        let mut init = Process::spawn(net, "a host", command, &disk.join("init.log")).unwrap();
        let pid = wait_for("a host", || {
            init.check_alive().unwrap();
            let text = fs::read_to_string(disk.join("init")).map_err(|error| error.to_string())?;
            text.trim().parse().map_err(|_| text)
        });
        let containerd = containerd(net, pid, disk);
        let name = net.name().to_owned();
        let execs = AtomicU32::new(0);
        let mut machine =
            Self { containerd, init, pid, net: net.clone(), disk: disk.to_owned(), name, execs };
        machine.wait_ready();
        let args = ["image", "import", "--snapshotter", "native"];
        machine.output(machine.ctr(&args).arg(archive)).unwrap();
        machine
    }

    /// Writes what `ctr run --cni` reads.
    pub(crate) fn configure(&self, agent: &AgentProcess) {
        fs::write(self.disk.join("net.d/10-flannel.conflist"), conf(agent).to_string()).unwrap();
    }

    fn wait_ready(&mut self) {
        wait_for("containerd", || {
            self.containerd.check_alive().unwrap();
            self.output(&mut self.ctr(&["version"]))
                .map_err(|error| (error.to_string(), self.containerd.log()))
        });
    }

    /// A command in the namespaces of the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        inside(self.pid, program)
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = self.command("ctr");
        command.arg("--address").arg(self.disk.join("containerd.sock")).args(args);
        command
    }

    fn output(&self, command: &mut Command) -> Result<String, LabError> {
        let mut taken = Command::new(command.get_program());
        taken.args(command.get_args());
        self.net.output(taken)
    }

    /// Runs `ctr`: what it printed.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<String, LabError> {
        self.output(&mut self.ctr(args))
    }

    /// `ctr run --cni` for a container with this program. It waits for the end of it and detaches it, unless it is
    /// told to let go of it (`--detach`).
    fn run(&self, how: &str, id: &str, program: &[&str]) -> Command {
        // Not below a folder of its own, which nobody would remove.
        let cgroup = format!("/{}-{id}", self.name);
        let mut command =
            self.ctr(&["run", how, "--cni", "--snapshotter", "native", "--cgroup", &cgroup, IMAGE, id]);
        command.args(program);
        command
    }

    /// Runs a container to its end: what it printed.
    pub(crate) fn run_to_end(&self, id: &str, program: &[&str]) -> Result<String, LabError> {
        self.output(&mut self.run("--rm", id, program))
    }

    /// Starts a container, and does not wait until it runs.
    pub(crate) fn spawn(&self, how: &str, id: &str) -> Process {
        let port = PORT.to_string();
        let command = self.run(how, id, &["httpd", "-f", "-p", &port, "-h", "/www"]);
        Process::spawn(&self.net, id, command, &self.disk.join(format!("{id}.log"))).unwrap()
    }

    /// Starts a container, and waits until it serves.
    pub(crate) fn start(&self, id: &str) -> Container {
        let mut ctr = self.spawn("--detach", id);
        let status = ctr.wait(PATIENCE).unwrap();
        assert!(status.success(), "{}", ctr.log());
        let container = Container { id: id.to_owned(), address: self.address(id).unwrap() };
        wait_for("its server", || {
            http_get(&self.net, container.server(), WHO).map_err(|error| error.to_string())
        });
        container
    }

    /// Runs a program in a container, which is to print something: what it printed. On a busy machine `ctr` may end before
    /// it has read what a short program printed; that one is run again.
    pub(crate) fn exec(&self, id: &str, program: &[&str]) -> Result<String, LabError> {
        wait_for("what a program prints", || {
            let name = format!("e{}", self.execs.fetch_add(1, Ordering::Relaxed));
            match self.output(self.ctr(&["task", "exec", "--exec-id", &name, id]).args(program)) {
                Ok(text) if text.is_empty() => Err(text),
                done => Ok(done),
            }
        })
    }

    /// The address that a container has.
    pub(crate) fn address(&self, id: &str) -> Result<IpAddr, LabError> {
        let text = self.exec(id, &["ip", "-4", "-o", "addr", "show", "dev", "eth0"])?;
        let net: Option<ipnet::IpNet> = text.split_whitespace().find_map(|word| word.parse().ok());
        let odd = || LabError::Unreadable { what: "ip addr".into(), text: text.clone() };
        net.map(|net| net.addr()).ok_or_else(odd)
    }

    /// Asks a server from inside a container: who it says that is.
    pub(crate) fn asks(&self, from: &Container, server: IpAddr) -> Result<IpAddr, LabError> {
        let url = format!("http://{}{WHO}", SocketAddr::new(server, PORT));
        // busybox-static of Debian 12 crashes on wget's own -T.
        self.exec(&from.id, &["timeout", "5", "wget", "-q", "-O", "-", &url]).map(|said| source(&said))
    }

    /// Ends the process of a container.
    pub(crate) fn kill(&self, id: &str) {
        self.ask(&["task", "kill", "--signal", "KILL", id]).unwrap();
    }

    /// The containers that containerd knows to run.
    pub(crate) fn running(&self) -> Vec<String> {
        let tasks = self.ask(&["task", "ls"]).unwrap();
        let lines = tasks.lines().filter(|line| line.contains("RUNNING"));
        lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    }

    /// Kills containerd by its pid, as the host has it; what it started lives on.
    pub(crate) fn kill_containerd(&mut self) {
        let pid = fs::read_to_string(self.disk.join("containerd.pid")).unwrap();
        let mut kill = self.command("kill");
        kill.args(["-KILL", pid.trim()]);
        self.output(&mut kill).unwrap();
        self.containerd.wait(PATIENCE).unwrap();
    }

    /// Starts containerd again.
    pub(crate) fn start_containerd(&mut self) {
        self.containerd = containerd(&self.net, self.pid, &self.disk);
        self.wait_ready();
    }

    /// Has twill-cni collect what is not among the containers: a runtime of CNI 1.1 would.
    pub(crate) fn collect(&self, valid: &[&str], agent: &AgentProcess) -> Result<String, LabError> {
        let attached = |id: &&str| json!({ "containerID": format!("default-{id}"), "ifname": "eth0" });
        let mut conf = conf(agent)["plugins"][0].clone();
        conf["name"] = NETWORK.into();
        conf["cniVersion"] = "1.1.0".into();
        conf["cni.dev/valid-attachments"] = valid.iter().map(attached).collect();
        let mut command = self.command("env");
        command.args(["CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin", "sh", "-c"]);
        command.args(["printf %s \"$0\" | /opt/cni/bin/flannel", &conf.to_string()]);
        self.output(&mut command)
    }

    /// What is left of containers: addresses, states of the plugin, results of the runtime, and ports of the bridge.
    pub(crate) fn left(&self) -> Left {
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(self.disk.join("cni").join(dir)).into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.retain(|name| !name.starts_with('.'));
            names.sort();
            names
        };
        let mut addresses = names(&format!("networks/{NETWORK}"));
        addresses.retain(|name| name.parse::<IpAddr>().is_ok());
        let veths = self.net.links().unwrap().into_iter().filter(|link| link.starts_with("veth")).collect();
        Left { addresses, states: names("flannel"), results: names("results"), veths }
    }

    /// The power fails: every process of the host ends at once, and with them the namespaces of its containers. What
    /// is on its disk stays.
    pub(crate) fn lose_power(mut self) {
        self.off();
    }

    /// Says nothing of what fails: a test may be failing already.
    fn off(&mut self) {
        // unshare blocks SIGTERM.
        self.init.signal(Signal::SIGKILL).ok();
        self.init.wait(PATIENCE).ok();
        self.containerd.wait(PATIENCE).ok();
        // No cgroup outlives a host.
        let deadline = Instant::now() + PATIENCE;
        while cgroups(&format!("{}-", self.name)).iter().any(|group| fs::remove_dir(group).is_err())
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.off();
    }
}

impl Container {
    pub(crate) fn server(&self) -> SocketAddr {
        SocketAddr::new(self.address, PORT)
    }
}

/// What containers leave behind.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Left {
    pub(crate) addresses: Vec<String>,
    pub(crate) states: Vec<String>,
    pub(crate) results: Vec<String>,
    pub(crate) veths: Vec<String>,
}

/// The address in a server's answer.
pub(crate) fn source(said: &str) -> IpAddr {
    let text = said.trim().trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = text.parse().unwrap_or_else(|_| panic!("no address: {said:?}"));
    address.to_canonical()
}

/// flannel's list, as its manifest has it, but for the version: from 0.4.0 on, DEL is told the result of ADD. The paths
/// are the agent's.
fn conf(agent: &AgentProcess) -> serde_json::Value {
    let plugin = json!({
        "type": "flannel",
        "subnetFile": agent.files.subnet, "runDir": agent.files.run,
        "delegate": { "hairpinMode": true, "isDefaultGateway": true },
    });
    json!({ "name": NETWORK, "cniVersion": "1.0.0", "plugins": [plugin] })
}

/// The cgroups whose names begin so, of every hierarchy.
fn cgroups(prefix: &str) -> Vec<PathBuf> {
    let within = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = within(Path::new(CGROUPS)).flat_map(|hierarchy| within(&hierarchy).collect::<Vec<_>>());
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    all.chain(within(Path::new(CGROUPS))).filter(named).collect()
}

/// A command in the mount and process namespaces of a process, and the network namespace of whoever runs it.
fn inside(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(pid.to_string()).args(["--mount", "--pid", "--", program]);
    command
}

fn containerd(net: &Netns, pid: u32, disk: &Path) -> Process {
    let shown = disk.display();
    let config = format!(
        "version = 2\nroot = \"{shown}/containerd\"\nstate = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{shown}/containerd.sock\"\n"
    );
    fs::write(disk.join("containerd.toml"), config).unwrap();
    let mut command = inside(pid, "sh");
    command.args(["-c", "echo $$ >$0/containerd.pid; exec containerd --config $0/containerd.toml"]).arg(disk);
    Process::spawn(net, "containerd", command, &disk.join("containerd.log")).unwrap()
}
