//! Asking the agents of this host why no container can be attached. One JSON line there, one back; `agent::socket` has
//! the other end.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;

use super::fabric::Fabric;

/// The question.
const STATUS: &[u8] = b"{\"version\":1,\"request\":\"status\"}\n";
/// How long an agent may take to answer, and how long one that restarts may need until it is ready.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often an agent that restarts is looked for.
const POLL: Duration = Duration::from_millis(50);
/// The longest answer in bytes: a fabric of 5,000 hosts takes 1 MiB.
const LONGEST: u64 = 64 << 20;

/// What an agent says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Agent {
    /// The subnets of its lease; none if it has none, or did not answer.
    subnets: Vec<String>,
    /// Why it is not ready; `None` if it is.
    reason: Option<String>,
    /// Whether it answered.
    answered: bool,
}

/// Why no container can be attached, in the agents' own words; `None` if none of them knows a reason. Without a fabric
/// (no subnet.env) there is always one. Agents that serve other subnets do not count.
#[must_use]
pub(super) fn obstacle(run_dir: &Path, fabric: Option<&Fabric>) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let agents: Vec<Agent> = sockets(run_dir).iter().map(|path| ask(path)).collect();
        let found = judge(&agents, fabric);
        // An agent that restarts is away, then not ready, and neither for long.
        let passes = fabric.is_some() || agents.iter().any(|agent| !agent.answered);
        if found.is_none() || !passes || Instant::now() >= deadline {
            return found.map(|reason| reason.unwrap_or_else(|| nobody(run_dir, &agents)));
        }
        thread::sleep(POLL);
    }
}

/// Whether something is in the way, and the agents' reasons if they give any.
fn judge(agents: &[Agent], fabric: Option<&Fabric>) -> Option<Option<String>> {
    let serves = |agent: &&Agent| {
        let Some(fabric) = fabric else { return true };
        agent.subnets.is_empty()
            || fabric.subnets.iter().any(|(_, net)| agent.subnets.contains(&net.to_string()))
    };
    let relevant: Vec<&Agent> = agents.iter().filter(serves).collect();
    let ready = relevant.iter().any(|agent| agent.reason.is_none());
    if fabric.is_some() && (ready || relevant.is_empty()) {
        return None;
    }
    let reasons: Vec<&str> = relevant.iter().filter_map(|agent| agent.reason.as_deref()).collect();
    Some((!ready && !reasons.is_empty()).then(|| reasons.join("; ")))
}

/// What to say where no agent has a reason.
fn nobody(run_dir: &Path, agents: &[Agent]) -> String {
    let run_dir = run_dir.display();
    if agents.is_empty() {
        return format!(
            "no agent has a socket in {run_dir}; next: start it (twill agent), or name its --run-dir as runDir"
        );
    }
    "the agent is ready, but wrote another file; next: let subnetFile and its --subnet-file agree".to_owned()
}

fn sockets(run_dir: &Path) -> Vec<PathBuf> {
    let instances = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> =
        instances.map(|dir| dir.path().join("agent.sock")).filter(|path| path.exists()).collect();
    sockets.sort();
    sockets
}

fn ask(path: &Path) -> Agent {
    match exchange(path) {
        Ok(answer) => read(&answer),
        Err(cause) => {
            let reason =
                format!("no agent answers at {}: {cause}; next: start it (twill agent)", path.display());
            Agent { subnets: Vec::new(), reason: Some(reason), answered: false }
        }
    }
}

