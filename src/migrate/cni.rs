//! What flannel's CNI plugin is configured with on a host, and what it keeps of containers that run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::cni::delegate::{BRIDGE, HOST_LOCAL};
use crate::cni::netconf::NetConf;
use crate::cni::reservations;
use crate::cni::state::{self, Content};
use crate::cni::version::SUPPORTED;

/// Where flannel's plugin keeps what it attached, unless its configuration says otherwise.
pub use crate::cni::netconf::DATA_DIR as STATE_DIR;
/// Where host-local keeps addresses, unless its configuration says otherwise.
pub use crate::cni::reservations::DIR as NETWORKS_DIR;

/// Where runtimes look for configurations.
pub const CONF_DIR: &str = "/etc/cni/net.d";

/// The names under which flannel's plugin, or Twill's in its place, is installed.
const NAMES: [&str; 2] = ["flannel", "twill"];
/// The bridge that the bridge plugin makes, unless told otherwise.
const DEFAULT_BRIDGE: &str = "cni0";

/// Where CNI plugins have their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Configurations of networks.
    pub conf: PathBuf,
    /// What flannel's plugin keeps, in place of its default.
    pub state: PathBuf,
    /// What host-local keeps, in place of its default.
    pub networks: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cni {
    /// Networks of flannel's plugin, in the order in which a runtime reads their files.
    pub networks: Vec<Network>,
    /// Files that cannot be used, each with the reason.
    pub odd: Vec<(PathBuf, String)>,
    /// Containers attached by flannel's plugin, with the subnets that their addresses are from.
    pub containers: BTreeMap<String, Vec<IpNet>>,
    /// Containers that host-local has given addresses, though the plugin does not know them.
    pub lost: Vec<String>,
}

/// A network of flannel's plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Where it is configured.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// The subnet.env that its containers are configured from.
    pub subnet_file: PathBuf,
    /// The bridge of its containers, if they have one.
    pub bridge: Option<String>,
    /// The plugins that it takes, by the names of their programs.
    pub plugins: Vec<String>,
    /// Where its containers are kept.
    state: PathBuf,
    /// Where its addresses are kept, if host-local hands them out.
    addresses: Option<PathBuf>,
}

/// Reads configurations and state. Nothing is an error: what cannot be read is said.
#[must_use]
pub fn read(dirs: &Dirs) -> Cni {
    let mut cni = Cni::default();
    for file in files(&dirs.conf, &["conf", "conflist", "json"]) {
        match networks(&file, dirs) {
            Ok(found) => cni.networks.extend(found),
            Err(why) => cni.odd.push((file, why)),
        }
    }
    let mut folders: Vec<PathBuf> = cni.networks.iter().map(|network| network.state.clone()).collect();
    folders.push(dirs.state.clone());
    folders.sort();
    folders.dedup();
    folders.iter().for_each(|folder| containers(folder, &mut cni));
    let known = |container: &String| cni.containers.contains_key(container);
    let reserved = cni.networks.iter().filter_map(|network| network.addresses.as_deref());
    let mut lost: Vec<String> =
        reserved.flat_map(reservations::list).map(|one| one.container).filter(|id| !known(id)).collect();
    lost.sort();
    lost.dedup();
    cni.lost = lost;
    cni
}

/// The networks of flannel's plugin in a file: a list of plugins, or a single one.
fn networks(file: &Path, dirs: &Dirs) -> Result<Vec<Network>, String> {
    let text = fs::read(file).map_err(|cause| cause.to_string())?;
    let conf: Value = serde_json::from_slice(&text).map_err(|cause| cause.to_string())?;
    let plugins =
        conf.get("plugins").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![conf.clone()]);
    let types: Vec<String> =
        plugins.iter().filter_map(|plugin| plugin["type"].as_str().map(str::to_owned)).collect();
    let flannels = plugins.into_iter().filter(|plugin| NAMES.iter().any(|name| plugin["type"] == *name));
    flannels
        .map(|plugin| {
            let mut network = network(file, &conf, plugin, dirs)?;
            network.plugins.extend(types.iter().cloned());
            Ok(network)
        })
        .collect()
}

/// The network of one plugin, which has its name and version from the list.
fn network(file: &Path, list: &Value, mut plugin: Value, dirs: &Dirs) -> Result<Network, String> {
    for key in ["name", "cniVersion"] {
        if let (Some(value), Some(plugin)) = (list.get(key), plugin.as_object_mut()) {
            plugin.insert(key.to_owned(), value.clone());
        }
    }
    let conf = NetConf::parse(plugin.to_string().as_bytes()).map_err(|error| error.msg)?;
    if !conf.version.is_empty() && !SUPPORTED.contains(&conf.version.as_str()) {
        return Err(format!("cniVersion {} is not one of {}", conf.version, SUPPORTED.join(", ")));
    }
    let kind = |of: &Map<String, Value>, default: &str| {
        of.get("type").and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let delegate = kind(&conf.delegate, BRIDGE);
    let name = conf.delegate.get("bridge").and_then(Value::as_str).unwrap_or(DEFAULT_BRIDGE).to_owned();
    let mut ipam = conf.ipam;
    ipam.entry("dataDir").or_insert_with(|| dirs.networks.display().to_string().into());
    let state = if conf.data_dir == Path::new(STATE_DIR) { dirs.state.clone() } else { conf.data_dir };
    Ok(Network {
        file: file.to_owned(),
        bridge: (delegate == BRIDGE).then_some(name),
        plugins: vec![delegate, kind(&ipam, HOST_LOCAL)],
        addresses: reservations::dir(&ipam, &conf.name),
        name: conf.name,
        subnet_file: conf.subnet_file,
        state,
    })
}

/// The containers kept in a folder.
fn containers(folder: &Path, cni: &mut Cni) {
    for file in files(folder, &[]) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match state::read(&file) {
            Ok(Content::Config(config)) => {
                let container = name.split('@').next().unwrap_or_default().to_owned();
                cni.containers.entry(container).or_default().extend(ranges(&config));
            }
            Ok(Content::Absent) => {}
            Ok(Content::Garbage) => cni.odd.push((file, "no configuration of a delegate".to_owned())),
            Err(error) => cni.odd.push((file, error.msg)),
        }
    }
}

