//! `twill agent`, and flanneld.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net;
use std::path::PathBuf;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twill_backends::lease::Listener;

use super::world::Real;
use super::{Failure, Outcome, successor, with_store};
use crate::agent::confine::{Reach, confine};
use crate::agent::handover::{self, Doors, Inheritance, TakeOverError};
use crate::agent::identity::{Identity, Origin, machine_id};
use crate::agent::lock::{Lock, no_flanneld};
use crate::agent::privilege::may_change_network;
use crate::agent::socket::{self, Hall};
use crate::agent::{Agent, End};
use crate::config::{Config, StoreConfig};
use crate::probe::secret;
use crate::store::LeaseStore;
use crate::telemetry;
use crate::telemetry::http::{self, Listeners, Server};

/// How many requests may wait for the loop.
const WAITING: usize = 16;

/// What an agent holds before it does anything.
struct Post {
    lock: Lock,
    socket: UnixListener,
    http: Listeners,
    identity: Identity,
    /// What is left to take over, where another process runs.
    inheritance: Option<Inheritance>,
}

/// Runs the agent until it is told to end.
pub(super) async fn run(config: Config) -> Outcome {
    telemetry::log_to_stderr(config.verbosity);
    for warning in &config.site.warnings {
        tracing::warn!("{warning}");
    }
    may_change_network()?;
    let running = if config.take_over { handover::ask(&config.site.socket()).await? } else { None };
    let post = match running {
        Some(inheritance) => Post::take_over(&config, inheritance)?,
        None => Post::take_up(&config)?,
    };
    // The agent that hands over has looked, and may itself be named flanneld.
    if let (StoreConfig::Etcd(etcd), None) = (&config.site.store, &post.inheritance) {
        no_flanneld(&etcd.prefix)?;
    }
    if config.confine {
        give_up(&config);
    }
    with_store!(&config.site.store, |store| live(store, config.clone(), post).await?);
    Ok(String::new())
}

/// Gives up what is not needed any more. The process has one thread until here.
fn give_up(config: &Config) {
    let (state, run) = (config.site.state_dir(), config.site.run_dir());
    let mut reach = Reach { read: Vec::new(), write: vec![&state, &run, &config.subnet_file] };
    match &config.site.store {
        StoreConfig::Etcd(etcd) => {
            let files = etcd.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
            reach.read.extend(files.flatten().map(PathBuf::as_path));
        }
        StoreConfig::File { dir } => reach.write.push(dir),
    }
    let confined = confine(&reach);
    tracing::info!(capabilities = %confined, "confined");
    for failed in &confined.failed {
        tracing::warn!(%failed, "not everything could be given up");
    }
}

impl Post {
    fn take_up(config: &Config) -> Result<Self, Failure> {
        let lock = Lock::take(&config.site.run_dir())?;
        let identity = identify(config)?;
        let socket = socket::bind(&config.site.socket())?;
        let unix = socket::bind(&config.site.http_socket())?.into_std()?;
        let tcp = config.health.map(http::bind_health).transpose()?;
        let http = Listeners { tcp, page: config.page.map(http::bind_page).transpose()?, unix };
        Ok(Self { lock, socket, http, identity, inheritance: None })
    }

