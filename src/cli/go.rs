//! Go's `flag` package: how flanneld's command line is cut up, and how its values are spelled.

use std::num::IntErrorKind;

use thiserror::Error;

use super::table::{FlagRow, Kind, find};

/// What a Go command line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Flags in the order typed; a repeated one occurs again.
    pub(super) given: Vec<(&'static FlagRow, String)>,
    /// The first argument that is no flag. Go stops there, and flanneld never looks at what follows.
    pub(super) stopped_at: Option<String>,
}

/// Why a Go command line ends in the usage text.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ScanError {
    /// `-h` or `-help`.
    #[error("flag: help requested")]
    Help,
    /// Neither a name nor `--`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The last argument, and its flag needs a value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A value joined to a boolean flag.
    #[error("invalid boolean value {value:?} for -{name}: {source}")]
    Boolean { name: String, value: String, source: ValueError },
    /// A value of any other flag.
    #[error("invalid value {value:?} for flag -{name}: {source}")]
    Value { name: String, value: String, source: ValueError },
}

/// Why a value is none, in Go's words.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum ValueError {
    /// Not a value of this kind.
    #[error("parse error")]
    Parse,
    /// An integer that does not fit 64 bits.
    #[error("value out of range")]
    Range,
}

/// Cuts `args` (without the program's name) up as Go does: `-name` and `--name` are the same, `=` joins a
/// value, a boolean takes no other, and the first argument that is no flag ends it.
pub(super) fn scan(args: &[String]) -> Result<Scan, ScanError> {
    let mut given = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(dashed) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Ok(Scan { given, stopped_at: Some(arg.clone()) });
        };
        if dashed == "-" {
            let stopped_at = args.next().cloned();
            return Ok(Scan { given, stopped_at });
        }
        let body = dashed.strip_prefix('-').unwrap_or(dashed);
        if body.starts_with(['-', '=']) {
            return Err(ScanError::Syntax(arg.clone()));
        }
        let (name, joined) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(row) = find(name) else {
            return Err(if matches!(name, "h" | "help") {
                ScanError::Help
            } else {
                ScanError::Unknown(name.to_owned())
            });
        };
        let value = match (row.kind, joined) {
            (_, Some(value)) => value,
            (Kind::Bool, None) => "true".to_owned(),
            (Kind::Int | Kind::Text | Kind::List, None) => {
                args.next().cloned().ok_or_else(|| ScanError::NoValue(name.to_owned()))?
            }
        };
        row.kind.check(&value).map_err(|source| rejected(row, &value, source))?;
        given.push((row, value));
    }
    Ok(Scan { given, stopped_at: None })
}

fn rejected(row: &FlagRow, value: &str, source: ValueError) -> ScanError {
    let (name, value) = (row.name.to_owned(), value.to_owned());
    match row.kind {
        Kind::Bool => ScanError::Boolean { name, value, source },
        Kind::Int | Kind::Text | Kind::List => ScanError::Value { name, value, source },
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(ValueError::Parse),
    }
}

/// Go's `strconv.ParseInt` with base 0: `0x`, `0o`, `0b` and a bare `0` choose the base, `_` may separate digits.
pub(super) fn int(text: &str) -> Result<i64, ValueError> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, body) = base(digits);
    if !separated(digits) || !body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(ValueError::Parse);
    }
    let body = body.replace('_', "");
    // A lone "0" chooses base 8 and leaves nothing, which Go reads as zero.
    let body = if body.is_empty() && digits == "0" { "0" } else { body.as_str() };
    let magnitude = i128::from_str_radix(body, base).map_err(|error| {
        if *error.kind() == IntErrorKind::PosOverflow { ValueError::Range } else { ValueError::Parse }
    })?;
    i64::try_from(sign * magnitude).map_err(|_| ValueError::Range)
}

fn base(digits: &str) -> (u32, &str) {
    let bytes = digits.as_bytes();
    match (bytes.first(), bytes.get(1).map(u8::to_ascii_lowercase), digits.get(2..)) {
        (Some(b'0'), Some(b'x'), Some(body)) if !body.is_empty() => (16, body),
        (Some(b'0'), Some(b'o'), Some(body)) if !body.is_empty() => (8, body),
        (Some(b'0'), Some(b'b'), Some(body)) if !body.is_empty() => (2, body),
        (Some(b'0'), _, _) => (8, &digits[1..]),
        _ => (10, digits),
    }
}

