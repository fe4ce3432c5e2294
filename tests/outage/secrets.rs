//! What nobody but etcd is to read: the password, in no log, no answer, no file and, from the environment, no `ps`.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use twill::lab::AgentOptions;

use crate::ask::{wait_log, wait_status};
use crate::fabric::{Fabric, SOON, TWILL, VXLAN, fabric};

pub(crate) const USER: &str = "flannel";
/// Unlike anything else that is logged; no shorter than what a log might cut it to.
pub(crate) const PASSWORD: &str = "Xyzzy7-plugh9-nobody-reads-this";
const WRONG: &str = "Wrong4-plover2-nobody-reads-that";

/// Has etcd ask for the password.
pub(crate) fn enable(fabric: &Fabric) {
    for line in [
        "user add root:rootish",
        "user grant-role root root",
        "role add flannel",
        "role grant-permission flannel readwrite /coreos.com/network --prefix=true",
        &format!("user add {USER}:{PASSWORD}"),
        "user grant-role flannel flannel",
        "auth enable",
    ] {
        fabric.ctl(&line.split(' ').collect::<Vec<_>>());
    }
}

/// An agent that logs whatever it and its libraries have to say.
fn chatty(fabric: &Fabric) -> AgentOptions {
    let mut options = fabric.options().arg("--v=5");
    options.env.push(("RUST_LOG".into(), "trace".into()));
    options
}

/// An agent that is told the password where `ps` does not show it.
pub(crate) fn in_environment(mut options: AgentOptions, password: &str) -> AgentOptions {
    options.env.push(("TWILL_ETCD_USERNAME".into(), USER.into()));
    options.env.push(("TWILL_ETCD_PASSWORD".into(), password.into()));
    options
}

/// Nothing of either password, as it is or as bytes are written.
fn assert_clean(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for secret in [PASSWORD, WRONG] {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{:?}", secret.as_bytes());
        for form in [secret, &secret[..12], &hex, list.trim_matches(['[', ']'])] {
            let at = text.find(form);
            assert_eq!(at, None, "{what}: …{}…", at.map_or("", |at| &text[at.saturating_sub(200)..]));
        }
    }
}

fn assert_files_clean(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            assert_files_clean(&path);
        } else if let Ok(text) = std::fs::read(&path) {
            assert_clean(&path.display().to_string(), &text);
        }
    }
}

fn command_line(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap()
}

#[test]
fn a_password_is_never_told() {
    let mut fabric = fabric!(1, Some(VXLAN));
    enable(&fabric);
    // Refused, with all there is to say about it.
    let wrong = in_environment(chatty(&fabric), WRONG);
    fabric.start(&wrong);
    wait_log(&fabric.agents[0], "authentication failed");
    let status = fabric.agents[0].twill(&["status"], &["--json"]);
    assert_clean("status of a refused agent", format!("{status:?}").as_bytes());
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    // Taken.
    let right = in_environment(chatty(&fabric), PASSWORD);
    fabric.agents[0].restart_with(right.clone()).unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_status(&fabric.agents[0], "a lease", |status| status["lease"]["standing"] == "held");
    assert_clean("ps", &command_line(fabric.agents[0].pid()));
    for (command, args) in
        [(&["status"][..], &[][..]), (&["status"], &["--json"]), (&["plan"], &[]), (&["lease", "list"], &[])]
    {
        let mut run = Command::new(TWILL);
        run.args(command).args(right.store.flags()).args(args).envs(right.env.clone());
        run.arg("--state-dir")
            .arg(&fabric.agents[0].files.state)
            .arg("--run-dir")
            .arg(&fabric.agents[0].files.run);
        let output = fabric.lab.hosts[0].net.run(|| run.output()).unwrap().unwrap();
        assert_clean(&format!("{command:?} {args:?}"), &[output.stdout, output.stderr].concat());
    }
    // As a flag it shows in ps, as the README says, and nowhere else; nor when a successor is started with it.
    let flags = chatty(&fabric).arg("--etcd-username").arg(USER).arg("--etcd-password").arg(PASSWORD);
    fabric.agents[0].kill(Signal::SIGKILL).unwrap();
    fabric.agents[0].restart_with(flags).unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    fabric.agents[0].signal(Signal::SIGUSR2).unwrap();
    fabric.agents[0].wait(SOON).unwrap();
    let successor = wait_status(&fabric.agents[0], "a successor", |status| status["state"] == "ok");
    let pid = i32::try_from(successor["pid"].as_u64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let log = fabric.agents[0].log();
    assert!(log.len() > 10_000 && log.contains("TRACE"), "it was not asked for everything");
    assert_clean("the log", log.as_bytes());
    assert_files_clean(fabric.agents[0].files.state.parent().unwrap());
}

/// Wrong usage is answered with what was typed, but for this.
#[test]
fn a_mistyped_line_does_not_repeat_the_password() {
    for line in [
        &["agent", "--etcd-username", USER, "--etcd-password", PASSWORD, "--no-such-flag"][..],
        &["agent", "--etcd-password", PASSWORD, "--run-dir", "relative"],
        &["agent", "--etcd-endpoints", &format!("http://{USER}:{PASSWORD}@127.0.0.1:2379")],
        &["agent", "--etcd-endpoints", &format!("http://:{PASSWORD}@[")],
    ] {
        let output = Command::new(TWILL).args(line).output().unwrap();
        assert!(!output.status.success());
        assert_clean(&format!("{line:?}").replace(PASSWORD, ""), &[output.stdout, output.stderr].concat());
    }
}
