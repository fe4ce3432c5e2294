//! flanneld's command line in a systemd unit: the file, its drop-ins, and the environment files it names
//! (systemd.service(5), systemd.exec(5)).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::words::{self, Escapes, words};
use crate::agent::flanneld;

/// What the unit is called.
const NAMES: [&str; 2] = ["flanneld.service", "flannel.service"];
/// What may stand before a program.
const MARKS: [char; 6] = ['-', '@', ':', '+', '!', '|'];

/// A unit that starts flanneld.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// What follows the program.
    pub flags: Vec<String>,
    /// The environment that it is started with, as far as files say.
    pub vars: BTreeMap<String, String>,
}

/// What one or more files say together.
#[derive(Debug, Default)]
struct Settings {
    start: Vec<String>,
    vars: BTreeMap<String, String>,
    /// Environment files; `-` before one says that it need not be there.
    files: Vec<String>,
}

/// The first of flanneld's units in these directories.
#[must_use]
pub fn find(dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter().flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|path| path.is_file())
}

/// Reads a unit with its drop-ins in these directories and beside it, and with further environment files.
///
/// # Errors
/// A file that cannot be read, or a unit that does not start flanneld; each with the next step.
pub fn read(path: &Path, dirs: &[PathBuf], more: &[PathBuf]) -> Result<Unit, String> {
    let mut settings = Settings::default();
    settings.read(&text(path)?);
    for drop_in in drop_ins(path, dirs) {
        settings.read(&text(&drop_in)?);
    }
    let mut vars = settings.vars.clone();
    for file in &settings.files {
        vars.extend(named(file)?);
    }
    for file in more {
        vars.extend(variables(file)?);
    }
    let instead = |why: &str| format!("{} {why}; next: give flanneld's flags after --", path.display());
    for line in &settings.start {
        let words = command(line, &vars).map_err(|why| instead(&why))?;
        if let Some(flags) = flanneld::flags(&words) {
            return Ok(Unit { flags: flags.to_vec(), vars });
        }
    }
    Err(instead("starts no flanneld"))
}

/// The variables of an environment file.
///
/// # Errors
/// It cannot be read; with the next step.
pub fn variables(path: &Path) -> Result<BTreeMap<String, String>, String> {
    Ok(words::variables(&text(path)?))
}

/// The variables of a file that a unit names; with `-` before its path it need not be there.
fn named(file: &str) -> Result<BTreeMap<String, String>, String> {
    let path = Path::new(file.strip_prefix('-').unwrap_or(file));
    if file.contains(['*', '?', '[', '%']) {
        let next =
            "next: give each file that it means with --environment-file, and the unit's flags after --";
        return Err(format!("EnvironmentFile={file} is a pattern, which is not resolved here; {next}"));
    }
    let absent = fs::symlink_metadata(path).is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound);
    if absent && file.starts_with('-') { Ok(BTreeMap::new()) } else { variables(path) }
}

/// Drop-ins by their names; of two of one name the one in the earlier directory counts.
fn drop_ins(path: &Path, dirs: &[PathBuf]) -> Vec<PathBuf> {
    let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".d";
    let mut found = BTreeMap::new();
    for dir in path.parent().into_iter().chain(dirs.iter().rev().map(PathBuf::as_path)) {
        for entry in fs::read_dir(dir.join(&folder)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                found.insert(entry.file_name(), entry.path());
            }
        }
    }
    found.into_values().collect()
}

impl Settings {
    /// Takes in a file. An empty value forgets what was said before.
    fn read(&mut self, text: &str) {
        for (key, value) in service(text) {
            match (key.as_str(), value.as_str()) {
                ("ExecStart", "") => self.start.clear(),
                ("ExecStart", line) => self.start.push(line.to_owned()),
                ("Environment", "") => self.vars.clear(),
                ("Environment", pairs) => {
                    let words = words(pairs, Escapes::C).unwrap_or_default();
                    let pairs = words.iter().filter_map(|word| word.split_once('='));
                    self.vars.extend(pairs.map(|(key, value)| (key.to_owned(), value.replace("%%", "%"))));
                }
                ("EnvironmentFile", "") => self.files.clear(),
                ("EnvironmentFile", file) => self.files.push(file.to_owned()),
                _ => {}
            }
        }
    }
}

