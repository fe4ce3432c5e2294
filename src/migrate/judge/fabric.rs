//! The store: what is configured, and which lease this host has.

use ipnet::IpNet;
use twill_backends::backend::from_config;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::Subnets;
use twill_backends::network::NetworkConfig;

use super::{former, split};
use crate::agent::preview::Preview;
use crate::migrate::{About, Device, Finding, Seen};

const KEEP: &str = "keep flanneld on this fabric, or give all its hosts a vxlan or host-gw backend at once";

/// What to do about what flanneld made.
const LEAVE: &str = "leave it, containers use it: mend what else breaks here and what is said of subnet.env, then check again";

/// What is found of the fabric.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    match &seen.network {
        None => {}
        Some(Err(text)) => {
            let (cause, next) = split(text, "see the cause, then check again");
            let prefix = "; is it flanneld's prefix? give its flags after --";
            let next = if cause.starts_with("there is no network") { next + prefix } else { next };
            all.push(Finding::breaks(About::Store, cause, next));
        }
        Some(Ok(network)) => all.push(backend(network)),
    }
    match &seen.preview {
        None => {}
        Some(Err(reasons)) => all.extend(reasons.iter().map(|text| {
            let (cause, next) = split(text, "remove what is in the way, then check again");
            let next = if is_flannelds(seen, &cause) { LEAVE.to_owned() } else { next };
            Finding::breaks(About::Start, cause, next)
        })),
        Some(Ok(preview)) => {
            all.push(lease(seen, preview));
            all.extend(preview.faults.iter().map(fault));
        }
    }
    all
}

/// Whether something that is in the way is in use by containers: an agent does not know it because the configuration is
/// not the one that it was made by, or because nothing says which subnet this host has.
fn is_flannelds(seen: &Seen, cause: &str) -> bool {
    let through = |device: &Device| cause.contains(&format!(" dev {}", device.name));
    let bridge = cause.starts_with("address ") && cause.contains(" on cni");
    !former::findings(seen).is_empty() || seen.devices.iter().any(through) || bridge
}

/// Whether packets of the backend configured can be understood on both sides while hosts move one by one.
fn backend(network: &NetworkConfig) -> Finding {
    let kind = network.options().kind();
    match from_config(network) {
        Err(fault) => Finding::breaks(About::Network, fault.cause, KEEP),
        Ok(_) if kind.as_deref() == Some("udp") => Finding::breaks(
            About::Network,
            "flannel's backend udp sends bare packets and Twill's sends VXLAN: hosts on either side of the move \
             would not understand each other",
            KEEP,
        ),
        Ok(backend) => {
            let pools: Vec<String> = network
                .pools
                .iter()
                .map(|(_, pool)| format!("{} in /{}", pool.network, pool.subnet_len))
                .collect();
            Finding::ok(About::Network, format!("{}, {}", pools.join(", "), backend.kind()))
        }
    }
}

/// Whether this host keeps its subnets.
fn lease(seen: &Seen, preview: &Preview) -> Finding {
    let text = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let subnets = |nets: Subnets| nets.iter().map(|(_, net)| *net).collect::<Vec<_>>();
    let (key, have) = (&preview.key, subnets(preview.subnets));
    let had = seen.env.as_ref().ok().and_then(Option::as_ref).map(|env| subnets(env.subnets));
    match had {
        Some(had) if had != have => Finding::breaks(
            About::Lease,
            format!("containers here are in {}, and this host's subnet would be {}", text(had), text(have)),
            "find out whose the lease is (twill lease list); drain the host if its old subnet is lost",
        ),
        Some(_) if preview.claim => Finding::note(
            About::Lease,
            format!(
                "this host has none; the subnet of subnet.env is free and would be claimed again as {key}"
            ),
            "start the agent soon: another host may claim it first",
        ),
        Some(_) => Finding::ok(About::Lease, format!("{key} stays; Twill adds its node id to the value")),
        None if preview.claim => Finding::note(
            About::Lease,
            format!(
                "this host has none, and no subnet.env says which it had: {key}, or another free one, would be claimed"
            ),
            "nothing, if flanneld never ran here; else check the flags: --etcd-prefix, --subnet-file, --iface",
        ),
        None => Finding::ok(About::Lease, format!("{key} is this host's by its address, and stays")),
    }
}

/// What flanneld passes over in silence is no reason to stay with it, unless a packet goes elsewhere.
fn fault(fault: &Fault) -> Finding {
    let (cause, next) = fault.cause_and_next();
    let cause = format!("{}: {cause}", fault.subject);
    let lost = matches!(
        fault.code,
        Code::OverlapsOwnSubnet
            | Code::DuplicateAddress
            | Code::DuplicateIdentity
            | Code::LeaseLost
            | Code::ForeignRoute
            | Code::StoreDown
            | Code::PeerOffLink
    );
    if lost { Finding::breaks(About::Fabric, cause, next) } else { Finding::note(About::Fabric, cause, next) }
}
