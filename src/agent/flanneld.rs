//! flannelds that run on this host: two agents of one lease would write over each other.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The program's name.
const NAME: &str = "flanneld";
/// What its releases have after that, one program for each kind of machine.
const MACHINES: [&str; 7] = ["amd64", "arm", "arm64", "mips64le", "ppc64le", "riscv64", "s390x"];
/// How much of a program's name the kernel keeps, in bytes.
const COMM: usize = 15;
/// flanneld's default for `--etcd-prefix`.
const PREFIX: &str = "/coreos.com/network";

/// A process named flanneld in this network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flanneld {
    /// Its process id.
    pub pid: u32,
    /// Its arguments without the program.
    pub flags: Vec<String>,
    /// Its environment; `None` if it may not be read.
    pub vars: Option<BTreeMap<String, String>>,
    /// Whether it sees other files than this process: it runs in a container, and so paths in its flags may not be here.
    pub contained: bool,
}

/// All that run, by their pid. `proc` is where the proc file system is; this process is not among them.
#[must_use]
pub fn running(proc: &Path) -> Vec<Flanneld> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<Flanneld> = pids
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let dir = proc.join(pid.to_string());
            let named = fs::read_to_string(dir.join("comm")).is_ok_and(|comm| is_flanneld(comm.trim_end()));
            named && is_here(&proc.join("self"), &dir)
        })
        .map(|pid| read(&proc.join(pid.to_string()), pid))
        .collect();
    found.sort_by_key(|flanneld| flanneld.pid);
    found
}

/// Every process of this network namespace, by its pid, with its name as far as the kernel keeps it.
#[must_use]
pub fn programs(proc: &Path) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let here = pids.filter(|pid| is_here(&proc.join("self"), &proc.join(pid.to_string())));
    let named =
        here.filter_map(|pid| Some((pid, fs::read_to_string(proc.join(format!("{pid}/comm"))).ok()?)));
    named.map(|(pid, comm)| (pid, comm.trim_end().to_owned())).collect()
}

/// Whether two processes are in one network namespace.
///
/// # Why
/// An agent with few capabilities may not look into a process that has more. It may see the files of that process's
/// network, which each namespace numbers for itself.
fn is_here(own: &Path, other: &Path) -> bool {
    match fs::read_link(other.join("ns/net")) {
        Ok(net) => fs::read_link(own.join("ns/net")).is_ok_and(|own| own == net),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let number = |dir: &Path| fs::metadata(dir.join("net/dev")).map(|file| file.ino()).ok();
            number(own).is_some_and(|own| number(other) == Some(own))
        }
        Err(_) => false,
    }
}

/// What follows the program's name in a command line: it may stand behind an interpreter or a container runtime. There
/// the same word may be a container's name or part of a flag, so that only flags may follow.
#[must_use]
pub fn flags(words: &[String]) -> Option<&[String]> {
    let program = |word: &String| {
        let name = Path::new(word).file_name().and_then(|name| name.to_str());
        !word.starts_with('-') && name.is_some_and(is_flanneld)
    };
    let starts = |at: &usize| *at == 0 || words.get(at + 1).is_none_or(|next| next.starts_with('-'));
    let at = (0..words.len()).filter(|at| program(&words[*at])).find(starts)?;
    Some(&words[at + 1..])
}

/// Whether a program of this name is flanneld; the name may be cut off as the kernel does.
fn is_flanneld(name: &str) -> bool {
    let of = |machine: &&str| {
        let whole = format!("{NAME}-{machine}");
        name == whole || (name.len() == COMM && whole.starts_with(name))
    };
    name == NAME || MACHINES.iter().any(of)
}

impl Flanneld {
    /// The prefix of its keys in etcd, without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> String {
        let mut typed = self.flags.iter().enumerate().filter_map(|(at, word)| {
            let flag =
                word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?.strip_prefix("etcd-prefix")?;
            flag.strip_prefix('=')
                .map(str::to_owned)
                .or_else(|| self.flags.get(at + 1).filter(|_| flag.is_empty()).cloned())
        });
        let variable =
            || self.vars.as_ref()?.get("FLANNELD_ETCD_PREFIX").filter(|value| !value.is_empty()).cloned();
        let prefix = typed.next_back().or_else(variable).unwrap_or_else(|| PREFIX.to_owned());
        prefix.trim_end_matches('/').to_owned()
    }
}

