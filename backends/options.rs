//! Reading JSON objects as flannel does: keys in any case, `null` as if absent, no conversion between types.

use serde_json::{Map, Value};

/// The keys of a backend's configuration, or of a lease's backend data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a>(Option<&'a Map<String, Value>>);

impl<'a> Options<'a> {
    /// The keys of `map`.
    pub(crate) const fn of(map: &'a Map<String, Value>) -> Self {
        Self(Some(map))
    }

    /// The keys of a value that may be absent or no object: none then.
    pub(crate) fn of_value(value: Option<&'a Value>) -> Self {
        Self(value.and_then(Value::as_object))
    }

    /// A number of at most `max`.
    pub(crate) fn number(&self, key: &str, max: u32) -> Result<Option<u32>, String> {
        self.get(key)
            .map(|value| {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
                number.ok_or_else(|| format!("`{key}` is {value}, not a number from 0 to {max}"))
            })
            .transpose()
    }

    /// A truth value; false when absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, String> {
        self.get(key).map_or(Ok(false), |value| {
            value.as_bool().ok_or_else(|| format!("`{key}` is {value}, neither true nor false"))
        })
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| format!("`{key}` is {value}, not a string")))
            .transpose()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        let mut last_first = self.0?.iter().rev();
        last_first.find(|(name, value)| name.eq_ignore_ascii_case(key) && !value.is_null()).map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_types_are_not_converted() {
        let value = json!({"vni": 7, "MTU": "1500", "gbp": true, "Port": -1, "Learning": 1, "Big": 16777216,
            "Float": 1.0, "Null": null, "Type": "vxlan"});
        let options = Options::of_value(Some(&value));
        assert_eq!(options.number("VNI", 9), Ok(Some(7)));
        assert_eq!(options.number("Absent", 9), Ok(None));
        assert_eq!(options.number("Null", 9), Ok(None));
        for key in ["MTU", "Port", "Big", "Float"] {
            assert!(options.number(key, 65_535).is_err(), "{key}");
        }
        assert_eq!(options.flag("GBP"), Ok(true));
        assert_eq!(options.flag("Absent"), Ok(false));
        assert!(options.flag("Learning").is_err());
        assert_eq!(options.text("type"), Ok(Some("vxlan")));
        assert!(options.text("VNI").is_err());
        assert_eq!(Options::of_value(Some(&json!("text"))).text("Type"), Ok(None));
    }
}
