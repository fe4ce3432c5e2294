//! The versions of CNI that are spoken.

use serde_json::{Value, json};

use super::error::{self, CniError};

/// All of them, oldest first: those of flannel's plugin.
pub const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The first version with CHECK.
pub const CHECK: &str = "0.4.0";
/// The first version with STATUS and GC.
pub const STATUS: &str = "1.1.0";

/// Makes sure that a configuration of this version is understood and that the version has the verb, which came with
/// `since`. A configuration without a version is of 0.1.0.
///
/// # Errors
/// Code 1, with the versions that would do.
pub fn require(version: &str, verb: &str, since: &str) -> Result<(), CniError> {
    let version = if version.is_empty() { SUPPORTED[0] } else { version };
    let place = |wanted: &str| SUPPORTED.iter().position(|known| *known == wanted);
    match (place(version), place(since)) {
        (None, _) => Err(CniError {
            code: error::VERSION,
            msg: "incompatible CNI versions".to_owned(),
            details: format!("config is \"{version}\", plugin supports {SUPPORTED:?}"),
        }),
        (Some(have), Some(need)) if have < need => Err(CniError {
            code: error::VERSION,
            msg: format!("config version does not allow {verb}"),
            details: format!("config is \"{version}\", {verb} came with {since}"),
        }),
        (Some(_), _) => Ok(()),
    }
}

/// Whether another plugin's answer to VERSION has this version.
#[must_use]
pub fn is_in(answer: &[u8], version: &str) -> bool {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let supported = answer["supportedVersions"].as_array();
    supported.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(version)))
}

/// The answer to VERSION.
#[must_use]
pub fn answer() -> String {
    json!({ "cniVersion": SUPPORTED[SUPPORTED.len() - 1], "supportedVersions": SUPPORTED }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_versions() {
        for (version, since, fits) in [
            ("", SUPPORTED[0], true),
            ("0.1.0", SUPPORTED[0], true),
            ("1.1.0", SUPPORTED[0], true),
            ("1.1", SUPPORTED[0], false),
            ("1.2.0", SUPPORTED[0], false),
            ("0.3.1", CHECK, false),
            ("", CHECK, false),
            ("0.4.0", CHECK, true),
            ("1.0.0", STATUS, false),
            ("1.1.0", STATUS, true),
        ] {
            let answer = require(version, "VERB", since);
            assert_eq!(answer.is_ok(), fits, "{version} {since}: {answer:?}");
            assert!(answer.is_ok() || answer.is_err_and(|error| error.code == error::VERSION));
        }
    }

    #[test]
    fn another_plugins_answer_is_read() {
        assert!(is_in(answer().as_bytes(), STATUS));
        for said in ["", "7", "{}", r#"{"supportedVersions":7}"#, r#"{"supportedVersions":["1.0.0"]}"#] {
            assert!(!is_in(said.as_bytes(), STATUS), "{said}");
        }
    }

    #[test]
    fn the_answer_is_flannels() {
        let text = r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        assert_eq!(answer(), text);
    }
}
