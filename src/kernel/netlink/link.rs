//! Makes a link as wanted: in place where the kernel can, by replacing it where it cannot.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use nix::errno::Errno;
use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, Link, LinkKind, LinkName, Vxlan};

use super::build;
use super::observe::addrs_of;
use super::parse::SeenLink;
use super::request::{Refusal, Requests};
use crate::datapath::ethtool;
use crate::datapath::tap::{self, Queues};
use crate::kernel::ownership::ALIAS_PREFIX;

/// A name, a VNI and a port that nobody uses.
const PROBE: &str = "twill-probe";
const PROBE_VNI: u32 = 0xff_fffe;
const PROBE_PORT: u16 = 8471;

/// Creates, changes or replaces the link. The error is the cause, with the next step.
pub(super) async fn set(
    requests: &Requests,
    name: LinkName,
    want: &Link,
    queues: Queues,
) -> Result<(), String> {
    let seen = requests.link(name).await.map_err(text)?;
    if let Some(seen) = &seen
        && seen.link.alias.starts_with(ALIAS_PREFIX)
        && seen.link.alias != want.alias
    {
        return Err(format!(
            "it belongs to another instance (alias {}): choose another VNI, or run `ip link del {name}`",
            seen.link.alias
        ));
    }
    let have = match seen {
        Some(seen) if !want.replaces(&seen.link) => seen,
        Some(seen) => {
            let message = RouteNetlinkMessage::DelLink(build::link(seen.index));
            requests.ask(message, 0).await.map_err(text)?;
            create(requests, name, want, queues).await?
        }
        None => create(requests, name, want, queues).await?,
    };
    change(requests, &have, want).await?;
    set_addrs(requests, have.index, want).await
}

async fn create(
    requests: &Requests,
    name: LinkName,
    want: &Link,
    queues: Queues,
) -> Result<SeenLink, String> {
    match &want.kind {
        LinkKind::Vxlan(vxlan) => {
            let message = RouteNetlinkMessage::NewLink(build::create(name, want, vxlan));
            match requests.ask(message, NLM_F_CREATE | NLM_F_EXCL).await {
                Err(refusal) if refusal.errno == Errno::EEXIST => return Err(taken(requests, vxlan).await),
                answer => drop(answer.map_err(text)?),
            }
        }
        LinkKind::Tap => tap::make(name, queues).map_err(|error| error.to_string())?,
        LinkKind::Other => return Err("there is no such link, and none of its kind is made here".to_owned()),
    }
    let seen = requests.link(name).await.map_err(text)?;
    seen.ok_or_else(|| "it went away as soon as it was made; something else manages this device".to_owned())
}

/// Whether VXLAN devices can be made here: there is one, or one that never goes up is made and taken away again. `Err`
/// says why not; a lack of privilege says nothing about the kernel.
pub(super) async fn probe_vxlan(requests: &Requests) -> Result<(), String> {
    let links = requests.links().await.unwrap_or_default();
    if links.values().any(|seen| seen.link.vxlan().is_some()) {
        return Ok(());
    }
    let Ok(name) = LinkName::try_from(PROBE) else { return Ok(()) };
    let vxlan = Vxlan {
        vni: PROBE_VNI,
        port: PROBE_PORT,
        local: Ipv4Addr::LOCALHOST.into(),
        learning: false,
        gbp: false,
        checksums: Checksums::default(),
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan.clone()),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1280,
        up: false,
        alias: String::new(),
        addrs: BTreeSet::new(),
    };
    let message = RouteNetlinkMessage::NewLink(build::create(name, &link, &vxlan));
    match requests.ask(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if matches!(refusal.errno, Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EAFNOSUPPORT) => {
            return Err(refusal.to_string());
        }
        Err(refusal) => tracing::debug!(%refusal, "could not try whether the kernel has VXLAN"),
        Ok(_) => {}
    }
    if let Ok(Some(seen)) = requests.link(name).await {
        let gone = requests.ask(RouteNetlinkMessage::DelLink(build::link(seen.index)), 0).await;
        gone.map(drop).unwrap_or_else(|refusal| tracing::warn!(%refusal, %name, "a device is left over"));
    }
    Ok(())
}

