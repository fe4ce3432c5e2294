//! Three machines of which the cluster runs, and what is asked of them.

use std::process::Output;

use serde_json::Value;
use twill::lab::probe::ping_until;
use twill::lab::{Cancel, Host, Lab, LabOptions, Pod, PodSubnet, Seen, until};

use crate::cluster::Certificates;
use crate::machine::{Disk, Machine, PATIENCE, unavailable};

/// Machines of which the cluster runs. Dropped in this order.
pub(crate) struct Site {
    pub(crate) machines: Vec<Machine>,
    pub(crate) certificates: Certificates,
    lab: Lab,
}

impl Site {
    /// `more` is put into each machine's files before it boots.
    pub(crate) fn new(more: impl Fn(usize, &Disk)) -> Option<Self> {
        if let Err(reason) = Lab::available() {
            println!("SKIP: {reason}");
            return None;
        }
        let lab = Lab::new(&LabOptions { hosts: 3, ..LabOptions::default() }).unwrap();
        if let Some(reason) = unavailable(&lab) {
            println!("SKIP: {reason}");
            return None;
        }
        let certificates = Certificates::new(&lab);
        let boot = |(index, host): (usize, &Host)| {
            let disk = Disk::new(&lab, host);
            disk.copy(&certificates.folder.join(&host.name), "etc/twill-etcd");
            disk.copy(&certificates.folder.join("twill"), "etc/twill");
            more(index, &disk);
            disk.boot(host)
        };
        let machines: Vec<Machine> = lab.hosts.iter().enumerate().map(boot).collect();
        let site = Self { machines, certificates, lab };
        site.on_all(&["systemctl", "start", "--no-block", "twill-etcd"]);
        site.machines.iter().for_each(|machine| machine.wait_active("twill-etcd"));
        Some(site)
    }

    pub(crate) fn on_all(&self, argv: &[&str]) {
        for machine in &self.machines {
            machine.ok(argv);
        }
    }

    pub(crate) fn first(&self) -> &Machine {
        &self.machines[0]
    }

    pub(crate) fn ctl(&self, client: Option<&str>, args: &[&str]) -> Result<String, String> {
        said(&self.certificates.ctl(&self.first().net, client, args))
    }

    pub(crate) fn twill(&self, client: &str, words: &[&str]) -> Result<String, String> {
        said(&self.certificates.twill(&self.first().net, client, words))
    }

    /// Starts the agents, and a pod behind each.
    pub(crate) fn start_agents(&self) -> Vec<Pod> {
        self.on_all(&["systemctl", "start", "--no-block", "twill"]);
        self.machines.iter().for_each(|machine| machine.wait_active("twill"));
        let pod = |(host, machine): (&Host, &Machine)| {
            let env = machine.ok(&["cat", "/run/flannel/subnet.env"]);
            host.pod(&PodSubnet::from_subnet_env(&env).unwrap()).unwrap()
        };
        self.lab.hosts.iter().zip(&self.machines).map(pod).collect()
    }

    /// Waits until an agent says that all is well with both peers.
    pub(crate) fn wait_settled(&self) {
        for machine in &self.machines {
            let settled = until("a settled agent", PATIENCE, &Cancel::default(), || {
                let said = machine.run(&["sh", "-c", "set -a; . /etc/twill/twill.env; twill status --json"]);
                let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
                let peers = status["peers"].as_array().map_or(0, Vec::len);
                let settled = status["state"] == "ok" && peers == 2;
                Ok(if settled { Seen::Yes(()) } else { Seen::NotYet(status.to_string()) })
            });
            settled.unwrap();
        }
    }
}

/// What a command printed, or what it complained of.
fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub(crate) fn all_reach_each_other(pods: &[Pod]) {
    for from in pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            ping_until(&from.net, to.addresses[0], PATIENCE, &Cancel::default())
                .unwrap_or_else(|error| panic!("{} to {}: {error}", from.name, to.name));
        }
    }
}
