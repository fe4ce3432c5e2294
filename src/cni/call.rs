//! What a runtime asks: the environment of the process.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::error::{self, CniError};

/// The longest name of an interface in bytes: `IFNAMSIZ` less its NUL.
const IFNAME: usize = 15;

/// A request, as far as the environment says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub verb: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`: the path of the container's network namespace.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_PATH`: where plugins are, separated by colons.
    pub path: String,
    /// `CNI_NETNS_OVERRIDE`: the container may share the host's namespace.
    pub shares: bool,
}

impl Call {
    /// Reads the variables; one that is not set is empty.
    #[must_use]
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| get(name).unwrap_or_default();
        Self {
            verb: var("CNI_COMMAND"),
            container: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            ifname: var("CNI_IFNAME"),
            path: var("CNI_PATH"),
            shares: ["1", "true"].contains(&var("CNI_NETNS_OVERRIDE").to_lowercase().as_str()),
        }
    }

    /// Makes sure that what the verb needs is there and well-formed.
    ///
    /// # Errors
    /// Code 4, naming the variables.
    pub fn check(&self) -> Result<(), CniError> {
        let attaches = matches!(self.verb.as_str(), "ADD" | "CHECK" | "DEL");
        let needs = [
            ("CNI_CONTAINERID", &self.container, attaches),
            ("CNI_NETNS", &self.netns, attaches && self.verb != "DEL"),
            ("CNI_IFNAME", &self.ifname, attaches),
            ("CNI_PATH", &self.path, true),
        ];
        let missing: Vec<&str> = needs
            .iter()
            .filter(|(_, value, needed)| *needed && value.is_empty())
            .map(|need| need.0)
            .collect();
        if !missing.is_empty() {
            return Err(wrong(format!("required env variables [{}] missing", missing.join(","))));
        }
        if attaches && !is_name(&self.container) {
            return Err(wrong(format!("invalid characters in CNI_CONTAINERID {:?}", self.container)));
        }
        if attaches && !is_ifname(&self.ifname) {
            return Err(wrong(format!("CNI_IFNAME {:?} is not the name of an interface", self.ifname)));
        }
        Ok(())
    }

    /// Makes sure that there is a namespace to attach, and that it is not the host's own.
    ///
    /// # Errors
    /// Code 4 if nothing is there, 8 if it is the host's.
    pub fn check_netns(&self) -> Result<(), CniError> {
        let there = fs::metadata(&self.netns)
            .map_err(|cause| wrong(format!("CNI_NETNS {}: {cause}; the container has ended", self.netns)))?;
        if self.is_own(&there) {
            let text = format!("CNI_NETNS {} is the host's own namespace", self.netns);
            return Err(CniError::new(error::NAMESPACE, text));
        }
        Ok(())
    }

    fn is_own(&self, there: &fs::Metadata) -> bool {
        let same = |own: fs::Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
        !self.shares && fs::metadata("/proc/self/ns/net").is_ok_and(same)
    }
}

/// Whether text can be a container's id or a network's name: both become names of files.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

fn is_ifname(text: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    !text.is_empty() && text.len() <= IFNAME && text != "." && text != ".." && !text.contains(odd)
}

fn wrong(text: String) -> CniError {
    CniError::new(error::ENVIRONMENT, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add() -> Call {
        let text = |text: &str| text.to_owned();
        Call {
            verb: text("ADD"),
            container: text("c1"),
            netns: text("/proc/self/ns/net"),
            ifname: text("eth0"),
            path: text("/bin"),
            shares: false,
        }
    }

    fn refused(call: &Call) -> String {
        let error = call.check().unwrap_err();
        assert_eq!(error.code, error::ENVIRONMENT);
        error.msg
    }

    #[test]
    fn variables_are_read() {
        let call = Call::read(|name| Some(if name.ends_with("OVERRIDE") { "TRUE" } else { name }.to_owned()));
        assert_eq!((call.verb.as_str(), call.shares), ("CNI_COMMAND", true));
        assert_eq!(Call::read(|_| None), Call::default());
    }

    #[test]
    fn what_is_missing_is_named() {
        add().check().unwrap();
        let bare = Call { verb: "ADD".to_owned(), ..Call::default() };
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            assert!(refused(&bare).contains(name));
        }
        Call { verb: "DEL".to_owned(), netns: String::new(), ..add() }.check().unwrap();
        Call { verb: "GC".to_owned(), path: "/bin".to_owned(), ..Call::default() }.check().unwrap();
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for id in ["../c1", "a/b", ".c1", "c 1", "c\u{e9}"] {
            assert!(refused(&Call { container: id.to_owned(), ..add() }).contains("CNI_CONTAINERID"), "{id}");
        }
        for name in ["..", "a/b", "a b", "a:b", "sixteen-letters-"] {
            assert!(refused(&Call { ifname: name.to_owned(), ..add() }).contains("CNI_IFNAME"), "{name}");
        }
    }

    #[test]
    fn the_hosts_own_namespace_is_refused() {
        assert_eq!(add().check_netns().unwrap_err().code, error::NAMESPACE);
        Call { shares: true, ..add() }.check_netns().unwrap();
        let gone = Call { netns: "/nowhere/net".to_owned(), ..add() }.check_netns().unwrap_err();
        assert!(gone.code == error::ENVIRONMENT && gone.msg.contains("/nowhere/net"), "{gone}");
    }
}
