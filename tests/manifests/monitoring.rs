//! The alerts and the dashboard by Prometheus' own tools, and against what a real agent serves to a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use twill::lab::Seen;
use twill::lab::probe::http_get;
use twill::lab::{AgentOptions, AgentProcess, Host, Lab, LabOptions, Process, StoreAt, until};
use twill::telemetry::metrics::{Kind, METRICS};

use crate::shipped;

const TWILL: &str = env!("CARGO_BIN_EXE_twill");
const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

fn promtool(args: &[&str]) -> String {
    let run = Command::new("promtool").args(args).current_dir(shipped::path("monitoring")).output().unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "promtool {args:?}: {said}");
    said
}

fn is_installed() -> bool {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        println!("SKIP: prometheus is not installed");
    }
    found
}

fn alerts() -> BTreeSet<String> {
    let names = Regex::new(r"(?m)^ +- alert: (\w+)$").unwrap();
    names.captures_iter(&shipped::text("monitoring/alerts.yaml")).map(|found| found[1].to_owned()).collect()
}

/// What is asked of Prometheus: every expression of the dashboard, as it is asked, and of the alerts.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&shipped::text("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let of_panels = targets.map(|target| {
        let asked = target["expr"].as_str().unwrap();
        asked.replace("$instance", ".*").replace("$__rate_interval", "1m")
    });
    let rules = shipped::text("monitoring/alerts.yaml");
    let of_rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned);
    of_panels.chain(of_rules).collect()
}

fn named(expressions: &[String]) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:twill|process)_[a-z_]+").unwrap();
    expressions.iter().flat_map(|text| name.find_iter(text).map(|found| found.as_str().to_owned())).collect()
}

#[test]
fn the_alerts_are_valid_and_each_fires_when_it_should() {
    if !is_installed() {
        return;
    }
    let said = promtool(&["check", "rules", "alerts.yaml"]);
    assert!(said.contains(&format!("{} rules found", alerts().len())), "{said}");
    promtool(&["test", "rules", "alerts-test.yaml"]);
    promtool(&["check", "config", "prometheus.yaml"]);
    let examples = shipped::text("monitoring/alerts-test.yaml");
    for alert in alerts() {
        assert!(examples.contains(&format!("  - name: {alert}\n")), "{alert} has no example");
    }
}

#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let histogram =
        |name: &'static str| ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}"));
    let known: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|metric| match metric.kind {
            Kind::Histogram => histogram(metric.name).to_vec(),
            Kind::Gauge | Kind::Counter => vec![metric.name.to_owned()],
        })
        .collect();
    let named = named(&expressions());
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<&String> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Agents with a datapath of their own, which have all the metrics there are.
fn agents(lab: &Lab) -> Vec<AgentProcess> {
    let store = StoreAt::File(lab.dir().join("leases"));
    let mut command = Command::new(TWILL);
    command.args(["config", "set"]).args(store.flags()).arg(CONFIG);
    lab.hosts[0].net.output(command).unwrap();
    let options = AgentOptions::new(TWILL, store).arg("--datapath").arg("userspace");
    lab.hosts.iter().map(|host| host.agent(&options).unwrap()).collect()
}

/// A Prometheus beside the agent, configured as shipped but for the target and the pace.
fn prometheus(host: &Host, agent: SocketAddr, dir: &Path) -> (Process, SocketAddr) {
    let config = shipped::text("monitoring/prometheus.yaml").replace("15s", "1s");
    let target = Regex::new(r"targets: .*").unwrap();
    let config = target.replace(&config, format!("targets: [\"{agent}\"]"));
    fs::write(dir.join("prometheus.yaml"), &*config).unwrap();
    fs::write(dir.join("alerts.yaml"), shipped::text("monitoring/alerts.yaml")).unwrap();
    let at: SocketAddr = "127.0.0.1:9090".parse().unwrap();
    let mut command = Command::new("prometheus");
    command.arg("--config.file").arg(dir.join("prometheus.yaml"));
    command.arg("--storage.tsdb.path").arg(dir.join("data"));
    command.arg(format!("--web.listen-address={at}")).current_dir(dir);
    (Process::spawn(&host.net, "prometheus", command, &dir.join("log")).unwrap(), at)
}

fn query(host: &Host, at: SocketAddr, expression: &str) -> Value {
    let coded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (code, body) = http_get(&host.net, at, &format!("/api/v1/query?query={coded}")).unwrap();
    assert_eq!(code, 200, "{expression}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"]["result"].take()
}

#[test]
fn a_real_prometheus_finds_everything_in_a_real_agent() {
    if let Err(reason) = Lab::available() {
        return println!("SKIP: {reason}");
    }
    if !is_installed() {
        return;
    }
    let lab = Lab::new(&LabOptions { hosts: 2, ..LabOptions::default() }).unwrap();
    let mut agents = agents(&lab);
    agents.iter_mut().for_each(|agent| agent.wait_ready(PATIENCE).unwrap());
    let (host, agent) = (&lab.hosts[0], &agents[0]);
    let scrape = until("figures of the other host", PATIENCE, lab.cancel(), || {
        let (code, scrape) = agent.get("/metrics")?;
        assert_eq!(code, 200);
        let known = scrape.contains("twill_peer_receive_bytes_total{");
        Ok(if known { Seen::Yes(scrape) } else { Seen::NotYet("nothing of a peer is told".to_owned()) })
    })
    .unwrap();
    let mut lint = Command::new("promtool");
    let mut lint =
        lint.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lint.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let said = lint.wait_with_output().unwrap();
    assert!(said.status.success(), "{}\n{scrape}", String::from_utf8_lossy(&said.stderr));

    let (_, status) = agent.get("/v1/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let schema: Value = serde_json::from_str(&shipped::text("monitoring/status.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(&status).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{status:#}");
    assert!(!schema.is_valid(&serde_json::json!({ "version": 1 })), "it asks for more than that");

    let (_prometheus, at) = prometheus(host, agent.healthz(), lab.dir());
    until("a scrape", PATIENCE, lab.cancel(), || {
        // It takes a moment until Prometheus listens.
        let answered = http_get(&host.net, at, "/-/ready").is_ok_and(|(code, _)| code == 200);
        let up = answered && query(host, at, "up == 1").as_array().is_some_and(|found| !found.is_empty());
        Ok(if up { Seen::Yes(()) } else { Seen::NotYet("nothing is scraped".to_owned()) })
    })
    .unwrap();
    let expressions = expressions();
    for expression in &expressions {
        query(host, at, expression);
    }
    for name in named(&expressions) {
        assert_ne!(query(host, at, &name), serde_json::json!([]), "nothing has {name}\n{scrape}");
    }
    let (_, rules) = http_get(&host.net, at, "/api/v1/rules").unwrap();
    assert!(alerts().iter().all(|alert| rules.contains(alert.as_str())), "{rules}");
}
