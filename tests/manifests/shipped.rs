//! The files as they are shipped.

use std::fs;
use std::path::{Path, PathBuf};

/// A file or folder of `manifests/`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(name)
}

pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The settings of an INI file, in order: section, key, value. Lines that end in a backslash go on.
pub(crate) fn settings(text: &str) -> Vec<(String, String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not a setting: {line}"));
            settings.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// All values of a key of a section.
pub(crate) fn values(text: &str, section: &str, key: &str) -> Vec<String> {
    let matching = settings(text).into_iter().filter(|(at, name, _)| at == section && name == key);
    matching.map(|(_, _, value)| value).collect()
}