fn exchange(path: &Path) -> io::Result<Vec<u8>> {
    let mut stream = open(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(STATUS)?;
    let mut answer = Vec::new();
    match BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

/// Connects without waiting: an agent that is frozen lets its queue run full, and a caller would wait for ever.
fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let stream = UnixStream::from(made);
    connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &UnixAddr::new(path)?)?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Reads a status, of this version of the agent or another: what is not there says nothing.
fn read(answer: &[u8]) -> Agent {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let status = &answer["ok"];
    let texts = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let ready = matches!(status["state"].as_str(), Some("ok" | "degraded"));
    let reason = (!ready).then(|| reason(&answer));
    Agent { subnets: texts(&status["lease"]["subnets"]), reason, answered: true }
}

fn reason(answer: &Value) -> String {
    let status = &answer["ok"];
    let faults = status["faults"].as_array().into_iter().flatten();
    let text = |fault: &Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    let shown = |fault: &Value| {
        let [code, subject, cause, next] = ["code", "subject", "cause", "next"].map(|key| text(fault, key));
        format!("{code} {subject}: {cause}; next: {next}")
    };
    let faults: Vec<String> = faults.map(shown).collect();
    if !faults.is_empty() {
        return format!("the agent is not ready: {}", faults.join("; "));
    }
    let why = match (answer["error"].as_str(), status) {
        (Some(error), _) => error,
        (None, Value::Null) => "its answer cannot be read",
        (None, status) if status["store"]["connected"] == false => "it has not reached the store yet",
        (None, status) if status["network"].is_null() => {
            "there is no network configuration; next: twill config set"
        }
        (None, status) if status["lease"].is_null() => "it has no lease yet",
        (None, _) => "the kernel is not as wanted yet",
    };
    format!("the agent is not ready: {why}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fabric(subnet: &str) -> Fabric {
        let text = format!(
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true"
        );
        Fabric::parse(&text).unwrap()
    }

    fn status(state: &str, subnet: Option<&str>, faults: &Value) -> Value {
        let lease = subnet.map(|subnet| json!({ "subnets": [subnet] }));
        json!({ "ok": { "state": state, "lease": lease, "faults": faults, "network": {}, "store": {} } })
    }

    fn hear(answer: &Value) -> Agent {
        read(answer.to_string().as_bytes())
    }

    #[test]
    fn an_agent_gives_its_own_reason() {
        let fault = json!([{ "code": "store-down", "subject": "store", "cause": "refused", "next": "wait" }]);
        for (answer, reason) in [
            (status("failed", None, &fault), "store-down store: refused; next: wait"),
            (status("failed", None, &json!([])), "no lease yet"),
            (
                json!({ "ok": { "state": "failed", "store": { "connected": false } } }),
                "not reached the store",
            ),
            (json!({ "ok": { "state": "failed", "store": {} } }), "twill config set"),
            (status("failed", Some("10.1.2.0/24"), &json!([])), "not as wanted"),
            (json!({ "error": "the agent is ending" }), "is ending"),
            (json!(7), "cannot be read"),
        ] {
            let said = hear(&answer).reason.unwrap();
            assert!(said.contains(reason), "{answer}: {said}");
        }
        assert_eq!(hear(&status("degraded", Some("10.1.2.0/24"), &fault)).reason, None);
    }

    #[test]
    fn only_agents_of_the_same_subnet_count() {
        let ready = hear(&status("ok", Some("10.1.2.0/24"), &json!([])));
        let failed = hear(&status("failed", Some("10.1.2.0/24"), &json!([])));
        let other = hear(&status("failed", Some("10.9.2.0/24"), &json!([])));
        let none = hear(&status("failed", None, &json!([])));
        let here = fabric("10.1.2.1/24");
        for (agents, blocked) in [
            (vec![], false),
            (vec![ready.clone()], false),
            (vec![other.clone()], false),
            (vec![ready.clone(), none.clone()], false),
            (vec![failed.clone()], true),
            (vec![none.clone()], true),
            (vec![other, failed], true),
        ] {
            assert_eq!(judge(&agents, Some(&here)).is_some(), blocked, "{agents:?}");
            assert!(judge(&agents, None).is_some());
        }
        assert_eq!(judge(&[ready, none], None), Some(None));
    }

    #[test]
    fn an_agent_that_is_away_or_silent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = obstacle(dir.path(), None).unwrap();
        assert!(text.contains(dir.path().to_str().unwrap()) && text.contains("runDir"), "{text}");
        let instance = dir.path().join("0badcafe");
        fs::create_dir(&instance).unwrap();
        drop(UnixListener::bind(instance.join("agent.sock")).unwrap());
        let text = obstacle(dir.path(), Some(&fabric("10.1.2.1/24"))).unwrap();
        assert!(text.contains("0badcafe/agent.sock") && text.contains("refused"), "{text}");
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).answered);
        }
    }
}