fn read(dir: &Path, pid: u32) -> Flanneld {
    let words = words(&fs::read(dir.join("cmdline")).unwrap_or_default());
    let flags = flags(&words).unwrap_or_else(|| words.get(1..).unwrap_or_default()).to_vec();
    let vars = fs::read(dir.join("environ")).ok().map(|environ| {
        let pairs = self::words(&environ);
        pairs.iter().filter_map(|pair| pair.split_once('=')).map(owned).collect()
    });
    // What may not be read is no sign of a container.
    let mounts = |of: &Path| fs::read_link(of.join("ns/mnt")).ok();
    let contained = mounts(dir).is_some_and(|theirs| Some(theirs) != mounts(&dir.with_file_name("self")));
    Flanneld { pid, flags, vars, contained }
}

/// The NUL-terminated words of a file of a process.
fn words(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// A process in a folder that looks like `/proc`.
    fn process(proc: &Path, pid: &str, net: &str, files: [&str; 3]) {
        let dir = proc.join(pid);
        fs::create_dir_all(dir.join("ns")).unwrap();
        symlink(net, dir.join("ns/net")).unwrap();
        for (name, text) in ["comm", "cmdline", "environ"].iter().zip(files) {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn flannelds_of_this_namespace_are_found_with_flags_and_variables() {
        let proc = tempfile::tempdir().unwrap();
        let flanneld = "flanneld\n";
        assert_eq!(running(proc.path()), []);
        process(proc.path(), "self", "net:[1]", ["twill\n", "", ""]);
        let line = "/opt/bin/flanneld\0-iface\0eth0\0-v=\0";
        process(proc.path(), "30", "net:[1]", [flanneld, line, "A=b=c\0FLANNELD_IP_MASQ=true\0"]);
        process(proc.path(), "4", "net:[1]", [flanneld, "/bin/sh\0/opt/bin/flanneld\0-ip-masq\0", ""]);
        process(proc.path(), "5", "net:[2]", [flanneld, "flanneld\0", ""]);
        process(proc.path(), "6", "net:[1]", ["flanneld-x\n", "flanneld\0", ""]);
        process(proc.path(), "31", "net:[1]", ["flanneld-ppc64l\n", "/flanneld-ppc64le\0-v=2\0", ""]);
        let found = running(proc.path());
        assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [4, 30, 31]);
        assert_eq!(
            (found[0].flags.as_slice(), found[2].flags.as_slice()),
            (&["-ip-masq".to_owned()][..], &["-v=2".to_owned()][..])
        );
        assert_eq!(found[1].flags, ["-iface", "eth0", "-v="]);
        let vars = found[1].vars.as_ref().unwrap();
        assert_eq!((vars["A"].as_str(), vars["FLANNELD_IP_MASQ"].as_str()), ("b=c", "true"));
        for (pid, mounts) in [("self", "mnt:[1]"), ("4", "mnt:[1]"), ("30", "mnt:[2]")] {
            symlink(mounts, proc.path().join(pid).join("ns/mnt")).unwrap();
        }
        assert_eq!(
            running(proc.path()).iter().map(|one| one.contained).collect::<Vec<_>>(),
            [false, true, false]
        );
        fs::remove_file(proc.path().join("30/environ")).unwrap();
        assert_eq!(running(proc.path())[1].vars, None);
    }

    #[test]
    fn the_prefix_is_read_as_go_does() {
        for (flags, env, prefix) in [
            ("", "", "/coreos.com/network"),
            ("-etcd-prefix=/a/", "", "/a"),
            ("--etcd-prefix\0/a\0-etcd-prefix=/b", "", "/b"),
            ("--etcd-prefix-x=/a", "", "/coreos.com/network"),
            ("", "/e", "/e"),
            ("-etcd-prefix=/a", "/e", "/a"),
        ] {
            let vars = BTreeMap::from([("FLANNELD_ETCD_PREFIX".to_owned(), env.to_owned())]);
            let flanneld =
                Flanneld { pid: 1, flags: words(flags.as_bytes()), vars: Some(vars), contained: false };
            assert_eq!(flanneld.prefix(), prefix, "{flags:?} {env:?}");
        }
    }
    proptest! {
        /// A process may have any bytes as its arguments and its environment.
        #[test]
        fn no_command_line_panics_and_flags_are_its_end(
            bytes in prop::collection::vec(prop_oneof![Just(0), Just(b'-'), Just(b'='), any::<u8>()], 0..60),
            names in prop::collection::vec(prop::sample::select(vec!["flanneld", "/x/flanneld", "-etcd-prefix", "a"]), 0..6),
        ) {
            let names = names.join("\0").into_bytes();
            let line = words(&[&names[..], &[0], &bytes[..]].concat());
            if let Some(flags) = flags(&line) {
                prop_assert!(line.ends_with(flags) && flags.len() < line.len());
            }
            let flanneld = Flanneld { flags: line, ..Flanneld::default() };
            prop_assert!(!flanneld.prefix().ends_with('/'));
        }
    }
}
