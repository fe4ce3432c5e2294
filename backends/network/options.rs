//! `Backend`: an object whose keys only the backend understands.

use serde_json::{Map, Value};

use super::bad;
use crate::fault::Fault;
use crate::json::scalar;

/// Typed reads of the backend's own keys. Keys match in any case, a null counts as absent.
#[derive(Debug, Clone, Copy)]
pub struct BackendOptions<'a>(Option<&'a Map<String, Value>>);

impl<'a> BackendOptions<'a> {
    pub(super) const fn new(object: Option<&'a Map<String, Value>>) -> Self {
        Self(object)
    }

    /// `Type` in lower case. `None` if there is none, or an empty one.
    #[must_use]
    pub fn kind(&self) -> Option<String> {
        self.text("Type").ok().flatten().map(str::to_ascii_lowercase)
    }

    /// A whole number that fits `T`.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::fault::Code::BadConfig) naming the key: it has another type, or does not fit.
    pub fn uint<T: TryFrom<u64>>(&self, name: &str, default: T) -> Result<T, Fault> {
        let expected = format!("a whole number below 2^{}", 8 * size_of::<T>());
        let value = self.read(name, &expected, |value| T::try_from(value.as_u64()?).ok())?;
        Ok(value.unwrap_or(default))
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::fault::Code::BadConfig) naming the key: it has another type.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool, Fault> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text that is not empty.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::fault::Code::BadConfig) naming the key: it has another type.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        Ok(self.read(name, "a string", Value::as_str)?.filter(|text| !text.is_empty()))
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let fields = self.0.into_iter().flatten();
        scalar(fields, name, expected, read).map_err(|cause| bad(format!("Backend.{cause}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(text: &str, read: impl Fn(BackendOptions<'_>) -> Result<T, Fault>) -> Result<T, String> {
        let object: Map<String, Value> = serde_json::from_str(text).unwrap();
        read(BackendOptions::new(Some(&object))).map_err(|fault| fault.cause)
    }

    #[test]
    fn options_have_types_ranges_and_defaults() {
        let vni = |text: &str| with(text, |o| o.uint("VNI", 1_u32));
        assert_eq!(vni("{}"), Ok(1));
        assert_eq!(vni(r#"{"vni":7}"#), Ok(7));
        assert_eq!(vni(r#"{"VNI":null}"#), Ok(1));
        assert_eq!(vni(r#"{"VNI":3,"vni":4}"#), Ok(4));
        assert_eq!(vni(r#"{"vni":4,"VNI":3}"#), Ok(3));
        for value in ["\"7\"", "7.0", "-7", "4294967296", "[7]", "true"] {
            assert_eq!(
                vni(&format!(r#"{{"VNI":{value}}}"#)),
                Err(format!("Backend.VNI is {value}; expected a whole number below 2^32"))
            );
        }
        assert_eq!(with(r#"{"Port":65535}"#, |o| o.uint("Port", 0_u16)), Ok(65535));
        assert!(with(r#"{"Port":65536}"#, |o| o.uint("Port", 0_u16)).is_err());
        assert_eq!(with(r#"{"GBP":true}"#, |o| o.bool("gbp", false)), Ok(true));
        assert_eq!(with("{}", |o| o.bool("Learning", true)), Ok(true));
        assert_eq!(
            with(r#"{"GBP":"true"}"#, |o| o.bool("GBP", false)),
            Err(r#"Backend.GBP is "true"; expected true or false"#.to_owned())
        );
    }

    #[test]
    fn the_type_is_read_in_lower_case() {
        let kind = |text| with(text, |o| Ok(o.kind())).unwrap();
        assert_eq!(kind(r#"{"Type":"VXLAN"}"#).as_deref(), Some("vxlan"));
        assert_eq!(kind(r#"{"type":"Host-GW"}"#).as_deref(), Some("host-gw"));
        assert_eq!(kind(r#"{"Type":""}"#), None);
        assert_eq!(kind("{}"), None);
        assert_eq!(BackendOptions::new(None).kind(), None);
        assert_eq!(BackendOptions::new(None).uint("VNI", 1_u32), Ok(1));
    }
}
