//! A lab without root: in a user namespace of its own, where the kernel allows that.
//!
//! # Why in-process
//!
//! A user namespace can be entered by a process that has one thread. The command does so before it starts any, so there is
//! no second process whose exit status, signals and end would have to be passed on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::lab::Lab;

/// How long a joined thread may still count as one: the kernel reaps it a moment after the join.
const REAP: Duration = Duration::from_secs(1);
/// What may forbid user namespaces: the sysctl, the value that forbids, and what to do about it.
const SWITCHES: [(&str, &str, &str); 4] = [
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "10000"),
    ("user/max_net_namespaces", "0", "10000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
];

/// Neither root nor a user namespace.
#[derive(Debug, thiserror::Error)]
#[error("not root, and no user namespace can be used ({attempt}: {errno}): {cause}")]
pub struct Refusal {
    attempt: &'static str,
    errno: String,
    cause: String,
}

/// Makes sure that network namespaces can be made: as root nothing needs doing, else the process moves into user, mount
/// and network namespaces of its own, as their root, with an empty `/run`. Returns whether it moved.
///
/// # Errors
/// What forbids it, by name, and the next step.
pub(super) fn enter_user_namespace() -> Result<bool, Refusal> {
    if Lab::available().is_ok() {
        return Ok(false);
    }
    let (user, group) = (geteuid(), getegid());
    let refused = |attempt| {
        move |errno: Errno| Refusal { attempt, errno: errno.desc().to_owned(), cause: cause(&sysctl) }
    };
    unshare_all().map_err(refused("unshare"))?;
    write_map("setgroups", "deny").map_err(refused("deny setgroups"))?;
    write_map("uid_map", &format!("0 {user} 1")).map_err(refused("map the user"))?;
    write_map("gid_map", &format!("0 {group} 1")).map_err(refused("map the group"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(refused("make mounts private"))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .map_err(refused("mount a tmpfs on /run"))?;
    Ok(true)
}

fn unshare_all() -> nix::Result<()> {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let deadline = Instant::now() + REAP;
    loop {
        match unshare(flags) {
            Err(Errno::EINVAL) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

fn write_map(file: &str, line: &str) -> nix::Result<()> {
    let failed = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    fs::write(Path::new("/proc/self").join(file), line).map_err(failed)
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|text| text.trim().to_owned())
}

/// What forbids user namespaces, judged by the sysctls, and the next step.
fn cause(read: &dyn Fn(&str) -> Option<String>) -> String {
    let guilty = SWITCHES.iter().find(|(path, value, _fix)| read(path).as_deref() == Some(*value));
    match guilty {
        Some((path, value, fix)) => {
            let name = path.replace('/', ".");
            format!("{name} is {value}; run as root (with sudo), or allow it: sudo sysctl -w {name}={fix}")
        }
        None => "no sysctl forbids it, so a container's seccomp profile or a security module does; \
                 run as root (with sudo), in a container with --privileged"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_switch_and_the_way_out() {
        for (path, value, fix) in SWITCHES {
            let text = cause(&|asked| (asked == path).then(|| value.to_owned()));
            let name = path.replace('/', ".");
            assert!(text.contains(&format!("{name} is {value}")), "{text}");
            assert!(text.contains(&format!("sysctl -w {name}={fix}")), "{text}");
        }
    }

    #[test]
    fn without_a_guilty_switch_the_container_is_named() {
        assert!(cause(&|_path| None).contains("seccomp"));
        assert!(cause(&|_path| Some("127826".into())).contains("seccomp"));
    }
}
