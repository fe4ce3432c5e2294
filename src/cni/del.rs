//! DEL: what ADD kept says how to detach; neither subnet.env nor an agent is needed.

use super::call::Call;
use super::error::{self, CniError};
use super::exec::Plugin;
use super::netconf::NetConf;
use super::note;
use super::state::{self, Content, Saved};

/// Detaches a container. One that is not attached is fine.
///
/// # Errors
/// The delegate's; what is kept then stays, for the runtime to try again.
pub(super) fn del(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let first = state::first(&conf.data_dir, &call.container);
    match state::find(&conf.data_dir, &call.container, &call.ifname, &conf.name)? {
        Some(saved) => detach(call, conf, &saved)?,
        None if state::read(&first)? == Content::Garbage => {
            note(&format!("{} is no configuration; left as it is", first.display()));
        }
        None => {}
    }
    // Only afterwards: what was attached is to go in any case.
    match call.check_netns() {
        Err(error) if error.code == error::NAMESPACE => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs the delegate's DEL, and forgets the attachment once that has worked.
///
/// # Errors
/// The delegate's.
pub(super) fn detach(call: &Call, conf: &NetConf, saved: &Saved) -> Result<(), CniError> {
    Plugin::find(saved.kind(), call, conf.patience)?.run(call, &saved.config)?;
    saved.remove()
}
