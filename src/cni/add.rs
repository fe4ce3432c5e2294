//! ADD: a container is attached, or nothing is left of the attempt.

use std::time::Duration;

use serde_json::Value;

use super::call::Call;
use super::error::{self, CniError};
use super::exec::Plugin;
use super::netconf::NetConf;
use super::state::{self, Content, Saved};
use super::{boot, bridge, del, delegate, fabric, note};

/// How long undoing may take: the runtime waits.
const UNDO: Duration = Duration::from_secs(10);

/// Where an attachment is kept, and what may be undone.
#[derive(Debug)]
struct Place {
    saved: Saved,
    before: Before,
}

/// What there was of an attachment before it was asked for: what is attached already a failed attempt must not detach.
#[derive(Debug)]
enum Before {
    Nothing,
    /// It may be what is kept under the container's first name.
    First,
    /// It is kept in this place.
    Here,
}

/// Attaches a container. Returns what the delegate printed.
///
/// # Errors
/// What is in the way; the delegate's own error if it gave one.
pub(super) fn add(call: &Call, conf: &NetConf) -> Result<String, CniError> {
    call.check_netns()?;
    let fabric = fabric(conf)?;
    let config = delegate::config(conf, &fabric)?;
    let kind = config["type"].as_str().unwrap_or_default().to_owned();
    let plugin = Plugin::find(&kind, call, conf.patience)?;
    boot::settle(conf, &config)?;
    let _lock = bridge::prepare(&config, &fabric, &conf.data_dir, conf.patience)?;
    let place = Place::choose(call, conf, config)?;
    place.saved.write()?;
    match plugin.run(call, &place.saved.config).and_then(|printed| result(&kind, printed)) {
        Ok(printed) => Ok(printed),
        Err(error) => {
            place.undo(call, plugin);
            Err(error)
        }
    }
}

impl Place {
    fn choose(call: &Call, conf: &NetConf, config: Value) -> Result<Self, CniError> {
        let (first, further) = (
            state::first(&conf.data_dir, &call.container),
            state::further(&conf.data_dir, &call.container, &call.ifname),
        );
        let Content::Config(there) = state::read(&first)? else {
            return Ok(Self { saved: Saved { path: first, config }, before: Before::Nothing });
        };
        let saved = Saved { path: further, config };
        let is_same = |kept: &Value| kept["name"] == saved.config["name"];
        let before = match state::read(&saved.path)? {
            Content::Config(kept) if is_same(&kept) => Before::Here,
            Content::Config(_) | Content::Absent | Content::Garbage => {
                let there = Saved { path: first, config: there };
                let another = !is_same(&there.config) || del::is_another(call, &there);
                if another { Before::Nothing } else { Before::First }
            }
        };
        Ok(Self { saved, before })
    }

    /// Detaches what was half attached. What cannot be detached stays on file: the runtime's DEL tries again.
    fn undo(&self, call: &Call, plugin: Plugin) {
        let del = Call { verb: "DEL".to_owned(), ..call.clone() };
        let undone = match self.before {
            Before::Nothing => plugin.within(UNDO).run(&del, &self.saved.config).map(drop),
            Before::First => Ok(()),
            Before::Here => return,
        };
        if let Err(error) = undone.and_then(|()| self.saved.remove()) {
            note(&format!("cannot undo the failed ADD of {}: {error}", call.container));
        }
    }
}

/// A result as the delegate printed it, if it is one.
fn result(kind: &str, printed: Vec<u8>) -> Result<String, CniError> {
    let odd = |why: String| CniError::new(error::DECODE, format!("delegate {kind}: no result of ADD: {why}"));
    let text = String::from_utf8(printed).map_err(|cause| odd(cause.to_string()))?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(_)) => Ok(text),
        Ok(other) => Err(odd(format!("{other} is no object"))),
        Err(cause) => Err(odd(cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_an_object() {
        assert_eq!(result("b", b"{\"ips\":[]}\n".to_vec()).unwrap(), "{\"ips\":[]}\n");
        for printed in [&b""[..], b"7", b"oops", b"\xff"] {
            let error = result("b", printed.to_vec()).unwrap_err();
            assert!(error.code == error::DECODE && error.msg.contains("delegate b"), "{error}");
        }
    }
}