    fn take_over(config: &Config, mut inheritance: Inheritance) -> Result<Self, Failure> {
        let node = identify(config)?.node;
        let identity = inheritance.identity.clone();
        if node != identity.node {
            let why = format!("it is node {}, and --state-dir says {node}", identity.node);
            return Err(TakeOverError::Unfit(why).into());
        }
        let lock = Lock::inherit(inheritance.lock.try_clone()?, &config.site.run_dir())?;
        let tcp = given_or_bound(config.health, inheritance.health.take(), http::bind_health)?;
        let page = given_or_bound(config.page, inheritance.page.take(), http::bind_page)?;
        let again = |socket: &net::UnixListener| {
            let socket = socket.try_clone()?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let socket = UnixListener::from_std(again(&inheritance.socket)?)?;
        let http = Listeners { tcp, page, unix: again(&inheritance.http)? };
        Ok(Self { lock, socket, http, identity, inheritance: Some(inheritance) })
    }

    /// What a process that takes over is given of it.
    fn doors(&self) -> io::Result<Doors> {
        let again = |listener: &Option<TcpListener>| {
            listener.as_ref().map(|listener| listener.as_fd().try_clone_to_owned()).transpose()
        };
        Ok(Doors {
            lock: self.lock.as_fd().try_clone_to_owned()?,
            socket: self.socket.as_fd().try_clone_to_owned()?,
            http: self.http.unix.as_fd().try_clone_to_owned()?,
            health: again(&self.http.tcp)?,
            page: again(&self.http.page)?,
        })
    }
}

/// The listener that the running agent gave, if it is at this address, else another.
fn given_or_bound(
    addr: Option<SocketAddr>,
    given: Option<TcpListener>,
    bind: fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<Option<TcpListener>> {
    match (addr, given) {
        (Some(addr), Some(given)) if given.local_addr()? == addr => {
            given.set_nonblocking(true)?;
            Ok(Some(given))
        }
        (Some(addr), _) => bind(addr).map(Some),
        (None, _) => Ok(None),
    }
}

/// Lives with a store, from the first step to the last.
async fn live<S: LeaseStore + 'static>(store: S, config: Config, mut post: Post) -> Result<(), Failure> {
    let stop = stop_on_signal()?;
    let (ready, is_ready) = watch::channel(false);
    let listener = listener(&config);
    let mut agent = Agent::new(Real::open(store, &config)?, config, post.identity.clone(), ready);
    listener.into_iter().for_each(|listener| agent.probe(listener));
    match post.inheritance.take() {
        Some(inheritance) => tokio::select! {
            done = agent.succeed(inheritance) => done?,
            () = stop.cancelled() => return Ok(()),
        },
        None => agent.carry_early().await,
    }
    if let Err(error) = post.lock.sign() {
        tracing::warn!(%error, "the lock file names another process");
    }
    successor::start_on_signal()?;
    let doors = Arc::new(post.doors()?);
    let (send, visits) = mpsc::channel(WAITING);
    let hall = Hall { visits: send, view: agent.view(), doors };
    let server = Server::start(post.http, hall.view.clone())?;
    tokio::spawn(socket::serve(post.socket, hall));
    tokio::spawn(notify(is_ready));
    let end = agent.run(visits, stop).await?;
    if let End::HandedOver(heir) = &end {
        // Only this process may tell the service manager who comes after it.
        heir.pid().into_iter().for_each(|pid| tell(&[NotifyState::MainPid(pid)]));
        server.close().await;
    }
    // The successor waits for the end of its connection, which is among what ends here.
    drop(end);
    Ok(())
}

fn identify(config: &Config) -> Result<Identity, Failure> {
    let (identity, origin) = Identity::load(&config.site.state_dir(), &machine_id())?;
    let (node, store, instance) = (identity.node, &config.site.store, config.site.instance());
    match origin {
        Origin::Kept => tracing::info!(%node, %instance, %store, "starting"),
        Origin::Made => tracing::info!(%node, %instance, %store, "starting for the first time"),
        Origin::Replaced(why) => tracing::warn!(%node, %instance, %why, "took a new node id"),
    }
    Ok(identity)
}

/// Where this host answers probes, if it does.
fn listener(config: &Config) -> Option<Listener> {
    let port = config.probe_port?;
    let (secret, kept) = secret::own(&config.site.state_dir());
    if let Err(error) = kept {
        tracing::warn!(%error, "the secret of probes could not be kept; the next start takes another");
    }
    Some(Listener { port, secret })
}

/// Tells the service manager once containers can be started.
async fn notify(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_ok() {
        tell(&[NotifyState::Ready]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(?state, %error, "the service manager could not be told");
    }
}

fn stop_on_signal() -> io::Result<CancellationToken> {
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
