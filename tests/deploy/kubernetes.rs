//! The manifests for Kubernetes: built by kustomize, checked against the schemas of its API, and what
//! they promise about the pod. No cluster runs them here.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    container::{checked, installed, texts, yaml},
    support::{machine::has, succeeded},
    tree,
};

/// Oldest and newest version whose schemas accept them.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];

const TOKEN: &str = "/etc/mailrace-secrets/admin-token";

/// What `kubectl apply -k` would send.
fn built(python: &Path, dir: &Path, place: &str) -> Option<Vec<Value>> {
    if !has("kubectl") {
        return None;
    }
    let done = Command::new("kubectl").arg("kustomize").arg(tree(place)).output().unwrap();
    let file = dir.join("built.yaml");
    fs::write(&file, succeeded("kubectl kustomize", done).stdout).unwrap();
    Some(yaml(python, &file))
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

#[test]
fn the_schemas_accept_the_base_and_the_example() {
    let Some(python) = installed("python/bin/python") else { return };
    let Some(validate) = installed("python/bin/kubernetes-validate") else { return };
    let dir = tempfile::tempdir().unwrap();
    for place in ["deploy/kubernetes/base", "deploy/kubernetes/example"] {
        let Some(documents) = built(&python, dir.path(), place) else { return };
        // PodMonitor is the Prometheus operator's.
        let own = |document: &&Value| document["apiVersion"] != "monitoring.coreos.com/v1";
        for (number, document) in documents.iter().filter(own).enumerate() {
            let file = dir.path().join(format!("{number}.yaml"));
            fs::write(&file, document.to_string()).unwrap();
            for version in VERSIONS {
                let mut command = Command::new(&validate);
                command.args(["--strict", "-k", version]).arg(&file);
                let done = command.output().unwrap();
                let said = [&done.stdout[..], &done.stderr[..]].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                assert!(done.status.success() && said.contains("passed"), "{place}: {said}");
            }
        }
        // A misspelled key is found.
        let mut wrong = of_kind(&documents, "StatefulSet")[0].clone();
        wrong["spec"]["replica"] = 3.into();
        let file = dir.path().join("wrong.yaml");
        fs::write(&file, wrong.to_string()).unwrap();
        let done = Command::new(&validate).arg("--strict").arg(&file).output().unwrap();
        assert!(!done.status.success());
    }
}

#[test]
fn the_pod_is_what_the_server_needs() {
    let Some(python) = installed("python/bin/python") else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(documents) = built(&python, dir.path(), "deploy/kubernetes/base") else { return };
    let set = of_kind(&documents, "StatefulSet")[0];
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    // Guaranteed, with whole CPUs.
    let resources = &container["resources"];
    assert_eq!(resources["requests"], resources["limits"]);
    assert!(resources["limits"]["cpu"].as_str().unwrap().parse::<u32>().is_ok());
    // The image's user, and no privileges.
    let dockerfile = fs::read_to_string(tree("deploy/container/Dockerfile")).unwrap();
    let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
    assert!(dockerfile.contains(&format!("\nUSER {user}:{user}\n")));
    let profile = json!({"type": "Localhost", "localhostProfile": "mailrace.json"});
    assert_eq!(pod["securityContext"]["seccompProfile"], profile);
    assert_eq!(texts(&container["securityContext"]["capabilities"]["drop"]), ["ALL"]);
    // Probes and drain.
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "admin"}));
    }
    assert_eq!(texts(&container["lifecycle"]["preStop"]["exec"]["command"]), ["mailrace", "drain"]);
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let config = "deploy/kubernetes/base/mailrace.toml";
    let text = fs::read_to_string(tree(config)).unwrap();
    let settings: toml::Value = toml::from_str(&text).unwrap();
    let lead = settings["server"]["drain"]["lead"].as_str().unwrap();
    let lead: u64 = lead.strip_suffix('s').unwrap().parse().unwrap();
    assert!(grace >= lead + 30 + 10, "{grace}");

    // Ports by the names that services and probes use.
    let port = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        let named = ports.iter().find(|port| port["name"] == name).expect("a port");
        format!(":{}", named["containerPort"])
    };
    let listen = settings["listener"][0]["listen"][0].as_str().unwrap();
    assert!(listen.ends_with(&port("smtp")), "{listen}");
    let admin = settings["server"]["admin"]["listen"].as_str().unwrap();
    assert!(admin.ends_with(&port("admin")), "{admin}");
    // The configuration, the token and the data are where it looks for them.
    assert_eq!(checked(dir.path(), config, TOKEN), dir.path().join("mailrace.toml"));
    checked(dir.path(), "deploy/kubernetes/example/mailrace.toml", TOKEN);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |path: &str| mounts.iter().any(|mount| mount["mountPath"] == path);
    assert!(mounted("/var/lib/mailrace") && mounted("/etc/mailrace"));
    let (place, name) = TOKEN.rsplit_once('/').unwrap();
    assert!(mounted(place));
    let volumes = pod["volumes"].as_array().unwrap();
    let secret = volumes.iter().find(|volume| volume["name"] == "admin").unwrap();
    assert_eq!(secret["secret"]["items"][0]["path"], name);
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "mail");

    // Services find the pods, and keep the client's address.
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], "mailrace");
    let services = of_kind(&documents, "Service");
    assert!(services.iter().all(|service| service["spec"]["selector"] == *labels));
    let balancer = services.iter().find(|service| service["spec"]["type"] == "LoadBalancer");
    assert_eq!(balancer.unwrap()["spec"]["externalTrafficPolicy"], "Local");
    let headless = services.iter().find(|service| service["spec"]["clusterIP"] == "None");
    assert_eq!(headless.unwrap()["metadata"]["name"], set["spec"]["serviceName"]);
    assert_eq!(of_kind(&documents, "PodDisruptionBudget").len(), 1);
    assert!(of_kind(&documents, "PodMonitor").is_empty(), "it is optional");
}

