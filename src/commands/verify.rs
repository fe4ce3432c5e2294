//! `twill verify`: this host's kernel against every lease.

use std::error::Error;

use serde_json::json;
use twill_backends::fault::Code;

use super::preview::survey;
use super::running;
use crate::agent::status::VERSION;
use crate::agent::survey::Survey;
use crate::cli::{Exit, Stream};
use crate::config::Config;
use crate::telemetry;
use crate::verify::{Report, differences};

type Failure = Box<dyn Error + Send + Sync>;

/// Names each difference. Exit 0 is none, 1 some, 2 could not be looked at.
pub(super) async fn run(config: Config, typed: bool, json: bool) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(config.verbosity);
    let report = match survey(&running::or_typed(typed, config)).await {
        Ok(survey) => report(&survey),
        Err(error) => {
            let text = format!("twill: {}\n", crate::chain(&*error));
            return Ok(Exit { text, stream: Stream::Stderr, code: 2 });
        }
    };
    let text = if json {
        format!("{}\n", json!({ "version": VERSION, "same": report.is_same(), "host": report }))
    } else {
        report.to_string()
    };
    Ok(Exit { text, stream: Stream::Stdout, code: u8::from(!report.is_same()) })
}

fn report(survey: &Survey) -> Report {
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
