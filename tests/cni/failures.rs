//! What goes wrong has its code and its cause, and leaves nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use crate::rig::{Pod, Rig, TWILL_CNI, V4};

/// Writes down each verb; `ADD` and `DEL` are replaced by what they are to do.
fn scripted(rig: &mut Rig, add: &str, del: &str) {
    let log = rig.file("verbs").display().to_string();
    let script = format!(
        "echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME >>{log}\ncase $CNI_COMMAND in ADD) {add};; DEL) {del};; esac"
    );
    rig.fake("bridge", &script);
}

fn verbs(rig: &Rig) -> String {
    fs::read_to_string(rig.file("verbs")).unwrap_or_default()
}

const DONE: &str = "echo '{\"ips\":[]}'";
const REFUSED: &str = "echo '{\"code\":11,\"msg\":\"not yet\"}'; exit 1";

#[test]
fn a_del_that_fails_is_tried_again() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    scripted(&mut rig, DONE, REFUSED);
    rig.add(&pod);
    assert_eq!(rig.ask("DEL", &pod, "eth0").error(11), "not yet");
    assert_eq!(rig.kept(), ["c1"]);
    scripted(&mut rig, DONE, "true");
    assert!(rig.ask("DEL", &pod, "eth0").ok);
    assert_eq!((rig.kept(), verbs(&rig).matches("DEL c1 eth0").count()), (vec![], 2));
}

#[test]
fn an_add_that_fails_is_undone() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    for (add, code, word) in [
        (REFUSED, 11, "not yet"),
        ("echo oops; exit 3", 999, "oops"),
        ("echo oops", 6, "delegate bridge"),
        ("true", 6, "no result"),
        ("kill -9 $$", 999, "signal"),
    ] {
        fs::remove_file(rig.file("verbs")).ok();
        scripted(&mut rig, add, "true");
        let msg = rig.ask("ADD", &pod, "eth0").error(code);
        assert!(msg.contains(word), "{add}: {msg}");
        assert_eq!((rig.kept(), verbs(&rig).as_str()), (vec![], "ADD c1 eth0\nDEL c1 eth0\n"), "{add}");
    }
    scripted(&mut rig, REFUSED, REFUSED);
    rig.ask("ADD", &pod, "eth0").error(11);
    assert_eq!(rig.kept(), ["c1"], "the runtime's DEL has nothing to go by");
}

#[test]
fn a_delegate_that_hangs_is_named_after_its_time() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    let child = rig.file("child");
    scripted(&mut rig, &format!("sleep 600 & echo $! >{}; wait", child.display()), "true");
    rig.conf["delegateTimeout"] = 1.into();
    let begin = Instant::now();
    let msg = rig.ask("ADD", &pod, "eth0").error(999);
    assert!(msg.contains("bridge") && msg.contains("within 1 s"), "{msg}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!((rig.kept(), verbs(&rig).as_str()), (vec![], "ADD c1 eth0\nDEL c1 eth0\n"));
    let child = fs::read_to_string(child).unwrap();
    assert!(ends(child.trim()), "what it started outlives it: {child}");

    scripted(&mut rig, DONE, "sleep 600");
    rig.add(&pod);
    assert!(rig.ask("DEL", &pod, "eth0").error(999).contains("DEL did not end within 1 s"));
    assert_eq!(rig.kept(), ["c1"], "its address would be lost");
    scripted(&mut rig, DONE, "true");
    assert!(rig.ask("DEL", &pod, "eth0").ok && rig.kept().is_empty());
}

/// Whether a process is gone, or will be once its new parent has looked after it.
fn ends(pid: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_full_disk_is_named_before_anything_is_attached() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    scripted(&mut rig, DONE, "true");
    let dir = rig.file("flannel");
    fs::create_dir(&dir).unwrap();
    // A mount that only this process and its children see, and that goes with them.
    let full = "mount -t tmpfs -o size=4k tmpfs $0 && head -c 4096 /dev/zero >$0/.fill; exec $1";
    let mut command = rig.command("unshare", "ADD", Some((&pod, "eth0")));
    command.args(["-m", "sh", "-c", full]).arg(&dir).arg(TWILL_CNI);
    let msg = rig.send(command, &rig.conf).error(5);
    assert!(msg.contains("/flannel/") && msg.contains("No space left"), "{msg}");
    assert_eq!((rig.kept(), verbs(&rig).as_str()), (vec![], ""));
}

