//! Alerts and dashboard against the real tools.

use std::{fs, process::Command};

use crate::{
    support::{Server, machine::has, servers::certificates::Authority, succeeded},
    tree,
};

fn promtool(arguments: &[&str]) {
    if has("promtool") {
        let done = Command::new("promtool").current_dir(tree("")).args(arguments).output();
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "deploy/prometheus/alerts.yml"]);
}

#[test]
fn each_alert_fires_and_clears() {
    let rules = fs::read_to_string(tree("deploy/prometheus/alerts.yml")).unwrap();
    let tests = fs::read_to_string(tree("tests/deploy/alerts_test.yml")).unwrap();
    let mut severities = Vec::new();
    let mut lines = rules.lines().map(str::trim);
    while let Some(name) = lines.find_map(|line| line.strip_prefix("- alert: ")) {
        let severity = lines.find_map(|line| line.strip_prefix("severity: ")).expect("a severity");
        severities.push((name, severity));
    }
    assert!(severities.len() >= 15, "{severities:?}");
    for (name, severity) in severities {
        let of = format!("alertname='{name}',severity='{severity}'");
        // Before, in the trouble, and after it.
        assert!(tests.matches(&of).count() >= 3, "{name}, {severity} has no test");
    }
    promtool(&["test", "rules", "tests/deploy/alerts_test.yml"]);
}

#[test]
fn each_alert_has_its_place_in_the_runbook() {
    let rules = fs::read_to_string(tree("deploy/prometheus/alerts.yml")).unwrap();
    let runbook = fs::read_to_string(tree("docs/RUNBOOK.md")).unwrap();
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let fragments: Vec<_> = headings.map(str::to_lowercase).collect();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let urls = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    let pairs: Vec<_> = names.zip(urls).collect();
    assert!(pairs.len() >= 15);
    for (name, url) in pairs {
        let (_, fragment) = url.split_once('#').expect("a fragment");
        assert_eq!(fragment, name.to_lowercase());
        assert!(fragments.iter().any(|heading| heading == fragment), "RUNBOOK.md lacks {name}");
    }
}

/// That a metric exists is no proof that it moves: `tests/admin/metrics` moves each.
#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(dir.path(), "tls");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let settings = [
        format!("server.tls.cert_file={}", path("tls.crt")),
        format!("server.tls.key_file={}", path("tls.key")),
        "export.0.name=sink".to_owned(),
        "export.0.type=blackhole".to_owned(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let server = Server::start_with(&dir.path().join("data"), &settings);
    let page = server.page("/metrics").1;
    let word = regex::Regex::new(r"\b(mailrace|process)_[a-z_]+[a-z]").unwrap();
    let mut seen = 0;
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/mailrace.json"] {
        let text = fs::read_to_string(tree(file)).unwrap();
        for name in word.find_iter(&text).map(|found| found.as_str()) {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(page.contains(&format!("# TYPE {family} ")), "{file}: {name}");
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn files_for_haproxy_and_sysctl_are_accepted() {
    if has("haproxy") {
        let mut command = Command::new("haproxy");
        command.args(["-c", "-q", "-f"]).arg(tree("deploy/haproxy/haproxy.cfg"));
        succeeded("haproxy -c", command.output().unwrap());
    }
    for line in fs::read_to_string(tree("deploy/sysctl/mailrace.conf")).unwrap().lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, _) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
        let file = format!("/proc/sys/{}", key.replace('.', "/"));
        assert!(fs::exists(&file).unwrap(), "the kernel has no {key}");
    }
}
