//! One process takes over from another, and packets do not notice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use twill::agent::socket;
use twill::lab::probe::http_get;
use twill::lab::{Netns, copy_program};

use crate::dump::difference;
use crate::fabric::{
    Fabric, Families, PATIENCE, TWILL, files, need_namespaces, options, wait_for, write_config,
};
use crate::queues::QUEUES;

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
const USERSPACE: &[&str] = &["--datapath", "userspace"];
const PLAIN: &[&str] = &["--datapath", "plain"];

/// Has a process with `flags` take over the first host, and waits until it says that all is well.
fn take_over(fabric: &mut Fabric, flags: &[&str]) {
    let before = fabric.agents[0].pid();
    let status = fabric.agents[0].take_over(options(files(&fabric.lab), flags)).unwrap();
    assert!(status.success(), "{status}");
    fabric.wait_settled();
    let pid = fabric.agents[0].pid();
    assert_ne!(pid, before);
    assert_eq!(fabric.status(0)["pid"], pid);
    assert_eq!(std::fs::read_to_string(lock(fabric)).unwrap().trim(), pid.to_string());
}

/// The folder of the first host's instance.
fn run_dir(fabric: &Fabric) -> PathBuf {
    let entries = std::fs::read_dir(&fabric.agents[0].files.run).unwrap();
    entries.map(|entry| entry.unwrap().path()).next().unwrap()
}

fn lock(fabric: &Fabric) -> PathBuf {
    run_dir(fabric).join("lock")
}

/// The leases as they stand in the store.
fn leases(fabric: &Fabric) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(fabric.lab.dir().join("leases/subnets")).unwrap();
    let mut leases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    leases.sort();
    leases
}

/// Take-overs in a row under a packet a millisecond: none is lost, nothing is written, and whoever asks for health is
/// answered.
fn in_a_row(families: Families, backend: &str, flags: &[&str], times: usize) {
    let mut fabric = Fabric::new(families, backend, flags);
    let what = format!("{times} take-overs {backend} {families:?} {flags:?}");
    let (before, written) = (fabric.state(0), leases(&fabric));
    let streams = fabric.streams(1000);
    for _ in 0..times {
        take_over(&mut fabric, flags);
        let status = fabric.status(0);
        assert_eq!(status["reconcile"]["tally"]["operations"], 0, "{what}: {status}");
        assert_eq!(status["lease"]["standing"], "held", "{what}: {status}");
    }
    streams.wait_running();
    streams.assert_lossless(&what);
    assert_eq!(difference(&before, &fabric.state(0)), Vec::<String>::new(), "{what}");
    assert_eq!(leases(&fabric), written, "{what}");
}

#[test]
fn twenty_take_overs_of_a_userspace_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, VXLAN, USERSPACE, 20);
}

#[test]
fn several_queues_are_handed_over_too() {
    need_namespaces!();
    in_a_row(Families::Dual, VXLAN, QUEUES, 3);
}

#[test]
fn plain_frames_are_handed_over_too() {
    need_namespaces!();
    in_a_row(Families::V4, VXLAN, PLAIN, 3);
}

#[test]
fn take_overs_of_a_kernel_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, VXLAN, &["--ip-masq"], 5);
}

#[test]
fn take_overs_of_a_host_gw_host_lose_nothing() {
    need_namespaces!();
    in_a_row(Families::Dual, HOST_GW, &["--ip-masq"], 5);
}

/// Moves bytes over one connection until told to end, and compares them as they come. Returns how many came.
fn pour((from, to): (&Netns, &Netns), target: IpAddr, until: &AtomicBool) -> u64 {
    let block: Vec<u8> = (0..1 << 16).map(|n: u32| ((n * 31) >> 3) as u8).collect();
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(target, 0))).unwrap().unwrap();
    let server = listener.local_addr().unwrap();
    let mut near = from.run(|| TcpStream::connect_timeout(&server, PATIENCE)).unwrap().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.set_write_timeout(Some(PATIENCE)).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        let pouring = scope.spawn(|| {
            let mut sent = 0;
            while !until.load(Ordering::SeqCst) {
                near.write_all(&block).unwrap();
                sent += block.len() as u64;
            }
            near.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let (mut came, mut got) = (0, vec![0; block.len()]);
        loop {
            let mut filled = 0;
            while filled < got.len() {
                match far.read(&mut got[filled..]).unwrap() {
                    0 => break,
                    read => filled += read,
                }
            }
            assert!(got[..filled] == block[..filled], "bytes differ after {came}");
            came += filled as u64;
            if filled < got.len() {
                break;
            }
        }
        assert_eq!(pouring.join().unwrap(), came);
        came
    })
}

