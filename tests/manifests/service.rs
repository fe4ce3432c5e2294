//! Three machines as the README sets them up: a cluster, its users, and the agent, all under systemd.

use std::fs;
use std::process::Command;

use twill::lab::probe::ping_until;
use twill::lab::{Cancel, Pod, Seen, until};

use crate::machine::{Disk, Machine, PATIENCE};
use crate::shipped;
use crate::site::{Site, all_reach_each_other};
use crate::units::FLANNELD;

const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
const PREFIX: &str = "/coreos.com/network";
/// The capability to read every file.
const READ_ALL: u64 = 1 << 2;
/// What goes beyond the owner's rights to files.
pub(crate) const FILES: u64 = READ_ALL | 1 << 1;

#[test]
fn the_cluster_lets_in_whom_it_should() {
    let Some(site) = Site::new(|_, _| {}) else { return };
    let net = &site.first().net;
    // Before there are users, a certificate is all that keeps others out.
    assert!(site.ctl(Some("twill"), &["get", "/x"]).is_ok());
    let error = site.ctl(None, &["get", "/x"]).unwrap_err();
    assert!(error.contains("certificate") || error.contains("deadline"), "{error}");
    assert!(site.certificates.version(net, 2379, "ca.crt", "twill/client").contains("etcdserver"));
    // What makes a client does not make a member.
    assert!(site.certificates.version(net, 2380, "peer-ca.crt", "n1/peer").contains("etcdserver"));
    let said = site.certificates.version(net, 2380, "peer-ca.crt", "twill/client");
    assert!(!said.contains("etcdserver") && said.contains("alert"), "{said}");

    let made = site.certificates.make_users(net);
    assert!(made.contains("auth enable"), "{made}");
    let again = site.certificates.make_users(net);
    assert!(!again.contains("role add"), "{again}");

    let denied = |client: &str, args: &[&str]| {
        let error = site.ctl(Some(client), args).unwrap_err();
        assert!(error.contains("permission denied"), "{client} {args:?}: {error}");
    };
    let (config, subnets) = (format!("{PREFIX}/config"), format!("{PREFIX}/subnets"));
    for key in
        ["/registry/x", "/coreos.com/networks/config", PREFIX, &config, &format!("{subnets}X/a"), &subnets]
    {
        denied("twill", &["put", key, "x"]);
        denied("twill", &["del", key]);
    }
    for range in ["", "/coreos.com/", PREFIX] {
        denied("twill", &["get", range, "--prefix"]);
        denied("twill-config", &["get", range, "--prefix"]);
    }
    denied("twill-config", &["put", &format!("{subnets}/10.244.1.0-24"), "x"]);
    denied("twill", &["user", "list"]);
    denied("twill", &["auth", "disable"]);

    // Writing the configuration is another's business than the agents'.
    let error = site.twill("twill", &["config", "set", VXLAN]).unwrap_err();
    assert!(error.contains("permission denied"), "{error}");
    site.twill("twill-config", &["config", "set", VXLAN]).unwrap();
    assert!(site.twill("twill", &["config", "get"]).unwrap().contains("vxlan"));
    replaced(&site);
}

/// A member that lost its disk comes back as another.
fn replaced(site: &Site) {
    let lost = &site.machines[2];
    let name = lost.ok(&["sh", "-c", ". /etc/twill-etcd/member.env; echo $ETCD_NAME"]);
    let peer = lost.ok(&["sh", "-c", ". /etc/twill-etcd/member.env; echo $ETCD_INITIAL_ADVERTISE_PEER_URLS"]);
    lost.ok(&["systemctl", "stop", "twill-etcd"]);
    lost.ok(&["sh", "-c", "rm -r /var/lib/twill-etcd/*"]);
    let members = site.ctl(Some("root"), &["member", "list"]).unwrap();
    let id =
        members.lines().find(|line| line.contains(&name)).and_then(|line| line.split(',').next()).unwrap();
    site.ctl(Some("root"), &["member", "remove", id]).unwrap();
    site.ctl(Some("root"), &["member", "add", &name, &format!("--peer-urls={peer}")]).unwrap();
    // What STATE=existing has `make-certificates` write.
    lost.ok(&["sed", "-i", "s/_STATE=new/_STATE=existing/", "/etc/twill-etcd/member.env"]);
    lost.ok(&["systemctl", "start", "twill-etcd"]);
    let members = site.ctl(Some("root"), &["member", "list"]).unwrap();
    assert!(members.lines().any(|line| line.contains(&name) && line.contains("started")), "{members}");
}

