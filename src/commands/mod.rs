//! What each command of the program does: from resolved configuration to an exit.

mod agent;
mod bundle;
mod doctor;
mod explain;
mod fleet;
mod generate;
mod http;
mod lease;
mod migrate;
mod network;
mod preview;
mod refusal;
mod running;
mod status;
mod successor;
mod trace;
mod verify;
mod watch;
mod world;

use std::error::Error;

use crate::cli::{Command, Exit, Stream, VERSION};
use crate::lab::{bench, demo};

/// Runs a block with the store that a configuration names. The stores are different types, so the block is compiled
/// for each.
macro_rules! with_store {
    ($config:expr, |$store:ident| $body:expr) => {
        match $config {
            $crate::config::StoreConfig::Etcd(etcd) => {
                let $store = $crate::store::EtcdStore::new($crate::store::EtcdTable::new(etcd.clone()));
                $body
            }
            $crate::config::StoreConfig::File { dir } => {
                let $store = $crate::store::FileStore::new($crate::store::FileTable::new(dir));
                $body
            }
        }
    };
}
use with_store;

/// Why a command failed.
type Failure = Box<dyn Error + Send + Sync>;

/// The outcome of a command: what to print on stdout, or why it failed.
type Outcome = Result<String, Failure>;

/// Carries a command out.
#[must_use]
pub fn run(command: Command) -> Exit {
    match command {
        Command::Version => printed(format!("twill {VERSION}\n")),
        Command::Doctor { config, typed, json } => {
            blocking(doctor::run(config, typed, json)).unwrap_or_else(|error| failed(&error))
        }
        Command::Bundle { config, typed } => {
            blocking(bundle::run(config, typed)).unwrap_or_else(|error| failed(&error))
        }
        Command::Explain { code, json } => {
            explain::run(code.as_deref(), json).unwrap_or_else(|error| failed(&error))
        }
        Command::Generate(what) => outcome(generate::run(what)),
        // Both may have to enter a user namespace, which only a process of one thread can.
        Command::Demo(config) => said(demo::command(&config)),
        Command::Bench(config) => said(bench::command(&config)),
        Command::Status { site, json, fabric: None } => looked(status::run(&site, json)),
        Command::Status { site, json, fabric: Some(fabric) } => looked(status::all(&site, fabric.port, json)),
        Command::Watch { site } => looked(watch::run(&site)),
        Command::Peers { site, order, json } => looked(status::peers(&site, order, json)),
        Command::Agent(config) => outcome(blocking(agent::run(config))),
        Command::Plan(config) => outcome(blocking(preview::plan(config))),
        Command::Verify { config, typed, fabric, json } => looked(verify::run(config, typed, fabric, json)),
        Command::Trace { config, typed, src, dst, port, json } => {
            let request = trace::Request { src, dst, port, json };
            looked(trace::run(config, typed, request))
        }
        Command::Cleanup { config, firewall_only } => {
            outcome(blocking(preview::clean_up(config, firewall_only)))
        }
        Command::MigrateCheck(check) => {
            blocking(migrate::check(&check)).unwrap_or_else(|error| failed(&error))
        }
        Command::ConfigSet { site, json } => outcome(blocking(network::set(&site, &json))),
        Command::ConfigGet { site } => outcome(blocking(network::get(&site))),
        Command::LeaseList { site, json } => outcome(blocking(lease::list(&site, json))),
        Command::LeaseReserve { site, v4, v6, owner } => {
            let subnets =
                twill_backends::family::PerFamily { v4: v4.map(Into::into), v6: v6.map(Into::into) };
            outcome(blocking(lease::reserve(&site, subnets, owner)))
        }
        Command::LeaseRelease { site, which } => outcome(blocking(lease::release(&site, which))),
    }
}

/// What a command says that looks at things; its codes 0 and 1 are about what it saw.
fn looked(saw: impl Future<Output = Result<Exit, Failure>>) -> Exit {
    blocking(saw).unwrap_or_else(|error| Exit { code: 2, ..failed(&error) })
}

/// Runs a future to its end. One thread does: the agent is one loop, and the kernel does the work.
fn blocking<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

fn outcome(result: Outcome) -> Exit {
    result.map_or_else(|error| failed(&error), printed)
}

/// Everything was said already.
fn said(code: u8) -> Exit {
    Exit { text: String::new(), stream: Stream::Stdout, code }
}

fn printed(text: String) -> Exit {
    Exit { text, stream: Stream::Stdout, code: 0 }
}

#[allow(clippy::borrowed_box, reason = "a boxed error is what commands return")]
fn failed(error: &Failure) -> Exit {
    let code = refusal::code(&**error).map(|entry| format!(" [{}]", entry.code)).unwrap_or_default();
    Exit { text: format!("twill: {}{code}\n", crate::chain(&**error)), stream: Stream::Stderr, code: 1 }
}