#[test]
fn the_monitor_scrapes_the_pods_with_their_token() {
    let Some(python) = installed("python/bin/python") else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(documents) = built(&python, dir.path(), "deploy/kubernetes/example") else { return };
    let set = of_kind(&documents, "StatefulSet")[0];
    let template = &set["spec"]["template"];
    let monitor = of_kind(&documents, "PodMonitor")[0];
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    let end = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&end["port"], &end["path"]), (&"admin".into(), &"/metrics".into()));
    let secret = &template["spec"]["volumes"][1]["secret"];
    let credentials = &end["authorization"]["credentials"];
    assert_eq!(credentials["name"], secret["secretName"]);
    assert_eq!(credentials["key"], secret["items"][0]["key"]);
    // The job's name is NAMESPACE/NAME: the alerts look for the word.
    assert!(monitor["metadata"]["name"].as_str().unwrap().contains("mailrace"));
    let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
    assert!(image.starts_with("registry.example.com/mailrace:"), "{image}");
}

/// As the OCI runtime's format has it: the rules of the other profile that apply without
/// capabilities on amd64 and arm64.
#[test]
fn the_profile_is_that_of_the_container() {
    let read =
        |path: &str| -> Value { serde_json::from_slice(&fs::read(tree(path)).unwrap()).unwrap() };
    let (whole, ours) =
        (read("deploy/container/seccomp.json"), read("deploy/kubernetes/seccomp.json"));
    let applies = |rule: &&Value| {
        let condition = &rule["includes"];
        let arches = texts(&condition["arches"]);
        texts(&condition["caps"]).is_empty()
            && (arches.is_empty() || arches.iter().any(|arch| ["amd64", "arm64"].contains(arch)))
    };
    let plain = |rule: &Value| {
        let mut rule = rule.as_object().unwrap().clone();
        rule.retain(|key, value| {
            ["names", "action", "args", "errnoRet"].contains(&key.as_str()) && !value.is_null()
        });
        Value::from(rule)
    };
    let rules = whole["syscalls"].as_array().unwrap().iter().filter(applies).map(plain);
    let expected: Vec<_> = rules.collect();
    assert_eq!(ours["syscalls"].as_array().unwrap(), &expected);
    assert_eq!(ours["defaultAction"], whole["defaultAction"]);
    assert_eq!(ours["defaultErrnoRet"], whole["defaultErrnoRet"]);
}