#[test]
fn the_agent_lives_in_its_unit() {
    let Some(site) = Site::new(|index, disk| {
        // One host of each kind: kernel and nftables; kernel and the older iptables; frames carried by the agent.
        let more = ["", "TWILL_FIREWALL=iptables\n", "TWILL_DATAPATH=userspace\n"][index];
        let env = fs::read_to_string(disk.folder.join("etc/twill/twill.env")).unwrap();
        disk.write("etc/twill/twill.env", &format!("{env}{more}"));
        if index == 1 {
            for name in ["iptables", "iptables-save", "iptables-restore"] {
                legacy(disk, name);
            }
        }
    }) else {
        return;
    };
    site.certificates.make_users(&site.first().net);
    site.twill("twill-config", &["config", "set", VXLAN]).unwrap();
    // As on a host whose etcd has it.
    site.machines[1].ok(&["chmod", "600", "/etc/twill/client.key"]);
    site.machines[1].ok(&["chown", "12345", "/etc/twill/client.key"]);
    let pods = site.start_agents();
    all_reach_each_other(&pods);
    site.wait_settled();

    let bounded = capabilities(&shipped::values(
        &shipped::text("systemd/twill.service"),
        "Service",
        "CapabilityBoundingSet",
    ));
    for (machine, files) in site.machines.iter().zip([0, READ_ALL, 0]) {
        let effective = u64::from_str_radix(&machine.status_of("twill", "CapEff"), 16).unwrap();
        assert_eq!(effective & !bounded, 0, "more than the unit grants");
        assert_eq!(effective & FILES, files);
        assert_eq!(machine.status_of("twill", "NoNewPrivs"), "1");
        assert_eq!(machine.status_of("twill", "Seccomp"), "2");
        assert_eq!(machine.ok(&["cat", "/proc/sys/net/ipv4/ip_forward"]), "1");
        assert_eq!(machine.ok(&["stat", "-c", "%a", "/run/flannel/subnet.env"]), "644");
        assert_eq!(machine.ok(&["stat", "-c", "%a", "/var/lib/twill"]), "700");
    }
    // The lock that all users of iptables share.
    let pid = site.machines[1].show("twill", "MainPID");
    site.machines[1].ok(&["nsenter", "-t", &pid, "-m", "--", "sh", "-c", ": >> /run/xtables.lock"]);
    assert!(site.machines[1].ok(&["iptables-legacy-save"]).contains("FLANNEL-POSTRTG"));
    assert!(site.machines[2].ok(&["ip", "-d", "link", "show", "flannel.1"]).contains("tun type tap"));

    taken_over(&site, &pods);
    restarted(&site, &pods);
    leases(&site);
    rivals(&site);
    other_backend(&site, &pods);
    named_flanneld(&site, &pods);
}

/// Puts the older of the two iptables before the newer.
fn legacy(disk: &Disk, name: &str) {
    let target = format!("/usr/sbin/{}", name.replace("iptables", "iptables-legacy"));
    disk.write(&format!("local/bin/{name}"), &format!("#!/bin/sh\nexec {target} \"$@\"\n"));
    let place = disk.folder.join("local/bin").join(name);
    assert!(Command::new("chmod").arg("755").arg(place).status().unwrap().success());
}

fn reload(machine: &Machine, unit: &str) {
    let before = machine.show(unit, "MainPID");
    machine.ok(&["systemctl", "reload", unit]);
    let taken = until("another main process", PATIENCE, &Cancel::default(), || {
        let pid = machine.show(unit, "MainPID");
        let over = pid != before && pid != "0" && !machine.run(&["kill", "-0", &before]).status.success();
        Ok(if over { Seen::Yes(()) } else { Seen::NotYet(format!("{pid}{}", machine.logs())) })
    });
    taken.unwrap();
    machine.wait_active(unit);
    assert_eq!(machine.show(unit, "NRestarts"), "0");
}

