use std::collections::BTreeSet;

use twill_backends::frame::Dropped;
use twill_backends::probe::Verdict;

use super::*;
use crate::agent::status::tests::status;
use crate::agent::status::{PeerStatus, TrafficStatus};

fn scrape(status: Status) -> Scrape {
    let device = ("flannel.1".to_owned(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let figures = Figures { devices: [device].into(), conntrack: Some([3.0, 1.0]), ..Figures::default() };
    Scrape::new(status, 0.25, figures)
}

#[test]
fn values_come_with_their_names_and_labels() {
    let text = render(&scrape(status()));
    for line in [
        "# TYPE twill_lease_expires_seconds gauge",
        "twill_lease_expires_seconds 80000",
        "twill_build_info{version=\"0.1.0\"} 1",
        "twill_state{state=\"degraded\"} 1",
        "twill_state{state=\"ok\"} 0",
        "twill_loop_age_seconds 0.25",
        "twill_store_revision 42",
        "twill_mtu_bytes{of=\"pods\"} 1430",
        "twill_peers_wanted 2",
        "twill_peers_held 1",
        "twill_peers_by_verdict{verdict=\"ok\"} 1",
        "twill_probe_rtt_median_seconds{peer=\"10.5.2.0-24\",way=\"overlay\",family=\"ipv4\"} 0.000312",
        "twill_path_mtu_bytes{peer=\"10.5.2.0-24\"} 1350",
        "twill_faults{code=\"deletions-held\"} 1",
        "twill_faults{code=\"store-down\"} 0",
        "# TYPE twill_repairs_total counter",
        "twill_repairs_total{kind=\"route\"} 1",
        "twill_guard_dropped_packets_total{reason=\"strangers\"} 7",
        "twill_peer_receive_packets_total{peer=\"10.5.2.0-24\"} 20",
        "twill_peer_receive_bytes_total{peer=\"10.5.2.0-24\"} 3000",
        "twill_peer_transmit_packets_total{peer=\"10.5.2.0-24\"} 10",
        "twill_peer_transmit_bytes_total{peer=\"10.5.2.0-24\"} 1500",
        "twill_peer_dropped_packets_total{peer=\"10.5.2.0-24\",reason=\"oversize\"} 2",
        "twill_device_transmit_bytes_total{device=\"flannel.1\"} 5",
        "twill_conntrack_insert_failed_total 3",
        "twill_pool_leased_subnets{network=\"10.5.0.0/16\"} 3",
        "twill_reconcile_duration_seconds_bucket{le=\"+Inf\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
}

#[test]
fn values_of_labels_cannot_break_a_line() {
    assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for Metric { name, kind, help, .. } in METRICS {
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("twill_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
    }
}

/// However many peers there are, a scrape stays small.
#[test]
fn a_thousand_peers_are_a_small_scrape() {
    let one = status().peers.remove(0);
    let mut peers: Vec<_> =
        (0..1_000).map(|n| PeerStatus { key: format!("10.5.{n}.0-24"), ..one.clone() }).collect();
    peers[777].probe.as_mut().unwrap().verdict = Verdict::PortEaten;
    peers[888].probe.as_mut().unwrap().ways[0].loss = Some(0.5);
    // Each lost for every reason there is; of one nobody counts anything, of another only what is received.
    for (peer, n) in peers.iter_mut().zip(1_000_000..) {
        let dropped = Dropped::ALL.iter().map(|reason| (reason.to_string(), n)).collect();
        let traffic = peer.traffic.as_mut().unwrap();
        (traffic.sent_bytes, traffic.dropped) = (Some(n * n), dropped);
    }
    peers[444].traffic.as_mut().unwrap().received_bytes = u64::MAX;
    peers[999].traffic = None;
    peers[998].traffic = Some(TrafficStatus { received_bytes: 1 << 50, ..TrafficStatus::default() });
    let text = render(&scrape(Status { peers, ..status() }));
    assert!(text.contains("twill_peers_wanted 1000\n"));
    for (name, each, first) in [
        ("receive_packets", 1, "10.5.444.0-24"),
        ("receive_bytes", 1, "10.5.444.0-24"),
        ("transmit_bytes", 1, "10.5.444.0-24"),
        ("dropped_packets", Dropped::ALL.len(), "10.5.997.0-24"),
    ] {
        let start = format!("twill_peer_{name}_total{{");
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with(&start)).collect();
        let whole = 50 - usize::from(name.starts_with("transmit"));
        assert_eq!(told.len(), whole * each, "{name}");
        assert!(told[0].contains(first), "the most first: {told:?}");
        assert!(!told.iter().any(|line| line.contains("10.5.999.0-24")));
    }
    let told: Vec<&str> = text.lines().filter(|line| line.starts_with("twill_path_mtu_bytes{")).collect();
    assert_eq!(told.len(), 50);
    assert!(
        told[0].contains("10.5.777.0-24") && told[1].contains("10.5.888.0-24"),
        "the worst first: {told:?}"
    );
    assert!(text.len() < 256 << 10, "{} bytes", text.len());
}
