//! What a crash left is removed, and nothing else.

use std::fs;

use serde_json::json;

use crate::rig::{Rig, V4};

#[test]
fn addresses_of_lost_containers_are_free_again() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pods = ["c1", "c2", "c3"].map(|id| rig.pod(id));
    let results = pods.each_ref().map(|pod| rig.add(pod));
    let [stays, lost, gone] = pods;
    // The host was rebooted: namespaces are gone, files are not. One has lost its file too.
    drop((lost, gone));
    fs::remove_file(rig.file("flannel/c3")).unwrap();
    let first = rig.conf.clone();
    rig.conf["name"] = "other".into();
    fs::write(rig.file("flannel/d1"), rig.conf.to_string()).unwrap();
    rig.conf = first;

    rig.ask_host("GC", &json!({})).error(7);
    assert_eq!(rig.reserved().len(), 3, "without a list, everything would be stale");
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }] });
    for _again in 0..2 {
        let reply = rig.ask_host("GC", &valid);
        assert!(reply.ok, "{reply:?}");
        assert_eq!(rig.kept(), ["c1", "d1"], "another network's file is not ours to judge");
        assert_eq!(rig.reserved().len(), 1);
    }
    let address = results[0]["ips"][0]["address"].as_str().unwrap();
    assert!(stays.net.addresses("eth0").unwrap().contains(&address.parse().unwrap()));
    assert!(address.starts_with(&format!("{}/", rig.reserved()[0])));
    assert!(rig.ask("DEL", &stays, "eth0").ok);
    assert_eq!(rig.reserved(), Vec::<String>::new());
}

#[test]
fn a_delegate_that_fails_keeps_its_own_container_only() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let script = "case $CNI_COMMAND$CNI_CONTAINERID in ADD*) echo '{}';; DELc1) echo no; exit 1;; esac";
    rig.fake("bridge", script);
    for id in ["c1", "c2"] {
        rig.add(&rig.pod(id));
    }
    let msg = rig.ask_host("GC", &json!({ "cni.dev/valid-attachments": [] })).error(999);
    assert!(msg.contains("DEL failed"), "{msg}");
    assert_eq!(rig.kept(), ["c1"]);
}

#[test]
fn a_delegate_that_has_learned_to_collect_is_told_the_same_list() {
    for (versions, told) in [(r#"["1.0.0"]"#, false), (r#"["1.0.0","1.1.0"]"#, true)] {
        let Some(mut rig) = Rig::new(V4) else { return };
        let heard = rig.file("heard").display().to_string();
        let answer = format!(r#"{{"cniVersion":"1.0.0","supportedVersions":{versions}}}"#);
        rig.fake(
            "bridge",
            &format!("case $CNI_COMMAND in VERSION) echo '{answer}';; GC) cat >{heard};; esac"),
        );
        let valid = json!([{ "containerID": "c1", "ifname": "eth0" }]);
        let reply = rig.ask_host("GC", &json!({ "cni.dev/valid-attachments": valid }));
        assert!(reply.ok, "{reply:?}");
        let heard: Option<serde_json::Value> =
            fs::read(rig.file("heard")).ok().map(|text| serde_json::from_slice(&text).unwrap());
        let wanted = told.then_some((valid, "10.1.17.0/24"));
        let list = heard.as_ref().map(|conf| {
            (
                conf["cni.dev/valid-attachments"].clone(),
                conf["ipam"]["ranges"][0][0]["subnet"].as_str().unwrap(),
            )
        });
        assert_eq!(list, wanted, "{versions}");
    }
}