/// A reload is a take-over, which systemd follows.
fn taken_over(site: &Site, pods: &[Pod]) {
    for machine in [&site.machines[0], &site.machines[2]] {
        for _ in 0..2 {
            reload(machine, "twill");
        }
    }
    site.wait_settled();
    all_reach_each_other(pods);
}

/// What a stop leaves, and what an end by accident does.
fn restarted(site: &Site, pods: &[Pod]) {
    let machine = site.first();
    let env = machine.ok(&["cat", "/run/flannel/subnet.env"]);
    machine.ok(&["systemctl", "stop", "twill"]);
    assert_eq!(machine.ok(&["cat", "/run/flannel/subnet.env"]), env);
    ping_until(&pods[0].net, pods[1].addresses[0], PATIENCE, &Cancel::default()).unwrap();
    machine.ok(&["systemctl", "start", "twill"]);
    let pid = machine.show("twill", "MainPID");
    machine.ok(&["kill", "-KILL", &pid]);
    let again = until("a restart", PATIENCE, &Cancel::default(), || {
        let (restarts, state) = (machine.show("twill", "NRestarts"), machine.show("twill", "ActiveState"));
        Ok(if restarts == "1" && state == "active" { Seen::Yes(()) } else { Seen::NotYet(state) })
    });
    again.unwrap();
    assert_eq!(machine.ok(&["cat", "/run/flannel/subnet.env"]), env);

    // A unit that requires flanneld gets this one.
    machine.ok(&["systemctl", "enable", "twill"]);
    assert_eq!(machine.show("flanneld", "Id"), "twill.service");
    let unit = "[Unit]\nDefaultDependencies=no\nRequires=flanneld.service\nAfter=flanneld.service\n\
                [Service]\nType=oneshot\nExecStart=/bin/true\n";
    machine.ok(&["sh", "-c", &format!("printf '%b' '{unit}' > /etc/systemd/system/needs.service")]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "needs"]);

    // Wrong flags are reported once, not for ever.
    machine.ok(&["systemctl", "stop", "twill"]);
    machine.ok(&["sh", "-c", "echo TWILL_DATAPATH=nonsense >> /etc/twill/twill.env"]);
    assert!(!machine.run(&["systemctl", "start", "twill"]).status.success());
    assert_eq!(machine.show("twill", "ActiveState"), "failed");
    assert_eq!(machine.show("twill", "ExecMainStatus"), "64");
    machine.ok(&["sed", "-i", "/nonsense/d", "/etc/twill/twill.env"]);
    machine.ok(&["systemctl", "start", "twill"]);
    site.wait_settled();
}

/// What the agents' role allows suffices for all they do with leases, and a member less is no matter.
fn leases(site: &Site) {
    let listed = || site.twill("twill", &["lease", "list"]).unwrap();
    let drawn = listed();
    let free = (200..=203)
        .map(|third| format!("10.244.{third}.0"))
        .find(|net| !drawn.contains(&format!("{net}-24")))
        .unwrap();
    let (subnet, reserved) = (format!("{free}/24"), format!("{free}-24"));
    site.twill("twill", &["lease", "reserve", &subnet, "--public-ip", "192.168.77.200"]).unwrap();
    assert!(listed().contains(&reserved), "{}", listed());
    site.twill("twill", &["lease", "release", &reserved]).unwrap();
    let key =
        site.ctl(Some("root"), &["get", &format!("{PREFIX}/subnets/"), "--prefix", "--keys-only"]).unwrap();
    let key = key.split_whitespace().next().unwrap().to_owned();
    let subnet = key.rsplit('/').next().unwrap();
    site.machines[2].ok(&["systemctl", "stop", "twill-etcd"]);
    site.ctl(Some("root"), &["del", &key]).unwrap();
    until("the lease that was deleted", PATIENCE, &Cancel::default(), || {
        let listed = listed();
        Ok(if listed.contains(subnet) { Seen::Yes(()) } else { Seen::NotYet(listed) })
    })
    .unwrap();
    site.machines[2].ok(&["systemctl", "start", "twill-etcd"]);
    site.wait_settled();
}

