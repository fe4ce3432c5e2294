//! Where leases live, and how to get in.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use http::uri::Authority;
use uuid::Uuid;

use super::ConfigError;

/// Where leases live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// An etcd cluster, keys and values as flannel's.
    Etcd(EtcdConfig),
    /// A directory of this machine or a shared disk.
    File {
        /// Absolute, without `.`, `..` and doubled or trailing slashes.
        dir: PathBuf,
    },
}

/// An etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, at least one; both schemes may occur.
    pub endpoints: Vec<String>,
    /// Path-cleaned, without a trailing slash; the config key is `<prefix>/config`. The root is "".
    pub prefix: String,
    /// For the `https` endpoints; `None` means system roots.
    pub tls: Option<TlsFiles>,
    /// Name and password of an etcd user.
    pub user: Option<(String, Secret)>,
}

/// PEM files for etcd; `cert` and `key` are both given or both not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The only roots to trust; without it, the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A string that never shows in logs: `Debug` prints `***` and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(etcd) => write!(f, "etcd {} at {}", etcd.prefix, etcd.endpoints.join(",")),
            Self::File { dir } => write!(f, "file:{}", dir.display()),
        }
    }
}

impl StoreConfig {
    /// Parses `--store`: `etcd`, which `etcd` then describes, or `file:/absolute/dir`.
    ///
    /// # Errors
    /// Another word, or a relative directory: an agent and a command run elsewhere would mean different ones.
    pub fn parse(
        text: &str,
        etcd: impl FnOnce() -> Result<EtcdConfig, ConfigError>,
    ) -> Result<Self, ConfigError> {
        if text == "etcd" {
            return etcd().map(Self::Etcd);
        }
        let Some(dir) = text.strip_prefix("file:") else {
            let expected = "etcd, file:/absolute/dir";
            return Err(ConfigError::Word { flag: "store", value: text.to_owned(), expected });
        };
        if !dir.starts_with('/') {
            return Err(ConfigError::Path { flag: "store", value: text.to_owned() });
        }
        Ok(Self::File { dir: PathBuf::from(clean(dir)) })
    }

    /// Eight hex digits that tell this fabric's agent from others on the host. They depend on the prefix or
    /// the directory only, so a changed endpoint list or password keeps the agent's state.
    pub fn instance(&self) -> String {
        let name = match self {
            Self::Etcd(etcd) => format!("etcd:{}", etcd.prefix),
            Self::File { dir } => format!("file:{}", dir.display()),
        };
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).simple().to_string().chars().take(8).collect()
    }
}

impl EtcdConfig {
    /// Cleans a key prefix the way flannel does when it joins `<prefix>/config`.
    ///
    /// # Why
    /// A prefix without a leading slash keeps none: flannel's keys for it have none either, and a slash
    /// added here would make a migrated host look for its leases where nobody put any.
    ///
    /// # Errors
    /// An empty prefix.
    pub fn prefix(text: &str) -> Result<String, ConfigError> {
        if text.is_empty() {
            return Err(ConfigError::NoPrefix);
        }
        let cleaned = clean(text);
        match cleaned.as_str() {
            "" => Err(ConfigError::NoPrefix),
            "/" => Ok(String::new()),
            _ => Ok(cleaned),
        }
    }

    /// Whether any endpoint is reached over TLS.
    pub fn has_tls_endpoint(endpoints: &[String]) -> bool {
        endpoints.iter().any(|endpoint| endpoint.starts_with("https://"))
    }
}

impl TlsFiles {
    /// Takes the three file flags; empty means not given. `None` if nothing was.
    ///
    /// # Errors
    /// A certificate without its key, or the other way round.
    pub fn parse(ca: &str, cert: &str, key: &str) -> Result<Option<Self>, ConfigError> {
        const CERT: &str = "etcd-certfile";
        const KEY: &str = "etcd-keyfile";
        match (cert.is_empty(), key.is_empty()) {
            (false, true) => return Err(ConfigError::HalfCertificate { given: CERT, missing: KEY }),
            (true, false) => return Err(ConfigError::HalfCertificate { given: KEY, missing: CERT }),
            (true, true) | (false, false) => {}
        }
        let file = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let tls = Self { ca: file(ca), cert: file(cert), key: file(key) };
        Ok((tls.ca.is_some() || tls.cert.is_some()).then_some(tls))
    }
}

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Splits a comma list of endpoints: trimmed, empty ones dropped, `http://` where no scheme is given.
///
/// # Errors
/// None left, another scheme, no host, or credentials inside an endpoint.
pub fn endpoints(list: &str) -> Result<Vec<String>, ConfigError> {
    let found: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(endpoint)
        .collect::<Result<_, _>>()?;
    if found.is_empty() { Err(ConfigError::NoEndpoints) } else { Ok(found) }
}

fn endpoint(text: &str) -> Result<String, ConfigError> {
    if let Some((_, host)) = text.rsplit_once('@') {
        return Err(ConfigError::Credentials { host: host.to_owned() });
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    let host = rest.trim_end_matches('/');
    if !matches!(scheme.as_str(), "http" | "https") || !is_authority(host) {
        return Err(ConfigError::Endpoint { endpoint: text.to_owned() });
    }
    Ok(format!("{scheme}://{host}"))
}

/// Whether this is `HOST` or `HOST:PORT`, nothing else.
fn is_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    authority.as_str() == authority.host() || authority.port_u16().is_some()
}