#[test]
fn a_transfer_runs_through_take_overs_unharmed() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let done = AtomicBool::new(false);
    let [from, to] = [0, 1].map(|index| fabric.pods[index].net.clone());
    let target = fabric.pods[1].addresses[0];
    std::thread::scope(|scope| {
        let pouring = scope.spawn(|| pour((&from, &to), target, &done));
        for _ in 0..5 {
            take_over(&mut fabric, USERSPACE);
        }
        done.store(true, Ordering::SeqCst);
        println!("POUR {} bytes through 5 take-overs", pouring.join().unwrap());
    });
}

#[test]
fn whoever_asks_meanwhile_is_answered() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let done = AtomicBool::new(false);
    let (net, healthz) = (fabric.lab.hosts[0].net.clone(), fabric.agents[0].healthz());
    let socket = run_dir(&fabric).join("agent.sock");
    std::thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) {
                let answer = http_get(&net, healthz, "/readyz").unwrap();
                assert_eq!(answer, (200, "flanneld is ready".to_owned()), "after {asked}");
                asked += 1;
            }
            asked
        });
        let status = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) {
                let status = runtime.block_on(socket::ask(&socket, socket::Ask::Status));
                // A successor is degraded until the store has answered it.
                assert_ne!(status.unwrap()["state"], "failed", "after {asked}");
                asked += 1;
            }
            asked
        });
        for _ in 0..5 {
            take_over(&mut fabric, USERSPACE);
        }
        done.store(true, Ordering::SeqCst);
        println!("ASKED {} times for health, {} for status", health.join().unwrap(), status.join().unwrap());
    });
}

/// A process that asks to take over, as far as the test lets it come.
struct Pretender(BufReader<UnixStream>);

impl Pretender {
    fn new(fabric: &Fabric) -> Self {
        let stream = UnixStream::connect(run_dir(fabric).join("agent.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) -> Value {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }
}

const HAND_OVER: &str = r#"{"version":1,"request":"hand-over"}"#;
const TAKEN: &str = r#"{"version":1,"request":"taken"}"#;

#[test]
fn an_agent_whose_successor_fails_goes_on_as_before() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let pid = fabric.agents[0].pid();
    let streams = fabric.streams(1000);

    let mut dies = Pretender::new(&fabric);
    let offer = dies.say(HAND_OVER);
    assert_eq!((&offer["ok"]["version"], &offer["ok"]["ready"]), (&json!(2), &json!(true)), "{offer}");
    assert_eq!(fabric.status(0)["pid"], pid, "questions are answered meanwhile");
    let second = Pretender::new(&fabric).say(HAND_OVER);
    assert!(second["error"].as_str().unwrap().contains("another process is taking over"), "{second}");
    let release = fabric.agents[0].twill(&["lease", "release"], &["--own"]).unwrap_err().to_string();
    assert!(release.contains("another process is taking over"), "{release}");
    drop(dies);
    fabric.wait_settled();

    let mut babbles = Pretender::new(&fabric);
    babbles.say(HAND_OVER);
    let answer = babbles.say(r#"{"version":1,"request":"take"}"#);
    assert!(answer["error"].as_str().unwrap().contains("not understood"), "{answer}");

    let mut dawdles = Pretender::new(&fabric);
    dawdles.say(HAND_OVER);
    let answer = dawdles.hear();
    assert!(answer["error"].as_str().unwrap().contains("not ready within"), "{answer}");
    // What it says once it has been told not to go on is not heard.
    drop(dawdles.0.get_mut().write_all(format!("{TAKEN}\n").as_bytes()));

    fabric.wait_settled();
    streams.wait_running();
    streams.assert_lossless("successors that fail");
    assert_eq!(fabric.status(0)["pid"], pid);
    take_over(&mut fabric, USERSPACE);
}

/// Whichever of both is killed, and whenever: at the end one agent runs, or none and the next start is as usual.
#[test]
fn at_most_one_agent_is_left_whoever_is_killed() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    for round in 0..24 {
        let options = options(files(&fabric.lab), USERSPACE);
        let mut successor = fabric.agents[0].successor(&options).unwrap();
        std::thread::sleep(Duration::from_millis(round * 3));
        if round % 2 == 0 {
            successor.signal(Signal::SIGKILL).unwrap();
            successor.wait(PATIENCE).unwrap();
        } else {
            fabric.agents[0].kill(Signal::SIGKILL).unwrap();
            fabric.agents[0].replace(successor, options);
        }
        // Whoever answers goes on. The one before has ended, too, if the successor had taken over by then.
        let one = wait_for("one agent or none", || {
            let pid = fabric.agents[0].pid();
            match (fabric.status(0)["pid"].as_u64(), fabric.agents[0].wait(Duration::ZERO)) {
                (Some(answers), _) => Ok(answers == u64::from(pid)),
                (None, Ok(_)) => Ok(false),
                (None, Err(runs)) => Err(runs),
            }
        });
        if !one {
            fabric.agents[0].restart().unwrap();
        }
        fabric.wait_ready();
        fabric.wait_settled();
        assert_eq!(fabric.status(0)["pid"], fabric.agents[0].pid(), "round {round}");
        fabric.wait_reachable();
    }
}

/// Runs an agent beside the first host's, with these flags after its own, until it ends.
fn beside(fabric: &Fabric, flags: &[&str]) -> Output {
    beside_from(fabric, &fabric.lab.hosts[0].net, flags)
}

fn beside_from(fabric: &Fabric, net: &Netns, flags: &[&str]) -> Output {
    let files = &fabric.agents[0].files;
    let mut run = Command::new("timeout");
    run.arg("20").arg(TWILL).arg("agent").args(crate::fabric::files(&fabric.lab).flags());
    run.arg("--state-dir").arg(&files.state).arg("--run-dir").arg(&files.run);
    run.arg("--subnet-file").arg(&files.subnet).args(flags);
    net.run(|| run.output()).unwrap().unwrap()
}

#[test]
fn a_second_agent_that_does_not_ask_to_take_over_is_refused() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let (pid, streams) = (fabric.agents[0].pid(), fabric.streams(1000));
    let second = beside(&fabric, &[]);
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(error.contains(&format!("(pid {pid})")) && error.contains("--take-over"), "{error}");
    streams.wait_running();
    streams.assert_lossless("a second agent");
    assert_eq!(fabric.status(0)["pid"], pid);
}

/// An agent of another version, as far as a successor sees one.
fn stranger(path: &Path, answer: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path).unwrap();
    let answer = format!("{answer}\n");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        // The successor hangs up.
        drop(stream.read(&mut [0; 64]));
    });
}

