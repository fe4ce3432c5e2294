//! flanneld's spelling: Go flags, `FLANNELD_*` variables, and its help and version texts.
//!
//! # Why
//! flanneld exits 0 after a flag it does not know. Twill exits 2, the code of Go's own `flag` package: a
//! supervisor that believes a mistyped unit ran and ended well leaves a host without network.

use super::go::{self, Scan, ScanError};
use super::table::{self, FlagRow, Kind};
use super::{Command, Env, Exit, VERSION, resolve, twill};

const PREFIX: &str = "FLANNELD";

/// Flags a Go parser could not make sense of.
const BAD_FLAGS: u8 = 2;

/// A flag's value nothing can be done with; flanneld's code for every fatal error.
const FATAL: u8 = 1;

/// Reads `args`, without the program's name.
pub(super) fn parse(program: &str, args: &[String], env: &Env) -> Result<Command, Exit> {
    let scan = go::scan(args).map_err(|error| {
        let usage = usage(program);
        if error == ScanError::Help {
            Exit::stderr(usage, 0)
        } else {
            Exit::stderr(format!("{error}\n{usage}"), BAD_FLAGS)
        }
    })?;
    if last(&scan, "version").is_some_and(|value| go::boolean(value) == Ok(true)) {
        return Err(Exit::stderr(format!("v{VERSION}+twill\n"), 0));
    }
    let mut warnings = Vec::new();
    let mut flags = Vec::new();
    for row in table::rows().filter(|row| row.name != "version") {
        let values = values(row, &scan, env, &mut warnings);
        flags.extend(values.into_iter().map(|value| format!("--{}={value}", row.name)));
    }
    if let Some(first) = &scan.stopped_at {
        warnings.push(format!(
            "`{first}` and what follows it is ignored: flags end at the first argument that is none \
             (a boolean's value is joined by =)"
        ));
    }
    let (args, ignored) = twill::agent(&flags).map_err(|error| Exit::stderr(error.to_string(), BAD_FLAGS))?;
    warnings.extend(ignored);
    resolve::config(args, warnings)
        .map(Command::Agent)
        .map_err(|error| Exit::stderr(format!("{program}: {error} [{}]\n", error.code()), FATAL))
}

/// The values in force: all of a list, the last of any other flag, else the variable's.
///
/// # Why
/// A variable that is no value is left out with a warning. flanneld goes on too, but takes 0 for a number it
/// cannot read, which then is no renew margin; here the default stays.
fn values(row: &FlagRow, scan: &Scan, env: &Env, warnings: &mut Vec<String>) -> Vec<String> {
    let given: Vec<&String> =
        scan.given.iter().filter(|(flag, _)| flag.name == row.name).map(|(_, value)| value).collect();
    match (row.kind, given.split_last()) {
        (Kind::List, Some(_)) => return given.into_iter().cloned().collect(),
        (Kind::Bool | Kind::Int | Kind::Text, Some((last, _))) => return vec![(*last).clone()],
        (_, None) => {}
    }
    let name = row.variable(PREFIX);
    let Some(value) = env.get(&name).filter(|value| !value.is_empty()) else { return Vec::new() };
    match row.kind.check(value) {
        Ok(()) => vec![value.clone()],
        Err(error) => {
            warnings.push(format!("{name}={value} is ignored: {error}; the default `{}` holds", row.default));
            Vec::new()
        }
    }
}

fn last<'a>(scan: &'a Scan, name: &str) -> Option<&'a str> {
    scan.given.iter().rev().find(|(row, _)| row.name == name).map(|(_, value)| value.as_str())
}

