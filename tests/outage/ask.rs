//! What tests ask of agents and of etcd, and how they wait for it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use twill::lab::{AgentProcess, Cancel, Seen, until};

use crate::fabric::SOON;

/// Looks until there is a value; the error of the last look is shown when the time is over.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let seen = |looked: Result<T, String>| looked.map_or_else(Seen::NotYet, Seen::Yes);
    until(what, SOON, &Cancel::default(), || Ok(seen(look()))).unwrap_or_else(|error| panic!("{error}"))
}

/// Lets the time pass while looking at something that must stay true.
pub(crate) fn throughout(time: Duration, mut look: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `twill status --json` prints.
pub(crate) fn ask_status(agent: &AgentProcess) -> Result<Value, String> {
    agent.status().map_err(|error| error.to_string())
}

/// The state directory of an agent's instance.
pub(crate) fn state(agent: &AgentProcess) -> PathBuf {
    std::fs::read_dir(&agent.files.state).unwrap().flatten().next().unwrap().path()
}

pub(crate) fn status(agent: &AgentProcess) -> Value {
    wait("an answer of the agent", || ask_status(agent))
}

/// Waits until the status is as wanted.
pub(crate) fn wait_status(agent: &AgentProcess, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait(what, || {
        let status = ask_status(agent)?;
        if is(&status) { Ok(status) } else { Err(format!("{status:#}{}", twill::lab::tail(&agent.log()))) }
    })
}

/// The faults of a status with this code.
pub(crate) fn faults<'a>(status: &'a Value, code: &str) -> Vec<&'a Value> {
    status["faults"].as_array().unwrap().iter().filter(|fault| fault["code"] == code).collect()
}

/// Waits for a fault, and returns it as `subject: cause; next: …`.
pub(crate) fn wait_fault(agent: &AgentProcess, code: &str) -> String {
    let status = wait_status(agent, code, |status| !faults(status, code).is_empty());
    let fault = faults(&status, code)[0];
    let text = |field: &str| fault[field].as_str().unwrap().to_owned();
    assert!(!text("next").is_empty(), "{fault:#}");
    format!("{}: {}; next: {}", text("subject"), text("cause"), text("next"))
}

/// Waits until an agent has nothing to complain of.
pub(crate) fn wait_ok(agent: &AgentProcess) -> Value {
    wait_status(agent, "no faults", |status| status["state"] == "ok")
}

pub(crate) fn wait_log(agent: &AgentProcess, text: &str) {
    wait(text, || {
        let log = agent.log();
        if log.contains(text) { Ok(()) } else { Err(twill::lab::tail(&log)) }
    });
}

/// A key of etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kv {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) revision: u64,
    /// The etcd lease; 0 is none.
    pub(crate) lease: i64,
}

impl Kv {
    pub(crate) fn read(kv: &Value) -> Self {
        let bytes = |field: &str| STANDARD.decode(kv[field].as_str().unwrap_or_default()).unwrap();
        let text = |field: &str| String::from_utf8(bytes(field)).unwrap();
        Self {
            key: text("key"),
            value: text("value"),
            revision: kv["mod_revision"].as_u64().unwrap(),
            lease: kv["lease"].as_i64().unwrap_or(0),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The etcd lease as etcdctl wants it.
    pub(crate) fn lease_id(&self) -> String {
        format!("{:x}", self.lease)
    }
}
