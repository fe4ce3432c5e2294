//! `twill doctor` on a host of the lab, and how soon it names what is wrong.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use twill::lab::{AgentProcess, Host, StoreAt};

use crate::fabric::{Fabric, TWILL, wait_for};

/// What of the machine itself may be true on any machine that runs tests.
pub(crate) const MACHINES: [&str; 1] = ["clock-unsynchronized"];

/// A code, and how long it took from the fault to it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) code: String,
    pub(crate) after: Duration,
}

/// The doctor on one host.
#[derive(Debug)]
pub(crate) struct Doctor<'a> {
    pub(crate) host: &'a Host,
    pub(crate) agent: &'a AgentProcess,
    store: &'a StoreAt,
    /// Where it looks for the files of others.
    pub(crate) root: PathBuf,
}

impl<'a> Doctor<'a> {
    pub(crate) fn new(fabric: &'a Fabric, index: usize) -> Self {
        Self::of(fabric, &fabric.lab.hosts[index], &fabric.agents[index])
    }

    /// Where an agent runs, or ran, that is not among the fabric's own.
    pub(crate) fn of(fabric: &'a Fabric, host: &'a Host, agent: &'a AgentProcess) -> Self {
        let root = fabric.lab.dir().join("others");
        fs::create_dir_all(root.join("bin")).unwrap();
        Self { host, agent, store: &fabric.store, root }
    }

    /// What it says, with `within` before its command line.
    pub(crate) fn run(&self, within: &[&str], words: &[&str]) -> Output {
        let mut line = within.iter().chain([&TWILL]);
        let mut command = Command::new(line.next().unwrap());
        let files = &self.agent.files;
        command.args(line).arg("doctor").args(words).args(self.store.flags());
        command.arg("--state-dir").arg(&files.state).arg("--run-dir").arg(&files.run);
        command.arg("--subnet-file").arg(&files.subnet).arg("--root").arg(&self.root);
        for (flag, folder) in [
            ("--cni-conf-dir", "conf"),
            ("--cni-state-dir", "state"),
            ("--cni-networks-dir", "networks"),
            ("--cni-bin-dir", "bin"),
        ] {
            command.arg(flag).arg(self.root.join(folder));
        }
        self.host.net.run(|| command.output()).unwrap().unwrap()
    }

    /// The findings, without those of the machine.
    pub(crate) fn findings(&self, within: &[&str]) -> Vec<Value> {
        let output = self.run(within, &["--json"]);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|one| !MACHINES.contains(&one["code"].as_str().unwrap())).cloned().collect()
    }

    pub(crate) fn codes(&self) -> Vec<String> {
        self.findings(&[]).iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it names what went wrong then, each part of the finding in words.
    pub(crate) fn named(&self, within: &[&str], code: &str, since: Instant) -> Named {
        let finding = wait_for(code, || {
            let findings = self.findings(within);
            let finding = findings.iter().find(|one| one["code"] == code).cloned();
            finding.ok_or(findings)
        });
        let after = since.elapsed();
        for key in ["subject", "breaks", "found", "next"] {
            assert!(!finding[key].as_str().unwrap().is_empty(), "{code}: {finding:#}");
        }
        Named { code: code.to_owned(), after }
    }
}
