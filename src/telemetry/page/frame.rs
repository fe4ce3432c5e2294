//! What one who looks at the page is told: all of it first, then what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use twill_backends::probe::Verdict;
use twill_backends::probe::hearsay::Matrix;

use super::fabric::{self, Fabric};
use super::story::{Entry, Story};
use crate::agent::board::{Glance, Stuck};
use crate::agent::status::{
    FaultStatus, NetworkStatus, PeerStatus, ProbeStatus, Status, UnderlayStatus, WayStatus,
};

/// How many faults are told one by one; of hundreds, each says the same.
const FAULTS: usize = 50;
/// By how many seconds a moment may seem another one that is the same: what was found out of a thousand peers is told
/// every eleven seconds, and how long it has been so as of then.
const SHIVER: u64 = 15;

/// All there is to tell at one time.
#[derive(Debug)]
pub(super) struct Moment {
    /// What the agent wrote up last.
    pub(super) glance: Glance,
    /// What all hosts found out; `None` if it is not known.
    pub(super) matrix: Option<Arc<Matrix>>,
    /// What happened.
    pub(super) story: Story,
    /// Whether the agent makes no progress.
    pub(super) stuck: Option<Stuck>,
    /// The time, in milliseconds since 1970.
    pub(super) unix_ms: u64,
}

/// What one who looks has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    host: Option<String>,
    peers: Option<Arc<Vec<PeerStatus>>>,
    rows: BTreeMap<String, ToldOf>,
    fabric: fabric::Told,
    entry: u64,
}

/// What one who looks has been told of a peer.
#[derive(Debug)]
struct ToldOf {
    row: String,
    /// What probes of it come to, and since when in seconds since 1970.
    since: Option<(Verdict, u64)>,
}

/// One event.
#[derive(Debug, Serialize)]
struct Frame<'a> {
    /// Whether it is all there is, and what was told before is to be forgotten.
    whole: bool,
    at_ms: u64,
    /// How old the agent's own words are.
    age_ms: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    stuck: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fabric: Option<Fabric>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<&'a Entry>,
}

/// This host.
#[derive(Debug, Serialize)]
struct Host<'a> {
    state: String,
    build: &'a str,
    node: &'a str,
    instance: &'a str,
    pid: u32,
    since_s: u64,
    ready: bool,
    because: &'a [String],
    store: &'a str,
    connected: bool,
    store_error: Option<&'a str>,
    underlay: Option<&'a UnderlayStatus>,
    network: Option<&'a NetworkStatus>,
    subnets: &'a [String],
    standing: Option<&'a str>,
    lease_ends_s: Option<u64>,
    faults: &'a [FaultStatus],
    more_faults: usize,
    converged: bool,
    repairs: u64,
    repaired: &'a BTreeMap<String, u64>,
}

/// Another host.
#[derive(Debug, Serialize)]
struct Row<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    at: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    health: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held: bool,
    #[serde(flatten)]
    found: Option<Found<'a>>,
}

/// What was measured of it.
#[derive(Debug, Serialize)]
struct Found<'a> {
    verdict: Verdict,
    /// Since when, in seconds since 1970: who looks counts on from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    path: &'a str,
    mtu: u32,
    /// What it would be if only this host's devices counted, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu_wanted: Option<u32>,
    ways: Vec<Way<'a>>,
}

/// One way to it, without names: there are hundreds of hosts, and several ways to each.
#[derive(Debug, Serialize)]
struct Way<'a>(&'a str, &'a str, Option<bool>, Option<u64>, Option<u64>, Option<Lost>);

/// What is lost in thousandths: of all, on the way there, on the way back. Empty if nothing is.
type Lost = Vec<Option<u32>>;

impl Told {
    /// What there is to tell, as JSON, and it counts as told.
    ///
    /// # Errors
    /// Something has no JSON.
    pub(super) fn next(&mut self, moment: &Moment) -> serde_json::Result<String> {
        let Moment { glance, matrix, story, stuck, unix_ms } = moment;
        let whole = self.host.is_none();
        let host = to_raw_value(&Host::of(&glance.status, unix_ms / 1000))?;
        let news = self.host.as_deref() != Some(host.get());
        self.host = Some(host.get().to_owned());
        let (peers, gone) = self.rows(&glance.peers, unix_ms / 1000)?;
        let events: Vec<&Entry> =
            story.entries.iter().map(|entry| &**entry).filter(|entry| entry.number > self.entry).collect();
        self.entry = story.entries.back().map_or(self.entry, |entry| entry.number);
        serde_json::to_string(&Frame {
            whole,
            at_ms: *unix_ms,
            age_ms: glance.age.as_millis(),
            stuck: stuck.as_ref().map(ToString::to_string),
            host: news.then_some(host),
            peers,
            gone,
            fabric: self.fabric.next(matrix.as_ref())?,
            events,
        })
    }

