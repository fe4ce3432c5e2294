//! A TCP proxy in front of etcd that can keep replies to itself or back, cut connections, and stop forwarding without a word.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// Replies are dropped.
    swallow: watch::Sender<bool>,
    /// Replies wait.
    hold: watch::Sender<bool>,
    /// Replies are dropped from the moment a request contains this.
    trigger: Mutex<Option<String>>,
    /// How many requests contained the trigger.
    triggered: AtomicUsize,
    /// How many connections were made.
    connections: AtomicUsize,
    /// Counts the cuts; a connection made before the last one ends.
    cuts: watch::Sender<usize>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            swallow: watch::Sender::new(false),
            hold: watch::Sender::new(false),
            trigger: Mutex::new(None),
            triggered: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            cuts: watch::Sender::new(0),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, target, Arc::clone(&accepting)));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Drops all replies; connections stay.
    pub(crate) fn swallow(&self) {
        self.state.swallow.send_replace(true);
    }

    /// Keeps all replies back, or lets them go.
    pub(crate) fn hold(&self, hold: bool) {
        self.state.hold.send_replace(hold);
    }

    /// Drops all replies once a request contains `text`.
    pub(crate) fn swallow_after(&self, text: &str) {
        self.state.triggered.store(0, Ordering::SeqCst);
        *self.state.trigger.lock().unwrap() = Some(text.to_owned());
    }

    /// How many requests contained that text since it was named.
    pub(crate) fn triggered(&self) -> usize {
        self.state.triggered.load(Ordering::SeqCst)
    }

    /// How many connections were made so far: whoever was left without an answer makes another to ask again.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Ends all connections, and drops nothing any more.
    pub(crate) fn cut(&self) {
        *self.state.trigger.lock().unwrap() = None;
        self.state.cuts.send_modify(|cuts| *cuts += 1);
        self.state.swallow.send_replace(false);
    }
}

async fn carry(client: TcpStream, target: u16, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut cuts = state.cuts.subscribe();
    let requests = async {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let text = state.trigger.lock().unwrap().clone();
            if text
                .is_some_and(|text| buffer[..count].windows(text.len()).any(|part| part == text.as_bytes()))
            {
                state.triggered.fetch_add(1, Ordering::SeqCst);
                state.swallow.send_replace(true);
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let replies = async {
        let mut buffer = vec![0; 65536];
        let (mut spoiled, mut hold) = (false, state.hold.subscribe());
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            // A stream that misses bytes cannot be taken up again.
            spoiled |= *state.swallow.borrow();
            hold.wait_for(|hold| !hold).await.unwrap();
            if !spoiled && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
        _ = cuts.changed() => {}
    }
}