/// Who has the VNI and the port that were refused.
async fn taken(requests: &Requests, want: &Vxlan) -> String {
    let links = requests.links().await.unwrap_or_default();
    let same = |link: &Link| link.vxlan().is_some_and(|have| (have.vni, have.port) == (want.vni, want.port));
    let Vxlan { vni, port, .. } = want;
    match links.values().find(|seen| same(&seen.link)) {
        Some(other) => {
            let name = other.name;
            format!(
                "the device {name} has VNI {vni} on UDP port {port} already: `ip link del {name}`, or choose another VNI or Port"
            )
        }
        None => format!("VNI {vni} on UDP port {port} is taken already: choose another VNI or Port"),
    }
}

/// What the kernel changes on a live device. The message about the tunnel comes first: what follows (`up`) opens its
/// socket.
async fn change(requests: &Requests, have: &SeenLink, want: &Link) -> Result<(), String> {
    if let (Some(w), Some(h)) = (want.vxlan(), have.link.vxlan())
        && (w.local, w.learning) != (h.local, h.learning)
    {
        let message = RouteNetlinkMessage::NewLink(build::change(have.index, w));
        requests.ask(message, 0).await.map_err(text)?;
    }
    if let (Some(w), Some(h)) = (want.vxlan(), have.link.vxlan())
        && w.checksums.offload != h.checksums.offload
    {
        ethtool::set_tx_checksum(have.name, w.checksums.offload)
            .map_err(|error| format!("cannot change tx-checksum-ip-generic: {error}"))?;
    }
    let mut message = build::link(have.index);
    if want.mac != have.link.mac {
        message.attributes.push(LinkAttribute::Address(want.mac.0.to_vec()));
    }
    if want.mtu != have.link.mtu {
        message.attributes.push(LinkAttribute::Mtu(want.mtu));
    }
    if want.alias != have.link.alias {
        message.attributes.push(LinkAttribute::IfAlias(want.alias.clone()));
    }
    if !message.attributes.is_empty() {
        requests.ask(RouteNetlinkMessage::SetLink(message), 0).await.map_err(text)?;
    }
    if want.up == have.link.up {
        return Ok(());
    }
    let mut message = build::link(have.index);
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if want.up { LinkFlags::Up } else { LinkFlags::empty() };
    let answer = requests.ask(RouteNetlinkMessage::SetLink(message), 0).await;
    answer.map(drop).map_err(|refusal| match (want.vxlan(), refusal.errno) {
        (Some(Vxlan { port, .. }), Errno::EADDRINUSE) => format!(
            "a UDP socket on this host has port {port} already: find it with `ss -ulpn sport = :{port}` and stop it, or choose another Port"
        ),
        _ => text(refusal),
    })
}

/// Adds what is missing before it takes away what is stale, so that the link is never without an address.
async fn set_addrs(requests: &Requests, index: u32, want: &Link) -> Result<(), String> {
    let have = addrs_of(requests, index).await.map_err(|error| error.to_string())?;
    for net in want.addrs.difference(&have) {
        let message = RouteNetlinkMessage::NewAddress(build::addr(index, *net));
        requests.ask(message, NLM_F_CREATE | NLM_F_REPLACE).await.map_err(|refusal| {
            let ipv6_off = net.addr().is_ipv6() && matches!(refusal.errno, Errno::EACCES | Errno::EOPNOTSUPP);
            match ipv6_off {
                true => format!(
                    "cannot add {net}: IPv6 is off on this link; check net.ipv6.conf.all.disable_ipv6"
                ),
                false => format!("cannot add {net}: {refusal}"),
            }
        })?;
    }
    for net in have.difference(&want.addrs) {
        let message = RouteNetlinkMessage::DelAddress(build::addr(index, *net));
        match requests.ask(message, 0).await {
            Err(refusal) if refusal.errno == Errno::EADDRNOTAVAIL => {}
            answer => drop(answer.map_err(|refusal| format!("cannot remove {net}: {refusal}"))?),
        }
    }
    Ok(())
}

fn text(refusal: Refusal) -> String {
    refusal.to_string()
}
