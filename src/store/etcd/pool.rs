//! Connections to the members of an etcd cluster, one client for each, made when needed.
//!
//! # Why
//! A client of `etcd-client` that knows all endpoints sends every n-th call to a dead one and fails it. Here a call
//! goes to the member that answered last, and to the others before it fails. Which is first is drawn, so that not all
//! hosts are at one.
//!
//! Signing in costs etcd a hash that is slow on purpose. When a member goes, its hosts come to the next all at once, and
//! it may be busy with them for longer than an answer may take. Who left early would have it hash in vain, and the one
//! after it. So each sign-in that was not answered makes the next one wait longer, wherever that is.

use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::certificates::{Stamp, tls};
use super::failure::{Failure, auth_is_off, classify, wants_user};
use crate::config::EtcdConfig;
use crate::store::StoreError;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a member may take to answer one call, and the first sign-in.
const ANSWER: Duration = Duration::from_secs(3);
/// How long it may take to sign in at most.
const SIGN_IN: Duration = Duration::from_secs(30);
/// What `etcdctl endpoint health` asks for.
const PROBE: &str = "health";
/// HTTP/2 pings: etcd closes connections that ping more often than every 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));

/// The members of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    config: EtcdConfig,
    members: Vec<Member>,
    /// The member that answered last.
    preferred: AtomicUsize,
    /// How many sign-ins in a row were not answered.
    unsigned: AtomicU32,
    /// Counts the moves of this host: clients of before are not used again.
    moves: AtomicU64,
    moved: Notify,
}

/// One member, and the client that talks to it.
struct Member {
    url: String,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    client: Option<Client>,
    /// Counts the clients made, so that only the one that failed is thrown away.
    made: u64,
    /// After how many moves.
    moves: u64,
    /// What the files were like that it was made from.
    stamp: Stamp,
}

/// A client to ask with.
struct Taken {
    client: Client,
    /// Which of those made for the member.
    made: u64,
    /// Whether it was made just for this.
    fresh: bool,
}

impl Pool {
    /// Connects to nothing yet.
    pub(super) fn new(config: EtcdConfig) -> Self {
        let member = |url: &String| Member { url: url.clone(), slot: Mutex::default() };
        let members: Vec<_> = config.endpoints.iter().map(member).collect();
        let preferred = AtomicUsize::new(fastrand::usize(..members.len().max(1)));
        let (unsigned, moves, moved) = (AtomicU32::new(0), AtomicU64::new(0), Notify::new());
        Self { config, members, preferred, unsigned, moves, moved }
    }

    /// The cluster, in words.
    pub(super) fn name(&self) -> String {
        format!("etcd at {}", self.config.endpoints.join(","))
    }

