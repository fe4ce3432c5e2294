//! A bridge from before the host's subnet changed.

use std::fs;

use twill::lab::local_mac;

use crate::rig::{Rig, V4};

const OLD: &str = "10.1.99.1/24";

#[test]
fn a_bridge_without_containers_gets_the_address_of_the_subnet() {
    let Some(rig) = Rig::new(V4) else { return };
    rig.host().add_bridge("cni0", local_mac([0, 0, 0, 0, 1]), 1450).unwrap();
    rig.host().add_address("cni0", OLD.parse().unwrap()).unwrap();
    rig.add(&rig.pod("c1"));
    let carried = rig.host().addresses("cni0").unwrap();
    assert!(carried.contains(&"10.1.17.1/24".parse().unwrap()), "{carried:?}");
    assert!(!carried.contains(&OLD.parse().unwrap()), "{carried:?}");
}

#[test]
fn a_bridge_with_containers_is_named_and_left() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    rig.add(&pod);
    fs::write(rig.file("subnet.env"), V4.replace("10.1.17.", "10.1.18.")).unwrap();
    let before = rig.host().addresses("cni0").unwrap();
    let msg = rig.ask("ADD", &rig.pod("c2"), "eth0").error(999);
    for word in ["cni0", "10.1.17.1/24", "10.1.18.0/24", "1 containers"] {
        assert!(msg.contains(word), "{word}: {msg}");
    }
    assert_eq!(rig.host().addresses("cni0").unwrap(), before);
    assert_eq!((rig.kept(), rig.reserved().len()), (vec!["c1".to_owned()], 1));
}
