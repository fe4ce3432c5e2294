//! The agent's own reasons: what STATUS says, and what stands in the place of a missing subnet.env.

use std::fs;
use std::time::Duration;

use serde_json::json;
use twill::lab::{AgentOptions, Cancel, Seen, StoreAt, until};

use crate::rig::{Rig, V4};

const TWILL: &str = env!("CARGO_BIN_EXE_twill");
const SOON: Duration = Duration::from_secs(30);

#[test]
fn the_agent_says_why_no_container_can_start_and_when_it_can() {
    let Some(mut rig) = Rig::new(V4) else { return };
    fs::remove_file(rig.file("subnet.env")).unwrap();
    let pod = rig.pod("c1");
    let msg = rig.ask("ADD", &pod, "eth0").error(11);
    assert!(msg.contains("no agent has a socket") && msg.contains("subnet.env"), "{msg}");

    let store = rig.file("leases");
    fs::create_dir(&store).unwrap();
    let options = AgentOptions::new(TWILL, StoreAt::File(store.clone()));
    let mut agent = rig.lab.hosts[0].agent(&options).unwrap();
    rig.conf["runDir"] = agent.files.run.display().to_string().into();
    rig.conf["subnetFile"] = agent.files.subnet.display().to_string().into();
    until("the agent's reason", SOON, &Cancel::default(), || {
        let reply = rig.ask_host("STATUS", &json!({}));
        let msg = reply.error(50);
        Ok(if msg.contains("twill config set") { Seen::Yes(()) } else { Seen::NotYet(msg) })
    })
    .unwrap();
    let msg = rig.ask("ADD", &pod, "eth0").error(11);
    assert!(msg.contains("the agent is not ready") && msg.contains("twill config set"), "{msg}");

    fs::write(store.join("config.json"), r#"{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}"#)
        .unwrap();
    agent.wait_ready(SOON).unwrap();
    let reply = rig.ask_host("STATUS", &json!({}));
    assert!(reply.ok, "{reply:?}");
    rig.add(&pod);
    let msg = rig.ask_host("STATUS", &json!({ "delegate": { "type": "nosuch" } })).error(50);
    assert!(msg.contains("nosuch"), "{msg}");
    drop(agent);
    let msg = rig.ask_host("STATUS", &json!({})).error(50);
    assert!(msg.contains("no agent answers"), "{msg}");
}

#[test]
fn beside_flanneld_the_file_is_enough() {
    let Some(rig) = Rig::new(V4) else { return };
    let reply = rig.ask_host("STATUS", &json!({}));
    assert!(reply.ok, "{reply:?}");
}
