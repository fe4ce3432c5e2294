//! A host of the lab that has booted: a real systemd with the units as they are shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use twill::lab::{Cancel, Host, Lab, Netns, Process, Seen, copy_program, tail, until};

use crate::shipped;

pub(crate) const TWILL: &str = env!("CARGO_BIN_EXE_twill");
/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests/boot");
/// What the shipped units refer to of a distribution's.
const TARGETS: [&str; 8] =
    ["sysinit", "basic", "shutdown", "network", "network-online", "nss-lookup", "multi-user", "default"];

/// A booted host. Dropping it ends all that runs on it.
pub(crate) struct Machine {
    pub(crate) net: Netns,
    name: String,
    folder: PathBuf,
    init: u32,
    process: Process,
}

/// What becomes a machine: its files, before it boots.
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
    name: String,
}

impl Disk {
    /// The units and the program, and an identity of its own.
    pub(crate) fn new(lab: &Lab, host: &Host) -> Self {
        let disk =
            Self { folder: lab.dir().join(format!("{}-disk", host.name)), name: host.net.name().into() };
        fs::create_dir_all(disk.folder.join("log")).unwrap();
        for target in TARGETS {
            disk.unit(&format!("{target}.target"), "[Unit]\nDefaultDependencies=no\n");
        }
        disk.unit(
            "service.d/log.conf",
            "[Service]\nStandardOutput=append:/mnt/log/%N\nStandardError=inherit\n",
        );
        disk.unit("twill.service", &shipped::text("systemd/twill.service"));
        disk.unit("twill-etcd.service", &shipped::text("etcd/twill-etcd.service"));
        disk.write(
            "etc/machine-id",
            &format!("{:032x}\n", u32::from_str_radix(&host.name[1..], 16).unwrap()),
        );
        disk.program("bin/twill", Path::new(TWILL));
        disk
    }

    /// Adds a file; the path is relative to `etc` and `local`.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn unit(&self, name: &str, text: &str) {
        self.write(&format!("etc/systemd/system/{name}"), text);
    }

    /// Adds a program below `/usr/local`. A link would lead out of what the units may see.
    pub(crate) fn program(&self, place: &str, program: &Path) {
        let place = self.folder.join("local").join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        if fs::hard_link(program, &place).is_err() {
            copy_program(program, &place).unwrap();
        }
        assert!(fs::metadata(place).unwrap().permissions().mode() & 0o111 != 0);
    }

    /// Copies the files of a folder.
    pub(crate) fn copy(&self, from: &Path, to: &str) {
        for entry in fs::read_dir(from).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            self.write(&format!("{to}/{name}"), &fs::read_to_string(&file).unwrap());
        }
    }

    pub(crate) fn boot(self, host: &Host) -> Machine {
        let log = self.folder.join("log/init");
        let mut command = Command::new(BOOT);
        command.arg(&self.name).arg(&self.folder);
        let mut process = Process::spawn(&host.net, &self.name, command, &log).unwrap();
        let what = format!("systemd on {}", host.name);
        let init = until(&what, PATIENCE, &Cancel::default(), || {
            process.check_alive()?;
            let pid = process.pid();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let Some(init) = children.split_whitespace().next() else {
                return Ok(Seen::NotYet("no first process".into()));
            };
            let said =
                Command::new("nsenter").args(inside(init)).args(["systemctl", "is-system-running"]).output();
            let said = String::from_utf8_lossy(&said.unwrap().stdout).trim().to_owned();
            Ok(if said == "running" { Seen::Yes(init.parse().unwrap()) } else { Seen::NotYet(said) })
        });
        let init = init.unwrap_or_else(|error| panic!("{error}{}", tail(&process.log())));
        Machine { net: host.net.clone(), name: self.name, folder: self.folder, init, process }
    }
}

fn inside(init: &str) -> Vec<String> {
    ["-t", init, "-m", "-p", "-n", "-i", "-u", "-C", "--"].map(str::to_owned).to_vec()
}

/// Why no machine can boot here.
pub(crate) fn unavailable(lab: &Lab) -> Option<String> {
    if !Path::new("/lib/systemd/systemd").exists() {
        return Some("systemd is not installed".into());
    }
    let folder = lab.dir().join("probe");
    for name in ["etc", "local", "log"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let probe = Command::new(BOOT).args(["probe", lab.name()]).arg(&folder).output().unwrap();
    sweep(lab.name());
    let said = String::from_utf8_lossy(&probe.stderr);
    (!probe.status.success()).then(|| format!("no machine can boot in namespaces: {}", said.trim()))
}

fn sweep(name: &str) {
    // Groups empty a moment after their last process has ended.
    let swept = until("empty control groups", PATIENCE, &Cancel::default(), || {
        let sweep = Command::new(BOOT).args(["sweep", name]).output().unwrap();
        let said = String::from_utf8_lossy(&sweep.stderr).into_owned();
        Ok(if sweep.status.success() { Seen::Yes(()) } else { Seen::NotYet(said) })
    });
    if let Err(error) = swept {
        println!("control groups are left behind: {error}");
    }
}

impl Machine {
    /// A command that runs there.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(inside(&self.init.to_string())).args(argv);
        command
    }

    /// Runs a command there.
    pub(crate) fn run(&self, argv: &[&str]) -> Output {
        self.command(argv).output().unwrap()
    }

    /// Runs a command there that must succeed; returns what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{argv:?} on {}: {stderr}{}", self.name, self.logs());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "-p", property, unit])
    }

    pub(crate) fn wait_active(&self, unit: &str) {
        let what = format!("{unit} on {}", self.name);
        let waited = until(&what, PATIENCE, &Cancel::default(), || {
            let state = self.show(unit, "ActiveState");
            assert_ne!(state, "failed", "{unit}{}", self.logs());
            Ok(if state == "active" { Seen::Yes(()) } else { Seen::NotYet(state) })
        });
        waited.unwrap_or_else(|error| panic!("{error}{}", self.logs()));
    }

    /// The end of every log.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.folder.join("log")).unwrap() {
            let file = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            logs += &format!("\n  {}:{}", file.display(), tail(&text));
        }
        logs
    }

    /// A line of `/proc/PID/status` of a unit's main process.
    pub(crate) fn status_of(&self, unit: &str, name: &str) -> String {
        let pid = self.show(unit, "MainPID");
        let status = self.ok(&["cat", &format!("/proc/{pid}/status")]);
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.process.signal(nix::sys::signal::Signal::SIGKILL) {
            println!("{}: {error}", self.name);
        }
        drop(self.process.wait(PATIENCE));
        sweep(&self.name);
    }
}
