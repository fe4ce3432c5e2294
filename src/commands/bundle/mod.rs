//! `twill bundle`: looks at everything that the other commands look at, and makes one archive of it. Nothing is changed.

mod agent;
mod host;
mod secrets;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use super::preview::survey;
use super::{Failure, doctor, running, verify};
use crate::agent::preview::Preview;
use crate::agent::survey::Survey;
use crate::bundle::pack::{Packed, pack};
use crate::bundle::redact::{Redactor, Rules, Secrets};
use crate::bundle::{About, Part, manifest};
use crate::cli::{Exit, Stream, VERSION};
use crate::config::{BundleConfig, DoctorConfig, Out};
use crate::doctor::facts::Facts;
use crate::doctor::{Report, checks};
use crate::files;
use running::Running;

/// How long the host may take to be looked at: the store and the tools have shorter times of their own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readable by its owner only: what could not be told for a secret may be one.
const MODE: u32 = 0o600;

/// What was found out before the parts are made.
struct Found {
    look: DoctorConfig,
    running: Option<Running>,
    facts: Result<Facts, String>,
    survey: Result<Survey, String>,
}

/// Makes an archive, and says what is in it. Exit 0 is made, whatever is missing in it.
pub(super) async fn run(config: BundleConfig, typed: bool) -> Result<Exit, Failure> {
    let BundleConfig { look, out } = config;
    if out == Out::Stdout && io::stdout().is_terminal() {
        return Err("an archive is nothing to look at; next: give --out FILE, or send it into a file".into());
    }
    let found = Found::look(look, typed).await;
    let rules = Rules::new()?;
    let mut secrets = secrets::known(&found);
    let parts = parts(&found, &rules, &mut secrets).await;
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let about = About { host, made: Timestamp::now(), version: VERSION };
    let packed = pack(&about, parts, &Redactor::new(&secrets, rules)?)?;
    put(&about, &packed, out)
}

impl Found {
    async fn look(look: DoctorConfig, typed: bool) -> Self {
        let running = running::find(&look.agent.site);
        let look = DoctorConfig { agent: running::or_typed(typed, look.agent), ..look };
        let (facts, survey) =
            tokio::join!(timeout(PATIENCE, doctor::gather(&look)), timeout(PATIENCE, survey(&look.agent)));
        Self { running, facts: flat(facts), survey: flat(survey), look }
    }
}

fn flat<T, E>(result: Result<Result<T, Failure>, E>) -> Result<T, String> {
    match result {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(crate::chain(&*error)),
        Err(_) => Err(format!("no end within {} s", PATIENCE.as_secs())),
    }
}

async fn parts(found: &Found, rules: &Rules, secrets: &mut Secrets) -> Vec<Part> {
    let mut parts = vec![agent::version(found), agent::command_line(found, rules, secrets)];
    parts.extend(agent::answers(&found.look.agent.site).await);
    parts.extend(agent::logs(found.running.as_ref()).await);
    parts.extend(findings(found));
    parts.extend(host::state(found));
    parts.extend(host::kernel(found).await);
    parts.extend(host::files(found));
    parts
}

/// What doctor, verify and plan say.
fn findings(found: &Found) -> Vec<Part> {
    let doctor = found.facts.as_ref().map(|facts| Report::of(checks::examine(facts)));
    let survey = found.survey.as_ref();
    let verified = survey.map(verify::report);
    let plan = survey.map(|survey| {
        let lines = Preview::from(survey).lines();
        if lines.is_empty() { "nothing to do\n".to_owned() } else { lines.join("\n") + "\n" }
    });
    vec![
        text("findings/doctor.txt", "twill doctor", doctor.as_ref().map(ToString::to_string)),
        json("findings/doctor.json", "twill doctor --json", doctor.as_ref()),
        text("findings/verify.txt", "twill verify", verified.as_ref().map(ToString::to_string)),
        json("findings/verify.json", "twill verify --json", verified.as_ref()),
        text("findings/plan.txt", "twill plan", plan),
    ]
}

/// Text for people, without its colours.
fn text(name: &str, source: &str, text: Result<impl AsRef<str>, impl Display>) -> Part {
    Part::new(name, source, text.map(|text| anstream::adapter::strip_str(text.as_ref()).to_string()))
}

fn json(name: &str, source: &str, value: Result<&impl Serialize, impl Display>) -> Part {
    let written = |value: &_| serde_json::to_string_pretty(value).map_err(|error| error.to_string());
    let content = value.map_err(|why| why.to_string()).and_then(written);
    Part::new(name, source, content.map(|text| text + "\n"))
}

/// Writes the archive, and says where it is and what is in it.
fn put(about: &About, packed: &Packed, out: Out) -> Result<Exit, Failure> {
    let (file, stream) = match out {
        Out::Here => (Some(PathBuf::from(about.name() + ".tar.gz")), Stream::Stdout),
        Out::File(file) => (Some(file), Stream::Stdout),
        Out::Stdout => (None, Stream::Stderr),
    };
    let place = match &file {
        Some(file) => {
            files::replace(file, &packed.bytes, MODE).map_err(|error| {
                format!("cannot write {}: {error}; next: give --out FILE where it can be", file.display())
            })?;
            file.display().to_string()
        }
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&packed.bytes).and_then(|()| out.flush())?;
            "stdout".to_owned()
        }
    };
    let missing = packed.parts.iter().filter(|part| part.content.is_err()).count();
    let text = format!(
        "{}\n{}\n{} parts could not be had: {} says why\n{place}: {} bytes; look through it before you send it\n",
        manifest::listed(&packed.parts),
        manifest::hidden(&packed.removed),
        missing,
        manifest::NAME,
        packed.bytes.len(),
    );
    Ok(Exit { text, stream, code: 0 })
}
