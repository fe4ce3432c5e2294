//! The network configuration that a runtime passes on stdin.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::call::is_name;
use super::error::{self, CniError};

/// Where the delegates' configurations are kept, unless `dataDir` says otherwise.
pub const DATA_DIR: &str = "/var/lib/cni/flannel";
/// The key of the attachments that GC spares.
pub const VALID: &str = "cni.dev/valid-attachments";
/// How long a delegate may take, unless `delegateTimeout` says otherwise.
const PATIENCE: u64 = 60;
/// The longest time that `delegateTimeout` can name, in seconds.
const LONGEST: u64 = 3600;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`; empty if absent.
    pub version: String,
    /// `name` of the network.
    pub name: String,
    /// `subnetFile`: written by the agent.
    pub subnet_file: PathBuf,
    /// `dataDir`: where the delegates' configurations are kept.
    pub data_dir: PathBuf,
    /// `runDir`: where agents have their sockets.
    pub run_dir: PathBuf,
    /// `delegateTimeout`, in seconds.
    pub patience: Duration,
    /// `delegate`.
    pub delegate: Map<String, Value>,
    /// `ipam`.
    pub ipam: Map<String, Value>,
    /// `runtimeConfig`.
    pub runtime: Map<String, Value>,
    /// `prevResult`.
    pub previous: Option<Value>,
    /// `cni.dev/valid-attachments`: container and interface of each. GC spares them.
    pub valid: Option<Vec<(String, String)>>,
}

impl NetConf {
    /// Reads JSON. Keys are matched in any case, as Go does; the last one counts.
    ///
    /// # Errors
    /// Code 6 for text that is no JSON object, 7 for a value that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, CniError> {
        let decode =
            |cause| CniError::new(error::DECODE, format!("error parsing the network config: {cause}"));
        let keys = Keys(serde_json::from_slice(text).map_err(decode)?);
        let name = keys.text("name")?.unwrap_or_default();
        if !is_name(&name) {
            return Err(wrong(format!("missing or invalid network name {name:?}")));
        }
        let path = |key, default: &str| keys.text(key).map(|path| path.unwrap_or(default.to_owned()).into());
        let conf = Self {
            version: keys.text("cniVersion")?.unwrap_or_default(),
            name,
            subnet_file: path("subnetFile", "/run/flannel/subnet.env")?,
            data_dir: path("dataDir", DATA_DIR)?,
            run_dir: path("runDir", "/run/twill")?,
            patience: keys.seconds("delegateTimeout")?,
            delegate: keys.object("delegate")?,
            ipam: keys.object("ipam")?,
            runtime: keys.object("runtimeConfig")?,
            previous: keys.get("prevResult").cloned(),
            valid: keys.get(VALID).map(attachments).transpose()?,
        };
        conf.check()
    }

    fn check(self) -> Result<Self, CniError> {
        if self.delegate.get("type").is_some_and(|kind| !kind.is_string()) {
            return Err(wrong("'delegate' dictionary, if present, must have (string) 'type' field"));
        }
        match ["name", "ipam"].iter().find(|key| self.delegate.contains_key(**key)) {
            Some(key) => Err(wrong(format!(
                "'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
            ))),
            None => Ok(self),
        }
    }
}

/// The keys of an object. One that is empty or null counts as absent.
struct Keys(Map<String, Value>);

impl Keys {
    fn get(&self, wanted: &str) -> Option<&Value> {
        let same = self.0.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        same.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<String>, CniError> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| odd(key, "text", value));
        Ok(self.get(key).map(text).transpose()?.filter(|text| !text.is_empty()))
    }

    fn object(&self, key: &str) -> Result<Map<String, Value>, CniError> {
        let object = |value: &Value| value.as_object().cloned().ok_or_else(|| odd(key, "an object", value));
        Ok(self.get(key).map(object).transpose()?.unwrap_or_default())
    }

    fn seconds(&self, key: &str) -> Result<Duration, CniError> {
        let Some(value) = self.get(key) else { return Ok(Duration::from_secs(PATIENCE)) };
        let seconds = value.as_u64().filter(|seconds| (1..=LONGEST).contains(seconds));
        seconds.map(Duration::from_secs).ok_or_else(|| odd(key, "1 to 3600 seconds", value))
    }
}

fn attachments(value: &Value) -> Result<Vec<(String, String)>, CniError> {
    let wrong = || odd(VALID, "a list of containerID and ifname", value);
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let one = |entry: &Value| Some((text(entry, "containerID")?, text(entry, "ifname")?));
    value.as_array().and_then(|list| list.iter().map(one).collect()).ok_or_else(wrong)
}

fn odd(key: &str, wanted: &str, value: &Value) -> CniError {
    wrong(format!("{key} must be {wanted}, not {value}"))
}

fn wrong(text: impl Into<String>) -> CniError {
    CniError::new(error::CONFIG, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> CniError {
        NetConf::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn defaults_are_flannels() {
        let conf = NetConf::parse(br#"{"name":"cbr0","type":"flannel"}"#).unwrap();
        assert_eq!(conf.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
        assert_eq!(conf.data_dir.to_str(), Some("/var/lib/cni/flannel"));
        assert_eq!((conf.version.as_str(), conf.patience.as_secs(), conf.valid), ("", 60, None));
    }

    #[test]
    fn keys_count_in_any_case_and_the_last_one_wins() {
        let text = br#"{"NAME":"a","subnetfile":"/x","SubnetFile":"/y","dataDir":null,"runDir":"/r",
            "delegateTimeout":5,"Delegate":{"bridge":"b"},"cni.dev/valid-attachments":[{"containerID":"c","ifname":"i"}]}"#;
        let conf = NetConf::parse(text).unwrap();
        assert_eq!((conf.name.as_str(), conf.subnet_file.to_str()), ("a", Some("/y")));
        assert_eq!((conf.run_dir.to_str(), conf.patience.as_secs()), (Some("/r"), 5));
        assert_eq!(conf.delegate["bridge"], "b");
        assert_eq!(conf.valid, Some(vec![("c".to_owned(), "i".to_owned())]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, code, word) in [
            ("", error::DECODE, "network config"),
            ("[]", error::DECODE, "network config"),
            ("{}", error::CONFIG, "network name"),
            (r#"{"name":"../x"}"#, error::CONFIG, "network name"),
            (r#"{"name":7}"#, error::CONFIG, "name must be text"),
            (r#"{"name":"a","delegate":{"type":7}}"#, error::CONFIG, "(string) 'type'"),
            (r#"{"name":"a","delegate":{"name":"b"}}"#, error::CONFIG, "'name'"),
            (r#"{"name":"a","delegate":{"ipam":{}}}"#, error::CONFIG, "'ipam'"),
            (r#"{"name":"a","ipam":[]}"#, error::CONFIG, "ipam must be an object"),
            (r#"{"name":"a","delegateTimeout":0}"#, error::CONFIG, "delegateTimeout"),
            (r#"{"name":"a","cni.dev/valid-attachments":[7]}"#, error::CONFIG, "valid-attachments"),
        ] {
            let error = refused(text);
            assert!(error.code == code && error.msg.contains(word), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(NetConf::parse(&bytes));
        }

        #[test]
        fn any_value_of_any_key_is_read_or_refused(
            key in "name|delegate|ipam|runDir|delegateTimeout|cni\\.dev/valid-attachments",
            value in r#"(null|-?[1-9][0-9]{0,17}|"[a-z/.]{0,5}"|\[\]|\{\}|\[\{"containerID":"a"\}\])"#,
        ) {
            let read = NetConf::parse(format!(r#"{{"name":"a","{key}":{value}}}"#).as_bytes());
            prop_assert!(read.map_or_else(|error| error.code == error::CONFIG, |conf| is_name(&conf.name)));
        }
    }
}
