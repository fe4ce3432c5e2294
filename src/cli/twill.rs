//! Twill's own spelling: subcommands, `--flag`s, and `TWILL_<FLAG>` variables.
//!
//! A variable counts when its flag is not given and its value is not empty. Only flags of the
//! [table](super::table) have one: they describe a fabric; the others say what one invocation is to do.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches};
use ipnet::IpNet;

use super::args::{
    AgentArgs, Cli, ConfigVerb, GenerateVerb, LeaseVerb, OwnerArgs, ReleaseArgs, SiteArgs, Verb,
};
use super::bundle::BundleArgs;
use super::doctor::DoctorArgs;
use super::looks::{self, PeersArgs, StatusArgs, TraceArgs, VerifyArgs};
use super::migrate::MigrateVerb;
use super::table::{self, FLANNELD_FLAGS, Fate, FlagRow, Kind};
use super::{Command, Env, Exit, Generate, Owner, Release, bundle, resolve};
use crate::config::{BadLine, ConfigError};

const PREFIX: &str = "TWILL";

/// Subcommands that take every flag of the agent; those without effect included, so that a unit's line can
/// be pasted.
const AGENT_LIKE: [&str; 7] = ["agent", "plan", "verify", "trace", "doctor", "bundle", "cleanup"];

/// What is to be known of the flags besides their values.
struct Flags {
    /// A warning for each that has no effect.
    ignored: Vec<String>,
    /// See [`typed`].
    typed: bool,
}

/// Reads `args`, without the program's name.
pub(super) fn parse(args: &[String], env: &Env) -> Result<Command, Exit> {
    let matches = matches(args, env).map_err(|error| clap_exit(&error))?;
    check_variables(leaf(&matches), env)?;
    let flags = Flags { ignored: ignored(leaf(&matches)), typed: typed(leaf(&matches)) };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| clap_exit(&error))?;
    command(cli.verb, flags, env)
}

/// Flags in clap's spelling, as the agent's arguments, and a warning for each that has no effect.
pub(super) fn agent(flags: &[String]) -> Result<(AgentArgs, Vec<String>), clap::Error> {
    let line: Vec<String> = std::iter::once("agent".to_owned()).chain(flags.iter().cloned()).collect();
    let matches = matches(&line, &Env::new())?;
    let matches = leaf(&matches);
    Ok((AgentArgs::from_arg_matches(matches)?, ignored(matches)))
}

fn matches(args: &[String], env: &Env) -> Result<ArgMatches, clap::Error> {
    let line = std::iter::once("twill").chain(args.iter().map(String::as_str));
    with_table(spelled(), env).try_get_matches_from(line)
}

/// The whole command line as it is without variables, for those who describe it.
pub(super) fn definition() -> clap::Command {
    with_table(spelled(), &Env::new())
}

/// Every subcommand and flag, without what the table has to say of them.
fn spelled() -> clap::Command {
    let cli = Cli::command().subcommand_required(true).arg_required_else_help(true);
    AGENT_LIKE.iter().fold(cli, |cli, name| cli.mut_subcommand(name, |verb| verb.args(without_effect())))
}

fn without_effect() -> impl Iterator<Item = Arg> {
    FLANNELD_FLAGS
        .iter()
        .filter(|row| matches!(row.fate, Fate::Ignored(_)))
        .map(|row| Arg::new(row.id()).long(row.name).help_heading("Flags of flanneld without effect"))
}

/// Gives every flag of the table its help, its default or its variable's value, and its kind's syntax.
fn with_table(verb: clap::Command, env: &Env) -> clap::Command {
    if verb.get_name() == "demo" {
        return verb; // its --store is another one
    }
    let verb = if verb.get_arguments().any(|arg| arg.get_id() == "store") {
        verb.after_help(
            "Any flag with a value can be given as TWILL_<FLAG> in the environment, - becoming _.",
        )
    } else {
        verb
    };
    verb.mut_args(|arg| match table::rows().find(|row| arg.get_id() == row.id().as_str()) {
        Some(row) => with_row(arg, row, env),
        None => arg,
    })
    .mut_subcommands(|inner| with_table(inner, env))
}

