//! What the plugin costs, printed: `cargo test --release --test cni cost -- --nocapture | grep ^COST`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{Pod, Rig, TWILL_CNI, V4};

const ROUNDS: usize = 30;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// One ADD and its DEL; the time of the ADD.
fn attach(rig: &Rig, program: &str, pod: &Pod, conf: &Value) -> Duration {
    let ask = |verb: &str| {
        let command = rig.command(program, verb, Some((pod, "eth0")));
        let begin = Instant::now();
        let reply = rig.send(command, conf);
        assert!(reply.ok, "{verb}: {reply:?}");
        begin.elapsed()
    };
    let time = ask("ADD");
    ask("DEL");
    time
}

#[test]
fn what_it_adds_to_its_delegate() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    // With a container there, the bridge stays up from round to round.
    rig.add(&rig.pod("c0"));
    let kept = std::fs::read_to_string(rig.file("flannel/c0")).unwrap();
    let delegate: Value = serde_json::from_str(&kept).unwrap();
    let bridge = format!("{}/bridge", rig.path);
    let (mut bare, mut whole, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        bare.push(attach(&rig, &bridge, &pod, &delegate));
        whole.push(attach(&rig, TWILL_CNI, &pod, &rig.conf));
        let begin = Instant::now();
        let reply = rig.send(rig.command(TWILL_CNI, "VERSION", None), &json!({}));
        alone.push(begin.elapsed());
        assert!(reply.ok, "{reply:?}");
    }
    let [bare, whole, alone] = [bare, whole, alone].map(|times| median(times).as_secs_f64() * 1e3);
    println!("COST ADD {whole:.2} ms, bare delegate {bare:.2} ms, added {:.2} ms", whole - bare);
    println!("COST VERSION, start to exit {alone:.2} ms (median of {ROUNDS})");
}
