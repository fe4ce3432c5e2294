//! The peers of one host, as its agent sees them: the worst first.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::Value;

use twill_backends::probe::Verdict;

use super::columns::{Column, STAYS, table};
use crate::agent::status::{PeerStatus, ProbeStatus, WayStatus};
use crate::style::{BAD, Cell, GOOD, PLAIN, STRONG, WARNING, duration, paint};

/// How a peer is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Packets do not reach it, or do not come back.
    Cut,
    /// They do, and something needs attention.
    Poor,
    /// Nothing is known.
    Unknown,
    /// It is as it should be.
    Good,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The worst.
    #[default]
    Worst,
    /// The lowest key.
    Key,
    /// The longest round trip.
    Rtt,
    /// The most loss.
    Loss,
    /// The smallest packets.
    Mtu,
}

impl Order {
    /// The one that comes after it.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Worst => Self::Key,
            Self::Key => Self::Rtt,
            Self::Rtt => Self::Loss,
            Self::Loss => Self::Mtu,
            Self::Mtu => Self::Worst,
        }
    }

    /// As typed after `--sort`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Key => "key",
            Self::Rtt => "rtt",
            Self::Loss => "loss",
            Self::Mtu => "mtu",
        }
    }
}

impl PeerStatus {
    /// How it is.
    #[must_use]
    pub fn health(&self) -> Health {
        let lossy = self.loss().is_some_and(|loss| loss > 0.0);
        let flawless = |probe: &ProbeStatus| probe.verdict == Verdict::Ok && probe.mtu >= probe.mtu_wanted;
        match self.is_reachable() {
            Some(false) => Health::Cut,
            None if !self.held => Health::Unknown,
            Some(true) if !(self.held || lossy) && self.probe.as_ref().is_some_and(flawless) => Health::Good,
            Some(true) | None => Health::Poor,
        }
    }

    /// The verdict, if anything was measured.
    #[must_use]
    pub fn word(&self) -> String {
        self.probe.as_ref().map_or("-".to_owned(), |probe| probe.verdict.to_string())
    }

    /// Its verdict, round trip and largest packet, as cells.
    pub(super) fn brief(&self) -> [Cell; 3] {
        let row = row(self);
        [2, 5, 8].map(|at: usize| row[at].clone())
    }

    /// The first way of which this is known: the overlay's, where there is one.
    fn of<T>(&self, known: impl Fn(&WayStatus) -> Option<T>) -> Option<T> {
        self.probe.iter().flat_map(|probe| &probe.ways).find_map(known)
    }

    /// The most that is lost on any way, 0 to 1.
    fn loss(&self) -> Option<f64> {
        self.probe.as_ref()?.loss()
    }

    fn rtt(&self) -> Option<u64> {
        self.of(|way| way.rtt_p99_us)
    }

    fn lost(&self) -> u64 {
        self.probe.as_ref().and_then(ProbeStatus::lost_ppm).unwrap_or_default()
    }
}

impl Health {
    /// In one word, for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Poor => "poor",
            Self::Unknown => "unknown",
            Self::Good => "good",
        }
    }

    /// How it looks.
    #[must_use]
    pub const fn style(self) -> anstyle::Style {
        match self {
            Self::Cut => BAD,
            Self::Poor => WARNING,
            Self::Unknown => PLAIN,
            Self::Good => GOOD,
        }
    }
}

/// The peers of a status, each with all that the agent said of it.
#[must_use]
pub fn read(status: &Value) -> Vec<(PeerStatus, Value)> {
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |value: &Value| Some((PeerStatus::deserialize(value).ok()?, value.clone()));
    peers.iter().filter_map(read).collect()
}

/// Puts them in order.
pub fn sort(peers: &mut [(PeerStatus, Value)], order: Order) {
    peers.sort_by(|(a, _), (b, _)| {
        let worst = |peer: &PeerStatus| (peer.health(), Reverse(peer.lost()), Reverse(peer.rtt()));
        let first = match order {
            Order::Worst => worst(a).cmp(&worst(b)),
            Order::Key => std::cmp::Ordering::Equal,
            Order::Rtt => b.rtt().cmp(&a.rtt()),
            Order::Loss => b.lost().cmp(&a.lost()),
            Order::Mtu => {
                let mtu = |peer: &PeerStatus| peer.probe.as_ref().map_or(u32::MAX, |probe| probe.mtu);
                mtu(a).cmp(&mtu(b))
            }
        };
        first.then_with(|| a.key.cmp(&b.key))
    });
}

