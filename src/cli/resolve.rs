//! What was typed, made into what it means.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use twill_backends::checksums::Wish;

use super::args::{AgentArgs, SiteArgs};
use crate::config::{
    Config, ConfigError, DatapathConfig, DatapathMode, Dirs, EtcdConfig, FilterConfig, FirewallMode,
    InterfaceConfig, Site, StoreConfig, TlsFiles, endpoints,
};

/// A network config that works as it stands, quoted for a shell.
const WORKING_CONFIG: &str = r#"'{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'"#;

/// Resolves the agent's arguments. `warnings` is what is known already to have no effect.
pub(super) fn config(args: AgentArgs, mut warnings: Vec<String>) -> Result<Config, ConfigError> {
    if args.kube_subnet_mgr {
        let prefix = EtcdConfig::prefix(&args.site.etcd_prefix)?;
        return Err(ConfigError::KubeSubnetMgr { prefix, config: WORKING_CONFIG });
    }
    let interface = interface(&args)?;
    let filter = FilterConfig {
        masquerade: args.ip_masq,
        random_fully: !args.ip_masq_fully_random_disable,
        check_senders: switch("outer-source-check", &args.outer_source_check)?,
        forward: args.iptables_forward_rules,
        mode: firewall(&args.firewall)?,
    };
    let datapath = datapath(&args)?;
    let health = health(&args.healthz_ip, args.healthz_port)?;
    let minutes =
        number("subnet-lease-renew-margin", args.subnet_lease_renew_margin, 1..=1439, "1 to 1439 (minutes)")?;
    let resync = number("iptables-resync", args.iptables_resync, 1..=86_400, "1 to 86400 (seconds)")?;
    let delete_hold = number("delete-hold", args.delete_hold, 0..=86_400, "0 to 86400 (seconds)")?;
    let ready_peers = number("ready-peers", args.ready_peers, 0..=100, "0 to 100 (percent)")?;
    let mut site = site(args.site)?;
    warnings.append(&mut site.warnings);
    site.warnings = warnings;
    Ok(Config {
        site,
        interface,
        filter,
        datapath,
        subnet_file: file("subnet-file", &args.subnet_file)?,
        renew_margin: Duration::from_secs(minutes * 60),
        blackhole: args.ip_blackhole_route,
        resync: Duration::from_secs(resync),
        health,
        page: address("ui-listen", &args.ui_listen, "an address and a port, such as 0.0.0.0:8474")?,
        ready_peers: u8::try_from(ready_peers).unwrap_or(100),
        probe_port: port("probe-port", args.probe_port, "0 (no probes) to 65535")?,
        delete_hold: Duration::from_secs(delete_hold),
        confine: switch("confine", &args.confine)?,
        take_over: args.take_over,
        force: args.force,
        cleanup_on_exit: args.cleanup_on_exit,
        verbosity: u8::try_from(args.v.clamp(0, 255)).unwrap_or(u8::MAX),
    })
}

/// Resolves which fabric is meant.
pub(super) fn site(args: SiteArgs) -> Result<Site, ConfigError> {
    let mut warnings = Vec::new();
    let store = StoreConfig::parse(&args.store, || etcd(&args, &mut warnings))?;
    let dirs =
        Dirs { state: directory("state-dir", &args.state_dir)?, run: directory("run-dir", &args.run_dir)? };
    Ok(Site { store, dirs, warnings })
}

fn etcd(args: &SiteArgs, warnings: &mut Vec<String>) -> Result<EtcdConfig, ConfigError> {
    let endpoints = endpoints(&args.etcd_endpoints)?;
    let files = [&args.etcd_cafile, &args.etcd_certfile, &args.etcd_keyfile];
    let tls = if EtcdConfig::has_tls_endpoint(&endpoints) {
        TlsFiles::parse(&args.etcd_cafile, &args.etcd_certfile, &args.etcd_keyfile)?
    } else {
        if files.iter().any(|file| !file.is_empty()) {
            let why = "every endpoint of --etcd-endpoints is http://, so nothing is encrypted; write https:// to use them";
            warnings.push(format!("--etcd-cafile, --etcd-certfile and --etcd-keyfile are ignored: {why}"));
        }
        None
    };
    let user = match (args.etcd_username.as_str(), args.etcd_password.is_empty()) {
        ("", true) => None,
        ("", false) => {
            warnings.push("--etcd-password is ignored: --etcd-username is not set".to_owned());
            None
        }
        (name, _) => Some((name.to_owned(), args.etcd_password.clone())),
    };
    Ok(EtcdConfig { endpoints, prefix: EtcdConfig::prefix(&args.etcd_prefix)?, tls, user })
}

