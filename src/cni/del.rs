//! DEL: what ADD kept says how to detach; neither subnet.env nor an agent is needed.

use super::call::Call;
use super::error::{self, CniError};
use super::exec::Plugin;
use super::netconf::NetConf;
use super::state::{self, Content, Saved};
use super::{note, port, reservations};

/// Detaches a container. One that is not attached is fine.
///
/// # Errors
/// The delegate's; what is kept then stays, for the runtime to try again.
pub(super) fn del(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let first = state::first(&conf.data_dir, &call.container);
    match state::find(&conf.data_dir, &call.container, &call.ifname, &conf.name)? {
        // Under the first name no interface is kept: what is there may be of another attachment to the same network.
        Some(saved) if saved.path == first && is_another(call, &saved) => {}
        Some(saved) => {
            // First: once the address is free, another container may be given it.
            port::cut(call, &saved, conf.previous.as_ref())?;
            detach(call, conf, &saved)?;
        }
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

/// Whether host-local says that what is kept of a container is of another of its interfaces.
pub(super) fn is_another(call: &Call, saved: &Saved) -> bool {
    let dir = saved.config["ipam"].as_object().and_then(|ipam| reservations::dir(ipam, saved.network()));
    dir.is_some_and(|dir| reservations::only_elsewhere(&dir, &call.container, &call.ifname))
}

/// Runs the delegate's DEL, and forgets the attachment once that has worked.
///
/// # Errors
/// The delegate's.
pub(super) fn detach(call: &Call, conf: &NetConf, saved: &Saved) -> Result<(), CniError> {
    Plugin::find(saved.kind(), call, conf.patience)?.run(call, &saved.config)?;
    saved.remove()
}
