//! `twill doctor`: silent on a healthy fabric, and each fault by its name within seconds.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::{PodSubnet, Process, copy_program};

use crate::dump;
use crate::examine::{Doctor, MACHINES};
use crate::fabric::{Fabric, Families, need_namespaces, wait_for};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// How long it may take from a fault to its name.
const SOON: Duration = Duration::from_secs(20);
impl Doctor<'_> {
    /// Breaks something, and waits until it is named.
    fn names(&self, line: &str, code: &str) {
        self.sh(line);
        self.waits(&[], code, line);
    }

    /// [`Doctor::names`], and mends it again.
    fn finds(&self, line: &str, code: &str, mend: &str) {
        self.names(line, code);
        self.sh(mend);
    }

    /// With a program of this name, which does nothing, on the host.
    fn finds_program(&self, name: &str, code: &str) {
        let program = self.root.join(name);
        copy_program(Path::new("/bin/sleep"), &program).unwrap();
        let mut command = Command::new(&program);
        command.arg("600");
        let net = &self.host.net;
        let _running = Process::spawn(net, name, command, &self.root.join("log")).unwrap();
        self.waits(&[], code, name);
    }

    /// With the agent's state directory as a line of shell leaves it, for the doctor alone.
    fn finds_state(&self, line: &str, code: &str) {
        let state = self.agent.files.state.display().to_string();
        let line = format!("STATE={state}; {line}; exec \"$@\"");
        self.waits(&["unshare", "-m", "sh", "-c", &line, "-"], code, &line);
    }

    fn sh(&self, line: &str) {
        dump::sh(&self.host.net, line);
    }

    fn waits(&self, within: &[&str], code: &str, what: &str) {
        let named = self.named(within, code, Instant::now());
        println!("DOCTOR {} after {} ms", named.code, named.after.as_millis());
        assert!(named.after < SOON, "{what}: {named:?}");
    }
}

fn is_silent(backend: &str, flags: &[&str]) {
    let fabric = Fabric::new(Families::Dual, backend, flags);
    let doctor = Doctor::new(&fabric, 0);
    assert_eq!(doctor.findings(&[]), Vec::<Value>::new());
    let output = doctor.run(&[], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() || text.contains(MACHINES[0]), "{text}");
    if output.status.success() {
        assert_eq!(text, "nothing to complain of\n");
    }
}

#[test]
fn a_healthy_vxlan_fabric_has_nothing_to_complain_of() {
    need_namespaces!();
    is_silent(VXLAN, &["--firewall=nftables"]);
}

#[test]
fn a_healthy_host_gw_fabric_has_nothing_to_complain_of() {
    need_namespaces!();
    is_silent(r#"{"Type":"host-gw"}"#, &["--firewall=iptables", "--ip-masq"]);
}

#[test]
fn a_healthy_userspace_fabric_has_nothing_to_complain_of() {
    need_namespaces!();
    is_silent(r#"{"Type":"udp"}"#, &[]);
}

#[test]
fn what_others_do_to_a_host_is_named() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, &["--firewall=nftables"]);
    let doctor = Doctor::new(&fabric, 0);
    let rp = "/proc/sys/net/ipv4/conf/all/rp_filter";
    doctor.finds(&format!("echo 1 > {rp}"), "rp-filter-strict", &format!("echo 0 > {rp}"));
    let chain = "'{ type filter hook forward priority 0; policy drop; }'";
    let drops = format!("nft add table inet theirs; nft add chain inet theirs forward {chain}");
    doctor.finds(&drops, "forward-dropped", "nft delete table inet theirs");
    let docker = "ip link add docker0 type bridge; ip addr add 10.244.200.1/24 dev docker0";
    doctor.finds(docker, "network-overlap", "ip link del docker0");
    let own = fabric.subnet(1, false).addr();
    let route = format!("ip route add {own}/25 via 192.168.77.3 dev eth0 proto static");
    doctor.finds(&route, "foreign-route", &format!("ip route del {own}/25"));
    let PodSubnet { ipv4, mtu, .. } = fabric.agents[0].subnet().unwrap();
    let gateway = ipv4.unwrap();
    // The bridge plugin objects to what it meets before its own.
    let bridge = format!(
        "ip addr del {gateway} dev cni0; ip addr add 10.99.0.1/24 dev cni0; ip addr add {gateway} dev cni0"
    );
    doctor.finds(&bridge, "bridge-address", "ip addr del 10.99.0.1/24 dev cni0");
    doctor.finds("ip link set cni0 mtu 9000", "bridge-mtu", &format!("ip link set cni0 mtu {}", mtu));
    let advertised = "ip -6 route add 2001:db8:9::/48 via fd77::9 dev eth0 proto ra; echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra";
    doctor.finds(
        advertised,
        "ra-ignored",
        "ip -6 route del 2001:db8:9::/48; echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra",
    );
    for manager in ["NetworkManager", "dhcpcd", "systemd-networkd"] {
        doctor.finds_program(manager, "managed-devices");
    }
    doctor.finds_program("flanneld", "flanneld-runs");
    doctor.sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true");
    doctor.finds_program("kubelet", "bridge-netfilter-off");
    let conf = doctor.root.join("conf");
    fs::create_dir_all(&conf).unwrap();
    fs::write(conf.join("10-flannel.conflist"), include_str!("../../manifests/cni/10-flannel.conflist"))
        .unwrap();
    doctor.finds("true", "cni-plugin-missing", "true");
    fs::write(conf.join("10-flannel.conflist"), "{").unwrap();
    doctor.finds("true", "cni-file-bad", "true");
    fs::remove_dir_all(&conf).unwrap();
    doctor.finds_state("mount -t tmpfs -o ro none $STATE", "state-unwritable");
    doctor.finds_state(
        "mount -t tmpfs -o size=64k none $STATE; dd if=/dev/zero of=$STATE/full bs=64k 2>/dev/null",
        "disk-full",
    );
    wait_for("nothing to complain of", || {
        let codes = doctor.codes();
        codes.is_empty().then_some(()).ok_or(codes)
    });
    fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    Doctor::new(&fabric, 0).finds("true", "agent-silent", "true");
    fabric.agents[0].signal(Signal::SIGCONT).unwrap();
}