/// The settings of the section `[Service]`, with continued lines joined.
fn service(text: &str) -> Vec<(String, String)> {
    let (mut settings, mut within, mut begun) = (Vec::new(), false, String::new());
    // An empty line more ends one that is continued at the end.
    for line in text.lines().chain([""]).map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(part) = line.strip_suffix('\\') {
            begun = begun + part + " ";
            continue;
        }
        let whole = std::mem::take(&mut begun) + line;
        if whole.starts_with('[') {
            within = whole == "[Service]";
        } else if let (true, Some((key, value))) = (within, whole.split_once('=')) {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// A command line as systemd cuts it: `$NAME` as a word becomes the words of its value, `${NAME}` its value.
/// Fails where it would take systemd itself to know what is meant.
fn command(line: &str, vars: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let rest = line.trim_start_matches(MARKS);
    let marks = &line[..line.len() - rest.len()];
    let mut words = words(rest, Escapes::C).ok_or("has a quote in ExecStart that is not closed")?;
    if marks.contains('@') && words.len() > 1 {
        // What the program is to believe it is called.
        words.remove(1);
    }
    for word in &mut words {
        let plain = word.replace("%%", "");
        if let Some(at) = plain.find('%') {
            let specifier: String = plain[at..].chars().take(2).collect();
            return Err(format!("has the specifier {specifier} in ExecStart, which is not resolved here"));
        }
        *word = word.replace("%%", "%");
    }
    if marks.contains(':') {
        return Ok(words);
    }
    let value = |name: &str| vars.get(name).cloned().unwrap_or_default();
    let words = words.into_iter().flat_map(|word| match word.strip_prefix('$') {
        Some(name) if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            self::words(&value(name), Escapes::Plain).unwrap_or_default()
        }
        _ => vec![braced(&word, value)],
    });
    Ok(words.collect())
}

/// A word with the value of each `${NAME}` in its place; `$$` is a dollar.
fn braced(word: &str, value: impl Fn(&str) -> String) -> String {
    let (mut done, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once('$') {
        done += before;
        rest = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => {
                done += &value(name);
                after
            }
            None => {
                done.push('$');
                after.strip_prefix('$').unwrap_or(after)
            }
        };
    }
    done + rest
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|cause| {
        format!(
            "cannot read {}: {cause}; next: run as root, or give flanneld's flags after --",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: &str = "[Unit]\nExecStart=/not/this\n[Service]\n# a comment\n\
        EnvironmentFile=-/nowhere/flannel.env\nEnvironment=\"OPTS=-ip-masq -v=1\" NIC=eth0 \"E=http://a:1\"\n\
        ExecStartPre=/bin/mkdir /run/flannel\n\
        ExecStart=-/opt/bin/flanneld \\\n  -etcd-endpoints=${E},http://b:2 \\\n  # within\n  -iface $NIC '-iface-regex=^e t$$' $OPTS $NONE\n";

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_command_line_is_cut_as_systemd_cuts_it() {
        let dir = dir(&[("flanneld.service", UNIT)]);
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        let path = find(&dirs).unwrap();
        let unit = read(&path, &dirs, &[]).unwrap();
        let want = [
            "-etcd-endpoints=http://a:1,http://b:2",
            "-iface",
            "eth0",
            "-iface-regex=^e t$",
            "-ip-masq",
            "-v=1",
        ];
        assert_eq!(unit.flags, want);
        assert_eq!(unit.vars["NIC"], "eth0");
    }

    #[test]
    fn drop_ins_and_environment_files_have_the_last_word() {
        let dir = dir(&[
            ("lib/flannel.service", UNIT),
            ("lib/flannel.service.d/10-a.conf", "[Service]\nExecStart=\nExecStart=/no/flanneld -v=9\n"),
            (
                "etc/flannel.service.d/10-a.conf",
                "[Service]\nExecStart=\nExecStart=/usr/bin/flanneld -iface ${NIC}\n",
            ),
            ("etc/flannel.service.d/20-b.conf", "[Service]\nEnvironment=FLANNELD_V=2 NIC=x\n"),
            ("etc/flannel.service.d/README", "[Service]\nExecStart=\n"),
            ("more.env", "; c\nNIC=\"eth9\"\nFLANNELD_ETCD_ENDPOINTS=http://c:3\n"),
        ]);
        let dirs = [dir.path().join("etc"), dir.path().join("lib")];
        let unit = read(&find(&dirs).unwrap(), &dirs, &[dir.path().join("more.env")]).unwrap();
        assert_eq!(unit.flags, ["-iface", "eth9"]);
        assert_eq!(unit.vars["FLANNELD_V"], "2");
        assert_eq!(unit.vars["FLANNELD_ETCD_ENDPOINTS"], "http://c:3");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_next_step() {
        let dir = dir(&[
            ("flanneld.service", "[Service]\nExecStart=/usr/bin/kubelet\n"),
            ("needs.service", "[Service]\nEnvironmentFile=/nowhere/x\nExecStart=/usr/bin/flanneld\n"),
        ]);
        let error = |name: &str| read(&dir.path().join(name), &[], &[]).unwrap_err();
        assert!(error("flanneld.service").contains("starts no flanneld; next: give"));
        assert!(error("needs.service").contains("cannot read /nowhere/x"));
        assert!(error("absent.service").contains("absent.service"));
        assert_eq!(find(&[dir.path().join("none")]), None);
        for (start, want) in [
            ("ExecStart=/flanneld -public-ip=%H", "the specifier %H"),
            ("ExecStart=/flanneld '-iface", "not closed"),
            ("EnvironmentFile=-/etc/flannel/*.env\nExecStart=/flanneld", "/etc/flannel/*.env is a pattern"),
            ("ExecStart=/bin/sh -c 'exec /opt/bin/flanneld -ip-masq'", "starts no flanneld"),
            ("EnvironmentFile=-.\nExecStart=/flanneld", "cannot read"),
        ] {
            let unit = self::dir(&[("flanneld.service", &format!("[Service]\n{start}\n"))]);
            let error = read(&unit.path().join("flanneld.service"), &[], &[]).unwrap_err();
            assert!(error.contains(want) && error.contains("; next: "), "{start}: {error}");
        }
    }

    #[test]
    fn lines_mean_what_systemd_makes_of_them() {
        for (service, flags) in [
            ("ExecStart=@/opt/bin/flanneld flanneld -ip-masq", &["-ip-masq"][..]),
            ("ExecStart=:/opt/bin/flanneld -iface=${NIC} $NIC", &["-iface=${NIC}", "$NIC"]),
            ("ExecStart=/flanneld -iface=$NIC -v=100%%", &["-iface=$NIC", "-v=100%"]),
            ("ExecStart=/flanneld -iface-regex=^10\\.0\\. -v=1 \\", &["-iface-regex=^10\\.0\\.", "-v=1"]),
            (
                "Environment='O=-iface-regex=\"^e t\" -v=1'\nExecStart=/flanneld $O",
                &["-iface-regex=^e t", "-v=1"],
            ),
            ("ExecStart=/usr/bin/docker run --name flanneld img /opt/bin/flanneld -ip-masq", &["-ip-masq"]),
            (
                "ExecStart=/usr/bin/env A=1 /opt/bin/flanneld -etcd-prefix /x/flanneld -v=1",
                &["-etcd-prefix", "/x/flanneld", "-v=1"],
            ),
            ("ExecStart=/opt/flanneld-amd64 -v=1", &["-v=1"]),
            ("ExecStart=/bin/true\nExecStart=/flanneld -v=1", &["-v=1"]),
        ] {
            let dir = dir(&[("flanneld.service", &format!("[Service]\r\n{service}\r\n"))]);
            let unit = read(&dir.path().join("flanneld.service"), &[], &[]).unwrap();
            assert_eq!(unit.flags, flags, "{service}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,200}", line in "[-$@a-z{}'\"\\\\ =/]{0,60}") {
            let mut settings = Settings::default();
            settings.read(&format!("[Service]\n{text}\nExecStart={line}\n"));
            let vars = words::variables(&text);
            for start in &settings.start {
                if let Ok(words) = command(start, &vars) {
                    prop_assert!(words.len() <= line.len() + text.len());
                }
            }
        }
    }
}
