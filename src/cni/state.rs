//! The delegates' configurations, kept from ADD to DEL: `<dataDir>/<container>`, as flannel's plugin keeps them, so that
//! each can delete what the other attached.
//!
//! # Why a second name
//!
//! flannel's name has no interface in it, so a second attachment of one container would replace the first one's file and
//! the first one's address would never be released. The second is kept in `<container>@<interface>`; `@` is in no
//! container's id.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::call::is_name;
use super::error::{self, CniError};
use crate::files;

/// A delegate's configuration and where it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// What the delegate was called with.
    pub config: Value,
}

/// What a file holds.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// No such file.
    Absent,
    /// No configuration of a delegate: a write was cut short, or it is somebody else's.
    Garbage,
    /// A configuration.
    Config(Value),
}

impl Saved {
    /// The delegate's type.
    #[must_use]
    pub fn kind(&self) -> &str {
        text(&self.config, "type")
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        text(&self.config, "name")
    }

    /// Writes the file; a reader sees all of it or none.
    ///
    /// # Errors
    /// Code 5, naming the file.
    pub fn write(&self) -> Result<(), CniError> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        make(dir)?;
        files::replace(&self.path, self.config.to_string().as_bytes(), 0o600)
            .map_err(|cause| failed("cannot keep the delegate's configuration in", &self.path, &cause))
    }

    /// Removes the file; one that is gone already is fine.
    ///
    /// # Errors
    /// Code 5, naming the file.
    pub fn remove(&self) -> Result<(), CniError> {
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove", &self.path, &cause))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Makes the directory, for its owner only.
///
/// # Errors
/// Code 5, naming the directory.
pub fn make(dir: &Path) -> Result<(), CniError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|cause| failed("cannot make", dir, &cause))
}

/// Where the first attachment of a container is kept.
#[must_use]
pub fn first(dir: &Path, container: &str) -> PathBuf {
    dir.join(container)
}

/// Where further attachments of a container are kept.
#[must_use]
pub fn further(dir: &Path, container: &str, ifname: &str) -> PathBuf {
    dir.join(format!("{container}@{ifname}"))
}

/// Reads a file.
///
/// # Errors
/// Code 5, naming the file.
pub fn read(path: &Path) -> Result<Content, CniError> {
    match fs::read(path) {
        Ok(text) => Ok(parse(&text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Content::Absent),
        Err(cause) => Err(failed("cannot read", path, &cause)),
    }
}

/// Reads a file's text.
#[must_use]
pub fn parse(bytes: &[u8]) -> Content {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(config) if !text(&config, "type").is_empty() => Content::Config(config),
        _ => Content::Garbage,
    }
}

/// What is kept for an attachment to a network: under its second name if there is one, else under its first if that is
/// of the same network. A file that cannot be understood is said to be garbage, and left.
///
/// # Errors
/// Code 5, naming the file.
pub fn find(dir: &Path, container: &str, ifname: &str, network: &str) -> Result<Option<Saved>, CniError> {
    for path in [further(dir, container, ifname), first(dir, container)] {
        if let Content::Config(config) = read(&path)? {
            let saved = Saved { path, config };
            let same = [network, ""].contains(&saved.network());
            if same {
                return Ok(Some(saved));
            }
        }
    }
    Ok(None)
}

/// All that is kept of a network, with the container's id and, under a second name, the interface.
///
/// # Errors
/// Code 5, naming the directory.
pub fn list(dir: &Path, network: &str) -> Result<Vec<(String, Option<String>, Saved)>, CniError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(failed("cannot list", dir, &cause)),
    };
    let mut kept = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (container, ifname) =
            name.split_once('@').map_or((&*name, None), |(id, ifname)| (id, Some(ifname)));
        if let (true, Ok(Content::Config(config))) = (is_name(container), read(&path)) {
            let saved = Saved { path, config };
            if saved.network() == network {
                kept.push((container.to_owned(), ifname.map(str::to_owned), saved));
            }
        }
    }
    kept.sort_by(|a, b| a.2.path.cmp(&b.2.path));
    Ok(kept)
}

fn text<'a>(config: &'a Value, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn failed(attempt: &str, path: &Path, cause: &io::Error) -> CniError {
    CniError::new(error::IO, format!("{attempt} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn saved(path: PathBuf, network: &str) -> Saved {
        Saved { path, config: json!({ "name": network, "type": "bridge" }) }
    }

    #[test]
    fn a_file_is_for_its_owner_only_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/flannel");
        let saved = saved(first(&state, "c1"), "cbr0");
        saved.write().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&saved.path)), (0o700, 0o600));
        assert_eq!(find(&state, "c1", "eth0", "cbr0").unwrap(), Some(saved.clone()));
        saved.remove().unwrap();
        saved.remove().unwrap();
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }

    #[test]
    fn attachments_of_one_container_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let one = saved(first(dir.path(), "c1"), "a");
        let two = saved(further(dir.path(), "c1", "net1"), "b");
        one.write().unwrap();
        two.write().unwrap();
        fs::write(dir.path().join("c2"), "{\"type\":").unwrap();
        assert_eq!(find(dir.path(), "c1", "eth0", "a").unwrap(), Some(one.clone()));
        assert_eq!(find(dir.path(), "c1", "net1", "b").unwrap(), Some(two.clone()));
        assert_eq!(find(dir.path(), "c1", "eth0", "b").unwrap(), None);
        assert_eq!(find(dir.path(), "c2", "eth0", "a").unwrap(), None);
        assert_eq!(list(dir.path(), "a").unwrap(), [("c1".to_owned(), None, one)]);
        assert_eq!(list(dir.path(), "b").unwrap(), [("c1".to_owned(), Some("net1".to_owned()), two)]);
        assert_eq!(list(&dir.path().join("none"), "a").unwrap(), []);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Content::Config(config) = parse(&bytes) {
                prop_assert!(config["type"].is_string());
            }
        }

        #[test]
        fn a_write_cut_short_is_garbage(cut in 0usize..60) {
            let whole = json!({ "ipam": { "type": "host-local" }, "name": "cbr0", "type": "bridge" }).to_string();
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(parse(&whole.as_bytes()[..cut]), Content::Garbage);
        }
    }
}
