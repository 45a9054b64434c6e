//! Alerts and dashboard against the real tools.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    support::{
        self, Server, eventually,
        machine::has,
        servers::{certificates::Authority, prometheus::Prometheus},
        succeeded,
    },
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
    let server = server_of_everything(dir.path());
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
fn every_query_of_the_dashboard_has_an_answer() {
    if !has("prometheus") || !has("swaks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = server_of_everything(dir.path());
    let prometheus = Prometheus::start(dir.path(), server.admin, 500);
    // A rate over what was there at the first scrape already is 0.
    eventually("the server is scraped", Duration::from_secs(60), || {
        prometheus.values("up == 1").len() == 1
    });
    support::send(&server, 200, 2_000);
    let mut swaks = Command::new("swaks");
    swaks.args(["--server", &server.smtp.to_string(), "--tls", "--helo", "t.example"]);
    succeeded("swaks", swaks.args(["--to", "a@example.com"]).output().unwrap());
    let exported = "sum(rate(mailrace_export_records_total{result='delivered'}[20s])) > 0";
    eventually("rates are seen", Duration::from_secs(60), || {
        let handshakes = "sum(rate(mailrace_tls_handshakes_total[20s])) > 0";
        prometheus.values(exported).len() == 1 && prometheus.values(handshakes).len() == 1
    });
    let dashboard = fs::read(tree("deploy/grafana/mailrace.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut query = target["expr"].as_str().unwrap().replace("$__rate_interval", "20s");
            for variable in ["$job", "$instance", "$listener", "$group"] {
                query = query.replace(variable, ".*");
            }
            let values = prometheus.values(&query);
            assert!(values.iter().any(|value| !value.is_nan()), "{}: {query}", panel["title"]);
            asked += 1;
        }
    }
    assert!(asked >= 50, "{asked}");
}

/// One with TLS and an exporter: it has every family of metrics.
fn server_of_everything(dir: &Path) -> Server {
    Authority::new().issue(dir, "tls");
    let path = |name: &str| dir.join(name).display().to_string();
    let settings = [
        format!("server.tls.cert_file={}", path("tls.pem")),
        format!("server.tls.key_file={}", path("tls.key")),
        "export.0.name=sink".to_owned(),
        "export.0.type=blackhole".to_owned(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Server::start_with(&dir.join("data"), &settings)
}