#[test]
fn what_no_agent_mends_is_named() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::Dual, VXLAN, &["--firewall=nftables"]);
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    let (own, peer) = (fabric.subnet(0, false), fabric.subnet(1, false));
    let files = fabric.agents[0].files.clone();
    let leases = fabric.lab.dir().join("leases/subnets");
    let doctor = Doctor::new(&fabric, 0);
    assert_eq!(doctor.codes(), ["no-agent"]);
    doctor.finds(
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "forwarding-off",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    );
    doctor.names(&format!("ip route del {peer}"), "kernel-differs");
    doctor.names("echo 1 > /proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6", "ipv6-off");
    doctor.names("ip link set flannel.1 down", "tunnel-down");
    doctor.names("ip link del flannel.1; ip link add other0 type vxlan id 1 dstport 8472", "vni-taken");
    doctor.sh("ip link del other0");
    let socket = fabric.lab.hosts[0].net.run(|| UdpSocket::bind("0.0.0.0:8472")).unwrap().unwrap();
    doctor.names("true", "port-taken");
    drop(socket);
    let env = files.subnet.display();
    doctor.names(
        &format!("sed -i s,^FLANNEL_SUBNET=.*,FLANNEL_SUBNET=10.244.250.1/24, {env}"),
        "subnet-env-differs",
    );
    doctor.names(&format!("rm {env}"), "subnet-env-missing");
    doctor.names(&format!("touch -d '+1 hour' {}/*/snapshot.json", files.state.display()), "clock-behind");

    let name = |subnet: IpNet| format!("{}/{}-{}*", leases.display(), subnet.addr(), subnet.prefix_len());
    let twin = format!("cp {} {}/10.244.251.0-24", name(peer), leases.display());
    doctor.names(&twin, "duplicate-node");
    doctor.names("true", "duplicate-address");
    doctor.names(&format!("echo junk > {}/10.244.251.0-24", leases.display()), "bad-lease-value");
    doctor.names(&format!("rm {}/10.244.251.0-24 {}", leases.display(), name(own)), "no-lease");
    doctor.names("ip addr flush dev eth0; ip -6 addr flush dev eth0", "cannot-start");
    fabric.lab.readdress(0).unwrap();
    let config = fabric.lab.dir().join("leases/config.json");
    doctor.finds(
        &format!("mv {0} {0}.away", config.display()),
        "no-config",
        &format!("mv {0}.away {0}", config.display()),
    );
    let store = fabric.lab.dir().join("leases");
    doctor.finds(
        &format!("mv {0} {0}.away; touch {0}", store.display()),
        "store-down",
        &format!("rm {0}; mv {0}.away {0}", store.display()),
    );
    doctor.sh("echo 0 > /proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6");
    fabric.agents[0].restart().unwrap();
    fabric.wait_ready();
    fabric.wait_settled();
    assert_eq!(Doctor::new(&fabric, 0).codes(), Vec::<String>::new());
}

#[test]
fn rules_of_both_kinds_are_named() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &["--firewall=nftables"]);
    let net = &fabric.lab.hosts[0].net;
    let both =
        "iptables-legacy -A INPUT -s 203.0.113.1 -j ACCEPT && iptables-nft -A INPUT -s 203.0.113.1 -j ACCEPT";
    let mut command = Command::new("sh");
    command.args(["-c", both]);
    if let Err(error) = net.output(command) {
        println!("SKIP: this host has not both iptables: {error}");
        return;
    }
    Doctor::new(&fabric, 0).finds("true", "iptables-mixed", "iptables-legacy -F; iptables-nft -F");
}