    /// Does one thing on the member that answered last, else on the others. It may be done twice.
    pub(super) async fn call<T, F, Fut>(&self, what: &str, f: F) -> Result<T, StoreError>
    where
        F: Fn(Client) -> Fut + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut causes = Vec::new();
        for step in 0..self.members.len() {
            let index = (first + step) % self.members.len();
            let Some(member) = self.members.get(index) else { continue };
            match self.ask(member, &f).await {
                Ok(answer) => {
                    if self.preferred.swap(index, Ordering::Relaxed) != index {
                        tracing::debug!(endpoint = member.url, "another etcd member answers");
                    }
                    return Ok(answer);
                }
                Err(Failure::Refused(cause)) => {
                    return Err(StoreError::Refused {
                        store: self.name(),
                        cause: format!("cannot {what}: {cause}"),
                    });
                }
                Err(Failure::Broken(cause) | Failure::Silent(cause)) => {
                    causes.push(format!("{}: {cause}", member.url));
                }
            }
        }
        Err(StoreError::Unavailable {
            store: self.name(),
            cause: format!("cannot {what}: {}", causes.join("; ")),
        })
    }

    /// Asks one member; once more on a fresh connection if one that was there before turns out broken.
    async fn ask<T, F, Fut>(&self, member: &Member, f: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let taken = self.client(member).await?;
        let was_there = !taken.fresh;
        match self.ask_on(member, taken, f).await {
            Err(Failure::Broken(_)) if was_there => {
                let taken = self.client(member).await?;
                self.ask_on(member, taken, f).await
            }
            other => other,
        }
    }

    async fn ask_on<T, F, Fut>(&self, member: &Member, taken: Taken, f: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let failure = match timeout(ANSWER, f(taken.client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.sort(&error),
            Err(_) => Failure::Silent(format!("no answer within {} s", ANSWER.as_secs())),
        };
        if !matches!(failure, Failure::Refused(_)) {
            self.discard(member, taken.made).await;
        }
        Err(failure)
    }

    /// The client of a member. Certificates are read whenever one is made.
    async fn client(&self, member: &Member) -> Result<Taken, Failure> {
        let mut slot = member.slot.lock().await;
        let moves = self.moves.load(Ordering::SeqCst);
        if let Some(client) = slot.client.as_ref().filter(|_| slot.moves == moves) {
            return Ok(Taken { client: client.clone(), made: slot.made, fresh: false });
        }
        let stamp = Stamp::of(self.config.tls.as_ref());
        let patience = patience(self.unsigned.load(Ordering::Relaxed));
        let Ok(client) = timeout(patience, self.connect(&member.url)).await else {
            self.unsigned.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Silent(format!("no sign-in within {} s", patience.as_secs())));
        };
        let client = client?;
        self.unsigned.store(0, Ordering::Relaxed);
        slot.made += 1;
        slot.client = Some(client.clone());
        (slot.stamp, slot.moves) = (stamp, moves);
        Ok(Taken { client, made: slot.made, fresh: true })
    }

    /// Reads certificates that were replaced, so that calls from here on show them and a mistake is told of while the
    /// old ones still do. Whatever runs on a connection, such as a watch, goes on there.
    pub(super) async fn refresh(&self) {
        let now = Stamp::of(self.config.tls.as_ref());
        for member in self.members.iter().filter(|member| member.url.starts_with("https://")) {
            let mut slot = member.slot.lock().await;
            if slot.client.is_none() || slot.stamp == now {
                continue;
            }
            slot.stamp = now.clone();
            match timeout(ANSWER, self.proven(&member.url))
                .await
                .unwrap_or_else(|_| Err("no answer".to_owned()))
            {
                Ok(client) => {
                    tracing::info!(
                        endpoint = member.url,
                        "the certificates for etcd were replaced; using the new ones"
                    );
                    slot.made += 1;
                    slot.client = Some(client);
                }
                Err(cause) => tracing::warn!(
                    endpoint = member.url,
                    cause,
                    "the certificates for etcd were replaced, and etcd cannot be reached with the new ones; using the \
                     old ones as long as they do"
                ),
            }
        }
    }

    /// A client that etcd has answered; connections are otherwise made by the first call.
    async fn proven(&self, url: &str) -> Result<Client, String> {
        let mut client = self.connect(url).await.map_err(Failure::into_cause)?;
        // Any answer will do, also that this key may not be read.
        match client.get(PROBE, None).await.map_err(|error| classify(&error)) {
            Ok(_) | Err(Failure::Refused(_)) => Ok(client),
            Err(failure @ (Failure::Broken(_) | Failure::Silent(_))) => Err(failure.into_cause()),
        }
    }

    fn sort(&self, error: &Error) -> Failure {
        match classify(error) {
            Failure::Broken(cause) if self.config.user.is_none() && wants_user(error) => {
                Failure::Refused(format!("{cause}; next: set --etcd-username and --etcd-password"))
            }
            failure @ (Failure::Broken(_) | Failure::Silent(_) | Failure::Refused(_)) => failure,
        }
    }

    /// Makes every later call connect anew, with the certificates and the token that then count.
    pub(super) async fn forget(&self) {
        for member in &self.members {
            member.slot.lock().await.client = None;
        }
    }

    /// This host has other addresses: connections from the old ones will never hear an answer again, and would be
    /// waited for until [`ANSWER`] is over. Later calls connect anew, and so does the watch.
    pub(super) fn leave(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.moved.notify_one();
    }

    /// Waits until this host has moved.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    async fn discard(&self, member: &Member, made: u64) {
        let mut slot = member.slot.lock().await;
        if slot.made == made {
            slot.client = None;
        }
    }

    /// Without a user nothing is sent; with one, the member is asked for a token. A member that has authentication
    /// switched off is used without, as Go clients do.
    async fn connect(&self, url: &str) -> Result<Client, Failure> {
        let options = self.options(url).await?;
        let Some((name, password)) = &self.config.user else {
            return Client::connect([url], Some(options)).await.map_err(|error| classify(&error));
        };
        let signed = options.clone().with_user(name.as_str(), password.expose());
        match Client::connect([url], Some(signed)).await {
            Err(error) if auth_is_off(&error) => {
                Client::connect([url], Some(options)).await.map_err(|error| classify(&error))
            }
            other => other.map_err(|error| classify(&error)),
        }
    }

    async fn options(&self, url: &str) -> Result<ConnectOptions, Failure> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING.0, PING.1)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if url.starts_with("https://") {
            Ok(options.with_tls(tls(self.config.tls.as_ref()).await?))
        } else {
            Ok(options)
        }
    }
}

/// How long to wait for a sign-in after so many that were not answered.
fn patience(unsigned: u32) -> Duration {
    ANSWER.saturating_mul(4_u32.saturating_pow(unsigned)).min(SIGN_IN)
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("url", &self.url).finish_non_exhaustive()
    }
}