    /// The rows that are others than before, and the keys of those that are gone.
    fn rows(
        &mut self,
        peers: &Arc<Vec<PeerStatus>>,
        now_s: u64,
    ) -> serde_json::Result<(Vec<Box<RawValue>>, Vec<String>)> {
        if self.peers.replace(Arc::clone(peers)).is_some_and(|before| Arc::ptr_eq(&before, peers)) {
            return Ok((Vec::new(), Vec::new()));
        }
        let (mut news, mut rows) = (Vec::new(), BTreeMap::new());
        for peer in peers.iter() {
            let before = self.rows.remove(&peer.key);
            let since = since(peer, before.as_ref().and_then(|before| before.since), now_s);
            let row = to_raw_value(&Row::of(peer, since.map(|(_, at)| at)))?;
            rows.insert(peer.key.clone(), ToldOf { row: row.get().to_owned(), since });
            if before.is_none_or(|before| before.row != row.get()) {
                news.push(row);
            }
        }
        let gone = std::mem::replace(&mut self.rows, rows).into_keys().collect();
        Ok((news, gone))
    }
}

/// What probes of a peer come to, and since when: as was told before, unless that is another moment for sure.
fn since(peer: &PeerStatus, told: Option<(Verdict, u64)>, now_s: u64) -> Option<(Verdict, u64)> {
    let probe = peer.probe.as_ref()?;
    let at = now_s.saturating_sub(probe.since_s?);
    let same = |(verdict, told): &(Verdict, u64)| *verdict == probe.verdict && told.abs_diff(at) <= SHIVER;
    told.filter(same).or(Some((probe.verdict, at)))
}

impl<'a> Host<'a> {
    fn of(status: &'a Status, now_s: u64) -> Self {
        let lease = status.lease.as_ref();
        let (faults, more) = status.faults.split_at(status.faults.len().min(FAULTS));
        Self {
            state: status.state.to_string(),
            build: &status.build,
            node: &status.node,
            instance: &status.instance,
            pid: status.pid,
            since_s: now_s.saturating_sub(status.uptime_s),
            ready: status.readiness.ready,
            because: &status.readiness.because,
            store: &status.store.place,
            connected: status.store.connected,
            store_error: status.store.error.as_deref(),
            underlay: status.underlay.as_ref(),
            network: status.network.as_ref(),
            subnets: lease.map(|lease| lease.subnets.as_slice()).unwrap_or_default(),
            standing: lease.map(|lease| lease.standing.as_str()),
            lease_ends_s: lease.and_then(|lease| lease.expires_in_s).map(|left| now_s + left),
            faults,
            more_faults: more.len(),
            converged: status.reconcile.converged,
            repairs: status.reconcile.repairs,
            repaired: &status.reconcile.repaired,
        }
    }
}

impl<'a> Row<'a> {
    fn of(peer: &'a PeerStatus, since: Option<u64>) -> Self {
        Self {
            key: &peer.key,
            node: peer.node.as_deref(),
            at: &peer.public,
            backend: peer.probe.is_none().then_some(&*peer.backend),
            health: peer.health().as_str(),
            held: peer.held,
            found: peer.probe.as_ref().map(|probe| Found::of(probe, since)),
        }
    }
}

impl<'a> Found<'a> {
    fn of(probe: &'a ProbeStatus, since: Option<u64>) -> Self {
        Self {
            verdict: probe.verdict,
            since,
            cause: &probe.cause,
            path: &probe.path,
            mtu: probe.mtu,
            mtu_wanted: Some(probe.mtu_wanted).filter(|wanted| *wanted != probe.mtu),
            ways: probe.ways.iter().map(Way::of).collect(),
        }
    }
}

impl<'a> Way<'a> {
    fn of(way: &'a WayStatus) -> Self {
        let (p50, p99) = (way.rtt_p50_us.map(two_digits), way.rtt_p99_us.map(two_digits));
        Self(&way.way, &way.family, way.up, p50, p99, way.loss.map(|loss| lost(loss, way.loss_there)))
    }
}

/// What is lost in each direction, as far as it can be told: of what did not come there, nothing could come back.
fn lost(loss: f64, there: Option<f64>) -> Lost {
    let thousandths = |share: f64| (share.clamp(0.0, 1.0) * 1000.0).round() as u32;
    if loss <= 0.0 {
        return Vec::new();
    }
    let back = there.filter(|there| *there < 1.0).map(|there| 1.0 - (1.0 - loss) / (1.0 - there));
    vec![Some(thousandths(loss)), there.map(thousandths), back.map(thousandths)]
}

