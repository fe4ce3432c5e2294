//! Files of the agent and of CNI plugins, and the clock.

use std::time::Duration;

use ipnet::IpNet;

use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::doctor::sign::Sign;

/// How far a clock may be off without a word.
const OFF: Duration = Duration::from_secs(60);
/// How much room the agent's files take at most, in bytes, and how many files.
const ROOM: u64 = 1 << 20;
const FILES: u64 = 16;

/// Whether CNI plugins are told what the lease says.
pub(super) fn subnet_env(facts: &Facts) -> Vec<Finding> {
    let path = facts.env_path.display().to_string();
    let own: Vec<&IpNet> = facts.fabric.own.iter().map(|(_, net)| net).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let wanted = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let differs =
        |found: String| vec![Finding::new(Sign::OtherSubnetEnv.entry(), &path, found).wanted(&wanted)];
    match &facts.env {
        Ok(None) => vec![Finding::new(Sign::NoSubnetEnv.entry(), path, "there is no such file")],
        Err(why) => differs(why.clone()),
        Ok(Some(env)) => {
            let subnets: Vec<&IpNet> = env.subnets.iter().map(|(_, net)| net).collect();
            let mtu = facts.status().and_then(|status| status.network.as_ref()).map(|network| network.mtu);
            if subnets != own {
                differs(subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            } else if let Some(mtu) = mtu.filter(|mtu| *mtu != env.mtu) {
                let found = format!("FLANNEL_MTU={}", env.mtu);
                vec![
                    Finding::new(Sign::OtherSubnetEnv.entry(), path, found)
                        .wanted(format!("FLANNEL_MTU={mtu}")),
                ]
            } else {
                Vec::new()
            }
        }
    }
}

/// Whether the agent can keep what it must.
pub(super) fn folders(facts: &Facts) -> Vec<Finding> {
    let finding = |folder: &crate::doctor::facts::Folder| {
        let path = folder.path.display().to_string();
        if let Some(why) = &folder.unwritable {
            Some(Finding::new(Sign::StateUnwritable.entry(), path, why))
        } else if folder.free < ROOM || folder.inodes < FILES {
            let found = format!("{} bytes and {} files are free", folder.free, folder.inodes);
            let next = format!("make room: df {path}; du -x {path}");
            Some(Finding::new(Sign::DiskFull.entry(), path, found).wanted(format!("{ROOM} bytes")).next(next))
        } else {
            None
        }
    };
    facts.folders.iter().filter_map(finding).collect()
}

/// Whether the clock can be believed.
pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    let ahead = facts.snapshot.and_then(|written| written.duration_since(facts.now).ok());
    let behind = ahead.filter(|by| *by > OFF).map(|by| {
        let found = format!("the agent's snapshot is from {} s ahead", by.as_secs());
        Finding::new(Sign::ClockBehind.entry(), "clock", found)
    });
    let alone = (facts.synchronized == Some(false)).then(|| {
        Finding::new(Sign::ClockUnsynchronized.entry(), "clock", "NTPSynchronized=no").wanted("yes")
    });
    behind.into_iter().chain(alone).collect()
}

/// Whether containers can be attached.
pub(super) fn cni(facts: &Facts) -> Vec<Finding> {
    let missing = facts.missing.iter().map(|(plugin, file)| {
        let found = format!("{} names it", file.display());
        Finding::new(Sign::CniPlugin.entry(), plugin, found)
    });
    let odd = facts
        .cni
        .odd
        .iter()
        .map(|(path, why)| Finding::new(Sign::CniFile.entry(), path.display().to_string(), why));
    missing.chain(odd).collect()
}
