//! Hosts with containers on one fabric.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use twill::lab::{AgentOptions, AgentProcess, Cancel, EtcdProcess, Lab, LabOptions, Seen, StoreAt, until};

use crate::image::{self, BUSYBOX};
use crate::machine::Machine;

const TWILL: &str = env!("CARGO_BIN_EXE_twill");
pub(crate) const TWILL_CNI: &str = env!("CARGO_BIN_EXE_twill-cni");
/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Says why, and gives up, where containerd cannot run.
macro_rules! need_containerd {
    () => {
        if let Some(reason) = $crate::fabric::obstacle() {
            println!("SKIP: {reason}");
            return;
        }
    };
}
pub(crate) use need_containerd;

/// Why no containerd can run here; looked for once.
pub(crate) fn obstacle() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    FOUND.get_or_init(look).as_deref()
}

fn look() -> Option<String> {
    if let Err(error) = Lab::available() {
        return Some(error.to_string());
    }
    if !geteuid().is_root() {
        return Some("containerd needs root".to_owned());
    }
    for (program, package) in
        [("etcd", "etcd-server"), ("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc")]
    {
        if Command::new(program).arg("--version").output().is_err() {
            return Some(format!("{program} is not installed; install it with: apt-get install {package}"));
        }
    }
    for (file, package) in
        [("/usr/lib/cni/bridge", "containernetworking-plugins"), (BUSYBOX, "busybox-static")]
    {
        if !Path::new(file).exists() {
            return Some(format!("{file} is not there; install it with: apt-get install {package}"));
        }
    }
    let dynamic = Command::new("ldd").arg(BUSYBOX).output();
    if dynamic.is_ok_and(|output| output.status.success()) {
        return Some(format!(
            "{BUSYBOX} needs libraries; install another with: apt-get install busybox-static"
        ));
    }
    let mounts = "mount -t tmpfs tmpfs /opt && mount -t proc proc /proc";
    let unshared = Command::new("unshare").args(["--mount", "--pid", "--fork", "sh", "-c", mounts]).output();
    let refused = |why: String| Some(format!("no mount and process namespaces for a host: {}", why.trim()));
    match unshared {
        Ok(output) if output.status.success() => cgroups(),
        Ok(output) => refused(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => refused(error.to_string()),
    }
}

/// runc makes a cgroup for each container.
fn cgroups() -> Option<String> {
    let mut places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(Path::new);
    let place = places.find(|place| place.join("cgroup.procs").exists());
    let Some(place) = place else { return Some("no cgroups are mounted".to_owned()) };
    let probe = place.join(format!("twill-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe));
    made.err().map(|error| format!("no cgroup can be made in {}: {error}", place.display()))
}

/// Hosts, each with an agent and a containerd. Dropped in this order.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) machines: Vec<Machine>,
    pub(crate) agents: Vec<AgentProcess>,
    _etcd: EtcdProcess,
    pub(crate) lab: Lab,
}

impl Fabric {
    /// So many hosts with this network configuration, every agent started with `flags`. The agents masquerade: a bridge
    /// plugin that does so needs iptables, and leaves rules where a runtime detaches without naming the namespace.
    pub(crate) fn new(hosts: u16, config: &str, flags: &[&str]) -> Self {
        let lab = Lab::new(&LabOptions { hosts, ..LabOptions::default() }).unwrap();
        let etcd = lab.etcd().unwrap();
        let store = StoreAt::Etcd { endpoints: etcd.endpoint() };
        let mut set = Command::new(TWILL);
        set.args(["config", "set"]).args(store.flags()).arg(config);
        lab.hosts[0].net.output(set).unwrap();
        let masquerades = AgentOptions::new(TWILL, store).arg("--ip-masq");
        let options = flags.iter().fold(masquerades, |options, flag| options.arg(*flag));
        let agents: Vec<AgentProcess> = lab.hosts.iter().map(|host| host.agent(&options).unwrap()).collect();
        image::build(lab.dir());
        let mut fabric = Self { machines: Vec::new(), agents, _etcd: etcd, lab };
        for index in 0..fabric.agents.len() {
            fabric.agents[index].wait_ready(PATIENCE).unwrap();
            let machine = fabric.boot(index);
            fabric.machines.push(machine);
        }
        fabric
    }

    /// Boots a host, with the disk that it has.
    pub(crate) fn boot(&self, index: usize) -> Machine {
        let (host, dir) = (&self.lab.hosts[index], self.lab.dir());
        let machine = Machine::boot(&host.net, &dir.join(&host.name).join("disk"), &dir.join("image.tar"));
        machine.configure(&self.agents[index]);
        machine
    }

    /// The power of a host fails, and comes back: what is on its disks stays, what is in its memory does not.
    pub(crate) fn reboot(&mut self, index: usize) {
        self.agents[index].kill(Signal::SIGKILL).unwrap();
        self.machines.remove(index).lose_power();
        let (host, files) = (&self.lab.hosts[index], &self.agents[index].files);
        for device in ["cni0", "flannel.1"] {
            host.net.delete_link(device).unwrap();
        }
        host.net.exec(&["nft", "flush", "ruleset"]).unwrap();
        fs::remove_dir_all(&files.run).unwrap();
        fs::remove_file(&files.subnet).unwrap();
        self.agents[index].restart().unwrap();
        self.agents[index].wait_ready(PATIENCE).unwrap();
        let machine = self.boot(index);
        self.machines.insert(index, machine);
    }
}

/// Looks until `look` is content; what it saw last is in the panic's message.
pub(crate) fn wait_for<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let seen = || Ok(look().map_or_else(|seen| Seen::NotYet(format!("{seen:#?}")), Seen::Yes));
    until(what, PATIENCE, &Cancel::default(), seen).unwrap_or_else(|error| panic!("{error}"))
}
