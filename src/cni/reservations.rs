//! The addresses that host-local has handed out: a file for each, named after the address, that holds the container's
//! id and, on a second line, the interface.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::delegate::HOST_LOCAL;
use super::error::{self, CniError};
use super::lock;

/// Where host-local keeps addresses, unless `ipam.dataDir` says otherwise.
pub const DIR: &str = "/var/lib/cni/networks";

/// An address that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    path: PathBuf,
    /// By which container.
    pub container: String,
    /// On which interface; older versions of host-local did not say.
    pub ifname: Option<String>,
}

/// Where a network's addresses are kept; `None` if another plugin hands them out.
#[must_use]
pub fn dir(ipam: &Map<String, Value>, network: &str) -> Option<PathBuf> {
    let text = |key: &str, default| ipam.get(key).and_then(Value::as_str).unwrap_or(default);
    (text("type", HOST_LOCAL) == HOST_LOCAL).then(|| Path::new(text("dataDir", DIR)).join(network))
}

/// All reservations in a directory; a directory that is not there has none.
#[must_use]
pub fn list(dir: &Path) -> Vec<Reservation> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<Reservation> = entries.filter_map(|entry| read(entry.path())).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Whether a container has addresses in a directory, and every one of them on another interface than this.
#[must_use]
pub fn only_elsewhere(dir: &Path, container: &str, ifname: &str) -> bool {
    let all = list(dir);
    let mut theirs = all.iter().filter(|one| one.container == container).peekable();
    theirs.peek().is_some() && theirs.all(|one| one.ifname.as_deref().is_some_and(|name| name != ifname))
}

/// Releases what is not to be spared, under host-local's own lock. Returns the errors; one does not stop the rest.
pub fn release(dir: &Path, patience: Duration, spared: impl Fn(&Reservation) -> bool) -> Vec<CniError> {
    if list(dir).iter().all(&spared) {
        return Vec::new();
    }
    let _lock = match lock::take(&dir.join("lock"), patience) {
        Ok(lock) => lock,
        Err(error) => return vec![error],
    };
    let stale = list(dir).into_iter().filter(|reservation| !spared(reservation));
    let remove = |reservation: Reservation| {
        let path = reservation.path.display();
        let failed = |cause| CniError::new(error::IO, format!("cannot release {path}: {cause}"));
        fs::remove_file(&reservation.path).map_err(failed).err()
    };
    stale.filter_map(remove).collect()
}

fn read(path: PathBuf) -> Option<Reservation> {
    path.file_name()?.to_str()?.parse::<IpAddr>().ok()?;
    let (container, ifname) = parse(&fs::read_to_string(&path).ok()?)?;
    Some(Reservation { path, container, ifname })
}

/// The two lines of a file; `None` for one that names no container, which a crash of host-local leaves.
fn parse(text: &str) -> Option<(String, Option<String>)> {
    let mut lines = text.lines().map(str::trim);
    let container = lines.next().filter(|line| !line.is_empty())?;
    Some((container.to_owned(), lines.next().filter(|line| !line.is_empty()).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_spared_is_released() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("10.1.17.2", "c1\r\neth0"),
            ("10.1.17.3", "c2\neth0"),
            ("fd00::2", "c2\r\neth0"),
            ("10.1.17.4", "c3"),
            ("10.1.17.5", ""),
            ("last_reserved_ip.0", "c2"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(list(dir.path()).len(), 4);
        let spared = |reservation: &Reservation| reservation.container != "c2";
        assert_eq!(release(dir.path(), Duration::ZERO, spared), []);
        let left: Vec<_> = list(dir.path()).into_iter().map(|one| (one.container, one.ifname)).collect();
        assert_eq!(left, [("c1".to_owned(), Some("eth0".to_owned())), ("c3".to_owned(), None)]);
        assert!(dir.path().join("last_reserved_ip.0").exists() && dir.path().join("10.1.17.5").exists());
    }

    #[test]
    fn an_address_on_another_interface_is_told_from_one_that_may_be_on_this() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("10.1.17.2", "c1\r\neth0"), ("10.1.17.3", "c2"), ("10.1.17.4", "c3\neth0")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("10.1.17.5"), "c3\nnet1").unwrap();
        for (container, ifname, elsewhere) in [
            ("c1", "net1", true),
            ("c1", "eth0", false),
            ("c2", "net1", false),
            ("c3", "net1", false),
            ("c3", "net2", true),
            ("c4", "net1", false),
        ] {
            assert_eq!(only_elsewhere(dir.path(), container, ifname), elsewhere, "{container} {ifname}");
        }
    }

    #[test]
    fn another_plugins_addresses_are_not_looked_for() {
        let dir = |ipam: Value| dir(ipam.as_object().unwrap(), "cbr0");
        assert_eq!(dir(json!({})), Some("/var/lib/cni/networks/cbr0".into()));
        assert_eq!(dir(json!({ "type": "host-local", "dataDir": "/d" })), Some("/d/cbr0".into()));
        assert_eq!(dir(json!({ "type": "dhcp" })), None);
        assert_eq!(list(Path::new("/nowhere")), []);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            prop_assert!(parse(&text).is_none_or(|(container, _)| !container.is_empty()));
        }
    }
}
