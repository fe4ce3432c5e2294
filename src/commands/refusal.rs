//! Which code an error has.

use std::error::Error;

use twill_backends::allocate::ClaimError;
use twill_backends::code::Entry;
use twill_backends::fault::Code;

use crate::agent::AgentError;
use crate::agent::handover::TakeOverError;
use crate::agent::identity::IdentityError;
use crate::agent::lock::LockError;
use crate::agent::privilege::Unprivileged;
use crate::agent::socket::AskError;
use crate::catalogue::refusal::Refusal;
use crate::filter::FilterError;
use crate::kernel::KernelError;
use crate::store::StoreError;

/// The code of the first of an error's causes that has one.
pub(super) fn code(error: &(dyn Error + 'static)) -> Option<Entry> {
    of(error).or_else(|| code(error.source()?))
}

fn of(error: &(dyn Error + 'static)) -> Option<Entry> {
    if let Some(error) = error.downcast_ref() {
        Some(store(error))
    } else if let Some(error) = error.downcast_ref() {
        Some(agent(error))
    } else if let Some(error) = error.downcast_ref() {
        Some(lock(error))
    } else if let Some(error) = error.downcast_ref() {
        Some(kernel(error))
    } else if let Some(error) = error.downcast_ref::<AskError>() {
        Some(match error {
            AskError::Unreachable { .. } => Refusal::NoAgent.entry(),
            AskError::Refused(_) => Refusal::AgentRefuses.entry(),
        })
    } else if error.is::<TakeOverError>() {
        Some(Refusal::NoHandOver.entry())
    } else if error.is::<Unprivileged>() {
        Some(Refusal::NoPrivilege.entry())
    } else if error.is::<IdentityError>() {
        Some(Refusal::NoIdentity.entry())
    } else if error.is::<FilterError>() {
        Some(Code::FirewallFailed.entry())
    } else {
        None
    }
}

fn store(error: &StoreError) -> Entry {
    match error {
        StoreError::Unavailable { .. } => Code::StoreDown.entry(),
        StoreError::Refused { .. } => Refusal::StoreRefuses.entry(),
        StoreError::NoConfig { .. } => Code::NoConfig.entry(),
        StoreError::BadConfig(fault) => fault.code.entry(),
        StoreError::Claim(ClaimError::Exhausted { .. }) => Code::PoolExhausted.entry(),
        StoreError::Claim(ClaimError::DuplicateAddress { .. }) => Code::DuplicateAddress.entry(),
        StoreError::Claim(ClaimError::SubnetTaken { .. }) | StoreError::Lost { .. } => {
            Code::LeaseLost.entry()
        }
    }
}

fn agent(error: &AgentError) -> Entry {
    match error {
        AgentError::Refused(fault) => fault.code.entry(),
        AgentError::Preflight(_) => Code::NetworkOverlap.entry(),
        AgentError::TakeOver(_) => Refusal::NoHandOver.entry(),
    }
}

fn lock(error: &LockError) -> Entry {
    match error {
        LockError::Agent { .. } => Refusal::AgentRuns.entry(),
        LockError::Flanneld { .. } => Refusal::FlanneldRuns.entry(),
        LockError::File { .. } => Refusal::NoLock.entry(),
    }
}

fn kernel(error: &KernelError) -> Entry {
    match error {
        KernelError::Refused { .. } | KernelError::Unreachable { .. } => Code::KernelRefused.entry(),
        KernelError::NoUnderlay(_) => Code::NoUnderlay.entry(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_code_of_what_caused_it() {
        let lost = StoreError::Refused { store: "etcd".to_owned(), cause: "no".to_owned() };
        assert_eq!(code(&lost).unwrap().code, "store-refuses");
        let wrapped = std::io::Error::other(Unprivileged);
        assert_eq!(code(&wrapped), None, "io hands out the cause of what it wraps");
        let underlay = KernelError::NoUnderlay("none".to_owned());
        assert_eq!(code(&underlay).unwrap().code, "no-underlay");
        assert_eq!(code(&std::fmt::Error), None);
    }
}