fn with_row(arg: Arg, row: &FlagRow, env: &Env) -> Arg {
    let arg = arg.help(row.help).required(false);
    let arg = match row.kind {
        Kind::Bool => {
            arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        Kind::Int => arg.value_name("N").allow_negative_numbers(true),
        Kind::Text | Kind::List => arg.value_name("VALUE"),
    };
    match variable(row, env).filter(|value| row.kind.check(value).is_ok()) {
        // Hidden, since a help text may be shown to others and a variable may be a password.
        Some(value) => arg.default_value(value.to_owned()).hide_default_value(true),
        None if row.kind == Kind::List => arg,
        None => arg.default_value(row.default).hide_default_value(row.default.is_empty()),
    }
}

fn variable<'a>(row: &FlagRow, env: &'a Env) -> Option<&'a str> {
    env.get(&row.variable(PREFIX)).map(String::as_str).filter(|value| !value.is_empty())
}

/// Refuses a variable that is not a value of its flag, unless the flag was given and it does not count.
fn check_variables(matches: &ArgMatches, env: &Env) -> Result<(), Exit> {
    for row in table::rows() {
        let Some(value) = variable(row, env) else { continue };
        let Err(error) = row.kind.check(value) else { continue };
        let counts = matches.try_contains_id(&row.id()).is_ok()
            && matches.value_source(&row.id()) != Some(ValueSource::CommandLine);
        if counts {
            let text = format!(
                "twill: {} is `{value}`: {error}; correct it, unset it or give --{} [{}]\n",
                row.variable(PREFIX),
                row.name,
                BadLine::Value
            );
            return Err(Exit::stderr(text, Exit::USAGE));
        }
    }
    Ok(())
}

/// The innermost subcommand's matches.
fn leaf(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| leaf(inner))
}

fn ignored(matches: &ArgMatches) -> Vec<String> {
    FLANNELD_FLAGS
        .iter()
        .filter_map(|row| {
            let Fate::Ignored(why) = row.fate else { return None };
            let value = matches.try_get_one::<String>(&row.id()).ok().flatten()?;
            let differs = match row.kind {
                Kind::Bool => super::go::boolean(value) != super::go::boolean(row.default),
                Kind::Int | Kind::Text | Kind::List => value != row.default,
            };
            differs.then(|| format!("--{}={value} is ignored: {why}", row.name))
        })
        .collect()
}

/// Whether a flag of the agent was given that does not only say which fabric is meant.
fn typed(matches: &ArgMatches) -> bool {
    let given = |row: &FlagRow| {
        matches.try_contains_id(&row.id()).is_ok()
            && matches.value_source(&row.id()) == Some(ValueSource::CommandLine)
    };
    let site = SiteArgs::augment_args(clap::Command::default());
    let names = |row: &FlagRow| site.get_arguments().any(|arg| arg.get_id() == row.id().as_str());
    // Here the port says where to ask other agents.
    table::rows().any(|row| given(row) && !names(row) && row.name != "healthz-port")
}

