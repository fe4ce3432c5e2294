//! The host: tunnel devices, routes, the firewall, subnet.env.

use ipnet::IpNet;
use twill_backends::diff::{Op, diff};
use twill_backends::fault::Fault;
use twill_backends::lease::LeaseKey;
use twill_backends::state::{Link, LinkKind, LinkName};

use super::former;
use crate::agent::preview::Preview;
use crate::cni::fabric::Fabric;
use crate::migrate::{About, Device, Finding, Seen};

/// What is found on the host.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(Ok(preview)) = &seen.preview {
        all.extend(preview.want.links.iter().map(|(name, want)| device(*name, want, preview)));
        all.extend(strays(seen, preview));
        all.extend(routes(preview));
        all.push(firewall(preview));
    }
    all.extend(subnet_env(seen));
    all
}

/// Whether a device is adopted, with its Ethernet address: peers know that.
fn device(name: LinkName, want: &Link, preview: &Preview) -> Finding {
    let Some(have) = preview.have.links.get(&name) else {
        let cause = format!("{name} is not there and would be made: {}", described(want));
        return Finding::note(
            About::Device,
            cause,
            "nothing: its containers have no tunnel until Twill starts",
        );
    };
    if want.replaces(have) {
        let cause = format!(
            "{name} would be made anew: it is {}, and {} is wanted",
            described(have),
            described(want)
        );
        let next = "make Backend.VNI, Port and GBP those that flanneld started with, or drain the host";
        return Finding::breaks(About::Device, cause, next);
    }
    if want.mac != have.mac {
        let cause = format!(
            "{name} has the Ethernet address {}, its lease says {}: the lease's is set",
            have.mac, want.mac
        );
        return Finding::note(About::Device, cause, "nothing: peers send to the lease's");
    }
    if want.mtu != have.mtu {
        let cause = format!("{name} stays ({}); its MTU becomes {}", described(have), want.mtu);
        return Finding::note(About::Device, cause, "nothing");
    }
    Finding::ok(About::Device, format!("{name} stays: {}", described(have)))
}

fn described(link: &Link) -> String {
    let kind = match &link.kind {
        LinkKind::Vxlan(vxlan) => format!("vxlan {} port {} local {}", vxlan.vni, vxlan.port, vxlan.local),
        LinkKind::Tap => "a TAP device".to_owned(),
        LinkKind::Other => "of another kind".to_owned(),
    };
    let addrs: Vec<String> = link.addrs.iter().map(ToString::to_string).collect();
    format!("{kind}, {}, MTU {}, {}", link.mac, link.mtu, addrs.join(" "))
}

/// Devices of flanneld's that this configuration does not use.
fn strays(seen: &Seen, preview: &Preview) -> Vec<Finding> {
    let tunnels = former::tunnels(seen);
    let unused = |device: &&Device| {
        !tunnels.contains(device) && !preview.want.links.keys().any(|link| *link.to_string() == *device.name)
    };
    let stray = |Device { name, .. }: &Device| {
        let cause = format!("{name} is of another configuration of flanneld, and is left alone");
        Finding::note(About::Device, cause, format!("if nothing uses it: ip link del {name}"))
    };
    seen.devices.iter().filter(unused).map(stray).collect()
}

/// Routes that are taken over, and those that nobody needs any more.
fn routes(preview: &Preview) -> Vec<Finding> {
    let ops = diff(&preview.want, &preview.have);
    let mut all = Vec::new();
    let set =
        ops.iter().filter(|op| matches!(op, Op::SetRoute(key, _) if preview.have.routes.contains_key(key)));
    let new =
        ops.iter().filter(|op| matches!(op, Op::SetRoute(key, _) if !preview.have.routes.contains_key(key)));
    let (set, new) = (set.count(), new.count());
    all.push(Finding::ok(
        About::Routes,
        format!(
            "{} to peers: {set} are tagged in place, {new} are missing and made",
            preview.want.routes.len()
        ),
    ));
    let gone = ops.iter().filter_map(|op| if let Op::DelRoute(key, _) = op { Some(key.dst) } else { None });
    let (used, gone): (Vec<IpNet>, Vec<IpNet>) = gone.partition(|dst| is_leased(dst, &preview.faults));
    if !used.is_empty() {
        let cause = format!(
            "the routes to these peers would go, since their leases cannot be used (see fabric): {}",
            listed(&used)
        );
        let next = "put back the Backend.Type that flanneld started with, or see to these leases first";
        all.push(Finding::breaks(About::Routes, cause, next));
    }
    if !gone.is_empty() {
        let cause =
            format!("flanneld left routes to subnets without a lease, which would go: {}", listed(&gone));
        all.push(Finding::note(About::Routes, cause, "nothing, if no host has these subnets"));
    }
    all
}

