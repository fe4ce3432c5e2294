//! What a CNI plugin answers when it cannot do what it was asked.

use serde_json::{Value, json};

/// A number that runtimes act on, from the CNI specification; from 100 on a plugin's own.
pub type Code = u32;

/// The configuration's version is not one that is spoken.
pub const VERSION: Code = 1;
/// The container is not known.
pub const UNKNOWN: Code = 3;
/// An environment variable is missing or wrong.
pub const ENVIRONMENT: Code = 4;
/// Reading or writing failed.
pub const IO: Code = 5;
/// Text does not decode.
pub const DECODE: Code = 6;
/// The network configuration is wrong.
pub const CONFIG: Code = 7;
/// `CNI_NETNS` is the host's own namespace.
pub const NAMESPACE: Code = 8;
/// What is missing comes by itself: the runtime is to try again.
pub const AGAIN: Code = 11;
/// No container can be attached at the moment.
pub const UNAVAILABLE: Code = 50;
/// Anything else; flannel's plugin uses it for all of its own errors.
pub const OTHER: Code = 999;

/// The answer to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// What runtimes act on.
    pub code: Code,
    /// What people read: the cause and the next step.
    pub msg: String,
    /// More of it; empty as a rule.
    pub details: String,
}

impl CniError {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// What a delegate printed when it failed, if it is an error of this form.
    #[must_use]
    pub fn parse(printed: &[u8]) -> Option<Self> {
        let said: Value = serde_json::from_slice(printed).ok()?;
        let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = said.get("code")?.as_u64().and_then(|code| Code::try_from(code).ok())?;
        Some(Self { code, msg: text("msg"), details: text("details") })
    }

    /// The JSON for stdout.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = json!({ "code": self.code, "msg": self.msg });
        if !self.details.is_empty() {
            json["details"] = self.details.as_str().into();
        }
        json.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        let plain = CniError::new(OTHER, "no");
        assert_eq!(plain.to_json(), r#"{"code":999,"msg":"no"}"#);
        let detailed = CniError { details: "why".to_owned(), ..plain };
        assert_eq!(CniError::parse(detailed.to_json().as_bytes()), Some(detailed));
    }

    #[test]
    fn other_text_is_no_error_of_cni() {
        for text in ["", "panic: x", "{}", r#"{"code":"7"}"#, r#"{"code":-1}"#, "[7]"] {
            assert_eq!(CniError::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(CniError::parse(&bytes));
        }
    }
}