fn command(verb: Verb, flags: Flags, env: &Env) -> Result<Command, Exit> {
    let Flags { ignored, typed } = flags;
    let done = match verb {
        Verb::Agent(agent) => resolve::config(agent, ignored).map(Command::Agent),
        Verb::Plan(agent) => resolve::config(agent, ignored).map(Command::Plan),
        Verb::Cleanup { agent, firewall_only } => {
            resolve::config(agent, ignored).map(|config| Command::Cleanup { config, firewall_only })
        }
        Verb::Verify(VerifyArgs { all, json, agent }) => {
            looks::fabric(all, agent.healthz_port).and_then(|fabric| {
                Ok(Command::Verify { config: resolve::config(agent, ignored)?, typed, fabric, json })
            })
        }
        Verb::Trace(TraceArgs { src, dst, json, agent }) => resolve::healthz_port(agent.healthz_port)
            .and_then(|port| {
                let config = resolve::config(agent, ignored)?;
                Ok(Command::Trace { config, typed, src, dst, port, json })
            }),
        Verb::Status(StatusArgs { site, json, all, healthz_port }) => looks::fabric(all, healthz_port)
            .and_then(|fabric| Ok(Command::Status { site: resolve::site(site)?, json, fabric })),
        Verb::Watch { site } => resolve::site(site).map(|site| Command::Watch { site }),
        Verb::Peers(PeersArgs { site, json, sort }) => {
            resolve::site(site).map(|site| Command::Peers { site, order: sort.into(), json })
        }
        Verb::Config(ConfigVerb::Set { site, json }) => {
            resolve::site(site).map(|site| Command::ConfigSet { site, json })
        }
        Verb::Config(ConfigVerb::Get { site }) => resolve::site(site).map(|site| Command::ConfigGet { site }),
        Verb::Lease(verb) => lease(verb),
        Verb::Migrate(MigrateVerb::Check(args)) => Ok(Command::MigrateCheck(args.resolve(env))),
        Verb::Doctor(DoctorArgs { agent, look, json }) => resolve::config(agent, ignored)
            .map(|config| Command::Doctor { config: look.resolve(config), typed, json }),
        Verb::Bundle(BundleArgs { agent, look, out }) => resolve::config(agent, ignored)
            .map(|config| Command::Bundle { config: bundle::resolve(look.resolve(config), out), typed }),
        Verb::Explain { code, json } => Ok(Command::Explain { code, json }),
        Verb::Demo(args) => Ok(Command::Demo(args.resolve())),
        Verb::Bench(args) => Ok(Command::Bench(args.resolve())),
        Verb::Generate(GenerateVerb::Completions { shell }) => {
            Ok(Command::Generate(Generate::Completions(shell)))
        }
        Verb::Generate(GenerateVerb::Man { dir }) => Ok(Command::Generate(Generate::Man { dir })),
        Verb::Version => Ok(Command::Version),
    };
    done.map_err(|error| Exit::stderr(format!("twill: {error} [{}]\n", error.code()), Exit::USAGE))
}

fn lease(verb: LeaseVerb) -> Result<Command, ConfigError> {
    match verb {
        LeaseVerb::List { site, json } => {
            let site = resolve::site(site)?;
            Ok(Command::LeaseList { site, json })
        }
        LeaseVerb::Reserve { site, subnets, owner } => {
            let owner = self::owner(&owner)?;
            let (v4, v6) = families(&subnets)?;
            Ok(Command::LeaseReserve { site: resolve::site(site)?, v4, v6, owner })
        }
        LeaseVerb::Release { site, lease } => {
            let site = resolve::site(site)?;
            Ok(Command::LeaseRelease { site, which: release(lease) })
        }
    }
}

fn families(subnets: &[IpNet]) -> Result<(Option<ipnet::Ipv4Net>, Option<ipnet::Ipv6Net>), ConfigError> {
    let (mut v4, mut v6) = (None, None);
    for subnet in subnets {
        if subnet.trunc() != *subnet {
            return Err(ConfigError::HostBits { subnet: *subnet, network: subnet.trunc() });
        }
        let second = match subnet {
            IpNet::V4(net) => v4.replace(*net).is_some(),
            IpNet::V6(net) => v6.replace(*net).is_some(),
        };
        if second {
            return Err(ConfigError::TwoSubnets { subnet: *subnet });
        }
    }
    Ok((v4, v6))
}

fn owner(args: &OwnerArgs) -> Result<Owner, ConfigError> {
    args.node.map(Owner::Node).or(args.public_ip.map(Owner::PublicIp)).ok_or(ConfigError::NoOwner)
}

fn release(args: ReleaseArgs) -> Release {
    args.key.map_or(Release::Own, Release::Key)
}

