//! Who carries frames. The kernel's state is in memory; a TAP device is a real one, in a namespace of the test's own.

use twill::agent::status::DatapathStatus;
use twill::lab::{Lab, Netns};
use twill_backends::state::LinkKind;

use super::*;

/// Runs an agent's test where TAP devices may be made; says why if they cannot.
fn where_taps_are(name: &str, test: impl Future<Output = ()> + Send) {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return;
    }
    let net = Netns::new(name, false).unwrap();
    net.run(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(test);
    })
    .unwrap();
}

async fn datapath(agent: &Running) -> DatapathStatus {
    agent.status().await.network.unwrap().datapath.unwrap()
}

#[test]
fn a_kernel_without_vxlan_is_done_without() {
    where_taps_are("it-lacking", async {
        let host = Host::alone();
        host.kernel.lack_vxlan();
        put_peers(&host.table, 3);
        let agent = host.started().await;
        agent.is_well().await;
        let status = datapath(&agent).await;
        assert_eq!(status.kind, "userspace");
        assert!(status.because.contains("no VXLAN") && status.because.contains("os error 95"), "{status}");
        assert_eq!(status.tunnels.len(), 1);
        assert_eq!(host.kernel.net().links[&tunnel()].kind, LinkKind::Tap);
        host.leads_to(&[2, 3]).await;
        agent.stop().await;
        // An operator who insists is told what fails.
        let mut config = host.config.clone();
        config.datapath.mode = DatapathMode::Kernel;
        let insists = Host { config, ..host };
        let agent = insists.start();
        agent.shows(&["kernel-refused"]).await;
        assert_eq!(datapath(&agent).await.because, "--datapath kernel");
        agent.stop().await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_kernel_with_vxlan_carries_by_itself() {
    let host = Host::alone();
    let agent = host.started().await;
    let status = datapath(&agent).await;
    assert_eq!((status.kind.as_str(), status.tunnels.len()), ("kernel", 0));
    assert!(host.kernel.net().links[&tunnel()].vxlan().is_some());
}