/// Go's `path.Clean` on text: no `.`, no doubled or trailing slash, `..` applied where there is something to leave.
fn clean(text: &str) -> String {
    let mut cleaned = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(cleaned.components().next_back(), Some(Component::Normal(_))) =>
            {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir | Component::Normal(_) => {
                cleaned.push(part);
            }
        }
    }
    cleaned.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(prefix: &str) -> StoreConfig {
        let prefix = EtcdConfig::prefix(prefix).unwrap();
        StoreConfig::Etcd(EtcdConfig { endpoints: vec!["http://a:1".into()], prefix, tls: None, user: None })
    }

    #[test]
    fn prefixes_are_cleaned_as_go_does() {
        let rows = [
            ("/coreos.com/network", "/coreos.com/network"),
            ("/coreos.com/network/", "/coreos.com/network"),
            ("//a///b/./c/", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../b", "/b"),
            ("a/b/", "a/b"),
            ("../b", "../b"),
            ("a/../../b", "../b"),
            ("/", ""),
        ];
        for (typed, want) in rows {
            assert_eq!(EtcdConfig::prefix(typed).unwrap(), want, "{typed}");
        }
        for empty in ["", ".", "a/.."] {
            assert!(matches!(EtcdConfig::prefix(empty), Err(ConfigError::NoPrefix)), "{empty}");
        }
    }

    #[test]
    fn the_instance_follows_prefix_or_directory_only() {
        let name = etcd("/coreos.com/network").instance();
        assert_eq!(name.len(), 8);
        assert!(name.chars().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(name, etcd("/coreos.com/network/").instance());
        assert_ne!(name, etcd("/other").instance());
        let StoreConfig::Etcd(mut other) = etcd("/coreos.com/network") else { unreachable!() };
        other.endpoints = vec!["https://b:2".into()];
        other.user = Some(("u".into(), Secret::new("p")));
        assert_eq!(name, StoreConfig::Etcd(other).instance());
        let file = StoreConfig::parse("file:/coreos.com/network", || panic!()).unwrap();
        assert_ne!(name, file.instance());
    }

    /// State directories and firewall tables on hosts carry this name, so it may never change.
    #[test]
    fn the_instance_is_stable_across_versions() {
        assert_eq!(etcd("/coreos.com/network").instance(), "34a6738e");
        assert_eq!(StoreConfig::File { dir: "/srv/x".into() }.instance(), "c96a1cd4");
    }

    #[test]
    fn stores_are_etcd_or_an_absolute_directory() {
        let file = |text| StoreConfig::parse(text, || panic!("etcd asked for {text}"));
        assert_eq!(file("file:/srv//x/").unwrap(), StoreConfig::File { dir: "/srv/x".into() });
        assert_eq!(file("file:rel").unwrap_err().to_string(), "--store is `file:rel`; give an absolute path");
        assert_eq!(
            file("zookeeper").unwrap_err().to_string(),
            "--store is `zookeeper`; give one of: etcd, file:/absolute/dir"
        );
        assert!(matches!(file("file:"), Err(ConfigError::Path { .. })));
    }

    #[test]
    fn endpoints_are_trimmed_and_get_a_scheme() {
        let rows: [(&str, &[&str]); 4] = [
            (
                "http://127.0.0.1:4001,http://127.0.0.1:2379",
                &["http://127.0.0.1:4001", "http://127.0.0.1:2379"],
            ),
            (" a:1 ,, b:2,", &["http://a:1", "http://b:2"]),
            ("HTTPS://c:3/", &["https://c:3"]),
            ("[::1]:2379", &["http://[::1]:2379"]),
        ];
        for (typed, want) in rows {
            assert_eq!(endpoints(typed).unwrap(), want, "{typed}");
        }
    }

    #[test]
    fn bad_endpoints_say_what_to_give() {
        assert!(matches!(endpoints(""), Err(ConfigError::NoEndpoints)));
        assert!(matches!(endpoints(" , "), Err(ConfigError::NoEndpoints)));
        for bad in [
            "unix:///run/etcd.sock",
            "http://",
            "http://a:1/v3",
            "http://a b:1",
            "http://[::1",
            "a:99999",
            "a:",
        ] {
            let error = endpoints(bad).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("http://HOST:PORT"), "{error}");
        }
        let error = endpoints("http://root:hunter2@a:1").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_ca_needs_nothing() {
        assert_eq!(TlsFiles::parse("", "", "").unwrap(), None);
        let ca = TlsFiles::parse("/ca", "", "").unwrap().unwrap();
        assert_eq!(ca, TlsFiles { ca: Some("/ca".into()), cert: None, key: None });
        assert!(TlsFiles::parse("", "/c", "/k").unwrap().is_some());
        let error = TlsFiles::parse("", "/c", "").unwrap_err().to_string();
        assert!(error.starts_with("--etcd-certfile is set but --etcd-keyfile is not"), "{error}");
        let error = TlsFiles::parse("/ca", "", "/k").unwrap_err().to_string();
        assert!(error.starts_with("--etcd-keyfile is set but --etcd-certfile is not"), "{error}");
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{:?}", ("root", Secret::new("hunter2")));
        assert_eq!(shown, r#"("root", ***)"#);
    }
}