/// Whether a lease that something is wrong with is of this subnet.
fn is_leased(dst: &IpNet, faults: &[Fault]) -> bool {
    let subnets = faults.iter().filter_map(|fault| LeaseKey::new(fault.subject.as_str()).subnets().ok());
    subnets.into_iter().any(|subnets| subnets.iter().any(|(_, net)| net == dst))
}

fn listed(nets: &[IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn firewall(preview: &Preview) -> Finding {
    match preview.rules.len() {
        0 => Finding::ok(About::Firewall, "its rules stay as they are"),
        count => Finding::ok(
            About::Firewall,
            format!("transactions to be done, see below: {count}; none leaves a gap"),
        ),
    }
}

/// Whether containers that come get what those that are there have.
fn subnet_env(seen: &Seen) -> Vec<Finding> {
    const ABOUT: About = About::SubnetEnv;
    if seen.config.is_err() {
        // Nobody knows which file.
        return Vec::new();
    }
    let env = match &seen.env {
        Ok(Some(env)) => env,
        // Nothing else says which subnet the containers have, or an agent would be told.
        Ok(None) if is_unknown(seen) => {
            let next = "write it again as flanneld did (FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ), \
                        or give the right --subnet-file, then check again";
            let cause = "there is none, and flanneld ran here: which subnet is this host's cannot be told";
            return vec![Finding::breaks(ABOUT, cause, next)];
        }
        Ok(None) => {
            let next = "nothing, if flanneld never ran here; else check --subnet-file";
            return vec![Finding::note(
                ABOUT,
                "there is none; Twill writes it once packets would pass",
                next,
            )];
        }
        Err(cause) if !seen.privileged => {
            return vec![Finding::note(ABOUT, cause.clone(), "run this command as root")];
        }
        Err(cause) => {
            let next = "nothing: Twill writes it anew; no container can be started before";
            return vec![Finding::note(ABOUT, cause.clone(), next)];
        }
    };
    let mut all: Vec<Finding> = network(seen, env).into_iter().chain(masquerade(seen, env)).collect();
    if let Some(Ok(preview)) = &seen.preview
        && preview.mtu != env.mtu
    {
        all.push(Finding::note(
            ABOUT,
            format!("FLANNEL_MTU is {} and becomes {}, which is what the tunnel takes", env.mtu, preview.mtu),
            "restart containers when convenient: those that run keep the MTU they have",
        ));
    }
    if all.is_empty() {
        all.push(Finding::ok(ABOUT, format!("it says what Twill would write; pods' MTU {}", env.mtu)));
    }
    all
}

/// Whether there are traces of flanneld, and an agent takes them for somebody else's.
fn is_unknown(seen: &Seen) -> bool {
    let refused = |text: &String| text.contains("lies in the pod network");
    let traces = !seen.devices.is_empty() || !seen.cni.containers.is_empty();
    traces && matches!(&seen.preview, Some(Err(reasons)) if reasons.iter().any(refused))
}

fn network(seen: &Seen, env: &Fabric) -> Option<Finding> {
    let Some(Ok(network)) = &seen.network else { return None };
    let foreign = network.pools.iter().find(|(_, pool)| !env.networks.contains(&pool.network));
    foreign.map(|(_, pool)| {
        let cause = format!("it does not name the network {}, which the store has", pool.network);
        let next =
            "put back the Network that flanneld started with, or check --etcd-prefix and --subnet-file";
        Finding::breaks(About::SubnetEnv, cause, next)
    })
}

fn masquerade(seen: &Seen, env: &Fabric) -> Option<Finding> {
    let config = seen.config.as_ref().ok()?;
    match (env.masquerade, config.filter.masquerade) {
        (true, false) => Some(Finding::breaks(
            About::SubnetEnv,
            "flanneld masquerades (FLANNEL_IPMASQ=true) and --ip-masq is not among the flags: containers that run \
             would lose the way out",
            "give --ip-masq",
        )),
        (false, true) => Some(Finding::note(
            About::SubnetEnv,
            "flanneld does not masquerade (FLANNEL_IPMASQ=false), and with --ip-masq Twill would",
            "leave --ip-masq out, unless you want that",
        )),
        _ => None,
    }
}
