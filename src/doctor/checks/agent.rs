//! What the agent says, or what it would do.

use twill_backends::diff::{Op, diff};
use twill_backends::fault::Fault;

use crate::catalogue;
use crate::catalogue::refusal::Refusal;
use crate::doctor::Finding;
use crate::doctor::facts::{Agent, Facts, Refused};
use crate::doctor::sign::Sign;

/// How many operations are shown.
const SHOWN: usize = 3;

/// Whether there is one, and it works.
pub(super) fn answer(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.agent {
        Agent::Absent(how) => findings.push(Finding::new(Refusal::NoAgent.entry(), "agent", how)),
        Agent::Silent(waited) => {
            let found = format!("no answer within {} s", waited.as_secs());
            findings.push(Finding::new(Sign::AgentSilent.entry(), "agent", found));
        }
        Agent::Answers(status) if !status.reconcile.converged && status.faults.is_empty() => {
            let found = format!("{} passes so far", status.reconcile.tally.passes);
            findings.push(Finding::new(Sign::NotSettled.entry(), "agent", found));
        }
        Agent::Answers(_) => {}
    }
    if !facts.privileged {
        findings.push(Finding::new(Refusal::NoPrivilege.entry(), "this command", "CAP_NET_ADMIN is missing"));
    }
    findings
}

/// What it complains of.
pub(super) fn faults(facts: &Facts) -> Vec<Finding> {
    let faults = facts.status().into_iter().flat_map(|status| &status.faults);
    let finding = |fault: &crate::agent::status::FaultStatus| {
        let entry = catalogue::find(&fault.code)?;
        Some(Finding::new(*entry, &fault.subject, &fault.cause).next(&fault.next))
    };
    faults.filter_map(finding).collect()
}

/// What an agent would find and do, where none runs.
pub(super) fn ahead(facts: &Facts) -> Vec<Finding> {
    match &facts.ahead {
        None => Vec::new(),
        Some(Err(Refused::Faults(faults))) => faults.iter().map(of_fault).collect(),
        Some(Err(Refused::Error(text))) => {
            let (cause, next) =
                text.rsplit_once("; next: ").unwrap_or((text, Sign::CannotStart.entry().next));
            vec![Finding::new(Sign::CannotStart.entry(), "agent", cause).next(next)]
        }
        Some(Ok(preview)) => {
            let mut findings: Vec<Finding> = preview.faults.iter().map(of_fault).collect();
            let ops = diff(&preview.want, &preview.have);
            // A setting has a check of its own.
            let ops: Vec<&Op> = ops.iter().filter(|op| !matches!(op, Op::SetSysctl(..))).collect();
            if !ops.is_empty() {
                let mut shown: Vec<String> = ops.iter().take(SHOWN).map(ToString::to_string).collect();
                if ops.len() > SHOWN {
                    shown.push(format!("and {} more", ops.len() - SHOWN));
                }
                let found = format!("an agent would do: {}", shown.join("; "));
                findings.push(Finding::new(Sign::KernelDiffers.entry(), "kernel", found));
            }
            findings
        }
    }
}

/// A fault as a finding.
pub(super) fn of_fault(fault: &Fault) -> Finding {
    let (cause, next) = fault.cause_and_next();
    Finding::new(fault.code.entry(), &fault.subject, cause).next(next)
}
