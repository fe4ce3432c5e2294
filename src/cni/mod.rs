//! The CNI plugin: what flannel's does, in place of it. It turns subnet.env into the configuration of another plugin (the
//! bridge plugin, as a rule) and runs that.
//!
//! ```text
//!   runtime --ADD--> netconf + subnet.env --delegate::config--> kept in dataDir --> bridge --> host-local
//!   runtime --DEL--> what is kept --------------------------------------------> bridge --> host-local
//! ```
//!
//! # Why it is its own program
//!
//! It is started for each container, twice. It has no runtime and links nothing of the agent but two files; it asks the
//! agent, on its socket, only when something is wrong.

mod add;
mod agents;
mod boot;
pub mod bridge;
pub mod call;
mod check;
mod del;
pub mod delegate;
pub mod error;
mod exec;
pub mod fabric;
mod gc;
mod lock;
pub mod netconf;
mod netlink;
mod port;
pub mod reservations;
pub mod state;
pub mod version;

use std::io::{Read, Write};

use call::Call;
use error::CniError;
use exec::Plugin;
use fabric::{Fabric, FabricError};
use netconf::NetConf;

/// The longest configuration in bytes.
const LONGEST: u64 = 16 << 20;

/// What the process is to write, and how to end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The exit code.
    pub code: u8,
    /// A result or an error, for the runtime.
    pub stdout: String,
    /// For people.
    pub stderr: String,
}

/// Does what the variables that `get` knows and `stdin` ask for.
#[must_use]
pub fn run(get: impl Fn(&str) -> Option<String>, stdin: impl Read) -> Answer {
    let call = Call::read(get);
    if call.verb.is_empty() {
        let versions = version::SUPPORTED.join(", ");
        let build = env!("CARGO_PKG_VERSION");
        let stderr = format!("CNI plugin twill {build}\nCNI protocol versions supported: {versions}\n");
        return Answer { stderr, ..Answer::default() };
    }
    match answer(&call, stdin) {
        Ok(stdout) => Answer { stdout, ..Answer::default() },
        Err(error) => Answer { code: 1, stdout: error.to_json(), ..Answer::default() },
    }
}

fn answer(call: &Call, stdin: impl Read) -> Result<String, CniError> {
    let since = match call.verb.as_str() {
        "VERSION" => return Ok(version::answer()),
        "ADD" | "DEL" => version::SUPPORTED[0],
        "CHECK" => version::CHECK,
        "STATUS" | "GC" => version::STATUS,
        other => return Err(CniError::new(error::ENVIRONMENT, format!("unknown CNI_COMMAND: {other}"))),
    };
    call.check()?;
    let mut text = Vec::new();
    let failed = |cause| CniError::new(error::IO, format!("error reading from stdin: {cause}"));
    stdin.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
    let conf = NetConf::parse(&text)?;
    version::require(&conf.version, &call.verb, since)?;
    match call.verb.as_str() {
        "ADD" => add::add(call, &conf),
        "DEL" => del::del(call, &conf).map(|()| String::new()),
        "CHECK" => check::check(call, &conf).map(|()| String::new()),
        "STATUS" => status(call, &conf).map(|()| String::new()),
        _ => gc::gc(call, &conf).map(|()| String::new()),
    }
}

/// STATUS: whether an ADD would work, in the agent's own words.
fn status(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let unavailable = |text: String| CniError::new(error::UNAVAILABLE, text);
    let fabric = fabric(conf).map_err(|error| unavailable(error.msg))?;
    if let Some(reason) = agents::obstacle(&conf.run_dir, Some(&fabric)) {
        return Err(unavailable(reason));
    }
    let kind = conf.delegate.get("type").and_then(|kind| kind.as_str()).unwrap_or(delegate::BRIDGE);
    Plugin::find(kind, call, conf.patience).map(drop).map_err(|error| unavailable(error.msg))
}

/// The fabric as subnet.env has it, or the reason why it is not there, asked from the agent.
fn fabric(conf: &NetConf) -> Result<Fabric, CniError> {
    Fabric::read(&conf.subnet_file).map_err(|failure| match failure {
        FabricError::Bad(error) => error,
        FabricError::Absent => {
            let reason = agents::obstacle(&conf.run_dir, None).unwrap_or_default();
            let file = conf.subnet_file.display();
            let text = format!(
                "{reason}. So far there is no {file} (flannel's 'subnet.env'); check twill status, \
                 or the flannel pod log of this node"
            );
            CniError::new(error::AGAIN, text)
        }
    })
}

/// Tells people something that is no error to the runtime.
fn note(text: &str) {
    // Nobody is left to hear of a failure.
    std::io::stderr().write_all(format!("twill-cni: {text}\n").as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(vars: &[(&str, &str)], stdin: &str) -> Answer {
        let get =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        run(get, stdin.as_bytes())
    }

    fn code(answer: &Answer) -> error::Code {
        CniError::parse(answer.stdout.as_bytes()).unwrap().code
    }

    #[test]
    fn without_a_verb_it_says_what_it_is() {
        let answer = ask(&[], "");
        assert!(
            answer.code == 0 && answer.stderr.contains("1.1.0") && answer.stdout.is_empty(),
            "{answer:?}"
        );
    }

    #[test]
    fn version_needs_nothing() {
        assert_eq!(ask(&[("CNI_COMMAND", "VERSION")], "").stdout, version::answer());
    }

    #[test]
    fn what_cannot_be_done_has_its_code() {
        let conf = |version: &str| format!(r#"{{"cniVersion":"{version}","name":"a","dataDir":"/nowhere"}}"#);
        let add =
            [("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/none"), ("CNI_IFNAME", "e"), ("CNI_PATH", "/bin")];
        for (verb, stdin, wanted) in [
            ("add", conf("1.0.0"), error::ENVIRONMENT),
            ("ADD", "{".to_owned(), error::DECODE),
            ("ADD", "{}".to_owned(), error::CONFIG),
            ("ADD", conf("9.9.9"), error::VERSION),
            ("ADD", conf("1.0.0"), error::ENVIRONMENT),
            ("CHECK", conf("0.3.1"), error::VERSION),
            ("CHECK", conf("0.4.0"), error::UNKNOWN),
            ("STATUS", conf("1.0.0"), error::VERSION),
            ("GC", conf("1.0.0"), error::VERSION),
            ("GC", conf("1.1.0"), error::CONFIG),
        ] {
            let vars: Vec<_> = add.iter().copied().chain([("CNI_COMMAND", verb)]).collect();
            let answer = ask(&vars, &stdin);
            assert!(answer.code == 1 && code(&answer) == wanted, "{verb} {stdin}: {answer:?}");
        }
        let vars: Vec<_> = add.iter().copied().chain([("CNI_COMMAND", "DEL")]).collect();
        assert_eq!(ask(&vars, &conf("")), Answer::default());
    }
}