#[test]
fn an_offer_of_another_version_is_refused() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let before = fabric.state(0);
    let dir = fabric.lab.dir().join("elsewhere");
    let instance = run_dir(&fabric).file_name().unwrap().to_owned();
    let socket = dir.join(instance).join("agent.sock");
    for (answer, why) in [
        (r#"{"version":1,"error":"not a request: unknown variant `hand-over`"}"#, "unknown variant"),
        (r#"{"version":1,"ok":{"version":9}}"#, "version 9"),
        (r#"{"version":1,"ok":{"version":2,"wings":2}}"#, "unknown field `wings`"),
        (r#"{"version":1,"ok":null}"#, "version none"),
        ("hello", "expected value"),
        ("", "EOF"),
    ] {
        stranger(&socket, answer);
        let ended = beside(&fabric, &["--take-over", "--run-dir", dir.to_str().unwrap()]);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{error}");
        assert!(error.contains(why) && error.contains("next:"), "{answer}: {error}");
    }
    assert_eq!(difference(&before, &fabric.state(0)), Vec::<String>::new());
}

#[test]
fn a_successor_with_another_node_id_is_refused() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let dir = fabric.lab.dir().join("elsewhere");
    let ended = beside(&fabric, &["--take-over", "--state-dir", dir.to_str().unwrap()]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("--state-dir says"), "{error}");
    fabric.wait_settled();
    assert_eq!(fabric.status(0)["pid"], fabric.agents[0].pid());
}

#[test]
fn a_successor_in_another_network_namespace_is_refused() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let ended = beside_from(&fabric, &fabric.lab.hosts[2].net, &["--take-over"]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("another network namespace"), "{error}");
    fabric.wait_settled();
    assert_eq!(fabric.status(0)["pid"], fabric.agents[0].pid());
}

#[test]
fn taking_over_from_nobody_is_a_start() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        fabric.agents[0].kill(signal).unwrap();
        let options = options(files(&fabric.lab), USERSPACE).arg("--take-over");
        fabric.agents[0].restart_with(options).unwrap();
        fabric.wait_ready();
        fabric.wait_settled();
    }
}

