//! What scenarios happen to: hosts with agents and pods, and an etcd.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use twill::lab::{EtcdProcess, Lab, LabError, LabOptions, Netns, StoreAt};

use crate::dump::{self, difference, sh};
use crate::examine::{Doctor, Named};
use crate::fabric::{Fabric, Families, wait_for};

/// The network configuration's key in etcd.
pub(crate) const CONFIG: &str = "/coreos.com/network/config";
/// Where leases are.
pub(crate) const LEASES: &str = "/coreos.com/network/subnets";

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The kernel's VXLAN device.
    Vxlan,
    /// Routes, and no tunnel.
    HostGw,
    /// VXLAN carried by the agent.
    Userspace,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Userspace => "userspace",
        }
    }

    /// Whether packets pass while no agent runs.
    pub(crate) fn in_kernel(self) -> bool {
        self != Self::Userspace
    }

    pub(crate) fn config(self) -> &'static str {
        if self == Self::HostGw { r#"{"Type":"host-gw"}"# } else { r#"{"Type":"vxlan"}"# }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Userspace => &["--ip-masq", "--firewall=nftables", "--datapath=userspace"],
            Self::Vxlan | Self::HostGw => &["--ip-masq", "--firewall=nftables", "--datapath=kernel"],
        }
    }
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// How many hosts have an agent and a pod; one more has neither.
    pub(crate) hosts: u16,
    /// Of the underlay, with a router between them.
    pub(crate) segments: u8,
    /// Of the etcd.
    pub(crate) members: u16,
    /// The backend's part of the network configuration, and what follows it.
    pub(crate) config: &'static str,
    /// What agents are told beside the backend's own.
    pub(crate) flags: &'static [&'static str],
}

impl Shape {
    /// Three hosts on one segment, and an etcd of one member.
    pub(crate) fn usual(backend: Backend) -> Self {
        Self { hosts: 3, segments: 1, members: 1, config: backend.config(), flags: &[] }
    }
}

/// Hosts with an agent and a pod each, one more with neither, and an etcd. Faults happen to the first host.
/// Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) fabric: Fabric,
    /// Its members.
    pub(crate) etcd: Vec<EtcdProcess>,
    pub(crate) backend: Backend,
    /// What has been named since the scenario began.
    pub(crate) named: Vec<Named>,
}

impl World {
    /// Builds one of the usual shape; the error says why it cannot be built here.
    pub(crate) fn new(backend: Backend) -> Result<Self, String> {
        Self::shaped(backend, Shape::usual(backend))
    }

    /// Builds one of any shape.
    pub(crate) fn shaped(backend: Backend, shape: Shape) -> Result<Self, String> {
        Lab::available().map_err(|reason| reason.to_string())?;
        let hosts = shape.hosts + 1;
        let lab = Lab::new(&LabOptions { hosts, segments: shape.segments, ..LabOptions::default() }).unwrap();
        let etcd = match lab.etcd_cluster(shape.members) {
            Err(error @ LabError::Missing { .. }) => return Err(error.to_string()),
            etcd => etcd.unwrap(),
        };
        let endpoints: Vec<String> = etcd.iter().map(EtcdProcess::endpoint).collect();
        let store = StoreAt::Etcd { endpoints: endpoints.join(",") };
        let flags = [backend.flags(), shape.flags].concat();
        let all = vec![&flags[..]; shape.hosts.into()];
        let fabric = Fabric::over(store, lab, Families::V4, shape.config, &all);
        Ok(Self { fabric, etcd, backend, named: Vec::new() })
    }

