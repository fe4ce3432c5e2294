//! What is told of one status after the other, and how it looks on terminals of several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::*;

fn status(peers: u16) -> Value {
    let peer = |n: u16| json!({ "key": format!("10.{}.{}.0-24", n / 250, n % 250), "node": "n", "public": ["192.0.2.7"], "backend": "vxlan", "held": false });
    json!({
        "pid": 7, "state": "ok", "store": { "connected": true }, "lease": { "standing": "held", "subnets": ["10.9.1.0/24"] },
        "peers": (0..peers).map(peer).collect::<Vec<_>>(), "faults": [], "reconcile": { "converged": true, "repairs": 0 },
    })
}

fn fault() -> Value {
    json!({ "code": "some-code", "subject": "it", "cause": "why", "next": "do" })
}

fn screen(watch: &mut Watch, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| watch.draw(frame)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn what_happened_is_told_once() {
    let mut watch = Watch::default();
    assert_eq!(watch.saw("1", Ok(status(2))), ["state ok, 2 peers: 2 not measured"]);
    assert_eq!(watch.saw("2", Ok(status(2))), Vec::<String>::new());
    type Step = (fn(&mut Value), &'static [&'static str]);
    let steps: &[Step] = &[
        (|s| s["state"] = json!("degraded"), &["state degraded, was ok"]),
        (|s| s["store"]["connected"] = json!(false), &["the store does not answer"]),
        (|s| s["lease"]["standing"] = json!("lost"), &["lease lost, was held"]),
        (|s| s["reconcile"]["repairs"] = json!(3), &["repaired 3, 3 since the start"]),
        (
            |s| s["reconcile"] = json!({ "repairs": 2, "repaired": { "fdb": 0, "link": 1, "route": 1 } }),
            &["repaired 2, 2 since the start: link, route"],
        ),
        (|s| s["faults"] = json!([fault()]), &["fault some-code it: why; next: do"]),
        (|s| s["peers"][0]["held"] = json!(true), &["peer 10.0.0.0-24 is gone from the store, and held"]),
        (|s| s["peers"][0]["public"] = json!(["192.0.2.9"]), &["peer 10.0.0.0-24 moved to 192.0.2.9"]),
        (
            |s| {
                let ways: [Value; 0] = [];
                let (mtu, cause) = (1450, "nothing comes");
                s["peers"][1]["probe"] = json!({
                    "verdict": "peer-down", "cause": cause, "path": "kernel", "mtu": mtu, "mtu_wanted": mtu, "ways": ways,
                });
            },
            &["peer 10.0.1.0-24 peer-down, was -: nothing comes"],
        ),
        (|s| s["peers"] = status(3)["peers"].clone(), &["peer 10.0.2.0-24 came, at 192.0.2.7"]),
    ];
    for (change, want) in steps {
        let (mut watch, mut after) = (Watch::default(), status(2));
        watch.saw("1", Ok(status(2)));
        change(&mut after);
        assert_eq!(watch.saw("2", Ok(after.clone())), *want);
        // That a count begins anew is no event; everything else is over again.
        let over = watch.saw("3", Ok(status(2)));
        assert_eq!(over.is_empty(), want[0].starts_with("repaired"), "{over:?}");
    }
    let gone = || Err("no socket".to_owned());
    assert_eq!(watch.saw("3", gone()), ["the agent does not answer: no socket"]);
    assert_eq!(watch.saw("4", gone()), Vec::<String>::new());
    let mut another = status(1);
    another["pid"] = json!(8);
    let want = ["the agent answers again", "another agent runs, pid 8", "peer 10.0.1.0-24 went"];
    assert_eq!(watch.saw("5", Ok(another)), want);
}

/// Peers told one by one are told in one as they become many, and one by one again.
#[test]
fn a_fault_of_some_goes_on_in_that_of_many() {
    let mut watch = Watch::default();
    let mut saw = |subjects: &[&str]| {
        let mut status = status(2);
        let of =
            |subject: &&str| json!({ "code": "some-code", "subject": subject, "cause": "why", "next": "do" });
        status["faults"] = subjects.iter().map(of).collect();
        watch.saw("1", Ok(status))
    };
    saw(&[]);
    assert_eq!(saw(&["a"]), ["fault some-code a: why; next: do"]);
    for more in [&["peers"][..], &["a", "b"]] {
        assert_eq!(saw(more), Vec::<String>::new());
    }
    assert_eq!(saw(&["b"]), ["fault over: some-code a"]);
    assert_eq!(saw(&["peers"]), Vec::<String>::new());
    assert_eq!(saw(&[]), ["fault over: some-code peers"]);
}

#[test]
fn it_fits_every_terminal() {
    let mut watch = Watch::default();
    screen(&mut watch, 80, 24);
    let mut broken = status(500);
    broken["faults"] = json!([fault(), fault(), fault(), fault()]);
    watch.saw("15:04:05", Ok(broken));
    for (width, height) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1)] {
        let text = screen(&mut watch, width, height);
        assert_eq!(text.lines().count(), usize::from(height), "{text}");
    }
    let text = screen(&mut watch, 80, 24);
    for part in [
        "twill ok  10.9.1.0/24",
        "500 peers",
        "some-code it: why",
        "and 1 faults more",
        "10.0.0.0-24",
        "15:04:05",
        "q quit",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn keys_scroll_sort_and_quit() {
    let mut watch = Watch::default();
    watch.saw("1", Ok(status(100)));
    let first = |watch: &mut Watch| {
        let text = screen(watch, 80, 24);
        let line = text.lines().skip_while(|line| !line.contains("PEER")).nth(1).unwrap().to_owned();
        line.trim_matches('"').split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(first(&mut watch), "10.0.0.0-24");
    for (key, want) in [(Key::Up, "10.0.0.0-24"), (Key::Down, "10.0.1.0-24"), (Key::Home, "10.0.0.0-24")] {
        assert!(watch.press(key));
        assert_eq!(first(&mut watch), want, "{key:?}");
    }
    watch.press(Key::PageDown);
    let page = first(&mut watch);
    assert!(page != "10.0.0.0-24");
    watch.press(Key::End);
    watch.press(Key::Down);
    assert!(screen(&mut watch, 80, 24).contains("10.0.99.0-24"), "the last one is on the last page");
    watch.press(Key::PageUp);
    watch.press(Key::Sort);
    assert!(screen(&mut watch, 80, 24).contains("sort: key"));
    // Fewer peers, and what is shown moves along.
    watch.saw("2", Ok(status(1)));
    assert_eq!(first(&mut watch), "10.0.0.0-24");
    assert!(!watch.press(Key::Quit));
}