/// A flanneld is noticed although the agent may not look into processes that may more than it does; one in another
/// network namespace is none of its business.
fn rivals(site: &Site) {
    let machine = site.first();
    machine.ok(&[
        "sh",
        "-c",
        "cp /bin/sleep /run/flanneld && chmod 755 /run/flanneld && ip netns add elsewhere",
    ]);
    let unit = "[Unit]\nDefaultDependencies=no\n[Service]\n";
    let run = |name: &str, line: &str| {
        let text = format!("{unit}Type=exec\nExecStart={line}\n");
        let script = format!("printf '%b' '{text}' > /etc/systemd/system/{name}.service");
        machine.ok(&["sh", "-c", &script]);
        machine.ok(&["systemctl", "daemon-reload"]);
        machine.ok(&["systemctl", "start", name]);
    };
    machine.ok(&["systemctl", "stop", "twill"]);
    run("elsewhere", "/sbin/ip netns exec elsewhere /run/flanneld 600");
    machine.ok(&["systemctl", "start", "twill"]);
    machine.ok(&["systemctl", "stop", "twill"]);
    run("rival", "/run/flanneld 600");
    assert!(!machine.run(&["systemctl", "start", "twill"]).status.success());
    let pid = machine.show("rival", "MainPID");
    assert!(machine.ok(&["tail", "-n3", "/mnt/log/twill"]).contains(&format!("same prefix (pid {pid})")));
    machine.ok(&["systemctl", "stop", "rival", "elsewhere"]);
    machine.wait_active("twill");
    site.wait_settled();
}

/// The same unit with routes in the place of a tunnel.
fn other_backend(site: &Site, pods: &[Pod]) {
    site.twill("twill-config", &["config", "set", HOST_GW]).unwrap();
    site.on_all(&["systemctl", "restart", "twill"]);
    site.wait_settled();
    all_reach_each_other(pods);
    let route = site.first().ok(&["ip", "route", "show", &format!("{}/24", network(pods[1].addresses[0]))]);
    assert!(route.contains("dev eth0"), "{route}");
}

/// flanneld's unit with the drop-in, in the place of Twill's.
fn named_flanneld(site: &Site, pods: &[Pod]) {
    let machine = site.first();
    machine.ok(&["systemctl", "disable", "--now", "twill"]);
    let put = |path: &str, text: &str| {
        let folder = path.rsplit_once('/').unwrap().0;
        machine.ok(&["sh", "-c", "mkdir -p \"$1\"; printf %s \"$3\" > \"$2\"", "sh", folder, path, text]);
    };
    let variables = machine.ok(&["cat", "/etc/twill/twill.env"]).replace("TWILL_", "FLANNELD_");
    put("/etc/default/flanneld", &format!("{variables}\nFLANNEL_OPTIONS=--ip-masq\n"));
    put("/etc/systemd/system/flanneld.service", FLANNELD);
    put("/etc/systemd/system/flanneld.service.d/twill.conf", &shipped::text("flanneld.service.d/twill.conf"));
    machine.ok(&["mkdir", "-p", "/usr/local/libexec/twill"]);
    machine.ok(&["ln", "-s", "/usr/local/bin/twill", "/usr/local/libexec/twill/flanneld"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "flanneld"]);
    assert_eq!(machine.show("flanneld", "Id"), "flanneld.service");
    assert!(machine.show("flanneld", "ExecStart").contains("libexec/twill/flanneld"));
    reload(machine, "flanneld");
    site.wait_settled();
    all_reach_each_other(pods);
}

fn network(address: std::net::IpAddr) -> std::net::Ipv4Addr {
    let std::net::IpAddr::V4(address) = address else { panic!("{address}") };
    let [a, b, c, _] = address.octets();
    std::net::Ipv4Addr::new(a, b, c, 0)
}

/// Names of capabilities as a set of bits (`linux/capability.h`).
pub(crate) fn capabilities(names: &[String]) -> u64 {
    let words = names.iter().flat_map(|line| line.split_whitespace());
    words.fold(0, |set, name| {
        let bit = match name.strip_prefix("CAP_").unwrap_or(name) {
            "DAC_OVERRIDE" => 1,
            "DAC_READ_SEARCH" => 2,
            "NET_BIND_SERVICE" => 10,
            "NET_ADMIN" => 12,
            "NET_RAW" => 13,
            other => panic!("{other}: is it really needed?"),
        };
        set | 1 << bit
    })
}
