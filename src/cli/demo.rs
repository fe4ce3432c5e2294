//! What was typed after `twill demo`.

use clap::{Args, ValueEnum};

use crate::config::{DemoBackend, DemoConfig, DemoStore};

/// The size and shape of a demo.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many hosts, 2 to 100
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=100))]
    hosts: u16,
    /// Where the leases live
    #[arg(long, default_value = "file")]
    store: DemoStoreArg,
    /// What carries the pods' packets
    #[arg(long, default_value = "vxlan")]
    backend: DemoBackendArg,
    /// Dual-stack; a pair counts when both families pass
    #[arg(long)]
    ipv6: bool,
    /// Leave everything up at the end, and say how to look around
    #[arg(long)]
    keep: bool,
    /// End stdout with one JSON object
    #[arg(long)]
    json: bool,
}

/// Spellings of [`DemoStore`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DemoStoreArg {
    File,
    Etcd,
}

/// Spellings of [`DemoBackend`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DemoBackendArg {
    Vxlan,
    HostGw,
}

impl DemoArgs {
    pub(super) fn resolve(&self) -> DemoConfig {
        DemoConfig {
            hosts: self.hosts,
            store: match self.store {
                DemoStoreArg::File => DemoStore::File,
                DemoStoreArg::Etcd => DemoStore::Etcd,
            },
            backend: match self.backend {
                DemoBackendArg::Vxlan => DemoBackend::Vxlan,
                DemoBackendArg::HostGw => DemoBackend::HostGw,
            },
            ipv6: self.ipv6,
            keep: self.keep,
            json: self.json,
        }
    }
}
