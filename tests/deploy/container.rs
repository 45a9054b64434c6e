//! The container's files: what lints and schemas say, that each file they mount is there, and the
//! server under the seccomp profile. No image is built: that takes a Docker engine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    support::{
        self, Launch, MAILRACE, eventually,
        machine::{has, skip},
        servers::nats::NatsServer,
        succeeded,
    },
    tree,
};

/// A program or interpreter that `tests/support/servers/deploy.sh` installs.
pub(crate) fn installed(path: &str) -> Option<PathBuf> {
    let program = tree("target/servers").join(path);
    let there = program.exists() || skip("run tests/support/servers/deploy.sh");
    there.then_some(program)
}

/// The documents of a YAML file.
pub(crate) fn yaml(python: &Path, file: &Path) -> Vec<Value> {
    let mut command = Command::new(python);
    command.arg("-c").arg("import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)");
    let output = succeeded("yaml", command.arg(file).output().unwrap());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The texts of an array.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text")).collect()
}

/// A copy of a configuration whose token is in `dir`; its `mailrace check` has to succeed.
#[track_caller]
pub(crate) fn checked(dir: &Path, shipped: &str, token: &str) -> PathBuf {
    let text = fs::read_to_string(tree(shipped)).unwrap();
    assert!(text.contains(token), "{shipped}: {token}");
    let own = dir.join("token");
    fs::write(&own, "a token").unwrap();
    let file = dir.join("mailrace.toml");
    fs::write(&file, text.replace(token, &own.display().to_string())).unwrap();
    let mut check = Command::new(MAILRACE);
    check.arg("check").arg("-c").arg(&file);
    support::without_settings(&mut check);
    succeeded(shipped, check.output().unwrap());
    file
}

#[test]
fn the_dockerfile_passes_its_linter_and_builds_with_the_oldest_rust() {
    let Some(hadolint) = installed("python/bin/hadolint") else { return };
    let file = tree("deploy/container/Dockerfile");
    let linted = Command::new(hadolint).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&linted.stdout), "");
    succeeded("hadolint", linted);
    let text = fs::read_to_string(file).unwrap();
    let manifest = fs::read_to_string(tree("Cargo.toml")).unwrap();
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let oldest = manifest.lines().find(|line| line.starts_with("rust-version = ")).and_then(quoted);
    assert!(text.contains(&format!("\nFROM rust:{}-", oldest.expect("a version"))));
    // What its commands use, and that both stages have the same C library.
    for path in ["deploy/package/split-debug", "config/mailrace.toml"] {
        assert!(text.contains(path) && tree(path).exists(), "{path}");
    }
    let bases = text.lines().filter_map(|line| line.strip_prefix("FROM "));
    assert_eq!(bases.filter(|base| base.contains("trixie")).count(), 2);
    assert!(text.contains("\nUSER 10001:10001\n") && text.contains("--uid 10001"));
}

#[test]
fn compose_is_valid_and_mounts_what_is_there() {
    let Some(python) = installed("python/bin/python") else { return };
    let dir = tree("deploy/container");
    let read = |file: &Path| {
        let code = "import sys, compose_spec as c; c.PyCompose.from_yaml(open(sys.argv[1]).read()).validate()";
        Command::new(&python).args(["-c", code]).arg(file).output().unwrap()
    };
    succeeded("compose.yml", read(&dir.join("compose.yml")));
    // It would say what is wrong.
    let wrong = tempfile::NamedTempFile::new().unwrap();
    let text = fs::read_to_string(dir.join("compose.yml")).unwrap();
    fs::write(wrong.path(), text.replacen("restart:", "restarts:", 1)).unwrap();
    let said = String::from_utf8(read(wrong.path()).stderr).unwrap();
    assert!(said.contains("`restarts`"), "{said}");

    let compose = yaml(&python, &dir.join("compose.yml")).remove(0);
    let mut mounted = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(dir.join(source).is_file(), "{name}: {source}");
                mounted += 1;
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: {source}");
            }
        }
        for secret in texts(&service["secrets"]) {
            assert!(compose["secrets"].get(secret).is_some(), "{name}: {secret}");
        }
        let published = texts(&service["ports"]);
        assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{published:?}");
    }
    assert!(mounted >= 6, "{mounted}");
    let server = &compose["services"]["mailrace"];
    assert_eq!(server["ulimits"]["memlock"], -1);
    assert!(texts(&server["security_opt"]).contains(&"seccomp=./seccomp.json"));
    let build = dir.join(server["build"]["context"].as_str().unwrap());
    assert!(build.join(server["build"]["dockerfile"].as_str().unwrap()).is_file());
    // The token is made by the operator, and never enters an image or a commit.
    let token = compose["secrets"]["admin-token"]["file"].as_str().unwrap();
    for list in [".gitignore", "deploy/container/Dockerfile.dockerignore"] {
        let text = fs::read_to_string(tree(list)).unwrap();
        let line = format!("/deploy/container/{}", token.trim_start_matches("./"));
        assert!(text.lines().any(|ignored| ignored == line), "{list}: {line}");
    }
    // Grafana's files: a data source where Prometheus is, dashboards where they are mounted.
    let source = yaml(&python, &dir.join("grafana/datasource.yml")).remove(0);
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let boards = yaml(&python, &dir.join("grafana/dashboards.yml")).remove(0);
    let path = boards["providers"][0]["options"]["path"].as_str().unwrap();
    let volumes = texts(&compose["services"]["grafana"]["volumes"]);
    assert!(volumes.iter().any(|volume| volume.contains(&format!(":{path}/mailrace.json"))));
}

