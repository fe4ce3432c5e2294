//! `twill demo`, the real binary with real agents: every pair reachable, and nothing left behind however it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use twill::lab::{Lab, copy_program};

const TWILL: &str = env!("CARGO_BIN_EXE_twill");
const SOON: Duration = Duration::from_secs(30);
/// The user the tests without root run as: `nobody`.
const NOBODY: u32 = 65534;

/// Says why, and gives up, where network namespaces cannot be made.
macro_rules! need_namespaces {
    () => {
        if let Err(reason) = Lab::available() {
            println!("SKIP: {reason}");
            return;
        }
    };
}

/// A demo that ran to its end.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The last line of stdout, as JSON.
    fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n{}", self.status, self.stdout, self.stderr)
    }
}

/// A running demo; killed if the test fails.
struct Demo {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Demo {
    fn start(mut command: Command, args: &[&str]) -> Self {
        command.arg("demo").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Reads stdout up to a line that contains `text`.
    fn read_to(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.lines().last().is_some_and(|line| line.contains(text)) {
            let read = self.stdout.read_line(&mut all).unwrap();
            assert!(read > 0, "no {text:?} in {all}");
        }
        all
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// The processes it started that live.
    fn children(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let all: Vec<String> = tasks.flatten().map(of).collect();
        all.iter().flat_map(|pids| pids.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
    }

    fn end(&mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { status: self.child.wait().unwrap(), stdout, stderr }
    }

    /// The lab's folder and namespace names, as far as they exist.
    fn traces(&self) -> Vec<PathBuf> {
        let name = format!("twill-lab-{}-", self.child.id());
        let folders = [std::env::temp_dir(), "/run/netns".into()];
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        entries.map(|e| e.path()).filter(|p| p.to_string_lossy().contains(&name)).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a process runs; one that only waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn assert_gone(pids: &[u32]) {
    let begin = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(begin.elapsed() < SOON, "{pids:?} still run");
        thread::sleep(Duration::from_millis(10));
    }
}

fn assert_all_reachable(command: Command, args: &[&str]) -> Ended {
    let mut demo = Demo::start(command, args);
    let ended = demo.end();
    assert!(ended.status.success(), "{args:?}: {ended}");
    let json = ended.json();
    assert_eq!(
        (&json["nodes"], &json["pairs"], &json["reachable"]),
        (&3.into(), &6.into(), &6.into()),
        "{ended}"
    );
    assert!(json["throughput_gbps"].as_f64().unwrap() > 0.0, "{ended}");
    assert!(!ended.stdout.contains('\x1b'), "escape codes in a pipe: {ended}");
    assert_eq!(demo.traces(), Vec::<PathBuf>::new());
    ended
}

#[test]
fn vxlan_reaches_every_pair() {
    need_namespaces!();
    let ended = assert_all_reachable(Command::new(TWILL), &["--json"]);
    let json = ended.json();
    let keys: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = ["nodes", "store", "backend", "pairs", "reachable", "throughput_gbps", "elapsed_s"];
    assert_eq!(keys, BTreeSet::from(promised));
    assert_eq!((&json["store"], &json["backend"]), (&"file".into(), &"vxlan".into()));
    for shown in ["Leases", "10.244.", "Reachability", "n1p1", "6 of 6 pairs reachable"] {
        assert!(ended.stdout.contains(shown), "no {shown:?}: {ended}");
    }
}

#[test]
fn host_gw_reaches_every_pair() {
    need_namespaces!();
    assert_all_reachable(Command::new(TWILL), &["--json", "--backend", "host-gw"]);
}

#[test]
fn both_families_reach_every_pair_over_vxlan() {
    need_namespaces!();
    let ended = assert_all_reachable(Command::new(TWILL), &["--json", "--ipv6"]);
    assert!(ended.stdout.contains("fd00:244:"), "{ended}");
}

#[test]
fn both_families_reach_every_pair_over_host_gw() {
    need_namespaces!();
    assert_all_reachable(Command::new(TWILL), &["--json", "--ipv6", "--backend", "host-gw"]);
}

#[test]
fn an_etcd_of_its_own_carries_the_leases() {
    need_namespaces!();
    if Command::new("etcd").arg("--version").output().is_err() {
        return println!("SKIP: etcd is not installed");
    }
    let ended = assert_all_reachable(Command::new(TWILL), &["--json", "--store", "etcd"]);
    assert_eq!(ended.json()["store"], "etcd");
}

#[test]
fn without_etcd_the_package_is_named() {
    need_namespaces!();
    let mut command = Command::new(TWILL);
    command.env("PATH", "/nowhere");
    let mut demo = Demo::start(command, &["--json", "--store", "etcd"]);
    let ended = demo.end();
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("apt-get install etcd-server"), "{ended}");
    assert_eq!(ended.json()["reachable"], 0);
    assert_eq!(demo.traces(), Vec::<PathBuf>::new());
}

/// The page is where the demo says, and shows the fabric.
fn assert_page(shown: &str) {
    let page = shown.lines().find_map(|line| line.trim().strip_prefix("http://")?.strip_suffix('/')).unwrap();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(page).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {page}\r\n\r\n").unwrap();
        BufReader::new(stream)
    };
    let mut document = String::new();
    ask("/").read_to_string(&mut document).unwrap();
    assert!(document.starts_with("HTTP/1.0 200 ") && document.contains("<title>Twill</title>"), "{document}");
    let told = ask("/v1/events").lines().map(Result::unwrap).find(|line| line.starts_with("data: ")).unwrap();
    let told: Value = serde_json::from_str(&told["data: ".len()..]).unwrap();
    assert_eq!(told["peers"].as_array().map(Vec::len), Some(2), "{told}");
}

/// `--keep` stays, its commands work as printed, and Ctrl-C takes everything away.
#[test]
fn keep_stays_until_ctrl_c() {
    need_namespaces!();
    let mut demo = Demo::start(Command::new(TWILL), &["--keep"]);
    let shown = demo.read_to("# break something") + &demo.read_to("ip netns exec");
    let agents = demo.children();
    assert_eq!(agents.len(), 3, "{shown}");
    assert_page(&shown);
    let commands = shown.lines().filter(|line| line.contains("ip netns exec") && !line.contains("delete"));
    for line in commands {
        let line = line.replace(" ping ", " ping -c 1 -W 2 ");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
    }
    assert!(!demo.traces().is_empty());
    demo.signal(Signal::SIGINT);
    let ended = demo.end();
    assert!(ended.status.success(), "{ended}");
    assert_gone(&agents);
    assert_eq!(demo.traces(), Vec::<PathBuf>::new());
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    need_namespaces!();
    for (signal, step) in [(Signal::SIGINT, " hosts "), (Signal::SIGTERM, " agents ")] {
        let mut demo = Demo::start(Command::new(TWILL), &["--json"]);
        demo.read_to(step);
        let children = demo.children();
        demo.signal(signal);
        let ended = demo.end();
        assert_eq!(ended.status.code(), Some(130), "{ended}");
        assert!(ended.json()["error"].as_str().unwrap().contains("interrupted"), "{ended}");
        assert_gone(&children);
        assert_eq!(demo.traces(), Vec::<PathBuf>::new());
    }
}

#[test]
fn kill_9_leaves_no_process_and_the_next_demo_sweeps_the_rest() {
    need_namespaces!();
    let mut demo = Demo::start(Command::new(TWILL), &["--keep"]);
    demo.read_to("# break something");
    let agents = demo.children();
    assert_eq!(agents.len(), 3);
    demo.signal(Signal::SIGKILL);
    demo.end();
    assert_gone(&agents);
    drop(Lab::new(&twill::lab::LabOptions { hosts: 1, ..Default::default() }).unwrap());
    assert_eq!(demo.traces(), Vec::<PathBuf>::new());
}

/// The binary as anyone may run it, as `nobody`.
fn unprivileged(folder: &Path) -> Command {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("twill");
    copy_program(Path::new(TWILL), &copy).unwrap();
    let mut command = Command::new(copy);
    command.current_dir("/");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn it_works_without_root() {
    let folder = tempfile::tempdir().unwrap();
    for args in [["--json", "--backend", "vxlan"].as_slice(), &["--json", "--ipv6", "--backend", "host-gw"]] {
        let mut demo = Demo::start(unprivileged(folder.path()), args);
        let ended = demo.end();
        if ended.stderr.contains("no user namespace can be used") {
            return println!("SKIP: {}", ended.stderr);
        }
        assert!(ended.status.success(), "{ended}");
        assert_eq!(ended.json()["reachable"], 6, "{ended}");
        assert_eq!(demo.traces(), Vec::<PathBuf>::new());
    }
}

/// Below a user namespace whose limit is zero, none can be made, whoever asks.
#[test]
fn a_refusal_names_what_forbids_it() {
    let folder = tempfile::tempdir().unwrap();
    let twill = unprivileged(folder.path());
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$0\" demo --json";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script]).arg(twill.get_program());
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.current_dir("/").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("unshare") && !stderr.contains("twill demo") {
        return println!("SKIP: {stderr}");
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("user.max_user_namespaces is 0"), "{stderr}");
    assert!(stderr.contains("sudo sysctl -w user.max_user_namespaces="), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(json["reachable"], 0);
}