/// The layout of Go's `PrintDefaults`: sorted by name, text after a tab, only defaults that are not zero values.
fn usage(program: &str) -> String {
    let mut rows: Vec<_> = table::rows().collect();
    rows.sort_by_key(|row| row.name);
    let mut text = format!("Usage: {program} [OPTION]...\n");
    for row in rows {
        let value = match row.kind {
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::Text => " string",
            Kind::List => " value",
        };
        let gap = if row.name.len() + value.len() == 1 { "" } else { "\n    " };
        let default = match (row.kind, row.default) {
            (_, "" | "0" | "false") => String::new(),
            (Kind::Text, default) => format!(" (default {default:?})"),
            (Kind::Bool | Kind::Int | Kind::List, default) => format!(" (default {default})"),
        };
        text.push_str(&format!("  -{}{value}{gap}\t{}{default}\n", row.name, row.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Stream;
    use crate::config::{Config, StoreConfig};

    fn line(args: &[&str], env: &[(&str, &str)]) -> Result<Config, Exit> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let command = parse("/opt/bin/flanneld", &args, &env)?;
        let Command::Agent(config) = command else { panic!("{command:?}") };
        Ok(config)
    }

    fn prefix(config: &Config) -> &str {
        match &config.site.store {
            StoreConfig::Etcd(etcd) => &etcd.prefix,
            StoreConfig::File { .. } => panic!("{config:?}"),
        }
    }

    #[test]
    fn no_flags_are_flannelds_defaults_without_warnings() {
        let config = line(&[], &[]).unwrap();
        let StoreConfig::Etcd(etcd) = &config.site.store else { panic!() };
        assert_eq!(etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!(etcd.prefix, "/coreos.com/network");
        assert_eq!(config.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
        assert_eq!((config.renew_margin.as_secs(), config.resync.as_secs()), (3600, 5));
        assert!(config.filter.forward && config.filter.random_fully && !config.filter.masquerade);
        assert_eq!((config.health, config.verbosity, config.blackhole), (None, 0, false));
        assert_eq!(config.site.warnings, Vec::<String>::new());
    }

    #[test]
    fn gos_spellings_reach_the_configuration() {
        let config = line(&["-subnet-lease-renew-margin", "0x10", "--ip-masq=T", "-v=0b11"], &[]).unwrap();
        assert_eq!((config.renew_margin.as_secs(), config.verbosity), (16 * 60, 3));
        assert!(config.filter.masquerade);
        let config =
            line(&["-etcd-prefix=/a", "-etcd-prefix=/b/", "-ip-masq", "-ip-masq=false"], &[]).unwrap();
        assert_eq!((prefix(&config), config.filter.masquerade), ("/b", false), "the last one holds");
        let config = line(&["-iface=a,b", "-iface", "c", "-iface-regex=^eth", "-iface="], &[]).unwrap();
        assert_eq!(config.interface.names, ["a,b", "c"]);
        assert_eq!(config.interface.patterns.len(), 1);
        let config =
            line(&["-store=file:/srv/f", "-force", "-delete-hold=0", "-firewall=nftables"], &[]).unwrap();
        assert!(config.force && config.delete_hold.is_zero());
        assert!(matches!(config.site.store, StoreConfig::File { .. }));
    }

    #[test]
    fn what_follows_the_first_word_is_ignored_and_said_so() {
        let config = line(&["-ip-masq", "true", "-etcd-prefix", "/x"], &[]).unwrap();
        assert_eq!((prefix(&config), config.filter.masquerade), ("/coreos.com/network", true));
        assert_eq!(config.site.warnings.len(), 1);
        assert!(
            config.site.warnings[0].starts_with("`true` and what follows it is ignored"),
            "{:?}",
            config.site.warnings
        );
    }

    #[test]
    fn variables_fill_in_for_flags_that_are_not_given() {
        let env = [("FLANNELD_ETCD_PREFIX", "/env"), ("FLANNELD_IFACE", "a,b"), ("FLANNELD_IP_MASQ", "true")];
        let config = line(&[], &env).unwrap();
        assert_eq!((prefix(&config), config.filter.masquerade), ("/env", true));
        assert_eq!(config.interface.names, ["a,b"], "one name, not split");
        let config = line(&["-etcd-prefix=/flag", "-iface=c", "-ip-masq=false"], &env).unwrap();
        assert_eq!((prefix(&config), config.filter.masquerade), ("/flag", false));
        assert_eq!(config.interface.names, ["c"]);
        let config = line(&[], &[("FLANNELD_IFACE", ""), ("FLANNELD_ETCD_PREFIX", "")]).unwrap();
        assert!(config.interface.names.is_empty(), "Canal sets it to nothing");
        assert_eq!(prefix(&config), "/coreos.com/network");
        let config = line(&[], &[("FLANNELD_STATE_DIR", "/s"), ("TWILL_RUN_DIR", "/r")]).unwrap();
        assert_eq!(config.site.dirs.state.to_str(), Some("/s"));
        assert_eq!(config.site.dirs.run.to_str(), Some("/run/twill"), "TWILL_ is for twill");
    }

    #[test]
    fn a_bad_variable_leaves_the_default_and_a_warning() {
        let env = [("FLANNELD_SUBNET_LEASE_RENEW_MARGIN", "soon"), ("FLANNELD_IP_MASQ", "yes")];
        let config = line(&[], &env).unwrap();
        assert_eq!((config.renew_margin.as_secs(), config.filter.masquerade), (3600, false));
        assert_eq!(
            config.site.warnings,
            [
                "FLANNELD_SUBNET_LEASE_RENEW_MARGIN=soon is ignored: parse error; the default `60` holds",
                "FLANNELD_IP_MASQ=yes is ignored: parse error; the default `false` holds",
            ]
        );
    }

    #[test]
    fn version_comes_before_variables_and_after_flag_errors() {
        let exit = line(&["-version", "-kube-subnet-mgr"], &[]).unwrap_err();
        assert_eq!(exit, Exit::stderr(format!("v{VERSION}+twill\n"), 0));
        assert!(line(&["-version=false"], &[]).is_ok());
        assert!(line(&["-version", "-version=0"], &[]).is_ok());
        assert!(line(&[], &[("FLANNELD_VERSION", "true")]).is_ok());
        assert_eq!(line(&["-version", "-nope"], &[]).unwrap_err().code, BAD_FLAGS);
    }

    #[test]
    fn help_and_mistakes_show_the_usage_on_stderr() {
        let help = line(&["-h"], &[]).unwrap_err();
        assert_eq!((help.stream, help.code), (Stream::Stderr, 0));
        assert!(
            help.text.starts_with("Usage: /opt/bin/flanneld [OPTION]...\n  -checksum-offload string\n    \t"),
            "{}",
            help.text
        );
        let wrong = line(&["-nope"], &[]).unwrap_err();
        assert_eq!((wrong.stream, wrong.code), (Stream::Stderr, BAD_FLAGS));
        assert_eq!(wrong.text, format!("flag provided but not defined: -nope\n{}", help.text));
    }

    #[test]
    fn the_usage_is_laid_out_like_gos() {
        let usage = usage("flanneld");
        for want in [
            "  -etcd-prefix string\n    \tprefix of the fabric's keys in etcd (default \"/coreos.com/network\")\n",
            "  -iface value\n    \tunderlay",
            "  -ip-masq\n    \tmasquerade what leaves the fabric\n",
            "  -iptables-forward-rules\n    \taccept forwarded traffic of the fabric (default true)\n",
            "  -iptables-resync int\n    \tcheck",
            " seconds (default 5)\n",
            "  -v int\n    \tlog",
        ] {
            assert!(usage.contains(want), "{want:?} not in\n{usage}");
        }
        let names: Vec<_> = usage.lines().filter_map(|line| line.strip_prefix("  -")).collect();
        assert_eq!(names.len(), table::rows().count());
        assert!(names.is_sorted());
    }

    #[test]
    fn values_nothing_can_be_done_with_are_fatal_as_flannelds() {
        let exit = line(&["-subnet-lease-renew-margin=0"], &[]).unwrap_err();
        assert_eq!((exit.stream, exit.code), (Stream::Stderr, FATAL));
        assert_eq!(
            exit.text,
            "/opt/bin/flanneld: --subnet-lease-renew-margin is 0; give 1 to 1439 (minutes) [bad-value]\n"
        );
    }

    #[test]
    fn every_flag_meets_its_fate() {
        use crate::cli::table::{FLANNELD_FLAGS, Fate};
        for row in FLANNELD_FLAGS.iter().filter(|row| row.name != "version") {
            let default = line(&[&format!("-{}={}", row.name, row.default)], &[]).unwrap_or_else(|exit| {
                panic!("{}: {}", row.name, exit.text);
            });
            assert_eq!(default.site.warnings, Vec::<String>::new(), "{} at its default", row.name);
            let other = match row.kind {
                Kind::Bool if row.default == "true" => "false",
                Kind::Bool => "true",
                Kind::Int | Kind::Text | Kind::List => "1",
            };
            match (row.fate, line(&[&format!("-{}={other}", row.name)], &[])) {
                (Fate::Ignored(why), config) => {
                    let want = format!("--{}={other} is ignored: {why}", row.name);
                    assert_eq!(config.unwrap().site.warnings, [want]);
                }
                (Fate::Refused(_), config) => {
                    let exit = config.unwrap_err();
                    assert_eq!(exit.code, FATAL);
                    assert!(exit.text.contains(row.name), "{}", exit.text);
                }
                (Fate::Works, Ok(config)) => {
                    let unused =
                        config.site.warnings.iter().any(|text| text.starts_with(&format!("--{}=", row.name)));
                    assert!(!unused, "{:?}", config.site.warnings);
                }
                (Fate::Works, Err(exit)) => {
                    assert!(exit.text.contains(&format!("--{} is", row.name)), "{}", exit.text)
                }
            }
        }
    }

    #[test]
    fn kubernetes_is_refused_with_the_line_that_works() {
        let exit = line(&["--kube-subnet-mgr", "-etcd-prefix=/p/"], &[]).unwrap_err();
        let want = r#"etcdctl put /p/config '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'"#;
        assert!(exit.text.contains(want), "{}", exit.text);
        assert_eq!(
            line(&[], &[("FLANNELD_KUBE_SUBNET_MGR", "1")]).unwrap_err().text,
            line(&["-kube-subnet-mgr"], &[]).unwrap_err().text
        );
    }
}
