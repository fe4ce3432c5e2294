//! What happened between one status and the next, in words.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use twill_backends::fault::Fault;

use crate::agent::status::PeerStatus;
use crate::views::peers::{Health, read, summary};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it means.
    pub kind: Kind,
    /// What it was.
    pub text: String,
}

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something is amiss.
    Trouble,
    /// The agent put something right.
    Repair,
    /// Trouble is over.
    Better,
    /// Neither good nor bad.
    News,
}

/// What happened. Without an earlier status: how it is.
#[must_use]
pub fn changes(before: Option<&Value>, after: &Value) -> Vec<Change> {
    let Some(before) = before else {
        let peers = read(after);
        return begins(after, peers.iter().map(|(peer, _)| peer));
    };
    let mut events = Vec::new();
    if before["pid"] != after["pid"] {
        events.push(Kind::News.of(format!("another agent runs, pid {}", after["pid"])));
    }
    if before["state"] != after["state"] {
        let text = format!("state {}, was {}", word(&after["state"]), word(&before["state"]));
        events.push(good_if(after["state"] == "ok").of(text));
    }
    if before["store"]["connected"] != after["store"]["connected"] {
        let answers = after["store"]["connected"] == true;
        let now = if answers { "answers again" } else { "does not answer" };
        events.push(good_if(answers).of(format!("the store {now}")));
    }
    if before["lease"]["standing"] != after["lease"]["standing"] {
        let standing = |status: &Value| status["lease"]["standing"].as_str().unwrap_or("none").to_owned();
        let text = format!("lease {}, was {}", standing(after), standing(before));
        events.push(good_if(standing(after) == "held").of(text));
    }
    events.extend(repairs(before, after));
    events.extend(of_faults(before, after));
    events.extend(of_peers(before, after));
    events
}

impl Kind {
    /// Something of this kind.
    #[must_use]
    pub fn of(self, text: String) -> Change {
        Change { kind: self, text }
    }
}

const fn good_if(good: bool) -> Kind {
    if good { Kind::Better } else { Kind::Trouble }
}

/// How it is, with these peers.
pub fn begins<'p>(status: &Value, peers: impl Iterator<Item = &'p PeerStatus> + Clone) -> Vec<Change> {
    let peers = anstream::adapter::strip_str(&summary(peers)).to_string();
    let mut events = vec![Kind::News.of(format!("state {}, {peers}", word(&status["state"])))];
    events.extend(faults(status).into_values().map(|text| Kind::Trouble.of(format!("fault {text}"))));
    events
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn repairs(before: &Value, after: &Value) -> Option<Change> {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    // An agent that starts counts from none.
    let more = |had, has| if has < had { has } else { has - had };
    let all = |status: &Value| count(&status["reconcile"]["repairs"]);
    let repaired = more(all(before), all(after));
    let had = &before["reconcile"]["repaired"];
    let kinds = after["reconcile"]["repaired"].as_object().into_iter().flatten();
    let kinds = kinds.filter(|(kind, has)| more(count(&had[kind.as_str()]), count(has)) > 0);
    let kinds: Vec<&str> = kinds.map(|(kind, _)| kind.as_str()).collect();
    let what = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    (repaired > 0)
        .then(|| Kind::Repair.of(format!("repaired {repaired}, {} since the start{what}", all(after))))
}

/// Faults by what they are and what they are about, in words.
fn faults(status: &Value) -> BTreeMap<(String, String), String> {
    let faults = status["faults"].as_array().into_iter().flatten();
    let one = |fault: &Value| {
        let field = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
        let (code, subject) = (field("code"), field("subject"));
        let text = format!("{code} {subject}: {}; next: {}", field("cause"), field("next"));
        ((code, subject), text)
    };
    faults.map(one).collect()
}

fn of_faults(before: &Value, after: &Value) -> Vec<Change> {
    let (had, has) = (faults(before), faults(after));
    let many = |code: &String| (code.clone(), Fault::MANY_PEERS.to_owned());
    // Whether this is told already, or still: one of many goes on in what is told of all, and the other way round.
    let told = |faults: &BTreeMap<(String, String), String>, key: &(String, String)| {
        let parts = || *key == many(&key.0) && faults.keys().any(|(code, _)| *code == key.0);
        faults.contains_key(key) || faults.contains_key(&many(&key.0)) || parts()
    };
    let come = has.iter().filter(|(key, _)| !told(&had, key));
    let come = come.map(|(_, text)| Kind::Trouble.of(format!("fault {text}")));
    let gone = had.keys().filter(|key| !told(&has, key));
    let gone = gone.map(|(code, subject)| Kind::Better.of(format!("fault over: {code} {subject}")));
    come.chain(gone).collect()
}

fn of_peers(before: &Value, after: &Value) -> Vec<Change> {
    let known = |status: &Value| -> BTreeMap<String, PeerStatus> {
        read(status).into_iter().map(|(peer, _)| (peer.key.clone(), peer)).collect()
    };
    let (had, has) = (known(before), known(after));
    let mut events = Vec::new();
    for (key, peer) in &has {
        let Some(was) = had.get(key) else {
            events.push(Kind::News.of(format!("peer {key} came, at {}", peer.public.join(","))));
            continue;
        };
        if was.held != peer.held {
            let now = if peer.held { "gone from the store, and held" } else { "back in the store" };
            events.push(good_if(!peer.held).of(format!("peer {key} is {now}")));
        }
        if was.public != peer.public {
            events.push(Kind::News.of(format!("peer {key} moved to {}", peer.public.join(","))));
        }
        if was.word() != peer.word() {
            let cause =
                peer.probe.as_ref().map(|probe| probe.cause.as_str()).filter(|cause| !cause.is_empty());
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            let kind = match peer.health() {
                Health::Cut => Kind::Trouble,
                Health::Unknown => Kind::News,
                // What is lost on the way there passes for a while: the verdict says whether it is over.
                Health::Poor | Health::Good => good_if(peer.word() == "ok"),
            };
            events.push(kind.of(format!("peer {key} {}, was {}{cause}", peer.word(), was.word())));
        }
    }
    let went = had.keys().filter(|key| !has.contains_key(*key));
    events.extend(went.map(|key| Kind::News.of(format!("peer {key} went"))));
    events
}
