//! Golden cases: `tests/golden/<case>/{leases,host,config}.json` must give `expected.json`. A case needs no Rust.
//!
//! `leases.json` maps the keys below `subnets/` to their values as they stand in etcd: an object, or a string that is
//! taken as the text itself. `TWILL_BLESS=1 cargo test --test it golden` writes what comes out; read it before it is
//! committed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use twill_backends::backend::{Backend, from_config};
use twill_backends::diff::diff;
use twill_backends::family::PerFamily;
use twill_backends::fault::Fault;
use twill_backends::filter::Masquerade;
use twill_backends::host::{Address, Host, Own, Policy};
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::leases::{LeaseEvent, Leases};
use twill_backends::mac::Mac;
use twill_backends::network::NetworkConfig;
use twill_backends::plan::Plan;
use twill_backends::state::{Datapath, NetState};

/// A host in few words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    iface: String,
    mtu: u32,
    /// For each family the address on the interface and, if it differs, the one that is published.
    v4: Option<Vec<std::net::IpAddr>>,
    v6: Option<Vec<std::net::IpAddr>>,
    on_link: Vec<IpNet>,
    macs: PerFamily<Mac>,
    /// The key of its lease.
    own: String,
    #[serde(default)]
    former: Vec<IpNet>,
    #[serde(default)]
    userspace: bool,
    #[serde(default)]
    masquerade: bool,
    #[serde(default)]
    forward: bool,
    #[serde(default)]
    blackhole: bool,
}

impl Described {
    fn read(&self, network: NetworkConfig) -> (Host, Own) {
        let address =
            |addrs: &Vec<std::net::IpAddr>| Address { local: addrs[0], public: addrs[addrs.len() - 1] };
        let host = Host {
            instance: "golden".to_owned(),
            iface: self.iface.as_str().try_into().unwrap(),
            mtu: self.mtu,
            addrs: PerFamily { v4: self.v4.as_ref().map(address), v6: self.v6.as_ref().map(address) },
            on_link: self.on_link.clone(),
            macs: self.macs,
            checksums: PerFamily::NONE,
            datapath: if self.userspace { Datapath::Userspace } else { Datapath::Kernel },
        };
        let key = LeaseKey::new(self.own.as_str());
        let policy = Policy {
            masquerade: self.masquerade.then_some(Masquerade { random_fully: true }),
            forward: self.forward,
            blackhole: self.blackhole,
            ..Policy::default()
        };
        let subnets = key.subnets().unwrap();
        (host, Own { key, subnets, network, former: self.former.clone(), policy })
    }
}

fn decode(stored: &Map<String, Value>) -> (Vec<Lease>, Vec<(LeaseKey, Fault)>) {
    let (mut leases, mut faults) = (Vec::new(), Vec::new());
    for (key, value) in stored {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match Lease::decode(key, text.as_bytes()) {
            Ok(lease) => leases.push(lease),
            Err(fault) => faults.push((LeaseKey::new(key.as_str()), fault)),
        }
    }
    (leases, faults)
}

/// The plan of all leases at once; one after the other must give the same.
fn planned(described: &Described, config: &NetworkConfig, all: &[Lease]) -> Plan {
    let plan = |backend: Box<dyn Backend>| {
        let (host, own) = described.read(config.clone());
        Plan::new(backend, host, own)
    };
    let mut leases = Leases::new(Duration::ZERO);
    let mut stepwise = plan(from_config(config).unwrap());
    for lease in all.iter().rev() {
        let changed = leases.apply(LeaseEvent::Put(lease.clone()), Instant::now());
        stepwise.update(&leases, &changed);
    }
    let mut whole = plan(from_config(config).unwrap());
    whole.reset(&leases);
    assert_eq!(stepwise.want(), whole.want());
    assert!(stepwise.faults().eq(whole.faults()));
    whole
}

fn outcome(case: &Path) -> Value {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
    let config = match NetworkConfig::parse(&read("config.json")) {
        Ok(config) => config,
        Err(fault) => return json!({ "refused": fault }),
    };
    let backend = match from_config(&config) {
        Ok(backend) => backend,
        Err(fault) => return json!({ "refused": fault }),
    };
    let described: Described = serde_json::from_str(&read("host.json")).unwrap();
    let (host, _) = described.read(config.clone());
    if let Err(fault) = backend.fits(&host) {
        return json!({ "refused": fault });
    }
    let (leases, bad) = decode(&serde_json::from_str(&read("leases.json")).unwrap());
    let plan = planned(&described, &config, &leases);
    let ops: Vec<_> = diff(plan.want(), &NetState::default()).iter().map(ToString::to_string).collect();
    let faults: Vec<_> = bad.iter().map(|(_, fault)| fault).chain(plan.faults()).collect();
    let attrs: Value = serde_json::from_slice(&backend.attrs(&host).encode()).unwrap();
    json!({ "mtu": backend.mtu(&host), "attrs": attrs, "ops": ops, "filter": plan.filter(), "faults": faults })
}

#[test]
fn every_case_gives_what_is_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "the cases are missing");
    let bless = std::env::var_os("TWILL_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in &cases {
        let text = serde_json::to_string_pretty(&outcome(case)).unwrap() + "\n";
        if bless {
            fs::write(case.join("expected.json"), &text).unwrap();
        } else if fs::read_to_string(case.join("expected.json")).ok().as_deref() != Some(text.as_str()) {
            wrong.push(format!("{}:\n{text}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "these cases give something else:\n{}", wrong.join("\n"));
}