    /// Asks the last member, until it answers: an election takes a moment.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        wait_for("etcdctl", || self.etcd.last().unwrap().etcdctl(args).map_err(|error| error.to_string()))
    }

    /// The key of a host's lease in etcd.
    pub(crate) fn key(&self, host: usize) -> String {
        key(&self.fabric.subnet(host, false).to_string())
    }

    /// The key of the first host's lease in etcd, and its value.
    pub(crate) fn own_lease(&self) -> (String, String) {
        let key = self.key(0);
        let value = self.ctl(&["get", "--print-value-only", &key]);
        (key, value)
    }

    /// The revision that wrote a key last.
    pub(crate) fn revision(&self, key: &str) -> u64 {
        self.field(key, "ModRevision").unwrap()
    }

    fn field<T: std::str::FromStr>(&self, key: &str, name: &str) -> Option<T> {
        let found = self.ctl(&["get", "-w", "fields", key]);
        found.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : "))?.parse().ok())
    }

    /// Ends the etcd lease that what is at a key lives by, if there is one just then.
    pub(crate) fn revoke(&self, key: &str) {
        let id: Option<i64> = self.field(key, "Lease");
        if let Some(id) = id.filter(|id| *id != 0) {
            self.ctl(&["lease", "revoke", &format!("{id:x}")]);
        }
    }

    /// Somebody joins, as etcd tells it: returns the key once all hosts have a route.
    pub(crate) fn join(&self, public: &str) -> String {
        let (key, subnet) = self.put_lease(public);
        self.wait_route(&subnet);
        key
    }

    /// Writes the lease of a host that is but data: its key, and its subnet.
    pub(crate) fn put_lease(&self, public: &str) -> (String, String) {
        let hosts = 0..self.fabric.agents.len();
        let taken: Vec<_> = hosts.map(|host| self.fabric.subnet(host, false).to_string()).collect();
        let free = (200..).map(|third| format!("10.244.{third}.0/24")).find(|subnet| !taken.contains(subnet));
        let (subnet, kind) =
            (free.unwrap(), if self.backend == Backend::HostGw { "host-gw" } else { "vxlan" });
        let data = if self.backend == Backend::HostGw {
            "null"
        } else {
            r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:fa"}"#
        };
        let value = format!(r#"{{"PublicIP":"{public}","BackendType":"{kind}","BackendData":{data}}}"#);
        let key = key(&subnet);
        self.ctl(&["put", &key, &value]);
        (key, subnet)
    }

    pub(crate) fn wait_route(&self, subnet: &str) {
        for host in &self.fabric.lab.hosts[..self.fabric.agents.len()] {
            wait_for("a route to who joined", || {
                let routes = dump::run(&host.net, "ip route");
                routes.contains(&format!("{subnet} ")).then_some(()).ok_or(routes)
            });
        }
    }

    /// Waits until the first host's agent has a fault with this code, and returns it.
    pub(crate) fn wait_fault(&self, code: &str) -> Value {
        wait_for(code, || {
            let status = self.fabric.status(0);
            fault(&status, code).cloned().ok_or(status)
        })
    }

    /// Waits until the doctor on a host names what went wrong then.
    pub(crate) fn name(&mut self, host: usize, code: &str, since: Instant) {
        self.named.push(Doctor::new(&self.fabric, host).named(&[], code, since));
    }

    /// [`World::name`] of several codes at once, each on its host.
    pub(crate) fn name_all(&mut self, wanted: &[(usize, &str)], since: Instant) {
        let fabric = &self.fabric;
        let named = |&(host, code): &(usize, &str)| Doctor::new(fabric, host).named(&[], code, since);
        self.named.extend(std::thread::scope(|scope| {
            let asked: Vec<_> = wanted.iter().map(|one| scope.spawn(move || named(one))).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        }));
    }

    /// How much of a kind the first host's agent has mended.
    pub(crate) fn repairs(&self, kind: &str) -> u64 {
        let look = || self.fabric.status(0)["reconcile"]["repaired"][kind].as_u64().ok_or("no status");
        wait_for("the count of repairs", look)
    }

    /// Waits until what was broken then counts among what the first host's agent has mended, beyond those `before`.
    pub(crate) fn name_repair(&mut self, kind: &str, before: u64, since: Instant) {
        wait_for(&format!("a repair of a {kind}"), || {
            let mended = self.repairs(kind);
            (mended > before).then_some(()).ok_or(mended)
        });
        self.named.push(Named { code: format!("repaired: {kind}"), after: since.elapsed() });
    }

    /// What the kernels of all hosts have, and the subnet files.
    pub(crate) fn state(&self) -> Vec<Vec<String>> {
        (0..self.fabric.agents.len()).map(|host| self.fabric.state(host)).collect()
    }

    /// Waits until all is on all hosts as it was `before`, and no agent has anything to say.
    pub(crate) fn wait_as(&self, before: &[Vec<String>]) {
        for (host, before) in before.iter().enumerate() {
            wait_for(&format!("n{} as it was", host + 1), || {
                let differs = difference(before, &self.fabric.state(host));
                if differs.is_empty() {
                    Ok(())
                } else {
                    Err((differs, self.fabric.status(host)["faults"].clone()))
                }
            });
        }
        self.fabric.wait_settled();
    }

    /// How many lines all agents have logged.
    pub(crate) fn logged(&self) -> usize {
        self.fabric.agents.iter().map(|agent| agent.log().lines().count()).sum()
    }
}

/// The key of the lease of a subnet in etcd.
pub(crate) fn key(subnet: &str) -> String {
    format!("{LEASES}/{}", subnet.replace('/', "-"))
}

/// Gives the uplink of a host another address, as a DHCP server would: until [`Lab::readdress`].
pub(crate) fn move_to(net: &Netns, address: &str, gateway: IpAddr) {
    let line = format!("ip addr flush dev eth0 scope global; ip addr add {address}/24 dev eth0");
    sh(net, &format!("{line}; ip route add default via {gateway}"));
}

/// The fault with this code in a status.
pub(crate) fn fault<'a>(status: &'a Value, code: &str) -> Option<&'a Value> {
    status["faults"].as_array()?.iter().find(|fault| fault["code"] == code)
}

/// Whether outages last as long as in the field.
pub(crate) fn long() -> bool {
    std::env::var_os("TWILL_LONG").is_some()
}

/// How long something lasts: that of the field with `TWILL_LONG`, else less.
pub(crate) fn lasting(field: Duration, short: Duration) -> Duration {
    if long() { field } else { short }
}
