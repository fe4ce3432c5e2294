//! The files for Kubernetes, against its schema and against what the agent has.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, PodSpec, ServiceAccount};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::shipped;

const FOLDER: &str = "kubernetes";

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn file(name: &str) -> Value {
    yaml(&shipped::text(&format!("{FOLDER}/{name}")))
}

/// Reads a value as an object of Kubernetes' schema. A field that the schema does not have is lost when it is written
/// again, and so is found.
fn object<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, String> {
    let object: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&object).unwrap();
    match lost(value, &known, "") {
        lost if lost.is_empty() => Ok(object),
        lost => Err(format!("not in the schema: {}", lost.join(", "))),
    }
}

/// The places of `given` that `known` does not have.
fn lost(given: &Value, known: &Value, at: &str) -> Vec<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            let fields = given.iter().map(|(name, value)| {
                let at = format!("{at}/{name}");
                known.get(name).map_or_else(|| vec![at.clone()], |known| lost(value, known, &at))
            });
            fields.flatten().collect()
        }
        (Value::Array(given), Value::Array(known)) => {
            let items = given.iter().zip(known).enumerate();
            items.flat_map(|(index, (given, known))| lost(given, known, &format!("{at}/{index}"))).collect()
        }
        _ if given == known => Vec::new(),
        _ => vec![format!("{at}: {given} is read as {known}")],
    }
}

/// Any object that is shipped, by its kind.
fn check(value: &Value) -> Result<(), String> {
    match value["kind"].as_str() {
        Some("Namespace") => object::<Namespace>(value).map(drop),
        Some("ServiceAccount") => object::<ServiceAccount>(value).map(drop),
        Some("ConfigMap") => object::<ConfigMap>(value).map(drop),
        Some("Job") => object::<Job>(value).map(drop),
        Some("DaemonSet") => object::<DaemonSet>(value).map(drop),
        other => Err(format!("{other:?}: what kind is it?")),
    }
}

fn daemon_set() -> DaemonSet {
    object(&file("daemonset.yaml")).unwrap()
}

fn pod(set: DaemonSet) -> PodSpec {
    set.spec.unwrap().template.spec.unwrap()
}

pub(crate) fn agent() -> Container {
    pod(daemon_set()).containers.remove(0)
}

/// The programs that containers name themselves.
pub(crate) fn commands() -> Vec<String> {
    let pod = pod(daemon_set());
    let containers = pod.init_containers.into_iter().flatten().chain(pod.containers);
    containers.filter_map(|container| container.command?.into_iter().next()).collect()
}

#[test]
fn every_file_is_of_the_schema_and_named() {
    let kustomization = file("kustomization.yaml");
    let named: BTreeSet<&str> =
        kustomization["resources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let names = fs::read_dir(shipped::path(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    let others: BTreeSet<&str> =
        there.iter().map(String::as_str).filter(|name| *name != "kustomization.yaml").collect();
    assert_eq!(named, others);
    for name in named {
        check(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn mistakes_are_found() {
    let mut typed = file("daemonset.yaml");
    typed["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = Value::Null;
    assert!(check(&typed).unwrap_err().contains("livenesProbe"));
    let mut wrong = file("daemonset.yaml");
    wrong["spec"]["template"]["spec"]["hostNetwork"] = "yes".into();
    check(&wrong).unwrap_err();
}

#[test]
fn kustomize_builds_both() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        println!("SKIP: kubectl is not installed");
        return;
    }
    for (folder, tun) in [(FOLDER, false), ("kubernetes-userspace", true)] {
        let built = Command::new("kubectl").arg("kustomize").arg(shipped::path(folder)).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let text = String::from_utf8(built.stdout).unwrap();
        let objects: Vec<Value> = text.split("\n---\n").map(yaml).collect();
        assert_eq!(objects.len(), 5);
        for object in &objects {
            check(object).unwrap_or_else(|error| panic!("{folder}: {error}"));
            let namespace = object["metadata"]["namespace"].as_str();
            assert_eq!(namespace, (object["kind"] != "Namespace").then_some("twill"), "{object}");
        }
        let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        assert_eq!(set.to_string().contains("/dev/net/tun"), tun, "{folder}");
    }
}

#[test]
fn the_configurations_are_those_that_are_shipped_and_checked() {
    let map: ConfigMap = object(&file("configmap.yaml")).unwrap();
    let data = map.data.unwrap();
    assert_eq!(data["cni-conf.json"], shipped::text("cni/10-flannel.conflist"));
    twill_backends::network::NetworkConfig::parse(&data["net-conf.json"]).unwrap();
}

/// The names of what a pod mounts are volumes of its own, and nothing is privileged.
#[test]
fn containers_get_what_they_need_and_no_more() {
    let job: Job = object(&file("job.yaml")).unwrap();
    let (agents, config) = (pod(daemon_set()), job.spec.unwrap().template.spec.unwrap());
    for pod in [&agents, &config] {
        assert_eq!(pod.host_network, Some(true));
        let volumes: BTreeSet<&str> =
            pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
        let containers = || pod.init_containers.iter().flatten().chain(&pod.containers);
        let mounts = containers().flat_map(|container| container.volume_mounts.iter().flatten());
        assert_eq!(mounts.map(|mount| mount.name.as_str()).collect::<BTreeSet<_>>(), volumes);
        for container in containers() {
            let security = container.security_context.as_ref().unwrap();
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_ne!(security.privileged, Some(true));
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
            let added = capabilities.add.as_ref().map(|added| added.join(" "));
            let files = Some("DAC_OVERRIDE".to_owned());
            assert!(container.name == "agent" || added == files.filter(|_| container.name == "install-cni"));
            assert!(container.resources.as_ref().unwrap().requests.is_some());
        }
    }
    // The same as what the service may, but for files, which are root's here.
    let unit = shipped::values(&shipped::text("systemd/twill.service"), "Service", "CapabilityBoundingSet");
    assert_eq!(
        crate::service::capabilities(&agent().security_context.unwrap().capabilities.unwrap().add.unwrap()),
        crate::service::capabilities(&unit) & !crate::service::FILES
    );
    let paths =
        agents.volumes.iter().flatten().filter_map(|volume| Some(volume.host_path.as_ref()?.path.as_str()));
    for needed in ["/run/flannel", "/run/twill", "/var/lib/twill", "/run/xtables.lock", "/etc/machine-id"] {
        assert!(paths.clone().any(|path| path == needed), "{needed}");
    }
}

/// The probes ask where the flags make the agent answer.
#[test]
fn the_probes_fit_the_flags() {
    let agent = agent();
    let args = agent.args.unwrap();
    let flag = |name: &str| {
        args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')).unwrap().to_owned()
    };
    for (probe, path) in [(agent.liveness_probe, "/healthz"), (agent.readiness_probe, "/readyz")] {
        let get = serde_json::to_value(probe.unwrap().http_get.unwrap()).unwrap();
        assert_eq!(get["path"], path);
        assert_eq!(get["host"], flag("--healthz-ip").as_str());
        assert_eq!(get["port"].to_string(), flag("--healthz-port"));
    }
}
