//! What happened between one status and the next, in words.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::agent::status::PeerStatus;
use crate::views::peers::{read, summary};

/// What happened. Without an earlier status: how it is.
#[must_use]
pub fn changes(before: Option<&Value>, after: &Value) -> Vec<String> {
    let Some(before) = before else { return first(after) };
    let mut events = Vec::new();
    if before["pid"] != after["pid"] {
        events.push(format!("another agent runs, pid {}", after["pid"]));
    }
    if before["state"] != after["state"] {
        events.push(format!("state {}, was {}", word(&after["state"]), word(&before["state"])));
    }
    if before["store"]["connected"] != after["store"]["connected"] {
        let now = if after["store"]["connected"] == true { "answers again" } else { "does not answer" };
        events.push(format!("the store {now}"));
    }
    if before["lease"]["standing"] != after["lease"]["standing"] {
        let standing = |status: &Value| status["lease"]["standing"].as_str().unwrap_or("none").to_owned();
        events.push(format!("lease {}, was {}", standing(after), standing(before)));
    }
    events.extend(repairs(before, after));
    events.extend(of_faults(before, after));
    events.extend(of_peers(before, after));
    events
}

fn first(status: &Value) -> Vec<String> {
    let peers = anstream::adapter::strip_str(&summary(&read(status))).to_string();
    let mut events = vec![format!("state {}, {peers}", word(&status["state"]))];
    events.extend(faults(status).into_values().map(|text| format!("fault {text}")));
    events
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn repairs(before: &Value, after: &Value) -> Option<String> {
    let count = |status: &Value| status["reconcile"]["repairs"].as_u64().unwrap_or_default();
    let (had, has) = (count(before), count(after));
    // An agent that starts counts from none.
    let more = if has < had { has } else { has - had };
    (more > 0).then(|| format!("repaired {more}, {has} since the start"))
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

fn of_faults(before: &Value, after: &Value) -> Vec<String> {
    let (had, has) = (faults(before), faults(after));
    let come = has.iter().filter(|(key, _)| !had.contains_key(*key)).map(|(_, text)| format!("fault {text}"));
    let gone = had.keys().filter(|key| !has.contains_key(*key));
    come.chain(gone.map(|(code, subject)| format!("fault over: {code} {subject}"))).collect()
}

fn of_peers(before: &Value, after: &Value) -> Vec<String> {
    let known = |status: &Value| -> BTreeMap<String, PeerStatus> {
        read(status).into_iter().map(|(peer, _)| (peer.key.clone(), peer)).collect()
    };
    let (had, has) = (known(before), known(after));
    let mut events = Vec::new();
    for (key, peer) in &has {
        let Some(was) = had.get(key) else {
            events.push(format!("peer {key} came, at {}", peer.public.join(",")));
            continue;
        };
        if was.held != peer.held {
            let now = if peer.held { "gone from the store, and held" } else { "back in the store" };
            events.push(format!("peer {key} is {now}"));
        }
        if was.public != peer.public {
            events.push(format!("peer {key} moved to {}", peer.public.join(",")));
        }
        if was.word() != peer.word() {
            let cause =
                peer.probe.as_ref().map(|probe| probe.cause.as_str()).filter(|cause| !cause.is_empty());
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            events.push(format!("peer {key} {}, was {}{cause}", peer.word(), was.word()));
        }
    }
    events.extend(had.keys().filter(|key| !has.contains_key(*key)).map(|key| format!("peer {key} went")));
    events
}