fn interface(args: &AgentArgs) -> Result<InterfaceConfig, ConfigError> {
    // An empty name or pattern comes from a manifest that leaves the choice open, and chooses nothing.
    let patterns = args.iface_regex.iter().filter(|pattern| !pattern.is_empty()).map(|pattern| {
        regex::Regex::new(pattern).map_err(|source| ConfigError::Pattern { pattern: pattern.clone(), source })
    });
    Ok(InterfaceConfig {
        names: args.iface.iter().filter(|name| !name.is_empty()).cloned().collect(),
        patterns: patterns.collect::<Result<_, _>>()?,
        can_reach: address("iface-can-reach", &args.iface_can_reach, "an IPv4 or IPv6 address")?,
        public_ip: address("public-ip", &args.public_ip, "an IPv4 address")?,
        public_ipv6: address("public-ipv6", &args.public_ipv6, "an IPv6 address")?,
    })
}

fn firewall(text: &str) -> Result<FirewallMode, ConfigError> {
    match text {
        "auto" => Ok(FirewallMode::Auto),
        "nftables" => Ok(FirewallMode::Nftables),
        "iptables" => Ok(FirewallMode::Iptables),
        _ => {
            let expected = "auto, nftables, iptables";
            Err(ConfigError::Word { flag: "firewall", value: text.to_owned(), expected })
        }
    }
}

fn datapath(args: &AgentArgs) -> Result<DatapathConfig, ConfigError> {
    let word = |flag, value: &str, expected| ConfigError::Word { flag, value: value.to_owned(), expected };
    let mode = match args.datapath.as_str() {
        "auto" => DatapathMode::Auto,
        "kernel" => DatapathMode::Kernel,
        "userspace" => DatapathMode::Userspace,
        "plain" => DatapathMode::Plain,
        other => return Err(word("datapath", other, "auto, kernel, userspace, plain")),
    };
    let check_source = switch("inner-source-check", &args.inner_source_check)?;
    let checksums = match args.checksum_offload.as_str() {
        "auto" => Wish::Auto,
        "on" => Wish::On,
        "off" => Wish::Off,
        other => return Err(word("checksum-offload", other, "auto, on, off")),
    };
    let queues = number("datapath-queues", args.datapath_queues, 0..=256, "0 (as many as help) to 256")?;
    let queues = usize::try_from(queues).ok().filter(|queues| *queues > 0).unwrap_or_else(queues_that_help);
    Ok(DatapathConfig { mode, check_source, checksums, queues })
}

/// Each queue keeps a processor busy, and so do those who send and receive through it.
fn queues_that_help() -> usize {
    std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).clamp(1, 8))
}

fn switch(flag: &'static str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ConfigError::Word { flag, value: text.to_owned(), expected: "on, off" }),
    }
}

/// `--healthz-port`: none if it is 0.
pub(super) fn healthz_port(value: i64) -> Result<Option<u16>, ConfigError> {
    port("healthz-port", value, "0 (no server) to 65535")
}

fn health(ip: &str, port: i64) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(port) = healthz_port(port)? else { return Ok(None) };
    let ip: Option<IpAddr> = address("healthz-ip", ip, "an IPv4 or IPv6 address of this host")?;
    Ok(Some(SocketAddr::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)))
}

/// A port, or none for 0.
fn port(flag: &'static str, value: i64, range: &'static str) -> Result<Option<u16>, ConfigError> {
    let port = u16::try_from(value).map_err(|_| ConfigError::OutOfRange { flag, value, range })?;
    Ok(Some(port).filter(|port| *port != 0))
}

fn address<A: FromStr>(
    flag: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<Option<A>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ConfigError::Address { flag, value: text.to_owned(), expected })
}

fn number(
    flag: &'static str,
    value: i64,
    within: std::ops::RangeInclusive<u64>,
    range: &'static str,
) -> Result<u64, ConfigError> {
    let number = u64::try_from(value).ok().filter(|number| within.contains(number));
    number.ok_or(ConfigError::OutOfRange { flag, value, range })
}

fn file(flag: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    if text.is_empty() || text.ends_with('/') {
        return Err(ConfigError::File { flag, value: text.to_owned() });
    }
    Ok(PathBuf::from(text))
}

fn directory(flag: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    if !text.starts_with('/') {
        return Err(ConfigError::Path { flag, value: text.to_owned() });
    }
    Ok(PathBuf::from(text))
}
