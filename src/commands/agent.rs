//! `twill agent`, and flanneld.

use std::error::Error;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::world::Real;
use super::{Outcome, with_store};
use crate::agent::identity::{Identity, Origin, machine_id};
use crate::agent::lock::{Lock, no_flanneld};
use crate::agent::privilege::may_change_network;
use crate::agent::{Agent, socket};
use crate::config::{Config, StoreConfig};
use crate::telemetry::{self, http};

/// How many requests may wait for the loop.
const WAITING: usize = 16;

/// Runs the agent until it is told to end.
pub(super) async fn run(config: Config) -> Outcome {
    telemetry::log_to_stderr(config.verbosity);
    for warning in &config.site.warnings {
        tracing::warn!("{warning}");
    }
    may_change_network()?;
    let _lock = Lock::take(&config.site.run_dir())?;
    if let StoreConfig::Etcd(etcd) = &config.site.store {
        no_flanneld(&etcd.prefix)?;
    }
    let identity = identify(&config)?;
    let (ready, is_ready) = watch::channel(false);
    let requests = listen(&config, is_ready).await?;
    let stop = stop_on_signal()?;
    with_store!(&config.site.store, |store| {
        Agent::new(Real::open(store)?, config.clone(), identity, ready).run(requests, stop).await?;
    });
    Ok(String::new())
}

fn identify(config: &Config) -> Result<Identity, Box<dyn Error + Send + Sync>> {
    let (identity, origin) = Identity::load(&config.site.state_dir(), &machine_id())?;
    let (node, store, instance) = (identity.node, &config.site.store, config.site.instance());
    match origin {
        Origin::Kept => tracing::info!(%node, %instance, %store, "starting"),
        Origin::Made => tracing::info!(%node, %instance, %store, "starting for the first time"),
        Origin::Replaced(why) => tracing::warn!(%node, %instance, %why, "took a new node id"),
    }
    Ok(identity)
}

/// Opens everything others talk to the agent through.
async fn listen(
    config: &Config,
    ready: watch::Receiver<bool>,
) -> Result<mpsc::Receiver<socket::Request>, Box<dyn Error + Send + Sync>> {
    let listener = socket::bind(&config.site.socket())?;
    let (send, requests) = mpsc::channel(WAITING);
    tokio::spawn(socket::serve(listener, send));
    if let Some(addr) = config.health {
        let listener = http::bind(addr).await?;
        tokio::spawn(http::serve(listener, ready.clone()));
    }
    tokio::spawn(notify(ready));
    Ok(requests)
}

/// Tells the service manager once containers can be started.
async fn notify(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_ok()
        && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready])
    {
        tracing::warn!(%error, "the service manager could not be told that the agent is ready");
    }
}

fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end; the data plane stays");
        told.cancel();
    });
    Ok(stop)
}