#[test]
fn what_is_wrong_is_named() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    let gone = Pod { id: "c2".to_owned(), net: rig.pod("none").net };
    let mut command = rig.command(TWILL_CNI, "ADD", Some((&gone, "eth0")));
    command.env("CNI_NETNS", "/run/netns/nobody");
    assert!(rig.send(command, &rig.conf).error(4).contains("CNI_NETNS /run/netns/nobody"));
    let mut command = rig.command(TWILL_CNI, "ADD", Some((&pod, "eth0")));
    command.env_remove("CNI_NETNS");
    assert!(rig.send(command, &rig.conf).error(4).contains("[CNI_NETNS]"));
    let mut command = rig.command(TWILL_CNI, "ADD", Some((&pod, "eth0")));
    command.env("CNI_NETNS", "/proc/self/ns/net");
    assert!(rig.send(command, &rig.conf).error(8).contains("host's own"));

    let good = rig.conf.clone();
    rig.conf["delegate"]["type"] = "nosuch".into();
    assert!(rig.ask("ADD", &pod, "eth0").error(7).contains("nosuch"));
    rig.conf = good.clone();
    for version in ["2.0.0", "1.2.0", "0.0.1", "1.0", "1.0.0-rc1", "x"] {
        rig.conf["cniVersion"] = version.into();
        assert!(rig.ask("ADD", &pod, "eth0").error(1).contains("incompatible"), "{version}");
    }
    rig.conf["cniVersion"] = 5.into();
    assert!(rig.ask("ADD", &pod, "eth0").error(7).contains("cniVersion"));
    for (verb, version) in [("STATUS", "1.0.0"), ("GC", "1.0.0"), ("CHECK", "0.3.1")] {
        rig.conf["cniVersion"] = version.into();
        assert!(rig.ask(verb, &pod, "eth0").error(1).contains(verb), "{verb} came later than {version}");
    }
    rig.conf = good;
    fs::write(rig.file("subnet.env"), "foo=bar\n").unwrap();
    let msg = rig.ask("ADD", &pod, "eth0").error(999);
    let all = "missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, \
               FLANNEL_MTU, FLANNEL_IPMASQ";
    assert!(msg.contains(all) && msg.contains("subnet.env"), "{msg}");
    fs::remove_file(rig.file("subnet.env")).unwrap();
    fs::create_dir(rig.file("subnet.env")).unwrap();
    assert!(rig.ask("ADD", &pod, "eth0").error(5).contains("subnet.env"));
    assert_eq!((rig.kept(), rig.reserved()), (vec![], vec![]));
}

#[test]
fn garbage_that_was_kept_is_left_and_no_error() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    fs::create_dir(rig.file("flannel")).unwrap();
    fs::write(rig.file("flannel/c1"), "{\"type\":").unwrap();
    let del = rig.ask("DEL", &pod, "eth0");
    assert!(del.ok && del.stderr.contains("flannel/c1"), "{del:?}");
    assert_eq!(rig.kept(), ["c1"]);
}

#[test]
fn an_add_that_is_killed_can_be_deleted() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    // The delegate kills who called it: the container is attached, and nobody hears of it.
    scripted(&mut rig, "kill -9 $PPID", "true");
    let reply = rig.ask("ADD", &pod, "eth0");
    assert!(!reply.ok && reply.said.is_null(), "{reply:?}");
    assert_eq!(rig.kept(), ["c1"]);
    assert!(rig.ask("DEL", &pod, "eth0").ok);
    assert_eq!((rig.kept(), verbs(&rig).as_str()), (vec![], "ADD c1 eth0\nDEL c1 eth0\n"));
}
