//! Every metric, and where its value comes from. README.md has the same table.

use super::probes::{mtus, seconds, verdicts, ways};
use super::sample::{
    codes, count, devices, durations, flag, float, frames, guard, is_drop, labelled, named, one, pools, some,
};
use super::traffic::{carried, dropped};
use super::{Kind, Metric, Sample, Scrape};
use crate::agent::status::State;

/// Every metric, in the order of a scrape.
pub const METRICS: &[Metric] = &[
    gauge("twill_build_info", &["version"], "The version of the program; always 1.", |s| {
        vec![labelled([("version", &s.status.build)], 1.0)]
    }),
    gauge("twill_state", &["state"], "1 for the state of the agent, 0 for the others.", |s| {
        let of = |state: State| labelled([("state", &state.to_string())], flag(s.status.state == state));
        [State::Ok, State::Degraded, State::Failed].map(of).into()
    }),
    gauge("twill_ready", &[], "Whether containers can be started and reach others.", |s| {
        one(flag(s.status.readiness.ready))
    }),
    gauge(
        "twill_loop_age_seconds",
        &[],
        "How long ago the agent's loop last went on to something else.",
        |s| one(s.turned_s),
    ),
    gauge("twill_store_connected", &[], "Whether the store answers.", |s| {
        one(flag(s.status.store.connected))
    }),
    gauge("twill_store_revision", &[], "The last revision of the store that was seen.", |s| {
        one(float(s.status.store.revision))
    }),
    gauge(
        "twill_watch_lag_seconds",
        &[],
        "How long the store has been away, or the oldest change of it waits for the kernel; 0 if neither.",
        |s| one(s.status.store.lag_s),
    ),
    gauge("twill_lease_held", &[], "Whether this host holds a lease that the store knows.", |s| {
        one(flag(s.status.lease.as_ref().is_some_and(|lease| lease.standing == "held")))
    }),
    gauge("twill_lease_expires_seconds", &[], "How long the lease lives without renewal.", |s| {
        let left = s.status.lease.as_ref().and_then(|lease| lease.expires_in_s);
        some(left.map(float))
    }),
    gauge("twill_pool_subnets", &["network"], "Subnets that the network has for hosts.", |s| {
        pools(s, |pool| pool.size)
    }),
    gauge("twill_pool_leased_subnets", &["network"], "Subnets of the network that are leased.", |s| {
        pools(s, |pool| pool.leased)
    }),
    gauge("twill_mtu_bytes", &["of"], "The MTU of pods and of the underlay's interface.", |s| {
        let pods = s.status.network.as_ref().map(|network| ("pods", network.mtu));
        let underlay = s.status.underlay.as_ref().map(|underlay| ("underlay", underlay.mtu));
        let of = |(of, mtu)| labelled([("of", of)], f64::from(mtu));
        pods.into_iter().chain(underlay).map(of).collect()
    }),
    gauge("twill_peers_wanted", &[], "Other hosts with a lease.", |s| count(s.status.peers.len())),
    gauge("twill_peers_programmed", &[], "Other hosts that the kernel leads to.", |s| {
        count(s.status.reconcile.programmed)
    }),
    gauge(
        "twill_peers_probed",
        &[],
        "Other hosts of which probes can tell whether they are reachable.",
        |s| count(s.status.readiness.probed),
    ),
    gauge("twill_peers_reachable", &[], "Those of them to whose pods packets pass.", |s| {
        count(s.status.readiness.reachable)
    }),
    gauge("twill_peers_by_verdict", &["verdict"], "Other hosts, by what their probes mean.", verdicts),
    gauge(
        "twill_probe_rtt_median_seconds",
        &["peer", "way", "family"],
        "The median round trip to each of the 50 peers that are worst off.",
        |s| ways(s, |way| way.rtt_p50_us.map(seconds)),
    ),
    gauge(
        "twill_probe_rtt_p99_seconds",
        &["peer", "way", "family"],
        "The round trip that 99 of 100 to such a peer do not exceed.",
        |s| ways(s, |way| way.rtt_p99_us.map(seconds)),
    ),
    gauge(
        "twill_probe_loss_ratio",
        &["peer", "way", "family"],
        "The share of the last probes of such a peer that was not answered.",
        |s| ways(s, |way| way.loss),
    ),
    gauge("twill_path_mtu_bytes", &["peer"], "The largest packet that pods can send to such a peer.", mtus),
    gauge("twill_peers_held", &[], "Hosts whose lease is gone, and whose removal is held back.", |s| {
        count(s.status.peers.iter().filter(|peer| peer.held).count())
    }),
    gauge("twill_faults", &["code"], "What is wrong, by code.", |s| {
        let present = |code: &str| s.status.faults.iter().filter(|fault| fault.code == code).count();
        codes(|code| u64::try_from(present(code)).unwrap_or(u64::MAX))
    }),
    counter("twill_faults_total", &["code"], "What has gone wrong since the start, by code.", |s| {
        codes(|code| s.status.history.faults.get(code).copied().unwrap_or_default())
    }),
    gauge("twill_last_fault_timestamp_seconds", &[], "When something last went wrong.", |s| {
        some(s.status.history.last_fault_unix_s.map(float))
    }),
    counter(
        "twill_repairs_total",
        &["kind"],
        "What was mended that nobody had asked to change, by kind.",
        |s| named("kind", &s.status.reconcile.repaired),
    ),
    gauge("twill_reconcile_converged", &[], "Whether the kernel is believed to be as wanted.", |s| {
        one(flag(s.status.reconcile.converged))
    }),
    counter("twill_reconcile_observations_total", &[], "Passes that read everything back.", |s| {
        one(float(s.status.reconcile.tally.observations))
    }),
    counter("twill_reconcile_operations_total", &[], "Operations that the kernel has done.", |s| {
        one(float(s.status.reconcile.tally.operations))
    }),
    counter(
        "twill_reconcile_refused_operations_total",
        &[],
        "Operations that the kernel has refused.",
        |s| one(float(s.status.reconcile.tally.refusals)),
    ),
    Metric {
        name: "twill_reconcile_duration_seconds",
        kind: Kind::Histogram,
        labels: &["le"],
        help: "How long passes over the kernel took.",
        read: durations,
    },
    gauge("twill_guard_senders", &[], "Addresses that may send to the tunnel's port.", |s| {
        guard(s).map_or_else(Vec::new, |guard| count(guard.senders))
    }),
    gauge("twill_guard_in_force", &[], "Whether the firewall checks who sends to the tunnel's port.", |s| {
        some(guard(s).map(|guard| flag(guard.in_force)))
    }),
    counter(
        "twill_guard_dropped_packets_total",
        &["reason"],
        "Packets that the guard has dropped, by reason.",
        |s| guard(s).map(|guard| named("reason", &guard.dropped)).unwrap_or_default(),
    ),
    counter(
        "twill_datapath_frames_total",
        &["device", "what"],
        "Frames that the userspace datapath has carried, and what it did besides.",
        |s| frames(s, "what", |name| (!is_drop(name)).then_some(name)),
    ),
    counter(
        "twill_datapath_dropped_frames_total",
        &["device", "reason"],
        "Frames that the userspace datapath has dropped, by reason.",
        |s| frames(s, "reason", |name| is_drop(name).then(|| name.strip_prefix("dropped_").unwrap_or(name))),
    ),
    counter(
        "twill_peer_receive_packets_total",
        &["peer"],
        "Packets of the underlay that came from each of the 50 peers with most traffic.",
        |s| carried(s, |traffic| Some(traffic.received_packets)),
    ),
    counter("twill_peer_receive_bytes_total", &["peer"], "Their bytes, from the outer IP header on.", |s| {
        carried(s, |traffic| Some(traffic.received_bytes))
    }),
    counter(
        "twill_peer_transmit_packets_total",
        &["peer"],
        "Packets of the underlay that the userspace datapath has sent to such a peer.",
        |s| carried(s, |traffic| traffic.sent_packets),
    ),
    counter("twill_peer_transmit_bytes_total", &["peer"], "Their bytes, from the outer IP header on.", |s| {
        carried(s, |traffic| traffic.sent_bytes)
    }),
    counter(
        "twill_peer_dropped_packets_total",
        &["peer", "reason"],
        "Packets to or from each of the 50 peers with most drops that the userspace datapath has not carried, by reason.",
        dropped,
    ),
    counter("twill_device_receive_bytes_total", &["device"], "Bytes that came out of the tunnel.", |s| {
        devices(s, 0)
    }),
    counter("twill_device_receive_packets_total", &["device"], "Packets that came out of the tunnel.", |s| {
        devices(s, 1)
    }),
    counter(
        "twill_device_receive_errors_total",
        &["device"],
        "Packets from the tunnel that were in error.",
        |s| devices(s, 2),
    ),
    counter(
        "twill_device_receive_dropped_total",
        &["device"],
        "Packets from the tunnel that were dropped.",
        |s| devices(s, 3),
    ),
    counter("twill_device_transmit_bytes_total", &["device"], "Bytes that went into the tunnel.", |s| {
        devices(s, 4)
    }),
    counter("twill_device_transmit_packets_total", &["device"], "Packets that went into the tunnel.", |s| {
        devices(s, 5)
    }),
    counter(
        "twill_device_transmit_errors_total",
        &["device"],
        "Packets that the tunnel could not send.",
        |s| devices(s, 6),
    ),
    counter(
        "twill_device_transmit_dropped_total",
        &["device"],
        "Packets for the tunnel that were dropped.",
        |s| devices(s, 7),
    ),
    counter(
        "twill_conntrack_insert_failed_total",
        &[],
        "Connections of this network namespace that lost a race for their place.",
        |s| some(s.figures.conntrack.map(|[failed, _]| failed)),
    ),
    counter(
        "twill_conntrack_dropped_total",
        &[],
        "Packets of this network namespace that connection tracking has dropped.",
        |s| some(s.figures.conntrack.map(|[_, dropped]| dropped)),
    ),
    counter("process_cpu_seconds_total", &[], "Processor time that the agent has used.", |s| {
        some(s.figures.cpu_s)
    }),
    gauge("process_resident_memory_bytes", &[], "Memory that the agent has.", |s| some(s.figures.resident)),
    gauge("process_open_fds", &[], "Files that the agent has open.", |s| some(s.figures.files)),
    gauge("process_uptime_seconds", &[], "How long the agent has run.", |s| one(float(s.status.uptime_s))),
];

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape) -> Vec<Sample>,
) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help, read }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape) -> Vec<Sample>,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help, read }
}