#[test]
fn a_take_over_may_change_who_carries_frames() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    for flags in [PLAIN, USERSPACE, &["--datapath", "kernel"], USERSPACE] {
        let streams = fabric.streams(1000);
        take_over(&mut fabric, flags);
        streams.wait_running();
        println!("GAP take-over {flags:?} {:?}", streams.stop().longest_gap);
        fabric.wait_reachable();
    }
}

/// Ends a process that the test did not start itself.
pub(crate) struct Stray(pub(crate) u32);

impl Drop for Stray {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0.cast_signed()), Signal::SIGKILL).ok();
    }
}

#[test]
fn a_signal_starts_the_upgrade_and_the_service_manager_is_told() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let program = fabric.lab.dir().join("twill");
    copy_program(TWILL.as_ref(), &program).unwrap();
    let path = fabric.lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut with = options(files(&fabric.lab), USERSPACE);
    with.program.clone_from(&program);
    with.env.push(("NOTIFY_SOCKET".into(), path.into()));
    fabric.agents[0].take_over(with).unwrap();
    let hear = || {
        let mut datagram = [0; 64];
        let length = manager.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned()
    };
    assert_eq!(hear(), "READY=1");

    let streams = fabric.streams(1000);
    let upgrade = program.with_extension("next");
    copy_program(TWILL.as_ref(), &upgrade).unwrap();
    std::fs::rename(&upgrade, &program).unwrap();
    fabric.agents[0].signal(Signal::SIGUSR2).unwrap();
    // Two processes tell, in either order.
    let told = [hear(), hear()];
    let pid =
        told.iter().find_map(|told| told.strip_prefix("MAINPID=")).unwrap_or_else(|| panic!("{told:?}"));
    let pid: u32 = pid.parse().unwrap();
    let _successor = Stray(pid);
    assert!(fabric.agents[0].wait(PATIENCE).unwrap().success());
    assert!(told.contains(&"READY=1".to_owned()), "{told:?}");
    fabric.wait_settled();
    assert_eq!(fabric.status(0)["pid"], pid);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), program);
    streams.wait_running();
    streams.assert_lossless("an upgrade by signal");
}

#[test]
fn an_upgrade_that_does_not_start_changes_nothing() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, USERSPACE);
    let program = fabric.lab.dir().join("twill");
    copy_program(TWILL.as_ref(), &program).unwrap();
    let mut with = options(files(&fabric.lab), USERSPACE);
    with.program.clone_from(&program);
    fabric.agents[0].take_over(with).unwrap();
    fabric.wait_settled();
    let pid = fabric.agents[0].pid();
    for (content, why) in [("#!/bin/sh\nexit 7\n", "exit status: 7"), ("", "no successor could be started")] {
        std::fs::remove_file(&program).unwrap();
        if !content.is_empty() {
            std::fs::write(&program, content).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        fabric.agents[0].signal(Signal::SIGUSR2).unwrap();
        wait_for("the complaint", || {
            let log = fabric.agents[0].log();
            log.contains(why).then_some(()).ok_or(log)
        });
        if content.is_empty() {
            break;
        }
    }
    fabric.wait_settled();
    assert_eq!(fabric.status(0)["pid"], pid);
}

/// The gap of a restart of a host that carries frames itself: what the issue bounds by 100 ms, measured here and
/// bounded generously, as this machine has other things to do.
#[test]
fn a_restart_is_a_short_gap() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for _ in 0..5 {
            let streams = fabric.streams(1000);
            fabric.agents[0].kill(signal).unwrap();
            fabric.agents[0].restart().unwrap();
            fabric.wait_ready();
            streams.wait_running();
            let report = streams.stop();
            println!("GAP {signal} and start {:?}, {} lost", report.longest_gap, report.lost());
            assert!(report.longest_gap < Duration::from_secs(10), "{report:?}");
            fabric.wait_settled();
        }
    }
}

#[test]
fn a_configuration_that_changed_meanwhile_is_applied_at_a_start() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, USERSPACE);
    for agent in &mut fabric.agents {
        agent.kill(Signal::SIGTERM).unwrap();
    }
    let changed = Families::Dual.config(r#"{"Type":"vxlan","VNI":7,"Port":4789}"#);
    write_config(&fabric.lab, &files(&fabric.lab), &changed);
    fabric.agents.iter_mut().for_each(|agent| agent.restart().unwrap());
    fabric.wait_ready();
    fabric.wait_settled();
    fabric.wait_reachable();
    let tunnels = fabric.status(0)["network"]["datapath"]["tunnels"].clone();
    assert_eq!(tunnels[0]["device"], "flannel.7", "{tunnels}");
    assert_eq!(tunnels.as_array().unwrap().len(), 2, "{tunnels}");
}
