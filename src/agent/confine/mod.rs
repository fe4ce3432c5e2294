//! The agent gives up what it does not need, for itself and for the programs it runs.
//!
//! # Why
//! It reads a store that other hosts write, and packets that anybody sends. Whoever takes it over should be able to
//! change this host's network and nothing else: load no module, mount nothing, look into no process, gain nothing by
//! running a program. Programs that it runs (`nft`, `iptables`) and a successor come under the same rules.
//!
//! It happens once, while the process has one thread, after the files of the instance are there: every thread and every
//! program started later inherits it.

mod calls;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Devices, addresses, routes, rules, and the settings below `/proc/sys/net`; raw sockets, for trials, echoes and what
/// iptables-legacy talks to the kernel by; ports below 1024, as the store may name one.
const NEEDED: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::NET_BIND_SERVICE);

/// The files that an agent reads and the places it writes to, whoever owns them.
#[derive(Debug, Clone, Default)]
pub struct Reach<'p> {
    /// Read again and again.
    pub read: Vec<&'p Path>,
    /// Written.
    pub write: Vec<&'p Path>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confined {
    /// The capabilities that are left.
    pub capabilities: String,
    /// What could not be given up, and why.
    pub failed: Vec<String>,
}

/// Confines the calling thread, and all that it starts. What the kernel does not know is left as it is, and named.
pub fn confine(reach: &Reach<'_>) -> Confined {
    let mut confined = Confined::default();
    let mut failed = |what: &str, result: Result<(), String>| {
        confined.failed.extend(result.err().map(|error| format!("{what}: {error}")));
    };
    failed("no_new_privs", set_no_new_privs(true).map_err(|error| error.to_string()));
    failed("capabilities", limit(reach).map_err(|error| error.to_string()));
    failed("seccomp", calls::refuse());
    let left = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.permitted);
    confined.capabilities = left.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(",");
    confined
}

/// Gives up all capabilities but those needed, in every set, so that a program that is run has no others either.
fn limit(reach: &Reach<'_>) -> io::Result<()> {
    let had = capabilities(None)?;
    let kept = (NEEDED | files(reach, had)?) & had.permitted;
    // Only a process that may do so can; one that may not gains nothing by a program since no_new_privs.
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for one in bits(!kept) {
            // Those that the kernel does not know are in no set.
            if capability_is_in_bounding_set(one) == Ok(true) {
                remove_capability_from_bounding_set(one)?;
            }
        }
    }
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    // A program that is run by root has them anyway, one that is run by somebody else only so.
    for one in bits(kept) {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// What it takes to go on reading and writing where this process is not the owner.
fn files(reach: &Reach<'_>, had: CapabilitySets) -> io::Result<CapabilitySet> {
    let mut needed = CapabilitySet::empty();
    if reach.write.iter().any(|path| !is_writable(path)) {
        needed |= CapabilitySet::DAC_OVERRIDE;
    }
    let bare = CapabilitySets { effective: had.effective & NEEDED, ..had };
    set_capabilities(None, bare)?;
    let denied =
        |path: &&Path| File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if reach.read.iter().any(denied) {
        needed |= CapabilitySet::DAC_READ_SEARCH;
    }
    set_capabilities(None, had)?;
    Ok(needed)
}

/// Whether the owner of this process may write to `path`, or make it.
fn is_writable(path: &Path) -> bool {
    let found = path.ancestors().find_map(|path| fs::metadata(path).ok());
    let user = nix::unistd::geteuid().as_raw();
    found.is_none_or(|file| (file.uid() == user && file.mode() & 0o200 != 0) || file.mode() & 0o002 != 0)
}

fn bits(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(move |one| set.contains(*one))
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.capabilities.is_empty() { "none" } else { &self.capabilities })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// Runs in a thread that is confined; the process is not.
    fn confined<T: Send>(reach: &Reach<'_>, work: impl FnOnce(Confined) -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| work(confine(reach))).join().unwrap())
    }

    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn nothing_is_left_but_what_is_needed_in_any_thread_and_program() {
        let before = status("CapEff");
        confined(&Reach::default(), |confined| {
            assert_eq!(confined.failed, Vec::<String>::new());
            let left = capabilities(None).unwrap();
            assert!(NEEDED.contains(left.permitted) && left.effective == left.permitted, "{confined:?}");
            let here = ["NoNewPrivs", "Seccomp", "CapPrm", "CapEff", "CapBnd"].map(status);
            assert_eq!(&here[..2], ["1", "2"]);
            assert_eq!(std::thread::spawn(|| status("CapEff")).join().unwrap(), here[3]);
            let mut grep = Command::new("grep");
            let run = grep.args(["-E", "^(NoNewPrivs|Seccomp|CapPrm|CapEff)", "/proc/self/status"]).output();
            let run = String::from_utf8(run.unwrap().stdout).unwrap();
            for (name, value) in [("CapPrm", &here[2]), ("CapEff", &here[3])] {
                assert!(run.contains(&format!("{name}:\t{value}")), "{run}");
            }
            assert!(run.contains("NoNewPrivs:\t1") && run.contains("Seccomp:\t2"), "{run}");
        });
        assert_eq!(status("CapEff"), before, "only that thread");
    }

    #[test]
    fn what_harms_a_host_is_refused_and_what_an_agent_does_is_not() {
        confined(&Reach::default(), |_| {
            use nix::errno::Errno;
            use nix::sched::{CloneFlags, unshare};
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            assert_eq!(nix::unistd::chroot("/"), Err(Errno::EPERM));
            assert_eq!(nix::mount::umount("/nowhere"), Err(Errno::EPERM));
            for (line, good) in [
                ("unshare -U true", false),
                ("unshare -n true", false),
                ("true | cat; (sleep 0 & wait)", true),
                ("ip link show lo >/dev/null", true),
            ] {
                let run = Command::new("sh").args(["-c", line]).output().unwrap();
                assert_eq!(run.status.success(), good, "{line}: {run:?}");
            }
        });
    }

    /// A take-over starts as confined as the process before it.
    #[test]
    fn a_second_time_changes_nothing() {
        confined(&Reach::default(), |first| {
            let before = ["CapEff", "Seccomp_filters"].map(status);
            assert_eq!(confine(&Reach::default()), first);
            assert_eq!(["CapEff", "Seccomp_filters"].map(status), before);
        });
    }

    #[test]
    fn files_of_others_stay_in_reach() {
        if !capabilities(None).unwrap().effective.contains(CapabilitySet::DAC_READ_SEARCH) {
            return println!("SKIP: this process may not read what others own");
        }
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        fs::write(&key, "secret").unwrap();
        std::os::unix::fs::chown(&key, Some(12345), Some(12345)).unwrap();
        fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
        confined(&Reach::default(), |_| assert!(fs::read(&key).is_err()));
        let deep = dir.path().join("deep/down");
        let reach = Reach { read: vec![&key], write: vec![&deep] };
        confined(&reach, |confined| {
            assert_eq!(fs::read(&key).unwrap(), b"secret");
            assert!(confined.to_string().contains("DAC_READ_SEARCH"), "{confined}");
            assert!(!confined.to_string().contains("DAC_OVERRIDE"), "{confined}");
        });
        let reach = Reach { write: vec![&key], ..Reach::default() };
        confined(&reach, |_| fs::write(&key, "new").unwrap());
    }
}