/// The health check of the image, and the hook of the pod.
#[test]
fn the_commands_that_containers_run_exist() {
    let dockerfile = fs::read_to_string(tree("deploy/container/Dockerfile")).unwrap();
    let (_, check) = dockerfile.split_once("HEALTHCHECK ").expect("a health check");
    let (_, check) = check.lines().next().unwrap().split_once(" CMD ").unwrap();
    let check: Vec<String> = serde_json::from_str(check).unwrap();
    let set = fs::read_to_string(tree("deploy/kubernetes/base/statefulset.yaml")).unwrap();
    let hook = set.lines().find_map(|line| line.trim().strip_prefix("command: ["));
    let hook = hook.and_then(|hook| hook.strip_suffix(']')).expect("a hook").split(", ");
    for command in [check, hook.map(str::to_owned).collect()] {
        assert_eq!(command[0], "mailrace");
        let mut help = Command::new(MAILRACE);
        let help = help.args(&command[1..]).arg("--help").output().unwrap();
        let help = String::from_utf8(succeeded(&command.join(" "), help).stdout).unwrap();
        assert!(help.contains(&format!("Usage: {}", command.join(" "))), "{help}");
    }
}

#[test]
fn prometheus_accepts_its_configuration() {
    if !has("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "a token").unwrap();
    let text = fs::read_to_string(tree("deploy/container/prometheus.yml")).unwrap();
    let alerts = tree("deploy/prometheus/alerts.yml");
    let own = text
        .replace("/etc/prometheus/alerts.yml", &alerts.display().to_string())
        .replace("/run/secrets/admin-token", &token.display().to_string());
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, own).unwrap();
    let done = Command::new("promtool").args(["check", "config"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("1 rule files found"), "{said}");
}

#[test]
fn mail_goes_to_nats_with_the_configuration_of_compose() {
    let dir = tempfile::tempdir().unwrap();
    let file = checked(dir.path(), "deploy/container/mailrace.toml", "/run/secrets/admin-token");
    let Some(nats) = NatsServer::start() else { return };
    let launch = Launch::new(&dir.path().join("data")).file(&file).set("server.shards=1");
    let launch = launch.set("listener.0.accept.domains=server.test");
    let server = launch.set(&format!("export.0.servers={}", nats.url())).start();
    support::send(&server, 3, 2_000);
    // /metrics asks for the token.
    let mut command = Command::new(MAILRACE);
    command.args(["group", "ls", "--json", "--dir"]).arg(&server.dir);
    eventually("NATS has the mail", Duration::from_secs(30), || {
        let listed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        listed.contains("\"group\":\"events\"") && listed.contains("\"lag\":0")
    });
}

/// The part of Docker's own is recognized by its digest: an edit by hand is seen.
#[test]
fn the_profile_is_dockers_with_io_uring() {
    const DOCKERS: &str = "536529b665dd0972c37bfb569f5d4ac8a53592e7b00752bc39ff063ca9864c74";
    let text = fs::read_to_string(tree("deploy/container/seccomp.json")).unwrap();
    let ours = text.rfind(",\n\t\t{").unwrap();
    let end = text.rfind("\n\t]").unwrap();
    let rule: Value = serde_json::from_str(&text[ours + 1..end]).unwrap();
    assert_eq!(texts(&rule["names"]), ["io_uring_enter", "io_uring_register", "io_uring_setup"]);
    assert_eq!(rule["action"], "SCMP_ACT_ALLOW");
    let dockers = format!("{}{}", &text[..ours], &text[end..]);
    let digest = Sha256::digest(dockers.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, DOCKERS);
    assert!(!dockers.contains("io_uring"));
}

#[test]
fn the_server_runs_under_the_profile_and_needs_its_rule() {
    let Some(python) = installed("python/bin/python") else { return };
    let dir = tempfile::tempdir().unwrap();
    let runner = |name: &str, options: &str| {
        let file = dir.path().join(name);
        let (script, profile) =
            (tree("tests/deploy/under-seccomp"), tree("deploy/kubernetes/seccomp.json"));
        let text = format!(
            "#!/bin/sh\nexec {} {} {} {options} {MAILRACE} \"$@\"\n",
            python.display(),
            script.display(),
            profile.display()
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        Launch::new(&dir.path().join("data")).set("server.shards=1").program(&file)
    };
    let server = runner("allowed", "").start();
    assert_eq!(server.status_of("Seccomp"), 2, "a filter is in force");
    let ids = support::send(&server, 20, 5_000);
    assert!(!server.get(&ids[19]).is_empty());
    assert_eq!(server.stop(), Some(0));
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        let failure = runner("blocked", &format!("--without {call}")).try_start().err();
        let failure = failure.unwrap_or_else(|| panic!("it starts without {call}"));
        assert!(failure.errors.contains("seccomp profile"), "{call}: {failure}");
    }
}
