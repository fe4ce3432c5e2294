//! The page: one document that asks for nothing but the events that keep it up to date.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the document: markup, style and script in one |
//! | `/v1/events` | what it shows, as server-sent events: all of it first, then what changes, once a second |
//!
//! What the events look like is between the two and may change; programs ask `/v1/status`.
//!
//! # The whole fabric
//! What other hosts found out of each other comes with their probes ([`twill_backends::probe::row`]): agents ask each other
//! nothing, and no listener has to be open for it. Of each direction both ends say something, the sender whether it is
//! answered and the receiver whether anything comes; the worse of the two counts, so that a direction that is cut is seen
//! though the other passes. It is put together only while somebody looks. Up to 64 hosts each pair has a cell; among more
//! what fails is told, and everything else is well if its row was heard.
//!
//! # Who may look
//! Health is served to whoever reaches the port, as flanneld's is, and `--healthz-ip` is `0.0.0.0` unless told
//! otherwise: that a load balancer may ask whether this host is well is no reason to draw the fabric for it. So on that
//! port the page is for callers on this host only, and for them only by a name of this host: a page from elsewhere whose
//! name was made to lead here gets nothing. `--ui-listen` is for the others.

mod caller;
mod fabric;
mod frame;
mod story;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) use self::caller::Caller;
use self::frame::{Moment, Told};
use self::story::Story;
use crate::agent::board::View;
use crate::catalogue::unserved::Unserved;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    include_str!("page.js"),
    include_str!("picture.js"),
    include_str!("matrix.js"),
    include_str!("tables.js")
);
/// How often those who look are told what changed.
const EVERY: Duration = Duration::from_secs(1);
/// How many may look at once: each costs what a peer's row costs, for every peer.
const LOOKING: usize = 32;

/// What the page is served from.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    view: View,
    story: watch::Receiver<Story>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Feed {
    /// What the page is served from, and what has to run so that it knows what happened before somebody looked.
    pub(super) fn new(
        view: View,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = io::Result<()>> + use<>) {
        let (tell, story) = watch::channel(Story::default());
        let (followed, until) = (view.clone(), stop.clone());
        let follow = async move {
            until.run_until_cancelled(story::follow(followed, tell)).await;
            Ok(())
        };
        (Self { view, story, room: Arc::new(Semaphore::new(LOOKING)), stop }, follow)
    }

    /// The page for callers on this host.
    pub(super) fn for_this_host(&self) -> Router {
        self.for_others().layer(axum::middleware::from_fn(caller::of_this_host))
    }

    /// The page for everybody.
    pub(super) fn for_others(&self) -> Router {
        Router::new().route("/", get(page)).route("/v1/events", get(events)).with_state(self.clone())
    }

    /// What is told to one who looks, until the end.
    fn told(self) -> impl Stream<Item = Result<Event, Infallible>> {
        async_stream::stream! {
            let mut told = Told::default();
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut outlook = None;
            while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
                let Some(glance) = self.view.glance().await else { break };
                outlook = outlook.or_else(|| self.view.look());
                let matrix = outlook.as_ref().and_then(|matrix| matrix.borrow().clone());
                let story = self.story.borrow().clone();
                let moment = Moment { glance, matrix, story, stuck: self.view.stuck(), unix_ms: unix_ms() };
                match told.next(&moment) {
                    Ok(frame) => yield Ok(Event::default().data(frame)),
                    Err(error) => {
                        tracing::warn!(%error, "what the page shows cannot be written");
                        break;
                    }
                }
            }
        }
    }
}

async fn page() -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let document = MARKUP.replace("NONCE", &nonce).replace("STYLE", STYLE).replace("SCRIPT", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, &policy),
    ];
    (headers, document).into_response()
}

async fn events(State(feed): State<Feed>) -> Response {
    let Ok(place) = Arc::clone(&feed.room).try_acquire_owned() else {
        let why = format!("{LOOKING} look already; next: close a page, or ask /v1/status");
        return (StatusCode::SERVICE_UNAVAILABLE, Unserved::Full.line(why)).into_response();
    };
    let told = feed.told();
    Sse::new(async_stream::stream! {
        let _place = place;
        for await event in told {
            yield event;
        }
    })
    .into_response()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
