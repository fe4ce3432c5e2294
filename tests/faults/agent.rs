//! Agents that end, are killed, replaced or frozen: packets do not notice, or hardly.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::{AgentOptions, copy_program};

use crate::examine::Doctor;
use crate::fabric::{TWILL, options, wait_for};
use crate::scenario::{Allowed, Scenario, play};
use crate::world::{Backend, World, long};

/// How many lines an agent that starts has to say.
const STARTED: usize = 7;

/// What a restart may cost: nothing where the kernel carries, and a tenth of a second where the agent does.
fn restart(world: &World) -> Allowed {
    if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::Gap(Duration::from_millis(100)) }
}

fn again(world: &mut World) {
    let usual = usual(world);
    again_with(world, usual);
}

fn usual(world: &World) -> AgentOptions {
    options(world.fabric.store.clone(), world.backend.flags())
}

fn again_with(world: &mut World, options: AgentOptions) {
    world.fabric.agents[0].restart_with(options).unwrap();
    world.fabric.wait_ready();
    world.fabric.wait_settled();
}

/// The same program by another name takes over.
fn upgrade(world: &mut World) {
    let next = world.fabric.lab.dir().join("twill-next");
    copy_program(TWILL.as_ref(), &next).unwrap();
    let with = AgentOptions { program: next, ..usual(world) };
    assert!(world.fabric.agents[0].take_over(with).unwrap().success());
    world.fabric.wait_ready();
    world.fabric.wait_settled();
}

fn scenarios(world: &World) -> Vec<Scenario> {
    let allowed = restart(world);
    // One that is frozen or gone carries nothing.
    let frozen = if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::WhileItLasts };
    let slowly = |seconds| {
        if world.backend.in_kernel() { Allowed::Nothing } else { Allowed::Gap(Duration::from_secs(seconds)) }
    };
    // What is mounted beforehand takes time, too.
    let (asking, mounting) = (slowly(1), slowly(2));
    let restarts = if long() { 100 } else { 3 };
    let mut all = vec![
        Scenario::new("agent killed", &[22, 23], allowed, |world| {
            world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
            again(world);
        }),
        Scenario::new("agent ended and started", &[22, 23], allowed, |world| {
            assert!(world.fabric.agents[0].kill(Signal::SIGTERM).unwrap().success());
            again(world);
        }),
        Scenario::new("agent upgraded", &[23], Allowed::Nothing, upgrade),
        Scenario::new(format!("{restarts} restarts"), &[22, 23], allowed, move |world| {
            for _ in 0..restarts {
                world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
                again(world);
            }
        })
        .saying(restarts * STARTED),
        Scenario::lasting(
            ("agent frozen", &[14, 30], frozen),
            "agent-silent",
            |world| world.fabric.agents[0].signal(Signal::SIGSTOP).unwrap(),
            |world| world.fabric.agents[0].signal(Signal::SIGCONT).unwrap(),
        ),
        Scenario::lasting(
            ("agent gone", &[30], frozen),
            "no-agent",
            |world| assert!(!world.fabric.agents[0].kill(Signal::SIGKILL).unwrap().success()),
            again,
        ),
        // Without its memory, an agent has to ask etcd first.
        Scenario::new("state directory lost", &[2, 15], asking, |world| {
            world.fabric.agents[0].kill(Signal::SIGKILL).unwrap();
            std::fs::remove_dir_all(&world.fabric.agents[0].files.state).unwrap();
            again(world);
        }),
        Scenario::new("state directory read-only", &[12], asking, |world| no_room(world, READ_ONLY)),
        Scenario::new("disk full", &[12], mounting, |world| no_room(world, FULL)),
    ];
    match clock_library() {
        Some(library) => {
            all.push(Scenario::new("clock jumps", &[14], allowed, move |world| clock_jumps(world, &library)))
        }
        None => println!("SKIP: clock jumps: libfaketime is not installed; apt-get install faketime"),
    }
    all
}

/// What happens to the state directory `$D/state`, in a mount namespace of the agent's.
const READ_ONLY: &str = "mount --bind -o ro $D/state $D/state && mount -o remount,ro,bind $D/state";
const FULL: &str = "rm -rf $D/copy && cp -a $D/state $D/copy && mount -t tmpfs -o size=256k none $D/state \
                    && cp -a $D/copy/. $D/state && { head -c 1M /dev/zero >$D/state/hog 2>/dev/null || true; }";

/// An agent that cannot write says so and goes on; it has what it had once it can.
fn no_room(world: &mut World, prepare: &str) {
    let dir = world.fabric.agents[0].files.state.parent().unwrap().display().to_string();
    let inner = format!(r#"exec unshare -m sh -c '{{ {prepare}; }} && exec "$@"' twill {TWILL} "$@""#);
    let program = world.fabric.lab.dir().join("twill-mounted");
    std::fs::write(&program, format!("#!/bin/sh\nexport D={dir}\n{inner}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let with = AgentOptions { program, ..usual(world) };
    world.fabric.agents[0].restart_with(with).unwrap();
    world.fabric.wait_ready();
    let since = Instant::now();
    let key = world.join("192.168.77.200");
    world.name(0, "file-failed", since);
    world.ctl(&["del", &key]);
    again(world);
}

/// What shows a program another wall clock than the machine's.
fn clock_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

/// The wall clock goes a day ahead, then a day back, as when time is set by hand or a virtual machine resumes.
fn clock_jumps(world: &mut World, library: &std::path::Path) {
    let file = world.fabric.lab.dir().join("clock");
    let jump = |offset: &str| std::fs::write(&file, offset).unwrap();
    jump("+0");
    let mut with = usual(world);
    with.env = [
        ("LD_PRELOAD", library.as_os_str()),
        ("FAKETIME_TIMESTAMP_FILE", file.as_os_str()),
        ("FAKETIME_NO_CACHE", "1".as_ref()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
    ]
    .map(|(name, value)| (name.into(), value.to_owned()))
    .into();
    again_with(world, with);
    let env = world.fabric.agents[0].files.subnet.clone();
    for offset in ["+2d", "-2d"] {
        let known = days(world);
        jump(offset);
        // Something to write a line about; of no consequence for packets.
        std::fs::remove_file(&env).unwrap();
        wait_for("a line by the other clock", || {
            let days = days(world);
            if days.len() > known.len() && env.exists() { Ok(()) } else { Err(days) }
        });
    }
    // Files were written two days later than it is.
    let preload = format!("LD_PRELOAD={}", library.display());
    let within = ["env", &preload, "FAKETIME=-2d", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let named = Doctor::new(&world.fabric, 0).named(&within, "clock-behind", Instant::now());
    world.named.push(named);
    again(world);
}

/// The dates that the first agent's log has.
fn days(world: &World) -> std::collections::BTreeSet<String> {
    let log = world.fabric.agents[0].log();
    log.lines()
        .filter_map(|line| Some(line.get(..10)?.to_owned()))
        .filter(|day| day.starts_with("20"))
        .collect()
}

fn agents(backend: Backend) {
    play(|| World::new(backend), scenarios);
}

#[test]
fn vxlan() {
    agents(Backend::Vxlan);
}

#[test]
fn host_gw() {
    agents(Backend::HostGw);
}

#[test]
fn userspace() {
    agents(Backend::Userspace);
}
