//! An etcd of its own for each test, on free ports of loopback, gone when the test is.

use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use twill::config::{EtcdConfig, Secret, TlsFiles};
use twill::store::table::{Guard, Table, Write, Written};
use twill::store::{EtcdStore, EtcdTable, Guarded, LeaseAdmin, LeaseStore, StoreEvent, Term};
use twill_backends::allocate::Claim;
use twill_backends::lease::{Attrs, LeaseKey};

pub(crate) const PREFIX: &str = "/coreos.com/network";
/// The subnets below 10.5.10.0 and above 10.5.70.0 are none that a claim draws: tests have them for hosts that are but
/// data.
pub(crate) const CONFIG: &str =
    r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.70.0","Backend":{"Type":"vxlan"}}"#;

/// Starts an etcd, or ends the test with a reason.
macro_rules! etcd {
    ($($arg:expr),*) => {{
        let args: Vec<String> = vec![$($arg.into()),*];
        match $crate::harness::Etcd::start(&args) {
            Some(etcd) => etcd,
            None => { println!("SKIP: there is no etcd program"); return; }
        }
    }};
}
pub(crate) use etcd;

/// A running etcd.
pub(crate) struct Etcd {
    child: Option<Child>,
    dir: TempDir,
    pub(crate) port: u16,
    peer: u16,
    args: Vec<String>,
    scheme: &'static str,
}

impl Etcd {
    pub(crate) fn start(args: &[String]) -> Option<Self> {
        Command::new("etcd").arg("--version").stdout(Stdio::null()).status().ok()?;
        let scheme = if args.iter().any(|arg| arg.starts_with("--cert-file")) { "https" } else { "http" };
        // Between finding a port free and etcd's taking it, another test may take it: so it is tried again.
        for _ in 0..5 {
            let (port, peer, dir) = (free_port(), free_port(), TempDir::new().unwrap());
            let mut etcd = Self { child: None, dir, port, peer, args: args.to_vec(), scheme };
            if etcd.run() {
                return Some(etcd);
            }
        }
        panic!("etcd does not start");
    }

    /// One more member, which only listens and serves nobody yet.
    pub(crate) fn learner(&self) -> Self {
        let (port, peer, dir) = (free_port(), free_port(), TempDir::new().unwrap());
        let url = format!("http://127.0.0.1:{peer}");
        self.ctl(&["member", "add", "learner", "--learner", &format!("--peer-urls={url}")]);
        let cluster = format!("default=http://127.0.0.1:{},learner={url}", self.peer);
        let args =
            ["--name", "learner", "--initial-cluster", &cluster, "--initial-cluster-state", "existing"];
        let args = args.map(str::to_owned).to_vec();
        let mut learner = Self { child: None, dir, port, peer, args, scheme: self.scheme };
        assert!(learner.run(), "the learner does not start");
        learner
    }

    /// Starts the program with the same ports and data.
    pub(crate) fn run(&mut self) -> bool {
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            if log.contains("ready to serve client requests") {
                return true;
            }
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Loses everything, as a new etcd on the same address.
    pub(crate) fn wipe(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        assert!(self.run());
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Runs etcdctl as an operator would.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url()])
            .args(args)
            .output()
            .unwrap();
        assert!(done.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig { endpoints: vec![self.url()], prefix: PREFIX.into(), tls: None, user: None }
    }

    pub(crate) fn store(&self) -> EtcdStore {
        store(self.config())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn store(config: EtcdConfig) -> EtcdStore {
    Guarded::new(EtcdTable::new(config))
}

pub(crate) fn with_user(mut config: EtcdConfig, name: &str, password: &str) -> EtcdConfig {
    config.user = Some((name.into(), Secret::new(password)));
    config
}

pub(crate) fn with_tls(mut config: EtcdConfig, tls: TlsFiles) -> EtcdConfig {
    config.tls = Some(tls);
    config
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A node that is numbered: id, session and address follow from the number.
pub(crate) fn claim(node: u8) -> Claim {
    Claim { attrs: attrs(node), ..Claim::default() }
}

pub(crate) fn attrs(node: u8) -> Attrs {
    Attrs {
        public_ip: Some(Ipv4Addr::new(192, 168, 77, node)),
        backend_type: Some("vxlan".into()),
        backend_data: Some(serde_json::json!({"VNI": 1, "VtepMAC": format!("f6:8c:be:44:42:{node:02x}")})),
        node_id: Some(format!("node-{node}")),
        session: Some(format!("session-{node}")),
        ..Attrs::default()
    }
}

/// What flanneld writes for the host with this number.
pub(crate) fn flannels(node: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.168.77.{node}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"f6:8c:be:44:42:{node:02x}"}}}}"#
    )
}

/// Writes a value as anybody could, with or without a term.
pub(crate) async fn put<T: Table>(store: &Guarded<T>, key: &str, value: &str, permanent: bool) -> u64 {
    let table = store.table();
    let key = LeaseKey::new(key);
    let guard = match table.read(&key).await.unwrap() {
        Some(record) => Guard::Unchanged(record.revision),
        None => Guard::Absent,
    };
    let term = if permanent { Term::Permanent } else { table.begin().await.unwrap() };
    match table.write(&Write { key, guard, value: value.into(), term }).await.unwrap() {
        Written::Done(revision) => revision,
        Written::Found(found) => panic!("{found:?} stands there"),
    }
}

pub(crate) async fn delete<T: Table>(store: &Guarded<T>, key: &str) {
    assert!(store.revoke(&LeaseKey::new(key)).await.unwrap(), "there is no {key}");
}

/// The events of a store, each awaited for at most fifteen seconds.
pub(crate) struct Events<'a>(Pin<Box<dyn Stream<Item = StoreEvent> + Send + 'a>>);

impl<'a> Events<'a> {
    pub(crate) fn of(store: &'a impl LeaseStore) -> Self {
        Self(Box::pin(store.watch()))
    }

    pub(crate) async fn next(&mut self) -> StoreEvent {
        let next = tokio::time::timeout(Duration::from_secs(15), self.0.next()).await;
        next.expect("no event within 15 s").expect("the events ended")
    }

    /// No event within this time.
    pub(crate) async fn quiet(&mut self, time: Duration) {
        if let Ok(event) = tokio::time::timeout(time, self.0.next()).await {
            panic!("{event:?}");
        }
    }

    /// The snapshot that follows at once, after the configuration.
    pub(crate) async fn snapshot(&mut self) -> Vec<String> {
        let config = self.next().await;
        assert!(matches!(config, StoreEvent::Config(_)), "{config:?}");
        match self.next().await {
            StoreEvent::Snapshot { leases, .. } => {
                leases.iter().map(|lease| lease.key.as_str().to_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn down(&mut self) -> String {
        match self.next().await {
            StoreEvent::Down(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn up(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, StoreEvent::Up), "{event:?}");
    }
}
