//! The forms in which programs write a secret.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret as it is, escaped, as numbers, and encoded, alone or within something longer.
pub(super) fn of(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([secret.to_vec()]);
    if let Ok(text) = std::str::from_utf8(secret) {
        let escaped = escaped(text);
        // A lease's value is JSON; in a log it is a string of its own.
        forms.extend(
            [escaped.clone(), self::escaped(&escaped), format!("{text:?}").trim_matches('"').into()]
                .map(String::into_bytes),
        );
    }
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.extend([hex.to_ascii_uppercase(), hex].map(String::into_bytes));
    let numbers = secret.iter().map(u8::to_string).collect::<Vec<_>>();
    forms.extend([numbers.join(", "), numbers.join(","), numbers.join(" ")].map(String::into_bytes));
    let percent = percent(secret);
    forms.extend([percent.to_ascii_lowercase(), percent].map(String::into_bytes));
    for shift in 0..3 {
        forms.extend(
            [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| core(engine, secret, shift).into_bytes()),
        );
    }
    forms
}

/// As within a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// As in a URL.
fn percent(secret: &[u8]) -> String {
    let character = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    secret.iter().map(character).collect()
}

/// The base64 of the secret where it begins so many bytes after a multiple of three, without the characters that depend on
/// what stands beside it.
fn core(engine: &impl Engine, secret: &[u8], shift: usize) -> String {
    let padded = [&[0; 3][..shift], secret].concat();
    let text = engine.encode(&padded);
    let (from, to) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
    text.get(from..to).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_something_encoded_is_found_wherever_it_begins() {
        let secret = b"Xyzzy7-plugh9";
        for before in ["", "a", "ab", "root:", "roots:"] {
            for after in ["", "z", "zz", "zzz"] {
                let whole = [before.as_bytes(), secret, after.as_bytes()].concat();
                for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let text = engine.encode(&whole);
                    let found = of(secret)
                        .iter()
                        .any(|form| form != secret && text.contains(std::str::from_utf8(form).unwrap()));
                    assert!(found, "{before} {after}: {text}");
                }
            }
        }
    }

    #[test]
    fn each_way_of_writing_it_is_a_form() {
        let forms: BTreeSet<String> =
            of(br#"a"b\/ ?"#).into_iter().map(|form| String::from_utf8(form).unwrap()).collect();
        for form in [
            r#"a"b\/ ?"#,
            r#"a\"b\\/ ?"#,
            r#"a\\\"b\\\\/ ?"#,
            "6122625c2f203f",
            "6122625C2F203F",
            "97, 34, 98, 92, 47, 32, 63",
            "97,34,98,92,47,32,63",
            "a%22b%5C%2F%20%3F",
            "a%22b%5c%2f%20%3f",
            "YSJiXC8gPw"[..9].trim_end(),
        ] {
            assert!(forms.contains(form), "{form} is not among {forms:?}");
        }
    }
}
