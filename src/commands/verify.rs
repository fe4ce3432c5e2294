//! `twill verify`: this host's kernel against every lease.

use std::collections::BTreeSet;

use serde_json::json;
use twill_backends::fault::Code;
use twill_backends::lease::Lease;

use super::preview::survey;
use super::{Failure, fleet, running};
use crate::agent::status::VERSION;
use crate::agent::survey::Survey;
use crate::cli::{Exit, Fabric, Stream};
use crate::config::Config;
use crate::telemetry;
use crate::verify::{Other, Outcome, Report, differences};
use crate::views::hosts::{Said, differences as differences_there};

/// Names each difference. Exit 0 is none, 1 some, 2 a host could not be looked at.
pub(super) async fn run(
    config: Config,
    typed: bool,
    fabric: Option<Fabric>,
    json: bool,
) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(config.verbosity);
    let config = running::or_typed(typed, config);
    let survey = survey(&config).await?;
    let report = report(&survey);
    let others = match fabric {
        Some(fabric) => others(&survey, fleet::port(fabric.port, &config.site)).await?,
        None => Vec::new(),
    };
    let code = if others.iter().any(|other| other.outcome == Outcome::Silent) {
        2
    } else {
        u8::from(!report.is_same() || others.iter().any(|other| other.outcome == Outcome::Differs))
    };
    let text = if json {
        let theirs = others.iter().flat_map(|other| &other.words).map(|(code, _)| code.clone());
        let codes: BTreeSet<String> = report.codes().into_iter().chain(theirs).collect();
        let same = code == 0;
        let said =
            json!({ "version": VERSION, "same": same, "codes": codes, "host": report, "others": others });
        format!("{said}\n")
    } else {
        others.iter().fold(report.to_string(), |text, other| text + &other.to_string())
    };
    Ok(Exit { text, stream: Stream::Stdout, code })
}

/// Every other host, as its own agent sees it.
async fn others(survey: &Survey, port: Option<u16>) -> Result<Vec<Other>, Failure> {
    let port = port.ok_or(
        "no port to ask other hosts at; next: give --healthz-port, at which their agents serve HTTP",
    )?;
    let own = &survey.plan.own().key;
    let leases: Vec<&Lease> = survey.leases.iter().filter(|lease| lease.key != *own).collect();
    let said = fleet::ask(leases.iter().copied(), port).await;
    let keys: BTreeSet<String> = survey.leases.iter().map(|lease| lease.key.to_string()).collect();
    let silent = |code: &str, why| (Outcome::Silent, vec![(code.to_owned(), why)]);
    let other = |lease: &&Lease| {
        let key = lease.key.to_string();
        let (outcome, words) = match said.get(&key) {
            Some(Said::Status(status)) => {
                let words = differences_there(status, &keys);
                (if words.is_empty() { Outcome::Same } else { Outcome::Differs }, words)
            }
            Some(Said::Silent(code, cause, next)) => silent(code, format!("{cause}; next: {next}")),
            Some(Said::Unasked) | None => {
                let why = "its lease has no public address; next: see twill lease list".to_owned();
                silent(Code::IncompleteLease.entry().code, why)
            }
        };
        Other { key, outcome, words }
    };
    Ok(leases.iter().map(other).collect())
}

/// This host, compared with what its leases want of it.
pub(super) fn report(survey: &Survey) -> Report {
    let want = survey.plan.want();
    // That the store is away is said by itself.
    let faults = survey.faults.iter().filter(|fault| fault.code != Code::StoreDown);
    Report {
        lease: (!survey.claim).then(|| survey.lease.key.to_string()),
        leases: survey.leases.len(),
        remembered: survey.remembered,
        entries: want.len(),
        differences: differences(want, &survey.observed.net, &survey.leases),
        firewall: survey.rules.clone(),
        faults: faults.map(|fault| (fault.code.to_string(), fault.to_string())).collect(),
    }
}