/// Rounded to its first two digits: what shivers below them is no news.
fn two_digits(number: u64) -> u64 {
    let scale = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (number + scale / 2) / scale * scale
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::agent::status::tests::status;

    fn moment(status: &Status, story: &Story) -> Moment {
        let peers = Arc::new(status.peers.clone());
        let glance = Glance { status: Arc::new(status.clone()), peers, age: Duration::from_millis(7) };
        Moment { glance, matrix: None, story: story.clone(), stuck: None, unix_ms: 100_000_000 }
    }

    fn tell(told: &mut Told, moment: &Moment) -> Value {
        serde_json::from_str(&told.next(moment).unwrap()).unwrap()
    }

    #[test]
    fn all_is_told_first_and_then_what_changed() {
        let (mut told, mut story, mut status) = (Told::default(), Story::default(), status());
        story.goes_on(None, &status.clone().into(), 5);
        let frame = tell(&mut told, &moment(&status, &story));
        assert_eq!((&frame["whole"], &frame["age_ms"]), (&true.into(), &7.into()));
        assert_eq!(
            (&frame["host"]["state"], &frame["host"]["since_s"]),
            (&"degraded".into(), &92_735.into())
        );
        assert_eq!(frame["host"]["lease_ends_s"], 180_000);
        let peers = frame["peers"].as_array().unwrap();
        assert_eq!(
            (peers.len(), &peers[0]["key"], &peers[1]["held"]),
            (2, &"10.5.2.0-24".into(), &true.into())
        );
        let ways = serde_json::json!([
            ["overlay", "ipv4", true, 310, 1200, []],
            ["underlay", "ipv4", true, 310, 1200, [31, null, null]],
        ]);
        assert!(peers[0]["ways"] == ways && peers[0]["health"] == "poor", "{peers:#?}");
        assert_eq!(frame["events"].as_array().unwrap().len(), story.entries.len());
        // Nothing happened, then something did.
        let frame = tell(&mut told, &moment(&status, &story));
        let parts: Vec<&String> = frame.as_object().unwrap().keys().collect();
        assert_eq!(parts, ["whole", "at_ms", "age_ms"]);
        assert_eq!(frame["whole"], false);
        status.peers.remove(1);
        status.peers[0].probe.as_mut().unwrap().mtu = 1234;
        status.store.connected = false;
        let frame = tell(&mut told, &moment(&status, &story));
        assert_eq!((&frame["gone"][0], &frame["peers"][0]["mtu"]), (&"10.5.3.0-24".into(), &1234.into()));
        assert_eq!(frame["host"]["connected"], false);
        let mut stuck = moment(&status, &story);
        stuck.stuck = Some(Stuck { doing: "a test", seconds: 31 });
        assert!(tell(&mut told, &stuck)["stuck"].as_str().unwrap().contains("31 s"));
    }

    #[test]
    fn how_long_a_peer_is_as_it_is_is_told_once() {
        let (mut told, story, mut status) = (Told::default(), Story::default(), status());
        let mut next = |status: &Status, unix_s: u64| {
            let moment = Moment { unix_ms: unix_s * 1000, ..moment(status, &story) };
            tell(&mut told, &moment)["peers"][0]["since"].clone()
        };
        let mut comes_to = |verdict, since_s| {
            let probe = status.peers[0].probe.as_mut().unwrap();
            (probe.verdict, probe.since_s) = (verdict, since_s);
            status.clone()
        };
        assert_eq!(next(&comes_to(Verdict::Ok, Some(100)), 5_000), 4_900);
        // Time goes on; what is told of it comes in steps, and late.
        for (since_s, unix_s) in [(101, 5_001), (101, 5_002), (105, 5_010), (119, 5_018)] {
            assert_eq!(next(&comes_to(Verdict::Ok, Some(since_s)), unix_s), Value::Null, "{unix_s}");
        }
        assert_eq!(next(&comes_to(Verdict::PeerDown, Some(0)), 5_019), 5_019);
        assert_eq!(next(&comes_to(Verdict::Ok, Some(0)), 5_020), 5_020);
        // It was another in between, and nobody was told.
        assert_eq!(next(&comes_to(Verdict::Ok, Some(1)), 5_100), 5_099);
        assert_eq!(next(&comes_to(Verdict::Ok, None), 5_101), Value::Null);
    }

    #[test]
    fn hundreds_of_faults_are_counted() {
        let mut status = status();
        status.faults = vec![status.faults[0].clone(); 500];
        let frame = tell(&mut Told::default(), &moment(&status, &Story::default()));
        assert_eq!(frame["host"]["faults"].as_array().unwrap().len(), FAULTS);
        assert_eq!(frame["host"]["more_faults"], 500 - FAULTS);
    }

    #[test]
    fn what_is_lost_is_told_by_direction() {
        for (loss, there, want) in [
            (0.0, None, vec![]),
            (0.5, None, vec![Some(500), None, None]),
            (0.75, Some(0.5), vec![Some(750), Some(500), Some(500)]),
            (0.5, Some(0.5), vec![Some(500), Some(500), Some(0)]),
            (1.0, Some(0.0), vec![Some(1000), Some(0), Some(1000)]),
            (1.0, Some(1.0), vec![Some(1000), Some(1000), None]),
            // The other side tells later than this one counts.
            (0.25, Some(0.5), vec![Some(250), Some(500), Some(0)]),
        ] {
            assert_eq!(lost(loss, there), want, "{loss:?} {there:?}");
        }
    }

    #[test]
    fn times_have_two_digits() {
        for (time, want) in
            [(0, 0), (7, 7), (99, 99), (104, 100), (105, 110), (1_949, 1_900), (99_999, 100_000)]
        {
            assert_eq!(two_digits(time), want);
        }
    }
}