fn ranges(config: &Value) -> impl Iterator<Item = IpNet> {
    let sets = config["ipam"]["ranges"].as_array().into_iter().flatten();
    let ranges = sets.filter_map(Value::as_array).flatten();
    ranges.filter_map(|range| range["subnet"].as_str()?.parse().ok())
}

/// The files of a folder by name, those with a leading dot aside; with extensions, only those that have one of them.
fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| {
            let named =
                path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted));
            path.is_file() && (extensions.is_empty() || named)
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The list of flannel's manifest.
    const LIST: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[
        {"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}},
        {"type":"portmap","capabilities":{"portMappings":true}}]}"#;

    fn dirs(root: &Path, files: &[(&str, &str)]) -> Dirs {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Dirs { conf: root.join("conf"), state: root.join("state"), networks: root.join("networks") }
    }

    #[test]
    fn networks_containers_and_lost_addresses_are_found() {
        let root = tempfile::tempdir().unwrap();
        let kept = r#"{"ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00::/64"}]]},"name":"cbr0","type":"bridge"}"#;
        let dirs = dirs(
            root.path(),
            &[
                ("conf/10-flannel.conflist", LIST),
                ("conf/20-other.conf", r#"{"name":"other","type":"bridge"}"#),
                ("conf/30-own.conf", r#"{"name":"own","type":"flannel","subnetFile":"/x/subnet.env"}"#),
                ("conf/note.txt", "{"),
                ("state/c1", kept),
                ("state/c1@net1", kept),
                ("state/.lock", ""),
                ("networks/cbr0/10.244.1.2", "c1\r\neth0"),
                ("networks/cbr0/10.244.1.3", "gone\r\neth0"),
                ("networks/cbr0/last_reserved_ip.0", "10.244.1.3"),
            ],
        );
        let cni = read(&dirs);
        let named: Vec<_> =
            cni.networks.iter().map(|one| (one.name.as_str(), one.subnet_file.to_str())).collect();
        assert_eq!(named, [("cbr0", Some("/run/flannel/subnet.env")), ("own", Some("/x/subnet.env"))]);
        assert_eq!(cni.containers.keys().collect::<Vec<_>>(), ["c1"]);
        assert!(cni.containers["c1"].contains(&"fd00::/64".parse().unwrap()));
        assert_eq!((cni.lost, cni.odd), (vec!["gone".to_owned()], vec![]));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(
            root.path(),
            &[
                ("conf/1.conflist", "{"),
                ("conf/2.conf", r#"{"name":"a","type":"flannel","cniVersion":"7"}"#),
                ("conf/3.conf", r#"{"name":"../a","type":"flannel"}"#),
                ("state/c1", "{\"type\":"),
            ],
        );
        let odd = read(&dirs).odd;
        let words = ["EOF", "cniVersion 7", "network name", "no configuration of a delegate"];
        assert_eq!(odd.len(), words.len());
        assert!(odd.iter().zip(words).all(|((_, why), word)| why.contains(word)), "{odd:?}");
        let nowhere = Dirs { conf: "/nowhere".into(), state: "/nowhere".into(), networks: "/nowhere".into() };
        assert_eq!(read(&nowhere), Cni::default());
    }

    #[test]
    fn a_network_may_keep_its_files_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name).display().to_string();
        let conf = format!(
            r#"{{"name":"own","type":"flannel","dataDir":"{}","ipam":{{"dataDir":"{}"}}}}"#,
            at("elsewhere"),
            at("given")
        );
        let dirs = dirs(
            root.path(),
            &[
                ("conf/1.conf", &conf),
                ("elsewhere/c9", r#"{"name":"own","type":"bridge"}"#),
                ("given/own/10.1.1.1", "c8"),
            ],
        );
        let cni = read(&dirs);
        assert_eq!((cni.containers["c9"].len(), cni.lost), (0, vec!["c8".to_owned()]));
    }
    proptest! {
        /// Whatever stands in a configuration and in what is kept: it is a network, or it is odd, or it is not flannel's.
        #[test]
        fn no_file_panics(
            value in prop::sample::select(vec!["1", "null", "{}", "[]", "\"a\"", "[[{\"subnet\":3}]]", "[[{\"subnet\":\"10.1.0.0/24\"}]]", "\"\\u0000/\""]),
            key in prop::sample::select(vec!["name", "plugins", "cniVersion", "ipam", "delegate", "dataDir", "subnetFile", "ranges"]),
            cut in 0_usize..90,
        ) {
            let root = tempfile::tempdir().unwrap();
            let whole = format!(r#"{{"name":"own","type":"flannel","{key}":{value},"ipam":{{"ranges":{value}}}}}"#);
            let part: String = whole.chars().take(cut).collect();
            let files = [("conf/1.conf", whole.as_str()), ("conf/2.conf", part.as_str()), ("state/c1", whole.as_str()), ("state/c2", part.as_str())];
            let cni = read(&dirs(root.path(), &files));
            prop_assert!(cni.networks.len() <= 2 && cni.containers.len() <= 2);
            let judged = cni.networks.len() + cni.containers.len() + cni.odd.len();
            prop_assert!(judged >= 1, "{:?}", cni);
        }
    }
}
