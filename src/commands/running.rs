//! The agent that runs on this host: what it was told, so that who only looks need not be told again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::cli::{self, Command, Env};
use crate::config::{Config, Site};

/// An agent that runs, and what it was told.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    /// Its command line, as typed.
    pub(super) args: Vec<OsString>,
    /// Its variables, as far as they are flags.
    pub(super) env: Env,
    pub(super) config: Config,
}

/// The running agent of this fabric; `None` if none runs, or if it may not be looked at.
pub(super) fn find(site: &Site) -> Option<Running> {
    let pid = fs::read_to_string(site.run_dir().join("lock")).ok()?;
    let pid: u32 = pid.trim().parse().ok()?;
    let running = told(pid, &PathBuf::from(format!("/proc/{pid}")))?;
    // The number of an agent that died may be another program's by now, or another fabric's.
    (running.config.site.run_dir() == site.run_dir()).then_some(running)
}

/// What the running agent of this fabric was told.
pub(super) fn config(site: &Site) -> Option<Config> {
    find(site).map(|running| running.config)
}

/// What these flags say if any were `typed`, else what the running agent was told, if one runs.
pub(super) fn or_typed(typed: bool, config: Config) -> Config {
    if typed { config } else { self::config(&config.site).unwrap_or(config) }
}

fn told(pid: u32, process: &Path) -> Option<Running> {
    let args = words(&fs::read(process.join("cmdline")).ok()?);
    let environ = words(&fs::read(process.join("environ")).ok()?);
    let pairs = environ.into_iter().filter_map(|pair| {
        let pair = pair.into_string().ok()?;
        let (name, value) = pair.split_once('=')?;
        Some((OsString::from(name), OsString::from(value)))
    });
    let env = cli::environment(pairs);
    match cli::parse(&args, &env) {
        Ok(Command::Agent(config)) => Some(Running { pid, args, env, config }),
        Ok(_) | Err(_) => None,
    }
}

fn words(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(cmdline: &str, environ: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cmdline"), cmdline).unwrap();
        fs::write(dir.path().join("environ"), environ).unwrap();
        dir
    }

    #[test]
    fn an_agent_is_understood_under_both_its_names() {
        let ours = process("/usr/bin/twill\0agent\0--iface\0eth1\0", "PATH=/bin\0TWILL_IP_MASQ=true\0");
        let Running { config, args, env, .. } = told(7, ours.path()).unwrap();
        assert_eq!((config.interface.names, config.filter.masquerade), (vec!["eth1".to_owned()], true));
        assert_eq!(
            (args.len(), env.keys().map(String::as_str).collect::<Vec<_>>()),
            (4, vec!["TWILL_IP_MASQ"])
        );
        let theirs = process("/opt/flanneld\0-iface=eth2\0", "FLANNELD_IP_MASQ=true\0TWILL_IFACE=eth9\0");
        let config = told(8, theirs.path()).unwrap().config;
        assert_eq!((config.interface.names, config.filter.masquerade), (vec!["eth2".to_owned()], true));
    }

    #[test]
    fn another_program_is_no_agent() {
        for cmdline in ["sleep\x00600\0", "twill\0status\0", ""] {
            assert!(told(1, process(cmdline, "").path()).is_none(), "{cmdline:?}");
        }
        assert!(told(1, Path::new("/nonexistent")).is_none());
    }
}
