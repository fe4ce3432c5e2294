//! Every flag and variable, in Twill's spelling and in flanneld's.
//!
//! [`parse`] is pure: arguments and environment in, a [`Command`] or an [`Exit`] out. Which spelling is read
//! depends on the name the binary was started under: `flanneld` means Go's flag syntax and `FLANNELD_*`
//! variables, any other name subcommands and `TWILL_*`. Both fill the same `AgentArgs`, from which
//! `resolve` makes the configuration.

mod args;
mod bench;
mod bundle;
mod command;
mod demo;
mod doctor;
mod flanneld;
mod generate;
mod go;
mod looks;
mod migrate;
mod resolve;
mod table;
mod twill;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

pub use command::{Command, Fabric, Generate, Owner, Release};
pub use generate::{CompletionShell, Page, completions, manual};
pub use table::{FLANNELD_FLAGS, Fate, FlagRow, Kind, TWILL_FLAGS};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// The end of the program before it began: a text, where it goes, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Whole lines.
    pub text: String,
    /// Where it goes.
    pub stream: Stream,
    /// The process's exit code.
    pub code: u8,
}

/// Where a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// It was asked for.
    Stdout,
    /// It was not.
    Stderr,
}

impl Exit {
    /// Bad usage of `twill`: EX_USAGE of sysexits.h.
    pub const USAGE: u8 = 64;

    /// Writes the text to the one of the two it is for.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        match self.stream {
            Stream::Stdout => out.write_all(self.text.as_bytes()).and_then(|()| out.flush()),
            Stream::Stderr => err.write_all(self.text.as_bytes()).and_then(|()| err.flush()),
        }
    }

    fn stdout(text: String) -> Self {
        Self { text, stream: Stream::Stdout, code: 0 }
    }

    fn stderr(text: String, code: u8) -> Self {
        Self { text, stream: Stream::Stderr, code }
    }
}

/// The process's variables that can matter to [`parse`]. A value that is not UTF-8 keeps its readable part.
pub fn environment(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Env {
    vars.into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with("TWILL_") || name.starts_with("FLANNELD_"))
        .collect()
}

/// Reads a command line; `args` begins with the program's name.
///
/// # Errors
/// Help and version texts, and whatever is wrong with the line: each a complete [`Exit`].
pub fn parse(args: &[OsString], env: &Env) -> Result<Command, Exit> {
    let mut texts = Vec::with_capacity(args.len());
    for arg in args {
        let Some(text) = arg.to_str() else {
            let text = format!("the argument {arg:?} is not UTF-8\n");
            return Err(Exit::stderr(text, Exit::USAGE));
        };
        texts.push(text.to_owned());
    }
    let (program, rest) =
        texts.split_first().map_or(("twill", &[][..]), |(first, rest)| (first.as_str(), rest));
    if Path::new(program).file_name().is_some_and(|name| name == "flanneld") {
        flanneld::parse(program, rest, env)
    } else {
        twill::parse(rest, env)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    /// Words of both spellings, whole and in pieces, and anything else.
    fn word() -> impl Strategy<Value = OsString> {
        let names: Vec<&str> = table::rows().map(|row| row.name).collect();
        let verbs = [
            "agent", "plan", "cleanup", "doctor", "bundle", "explain", "status", "config", "set", "get",
            "lease", "reserve", "release",
        ];
        prop_oneof![
            prop::sample::select(verbs.to_vec()).prop_map(OsString::from),
            ("-{0,3}", prop::sample::select(names), "(=.{0,8})?")
                .prop_map(|(dashes, name, value)| format!("{dashes}{name}{value}").into()),
            "[-=0-9a-z:/.]{0,12}".prop_map(OsString::from),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec),
        ]
    }

    proptest! {
        #[test]
        fn no_line_panics_and_every_exit_says_something(
            words in prop::collection::vec(word(), 0..6),
            name in prop::sample::select(vec!["twill", "flanneld"]),
            port in ".{0,8}",
        ) {
            let args: Vec<_> = std::iter::once(name.into()).chain(words).collect();
            let env = ["TWILL_HEALTHZ_PORT", "FLANNELD_HEALTHZ_PORT"].map(|name| (name.into(), port.clone()));
            if let Err(exit) = parse(&args, &env.into()) {
                prop_assert!(exit.text.ends_with('\n'));
                prop_assert_eq!(exit.stream == Stream::Stdout && exit.code != 0, false);
            }
        }
    }

    #[test]
    fn the_name_of_the_binary_chooses_the_spelling() {
        let line = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            parse(&args, &Env::new())
        };
        for name in ["flanneld", "/opt/bin/flanneld", "./flanneld"] {
            assert!(matches!(line(&[name, "-v", "1"]), Ok(Command::Agent(_))), "{name}");
        }
        for name in ["twill", "/opt/flanneld/twill", "flanneld2", ""] {
            assert_eq!(line(&[name, "-v", "1"]).unwrap_err().code, Exit::USAGE, "{name}");
            assert!(matches!(line(&[name, "version"]), Ok(Command::Version)), "{name}");
        }
        assert_eq!(line(&[]).unwrap_err().code, Exit::USAGE);
    }

    #[test]
    fn an_argument_that_is_not_text_is_bad_usage() {
        let args = ["twill".into(), OsString::from_vec(vec![0xff])];
        let exit = parse(&args, &Env::new()).unwrap_err();
        assert_eq!((exit.code, exit.stream), (Exit::USAGE, Stream::Stderr));
    }

    #[test]
    fn only_variables_of_the_two_prefixes_are_kept() {
        let vars = [("TWILL_STORE", "etcd"), ("FLANNELD_V", "1"), ("HOME", "/root"), ("XTWILL_A", "1")];
        let env = environment(vars.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(env.keys().map(String::as_str).collect::<Vec<_>>(), ["FLANNELD_V", "TWILL_STORE"]);
    }

    #[test]
    fn an_exit_goes_where_it_says() {
        for (exit, want) in
            [(Exit::stdout("a\n".into()), ("a\n", "")), (Exit::stderr("b\n".into(), 2), ("", "b\n"))]
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            exit.write(&mut out, &mut err).unwrap();
            assert_eq!((out.as_slice(), err.as_slice()), (want.0.as_bytes(), want.1.as_bytes()));
        }
    }
}