/// Whether each `_` stands between two digits, a base prefix counting as one.
fn separated(digits: &str) -> bool {
    !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Scanned = (Vec<(&'static str, String)>, Option<String>);

    fn scanned(line: &[&str]) -> Result<Scanned, String> {
        let args: Vec<String> = line.iter().map(|arg| (*arg).to_owned()).collect();
        let scan = scan(&args).map_err(|error| error.to_string())?;
        Ok((scan.given.into_iter().map(|(row, value)| (row.name, value)).collect(), scan.stopped_at))
    }

    #[test]
    fn flags_are_cut_as_go_cuts_them() {
        type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], Option<&'static str>);
        let rows: &[Row] = &[
            (&[], &[], None),
            (&["-etcd-prefix", "/x"], &[("etcd-prefix", "/x")], None),
            (&["--etcd-prefix", "/x"], &[("etcd-prefix", "/x")], None),
            (&["-etcd-prefix=/x"], &[("etcd-prefix", "/x")], None),
            (&["--etcd-prefix=a=b"], &[("etcd-prefix", "a=b")], None),
            (&["-etcd-prefix="], &[("etcd-prefix", "")], None),
            (&["-etcd-prefix", "-v"], &[("etcd-prefix", "-v")], None),
            (&["-ip-masq"], &[("ip-masq", "true")], None),
            (&["-ip-masq=F"], &[("ip-masq", "F")], None),
            (&["-ip-masq", "false"], &[("ip-masq", "true")], Some("false")),
            (&["-ip-masq", "true", "-etcd-prefix", "/x"], &[("ip-masq", "true")], Some("true")),
            (&["-v", "1", "--", "-v=2"], &[("v", "1")], Some("-v=2")),
            (&["-v=1", "--"], &[("v", "1")], None),
            (&["-", "-v=1"], &[], Some("-")),
            (&["", "-v=1"], &[], Some("")),
            (&["-iface", "a,b", "-iface=c"], &[("iface", "a,b"), ("iface", "c")], None),
            (&["-v=1", "-v=2"], &[("v", "1"), ("v", "2")], None),
            (&["-log_backtrace_at=a.go:1"], &[("log_backtrace_at", "a.go:1")], None),
            (&["-store=file:/x"], &[("store", "file:/x")], None),
        ];
        for (line, given, stopped) in rows {
            let given = given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            assert_eq!(scanned(line), Ok((given, stopped.map(str::to_owned))), "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_reported_in_gos_words() {
        let rows: &[(&[&str], &str)] = &[
            (&["-h"], "flag: help requested"),
            (&["--help"], "flag: help requested"),
            (&["-help=x"], "flag: help requested"),
            (&["-nope"], "flag provided but not defined: -nope"),
            (&["--nope=1"], "flag provided but not defined: -nope"),
            (&["---v"], "bad flag syntax: ---v"),
            (&["-=v"], "bad flag syntax: -=v"),
            (&["--=v"], "bad flag syntax: --=v"),
            (&["-etcd-prefix"], "flag needs an argument: -etcd-prefix"),
            (&["-v=x"], "invalid value \"x\" for flag -v: parse error"),
            (&["-v", ""], "invalid value \"\" for flag -v: parse error"),
            (
                &["-healthz-port=9223372036854775808"],
                "invalid value \"9223372036854775808\" for flag -healthz-port: value out of range",
            ),
            (&["-ip-masq=yes"], "invalid boolean value \"yes\" for -ip-masq: parse error"),
            (&["-ip-masq="], "invalid boolean value \"\" for -ip-masq: parse error"),
        ];
        for (line, want) in rows {
            assert_eq!(scanned(line), Err((*want).to_owned()), "{line:?}");
        }
    }

    #[test]
    fn booleans_have_twelve_spellings() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "no", "on", "tRUE", " true"] {
            assert_eq!(boolean(text), Err(ValueError::Parse), "{text}");
        }
    }

    #[test]
    fn integers_carry_their_base() {
        let rows = [
            ("0", 0),
            ("-0", 0),
            ("+5", 5),
            ("-5", -5),
            ("60", 60),
            ("0x10", 16),
            ("0X1f", 31),
            ("0o17", 15),
            ("0b101", 5),
            ("017", 15),
            ("00", 0),
            ("1_000", 1000),
            ("0x_10", 16),
            ("0_7", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, want) in rows {
            assert_eq!(int(text), Ok(want), "{text}");
        }
        for text in [
            "", "-", "+", "x", "1.5", "08", "0x", "0b2", "0o8", "_1", "1_", "1__0", "0x1_", "--1", "-+1",
            "0x-1", " 1", "1 ", "1e3", "é",
        ] {
            assert_eq!(int(text), Err(ValueError::Parse), "{text}");
        }
        let huge = "9".repeat(60);
        for text in ["9223372036854775808", "-9223372036854775809", "0xffffffffffffffff", huge.as_str()] {
            assert_eq!(int(text), Err(ValueError::Range), "{text}");
        }
    }
}
