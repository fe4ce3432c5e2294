//! Golden cases: `golden/<case>/{netconf.json,subnet.env}` must give the delegate's configuration `expected.json`, to the
//! byte. A case needs no Rust.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::rig::Rig;

#[test]
fn every_case_gives_the_delegate_what_is_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cni/golden");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 5, "the cases are missing");
    let Some(mut rig) = Rig::new("") else { return };
    let heard = rig.file("heard").display().to_string();
    rig.fake("bridge", &format!("cat >{heard}; echo '{{\"ips\":[]}}'"));
    for case in cases {
        let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
        fs::write(rig.file("subnet.env"), read("subnet.env")).unwrap();
        let given: Value = serde_json::from_str(&read("netconf.json")).unwrap();
        let mut conf = given.as_object().unwrap().clone();
        for key in ["subnetFile", "dataDir", "runDir"] {
            conf.insert(key.to_owned(), rig.conf[key].clone());
        }
        rig.conf = conf.into();
        let pod = rig.pod("c1");
        rig.add(&pod);
        let kept = fs::read_to_string(rig.file("flannel/c1")).unwrap();
        assert_eq!(kept + "\n", read("expected.json"), "{}", case.display());
        assert_eq!(fs::read_to_string(&heard).unwrap() + "\n", read("expected.json"), "{}", case.display());
        assert!(rig.ask("DEL", &pod, "eth0").ok);
    }
}
