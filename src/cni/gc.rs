//! GC: what is kept of containers that are no more goes, and their addresses are free again.
//!
//! # Why
//!
//! A host that lost its power has files of containers that nobody will ever delete. host-local takes their addresses for
//! used until there are none left.

use serde_json::json;

use super::call::Call;
use super::error::{self, CniError};
use super::exec::Plugin;
use super::fabric::Fabric;
use super::netconf::{NetConf, VALID};
use super::{del, delegate, reservations, state, version};

/// The interface of an attachment that nothing says the interface of.
const IFNAME: &str = "eth0";

/// Detaches every container of the network that is not among the valid attachments, and releases every address of the
/// network that none of them has. Then the delegate collects what it keeps itself. One failure does not stop the rest.
///
/// # Errors
/// All failures, under the code of the first. Code 7 without a list of valid attachments: nothing is removed then.
pub(super) fn gc(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let none = || CniError::new(error::CONFIG, "GC needs cni.dev/valid-attachments; nothing was removed");
    let valid = conf.valid.as_ref().ok_or_else(none)?;
    let spared = |container: &str, ifname: Option<&str>| {
        let same =
            |(id, name): &&(String, String)| id == container && ifname.is_none_or(|ifname| ifname == name);
        valid.iter().any(|attachment| same(&attachment))
    };
    let dir = reservations::dir(&conf.ipam, &conf.name);
    let reserved = dir.as_deref().map(reservations::list).unwrap_or_default();
    let mut errors = Vec::new();
    for (container, ifname, saved) in state::list(&conf.data_dir, &conf.name)? {
        if spared(&container, ifname.as_deref()) {
            continue;
        }
        let theirs = reserved.iter().filter(|one| one.container == container);
        let known = theirs.filter_map(|one| one.ifname.clone()).next();
        let ifname = ifname.or(known).unwrap_or(IFNAME.to_owned());
        let gone = Call { verb: "DEL".to_owned(), container, ifname, netns: String::new(), ..call.clone() };
        errors.extend(del::detach(&gone, conf, &saved).err());
    }
    if let Some(dir) = dir {
        errors.extend(reservations::release(&dir, conf.patience, |one| {
            spared(&one.container, one.ifname.as_deref())
        }));
    }
    errors.extend(forward(call, conf, valid).err());
    let all: Vec<&str> = errors.iter().map(|error| error.msg.as_str()).collect();
    errors.first().map_or(Ok(()), |first| Err(CniError::new(first.code, all.join("; "))))
}

/// Has the delegate collect, if it has learned to: GC came with CNI 1.1. Without subnet.env nobody knows what to tell it.
fn forward(call: &Call, conf: &NetConf, valid: &[(String, String)]) -> Result<(), CniError> {
    let Ok(fabric) = Fabric::read(&conf.subnet_file) else { return Ok(()) };
    let mut config = delegate::config(conf, &fabric)?;
    let plugin = Plugin::find(config["type"].as_str().unwrap_or_default(), call, conf.patience)?;
    let asks = Call { verb: "VERSION".to_owned(), ..call.clone() };
    if !version::is_in(&plugin.run(&asks, &config)?, version::STATUS) {
        return Ok(());
    }
    let attachment =
        |(container, ifname): &(String, String)| json!({ "containerID": container, "ifname": ifname });
    config[VALID] = valid.iter().map(attachment).collect();
    plugin.run(call, &config).map(drop)
}
