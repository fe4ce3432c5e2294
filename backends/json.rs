//! JSON objects read as Go's `encoding/json` reads them into a struct, which is how flanneld reads ours.
//!
//! Names match whatever their case (ASCII only: Go's two Unicode foldings are nobody's spelling), unknown names are
//! ignored, and fields count in order, so that of two with one name the later wins, also when they differ in case.
//! Every one of them must have the right type.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The fields of an object in the order they were written, duplicates included.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads one object and nothing after it.
    ///
    /// # Errors
    /// In words: it is not JSON, not an object, or something follows it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// The value of a field whose type has no null: a null leaves what an earlier field said.
    pub(crate) fn scalar<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        scalar(self.iter(), name, expected, read)
    }

    /// The value of a field whose type decides itself what a null is.
    pub(crate) fn custom<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        last(named(self.iter(), name), name, expected, read)
    }

    /// The value of a field that may be any JSON, null included.
    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        named(self.iter(), name).last()
    }

    fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

/// What [`Fields::scalar`] does, for fields from elsewhere.
pub(crate) fn scalar<'a, T>(
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
    name: &str,
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, String> {
    last(named(fields, name).filter(|value| !value.is_null()), name, expected, read)
}

fn named<'a>(
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
    name: &str,
) -> impl Iterator<Item = &'a Value> {
    fields.filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn last<'a, T>(
    values: impl Iterator<Item = &'a Value>,
    name: &str,
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let mut found = None;
    for value in values {
        found = Some(read(value).ok_or_else(|| mismatch(name, expected, value))?);
    }
    Ok(found)
}

/// `Port is "x"; expected a whole number`.
fn mismatch(name: &str, expected: &str, value: &Value) -> String {
    format!("{name} is {}; expected {expected}", brief(&value.to_string()))
}

/// At most 80 characters of a text that somebody else wrote.
pub(crate) fn brief(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<Option<u64>, String> {
        Fields::parse(text.as_bytes())?.scalar("Port", "a whole number", Value::as_u64)
    }

    #[test]
    fn the_last_of_several_fields_counts_whatever_their_case() {
        assert_eq!(number(r#"{"Port":1,"port":2}"#), Ok(Some(2)));
        assert_eq!(number(r#"{"PORT":3,"x":9,"Port":1}"#), Ok(Some(1)));
        assert_eq!(number(r#"{"Port":1,"Port":null}"#), Ok(Some(1)));
        assert_eq!(number(r#"{"Ports":1}"#), Ok(None));
    }

    #[test]
    fn every_field_must_have_the_right_type() {
        for wrong in [r#""1""#, "1.0", "-1", "true", "[]", "{}", "18446744073709551616"] {
            let error = number(&format!(r#"{{"Port":{wrong},"port":1}}"#)).unwrap_err();
            assert!(error.starts_with("Port is ") && error.ends_with("; expected a whole number"), "{error}");
        }
    }

    #[test]
    fn only_one_object_is_read() {
        for text in ["", "null", "[]", "1", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":1}{}"#, "{'a':1}"] {
            assert!(Fields::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Fields::parse(b" {} \n"), Ok(Fields::default()));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(brief(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(brief(&"é".repeat(81)), format!("{}...", "é".repeat(80)));
    }
}