pub(super) const COLUMNS: [Column; 12] = [
    Column { name: "PEER", weight: STAYS },
    Column { name: "PUBLIC", weight: 10 },
    Column { name: "PROBE", weight: STAYS },
    Column { name: "SINCE", weight: 8 },
    Column { name: "PATH", weight: 3 },
    Column { name: "RTT ms", weight: 9 },
    Column { name: "P99 ms", weight: 6 },
    Column { name: "LOSS", weight: 7 },
    Column { name: "MTU", weight: 5 },
    Column { name: "ANSWERED", weight: 4 },
    Column { name: "LEASE", weight: 11 },
    Column { name: "NODE", weight: 1 },
];

/// The table, and a line below it that sums it up. `width`: of the terminal, if it is one.
#[must_use]
pub fn text(peers: &[(PeerStatus, Value)], width: Option<usize>) -> String {
    let rows = peers.iter().map(|(peer, _)| row(peer)).collect();
    let table = table(&COLUMNS, rows, width);
    let causes: String = peers.iter().filter_map(|(peer, _)| cause(peer)).take(CAUSES).collect();
    format!("{table}{causes}{}\n", summary(peers.iter().map(|(peer, _)| peer)))
}

/// Of how many peers the cause is told.
const CAUSES: usize = 10;

/// Why a peer is not reached.
fn cause(peer: &PeerStatus) -> Option<String> {
    let probe = peer.probe.as_ref().filter(|probe| !probe.cause.is_empty())?;
    Some(format!("{}: {}\n", paint(peer.health().style(), &*peer.key), probe.cause))
}

/// How many there are of each kind.
#[must_use]
pub fn summary<'p>(peers: impl Iterator<Item = &'p PeerStatus> + Clone) -> String {
    let count = |health| peers.clone().filter(|peer| peer.health() == health).count();
    let held = peers.clone().filter(|peer| peer.held).count();
    let parts = [
        (count(Health::Good), "reached", GOOD),
        (count(Health::Cut), "cut off", BAD),
        (count(Health::Poor), "in need of attention", WARNING),
        (count(Health::Unknown), "not measured", PLAIN),
        (held, "gone from the store and held", WARNING),
    ];
    let told = parts.iter().filter(|(count, ..)| *count > 0);
    let told: Vec<String> =
        told.map(|(count, words, style)| paint(*style, format!("{count} {words}")).to_string()).collect();
    let of = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
    format!("{} peers{of}", peers.count())
}