fn clap_exit(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        Exit::stdout(text)
    } else {
        Exit::stderr(text, Exit::USAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::TWILL_FLAGS;
    use crate::cli::{Fabric, Stream};
    use crate::config::{
        Config, DemoBackend, DemoConfig, DemoStore, Ends, Measure, Out, Site, StoreConfig, Subject,
    };
    use crate::views::peers::Order;

    fn line(args: &[&str], env: &[(&str, &str)]) -> Result<Command, Exit> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(&args, &env)
    }

    fn agent(args: &[&str], env: &[(&str, &str)]) -> Result<Config, Exit> {
        let args: Vec<&str> = std::iter::once("agent").chain(args.iter().copied()).collect();
        let command = line(&args, env)?;
        let Command::Agent(config) = command else { panic!("{command:?}") };
        Ok(config)
    }

    fn site(command: &Command) -> Site {
        match command {
            Command::Status { site, .. }
            | Command::Peers { site, .. }
            | Command::Watch { site }
            | Command::ConfigSet { site, .. }
            | Command::ConfigGet { site }
            | Command::LeaseList { site, .. }
            | Command::LeaseReserve { site, .. }
            | Command::LeaseRelease { site, .. } => site.clone(),
            Command::Agent(_)
            | Command::Plan(_)
            | Command::Verify { .. }
            | Command::Trace { .. }
            | Command::Cleanup { .. }
            | Command::Demo(_)
            | Command::Bench(_)
            | Command::MigrateCheck(_)
            | Command::Explain { .. }
            | Command::Doctor { .. }
            | Command::Bundle { .. }
            | Command::Generate(_)
            | Command::Version => panic!("{command:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        definition().debug_assert();
    }

    #[test]
    fn the_agent_takes_exactly_the_flags_of_the_table() {
        for row in table::rows().filter(|row| row.name != "version") {
            let typed = format!("--{}={}", row.name, row.default);
            agent(&[&typed], &[]).unwrap_or_else(|exit| panic!("{typed}: {}", exit.text));
        }
        assert_eq!(line(&["agent", "--version"], &[]).unwrap_err().code, 0);
        let cli = Cli::command().mut_subcommand("agent", |verb| verb.args(without_effect()));
        for arg in cli.find_subcommand("agent").unwrap().get_arguments() {
            assert!(table::find(arg.get_long().unwrap()).is_some(), "{arg:?}");
        }
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let typed = ["--ip-masq", "--iface", "a", "--iface=b", "--healthz-port", "8081", "--v", "5"];
        let ours = agent(&typed, &[]).unwrap();
        let args: Vec<String> = typed.iter().map(|arg| (*arg).to_owned()).collect();
        let Command::Agent(theirs) = super::super::flanneld::parse("flanneld", &args, &Env::new()).unwrap()
        else {
            panic!()
        };
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!((ours.verbosity, ours.health), (5, Some("0.0.0.0:8081".parse().unwrap())));
    }

    #[test]
    fn of_a_flag_given_twice_the_last_counts() {
        let typed = ["--subnet-file=/a", "--iface=a", "--subnet-file=/b", "--iface=b", "--v=1", "--v=2"];
        let config = agent(&typed, &[]).unwrap();
        assert_eq!((config.subnet_file.to_str(), config.verbosity), (Some("/b"), 2));
        assert_eq!(config.interface.names, ["a", "b"]);
    }

    /// A line, and what it asks for.
    type Row<'a> = (&'a [&'a str], fn(&Command) -> bool);

    fn understood(rows: &[Row<'_>]) {
        for (args, want) in rows {
            let command = line(args, &[]).unwrap_or_else(|exit| panic!("{args:?}: {}", exit.text));
            assert!(want(&command), "{args:?}: {command:?}");
        }
    }

    #[test]
    fn a_line_that_asks_for_help_with_a_host_is_understood() {
        let doctor = line(&["doctor", "--json", "--proc=/p", "--vmodule=x=1"], &[]).unwrap();
        let Command::Doctor { config, typed: true, json: true } = doctor else { panic!("{doctor:?}") };
        assert_eq!((config.proc.to_str(), config.agent.site.warnings.len()), (Some("/p"), 1));
        let bundle = |args: &[&str]| match line(args, &[]) {
            Ok(Command::Bundle { config, typed: false }) => config.out,
            other => panic!("{other:?}"),
        };
        assert_eq!(bundle(&["bundle", "--root=/r"]), Out::Here);
        assert_eq!(bundle(&["bundle", "--out", "/tmp/b"]), Out::File("/tmp/b".into()));
        assert_eq!(bundle(&["bundle", "--out=-"]), Out::Stdout);
        assert!(matches!(line(&["explain"], &[]), Ok(Command::Explain { code: None, json: false })));
        let explain = line(&["explain", "store-down", "--json"], &[]).unwrap();
        assert!(matches!(explain, Command::Explain { code: Some(code), json: true } if code == "store-down"));
    }

    #[test]
    fn every_subcommand_is_understood() {
        let id = "6f1c1f0e-9a0f-4b3a-8a54-0d8d8a6f2d11";
        let rows: &[Row<'_>] = &[
            (&["agent"], |c| matches!(c, Command::Agent(_))),
            (&["plan", "--ip-masq"], |c| matches!(c, Command::Plan(config) if config.filter.masquerade)),
            (&["cleanup"], |c| matches!(c, Command::Cleanup { firewall_only: false, .. })),
            (&["cleanup", "--firewall-only"], |c| matches!(c, Command::Cleanup { firewall_only: true, .. })),
            (
                &["cleanup", "--vmodule=x=1"],
                |c| matches!(c, Command::Cleanup { config, .. } if config.site.warnings.len() == 1),
            ),
            (&["config", "set", "{}"], |c| matches!(c, Command::ConfigSet { json, .. } if json == "{}")),
            (&["config", "get"], |c| matches!(c, Command::ConfigGet { .. })),
            (&["lease", "list", "--json"], |c| matches!(c, Command::LeaseList { json: true, .. })),
            (&["lease", "reserve", "10.1.2.0/24", "--node", id], |c| {
                matches!(c, Command::LeaseReserve { v4: Some(_), v6: None, owner: Owner::Node(_), .. })
            }),
            (
                &["lease", "reserve", "10.1.2.0/24", "fd00::/64", "--public-ip", "fd01::1"],
                |c| matches!(c, Command::LeaseReserve { v4: Some(_), v6: Some(_), owner: Owner::PublicIp(ip), .. } if ip.is_ipv6()),
            ),
            (
                &["lease", "release", "10.1.2.0-24"],
                |c| matches!(c, Command::LeaseRelease { which: Release::Key(key), .. } if key == "10.1.2.0-24"),
            ),
            (&["lease", "release", "--own"], |c| {
                matches!(c, Command::LeaseRelease { which: Release::Own, .. })
            }),
            (
                &["migrate", "check", "--json", "--proc=/p", "--", "-ip-masq", "-v", "1"],
                |c| matches!(c, Command::MigrateCheck(check) if check.json && check.flags.len() == 3 && check.unit_dirs.len() == 4),
            ),
            (&["generate", "completions", "zsh"], |c| {
                matches!(c, Command::Generate(Generate::Completions(_)))
            }),
            (
                &["generate", "man", "/d"],
                |c| matches!(c, Command::Generate(Generate::Man { dir }) if dir.is_absolute()),
            ),
            (&["version"], |c| matches!(c, Command::Version)),
        ];
        understood(rows);
    }

    #[test]
    fn what_looks_is_understood() {
        understood(&[
            (&["verify", "--json"], |c| matches!(c, Command::Verify { typed: false, json: true, .. })),
            (
                &["verify", "--store=file:/x", "--iface=eth1"],
                |c| matches!(c, Command::Verify { typed: true, config, .. } if config.interface.names == ["eth1"]),
            ),
            (
                &["trace", "10.1.0.1", "fd00::1", "--json", "--healthz-port=7"],
                |c| matches!(c, Command::Trace { typed: false, src, dst, port: Some(7), json: true, .. } if src.is_ipv4() && dst.is_ipv6()),
            ),
            (&["verify", "--store=file:/x"], |c| matches!(c, Command::Verify { typed: false, .. })),
            (&["status"], |c| matches!(c, Command::Status { json: false, .. })),
            (&["status", "--json"], |c| matches!(c, Command::Status { json: true, fabric: None, .. })),
            (&["status", "--all", "--healthz-port=10254"], |c| {
                matches!(c, Command::Status { fabric: Some(Fabric { port: Some(10254) }), .. })
            }),
            (&["watch"], |c| matches!(c, Command::Watch { .. })),
            (&["peers", "--sort", "rtt"], |c| {
                matches!(c, Command::Peers { order: Order::Rtt, json: false, .. })
            }),
            (&["verify", "--all"], |c| {
                matches!(c, Command::Verify { fabric: Some(Fabric { port: None }), .. })
            }),
        ]);
    }

    #[test]
    fn demos_have_their_own_flags() {
        let Ok(Command::Demo(demo)) = line(&["demo"], &[("TWILL_STORE", "file:/x")]) else { panic!() };
        let want = DemoConfig {
            hosts: 3,
            store: DemoStore::File,
            backend: DemoBackend::Vxlan,
            ipv6: false,
            keep: false,
            json: false,
        };
        assert_eq!(demo, want, "variables describe a fabric, not a demo");
        let args = "demo --hosts 5 --store etcd --backend host-gw --ipv6 --keep --json";
        let Ok(Command::Demo(demo)) = line(&args.split(' ').collect::<Vec<_>>(), &[]) else { panic!() };
        let (store, backend) = (DemoStore::Etcd, DemoBackend::HostGw);
        assert_eq!(demo, DemoConfig { hosts: 5, store, backend, ipv6: true, keep: true, json: true });
    }

    #[test]
    fn a_bench_compares_everything_unless_told_otherwise() {
        let Ok(Command::Bench(bench)) = line(&["bench"], &[]) else { panic!() };
        assert_eq!((bench.subjects.as_slice(), bench.measures.as_slice()), (Subject::ALL, Measure::ALL));
        assert_eq!((bench.ends.as_slice(), bench.runs, bench.batch), (&[Ends::Hosts][..], 5, 32));
        assert_eq!((bench.duration.as_secs(), bench.congestion, bench.out), (3, None, None));
        let args = "bench --only plain,by-hand,plain --measure idle --endpoints both --seconds 0.5 --out d";
        let Ok(Command::Bench(bench)) = line(&args.split(' ').collect::<Vec<_>>(), &[]) else { panic!() };
        assert_eq!(bench.subjects, [Subject::ByHand, Subject::Plain]);
        assert_eq!((bench.measures, bench.ends), (vec![Measure::Idle], Ends::ALL.to_vec()));
        assert_eq!((bench.duration.as_millis(), bench.out), (500, Some("d".into())));
    }

    #[test]
    fn bad_usage_exits_64_and_names_what_is_wrong() {
        let rows: &[(&[&str], &str)] = &[
            (&[], "Usage: twill"),
            (&["agnet"], "agnet"),
            (&["agent", "-ip-masq"], "-i"),
            (&["agent", "stray"], "stray"),
            (&["agent", "--v=x"], "--v"),
            (&["agent", "--ip-masq=yes"], "--ip-masq"),
            (&["agent", "--healthz-port", "65536"], "--healthz-port is 65536; give 0 (no server) to 65535"),
            (&["agent", "--healthz-port=1", "--healthz-ip=x"], "--healthz-ip is `x`"),
            (&["agent", "--public-ip", "fd00::1"], "--public-ip is `fd00::1`; give an IPv4 address"),
            (&["agent", "--public-ipv6", "10.0.0.1"], "--public-ipv6 is `10.0.0.1`; give an IPv6 address"),
            (&["agent", "--iface-can-reach", "host"], "--iface-can-reach is `host`"),
            (&["agent", "--iface-regex", "eth("], "--iface-regex `eth(`"),
            (&["agent", "--subnet-lease-renew-margin", "1440"], "give 1 to 1439 (minutes)"),
            (&["agent", "--subnet-lease-renew-margin=-1"], "give 1 to 1439 (minutes)"),
            (&["agent", "--iptables-resync=0"], "give 1 to 86400 (seconds)"),
            (&["agent", "--delete-hold", "-5"], "--delete-hold is -5"),
            (
                &["agent", "--datapath-queues=257"],
                "--datapath-queues is 257; give 0 (as many as help) to 256",
            ),
            (&["agent", "--firewall", "ufw"], "--firewall is `ufw`; give one of: auto, nftables, iptables"),
            (&["agent", "--store", "zk"], "--store is `zk`; give one of: etcd"),
            (&["agent", "--store", "file:x"], "give an absolute path"),
            (&["agent", "--state-dir="], "--state-dir is ``; give an absolute path"),
            (&["agent", "--subnet-file="], "--subnet-file is ``; give the path of a file"),
            (&["agent", "--etcd-endpoints="], "--etcd-endpoints names no endpoint"),
            (&["agent", "--etcd-prefix="], "--etcd-prefix is empty"),
            (&["agent", "--etcd-endpoints=https://a:1", "--etcd-keyfile=/k"], "--etcd-certfile is not"),
            (&["agent", "--kube-subnet-mgr"], "etcdctl put"),
            (&["config"], "Usage: twill config"),
            (&["config", "set"], "JSON"),
            (&["lease", "release"], "--own"),
            (&["lease", "release", "k", "--own"], "cannot be used with"),
            (&["lease", "reserve", "--node=6f1c1f0e-9a0f-4b3a-8a54-0d8d8a6f2d11"], "SUBNET"),
            (&["lease", "reserve", "10.0.0.0/24"], "give --node ID"),
            (
                &["lease", "reserve", "10.0.0.1/24", "--public-ip=1.1.1.1"],
                "the one it lies in is 10.0.0.0/24",
            ),
            (
                &["lease", "reserve", "10.0.0.0/24", "10.0.1.0/24", "--public-ip=1.1.1.1"],
                "10.0.1.0/24 is the second",
            ),
            (&["lease", "reserve", "10.0.0.0/24", "--node=me"], "--node"),
            (&["bench", "--only", "kernel"], "give some of bare,by-hand,"),
            (&["bench", "--seconds", "0"], "give 0.1 to 60 (seconds)"),
            (&["demo", "--hosts", "1"], "--hosts"),
            (&["migrate"], "Usage: twill migrate"),
            (&["migrate", "check", "-ip-masq"], "-i"),
            (&["demo", "--backend", "udp"], "--backend"),
            (&["status", "--ip-masq"], "--ip-masq"),
        ];
        for (args, want) in rows {
            let exit = line(args, &[]).unwrap_err();
            assert_eq!((exit.code, exit.stream), (Exit::USAGE, Stream::Stderr), "{args:?}");
            assert!(exit.text.contains(want), "{args:?}: {}", exit.text);
            assert!(exit.text.ends_with('\n'), "{args:?}");
        }
    }

    #[test]
    fn a_trace_is_between_two_addresses() {
        for (args, want) in [(&["trace", "10.1.0.1"][..], "<DST>"), (&["trace", "10.1.0.1", "n2"], "n2")] {
            let exit = line(args, &[]).unwrap_err();
            assert!(exit.code == Exit::USAGE && exit.text.contains(want), "{args:?}: {}", exit.text);
        }
    }

    #[test]
    fn help_and_version_go_to_stdout() {
        for args in [
            &["--help"][..],
            &["agent", "--help"],
            &["lease", "reserve", "-h"],
            &["--version"],
            &["agent", "--version"],
        ] {
            let exit = line(args, &[]).unwrap_err();
            assert_eq!((exit.code, exit.stream), (0, Stream::Stdout), "{args:?}");
        }
        let help = line(&["agent", "--help"], &[]).unwrap_err().text;
        for row in FLANNELD_FLAGS.iter().chain(TWILL_FLAGS) {
            assert!(help.contains(&format!("--{}", row.name)), "{}\n{help}", row.name);
        }
    }

    #[test]
    fn variables_fill_in_for_flags_that_are_not_given() {
        let env = [
            ("TWILL_STORE", "file:/srv/a"),
            ("TWILL_IP_MASQ", "t"),
            ("TWILL_IFACE", "a,b"),
            ("TWILL_V", "0x2"),
        ];
        let config = agent(&[], &env).unwrap();
        assert_eq!(config.site.store, StoreConfig::File { dir: "/srv/a".into() });
        assert_eq!((config.filter.masquerade, config.verbosity), (true, 2));
        assert_eq!(config.interface.names, ["a,b"]);
        let config = agent(&["--store=file:/srv/b", "--iface=c", "--ip-masq=0"], &env).unwrap();
        assert_eq!(config.site.store, StoreConfig::File { dir: "/srv/b".into() });
        assert_eq!((config.filter.masquerade, config.interface.names), (false, vec!["c".to_owned()]));
        for args in [&["status"][..], &["config", "get"], &["lease", "list"], &["lease", "release", "--own"]]
        {
            let site = site(&line(args, &env).unwrap());
            assert_eq!(site.store, StoreConfig::File { dir: "/srv/a".into() }, "{args:?}");
        }
        let config = agent(&[], &[("TWILL_IP_MASQ", ""), ("FLANNELD_V", "3")]).unwrap();
        assert_eq!((config.filter.masquerade, config.verbosity), (false, 0));
    }

    #[test]
    fn a_bad_variable_is_named_unless_its_flag_is_given() {
        let env = [("TWILL_HEALTHZ_PORT", "http"), ("TWILL_IP_MASQ", "yes")];
        let exit = agent(&["--ip-masq"], &env).unwrap_err();
        assert_eq!((exit.code, exit.stream), (Exit::USAGE, Stream::Stderr));
        let want = "twill: TWILL_HEALTHZ_PORT is `http`: parse error; correct it, unset it or give --healthz-port [bad-value]\n";
        assert_eq!(exit.text, want);
        assert!(agent(&["--ip-masq", "--healthz-port=0"], &env).is_ok());
        assert!(line(&["lease", "list"], &env).is_ok(), "it has no such flag");
        assert!(line(&["version"], &env).is_ok());
    }

    #[test]
    fn the_password_shows_nowhere() {
        let env = [("TWILL_ETCD_PASSWORD", "hunter2"), ("TWILL_ETCD_USERNAME", "root")];
        let config = agent(&[], &env).unwrap();
        let StoreConfig::Etcd(etcd) = &config.site.store else { panic!() };
        let (name, secret) = etcd.user.as_ref().unwrap();
        assert_eq!((name.as_str(), secret.expose()), ("root", "hunter2"));
        let shown = [
            format!("{config:?}"),
            line(&["agent", "--help"], &env).unwrap_err().text,
            agent(&["--etcd-password=hunter2", "--firewall=x"], &env).unwrap_err().text,
            agent(&["--etcd-password", "hunter2"], &[]).unwrap().site.warnings.join(" "),
        ];
        for text in shown {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_ca_works_alone_and_certificates_need_https() {
        let tls = |args: &[&str]| {
            let config = agent(args, &[]).unwrap();
            let StoreConfig::Etcd(etcd) = config.site.store else { panic!() };
            (etcd.tls, config.site.warnings)
        };
        let (files, warnings) = tls(&["--etcd-endpoints=https://a:1,http://b:1", "--etcd-cafile=/ca"]);
        assert_eq!((files.unwrap().ca, warnings.len()), (Some("/ca".into()), 0));
        let (files, warnings) = tls(&["--etcd-endpoints=http://a:1", "--etcd-certfile=/c"]);
        assert_eq!(files, None);
        assert!(warnings[0].contains("--etcd-certfile") && warnings[0].contains("http://"), "{warnings:?}");
        let (_, warnings) = tls(&["--etcd-password=x"]);
        assert_eq!(warnings, ["--etcd-password is ignored: --etcd-username is not set"]);
    }
}