pub(super) fn row(peer: &PeerStatus) -> Vec<Cell> {
    let ms = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{}.{:02}", us / 1000, us % 1000 / 10));
    let probe = peer.probe.as_ref();
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mtu = probe.filter(|probe| probe.mtu > 0).map_or("-".to_owned(), |probe| probe.mtu.to_string());
    let age = peer.of(|way| way.answer_age_ms).map_or("-".to_owned(), |ms| {
        if ms < 1000 { "now".to_owned() } else { format!("{} s ago", ms / 1000) }
    });
    vec![
        paint(STRONG, &*peer.key),
        peer.public.join(",").into(),
        paint(peer.health().style(), peer.word()),
        probe.and_then(|probe| probe.since_s).map_or("-".to_owned(), duration).into(),
        probe.map_or_else(|| or_dash(&peer.backend), |probe| or_dash(&probe.path)).into(),
        ms(peer.of(|way| way.rtt_p50_us)).into(),
        ms(peer.rtt()).into(),
        peer.loss().map_or("-".to_owned(), |loss| format!("{:.0} %", loss * 100.0)).into(),
        mtu.into(),
        age.into(),
        if peer.held { paint(WARNING, "held") } else { "".into() },
        or_dash(peer.node.as_deref().unwrap_or("flanneld")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn peer(n: u16, verdict: &str, loss: f64) -> Value {
        let way = json!({
            "way": "overlay", "family": "ipv4", "address": "10.5.2.0", "up": true, "rtt_p50_us": 210 + u64::from(n), "rtt_p99_us": 1_900,
            "loss": loss, "loss_there": null, "mtu": 1450, "sent": 9, "answered": 9, "answer_age_ms": 4_000,
        });
        json!({
            "key": format!("10.{}.{}.0-24", n / 250, n % 250), "node": format!("node-{n}"), "public": [format!("192.0.2.{}", n % 250)],
            "backend": "vxlan", "held": false, "later": "unknown fields are passed over",
            "probe": { "verdict": verdict, "cause": "", "path": "kernel", "mtu": 1450, "mtu_wanted": 1450, "ways": [way] },
        })
    }

    fn shown(peers: Vec<Value>, order: Order, width: Option<usize>) -> String {
        let mut peers = read(&json!({ "peers": peers }));
        sort(&mut peers, order);
        anstream::adapter::strip_str(&text(&peers, width)).to_string()
    }

    #[test]
    fn the_worst_comes_first_and_the_sum_last() {
        let mut cut = peer(3, "one-way", 1.0);
        cut["probe"]["cause"] = json!("nothing sent there arrives");
        cut["probe"]["since_s"] = json!(754);
        let text = shown(vec![peer(1, "ok", 0.0), peer(2, "ok", 0.25), cut], Order::Worst, None);
        let want = "\
PEER         PUBLIC     PROBE    SINCE   PATH    RTT ms  P99 ms  LOSS   MTU   ANSWERED  NODE
10.0.3.0-24  192.0.2.3  one-way  12m34s  kernel  0.21    1.90    100 %  1450  4 s ago   node-3
10.0.2.0-24  192.0.2.2  ok       -       kernel  0.21    1.90    25 %   1450  4 s ago   node-2
10.0.1.0-24  192.0.2.1  ok       -       kernel  0.21    1.90    0 %    1450  4 s ago   node-1
10.0.3.0-24: nothing sent there arrives
3 peers: 1 reached, 1 cut off, 1 in need of attention
";
        assert_eq!(text, want);
    }

    #[test]
    fn five_hundred_peers_fit_eighty_columns() {
        let text = shown((0..500).map(|n| peer(n, "ok", 0.0)).collect(), Order::Worst, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.ends_with("\n500 peers: 500 reached\n") && text.lines().count() == 502);
        assert!(text.starts_with("PEER") && text.contains("LOSS") && !text.contains("NODE"));
    }

    #[test]
    fn each_order_has_its_first() {
        let mut slow = peer(2, "ok", 0.0);
        slow["probe"]["ways"][0]["rtt_p99_us"] = json!(90_000);
        let mut short = peer(3, "ok", 0.0);
        short["probe"]["mtu"] = json!(1350);
        let peers = || vec![peer(4, "peer-down", 0.5), short.clone(), slow.clone(), peer(1, "ok", 0.0)];
        for (order, first) in
            [(Order::Worst, 4), (Order::Key, 1), (Order::Rtt, 2), (Order::Loss, 4), (Order::Mtu, 3)]
        {
            let text = shown(peers(), order, None);
            assert!(
                text.lines().nth(1).unwrap().starts_with(&format!("10.0.{first}.0-24 ")),
                "{order:?}\n{text}"
            );
        }
    }

    #[test]
    fn an_agent_that_measures_nothing_is_read_too() {
        let old = json!({ "key": "10.5.2.0-24", "node": null, "public": ["192.0.2.2"], "backend": "vxlan", "held": true });
        let text = shown(vec![old, json!("junk")], Order::Worst, None);
        let want = "\
PEER         PUBLIC     PROBE  PATH   LEASE  NODE
10.5.2.0-24  192.0.2.2  -      vxlan  held   flanneld
1 peers: 1 in need of attention, 1 gone from the store and held
";
        assert_eq!(text, want);
    }
}
