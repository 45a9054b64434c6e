//! Verdicts that follow the mail: `listener.verify` with mode `record`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use mailrace::log::{Log, Verdict, VerdictReader};
use serde_json::Value;

use crate::support::{
    Launch, Server, eventually, id_of, log_command,
    servers::zone::{Data, Responder, Zone},
};

pub fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.txt("x.test", "v=spf1 ip4:127.0.0.1 -all")
        .txt("_dmarc.x.test", "v=DMARC1; p=reject")
        .add("silent.test", Data::Silence);
    zone
}

pub fn launch(dir: &Path, dns: &Responder) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .set(&format!("server.dns.servers={}", dns.address))
        .set("listener.0.accept.domains=ours.test")
        .set("listener.0.verify.methods=spf,dkim,dmarc,arc,iprev")
}

/// Sends a mail; its record id.
fn send(server: &Server, mail_from: &str, from: &str) -> String {
    let mut client = server.client();
    client.ehlo();
    for command in [format!("MAIL FROM:<{mail_from}>"), "RCPT TO:<b@ours.test>".to_owned()] {
        assert!(client.say(&command).starts_with("250"), "{command}");
    }
    assert!(client.say("DATA").starts_with("354"));
    id_of(&client.say(&format!("From: {from}\r\nSubject: x\r\n\r\nHello\r\n.")))
}

fn verdict(dir: &Path, id: &str) -> Option<Verdict> {
    let log = Log::open(dir).unwrap();
    let mut reader = VerdictReader::new(&log, None);
    let id = id.parse::<mailrace::log::RecordId>().unwrap();
    let segment = log.get(id, |_, record| Ok(record.segment())).unwrap();
    reader.get(id.shard, segment, id.offset.get()).unwrap()
}

#[track_caller]
pub fn judged(dir: &Path, id: &str) -> Verdict {
    let mut found = None;
    eventually("a verdict", Duration::from_secs(30), || {
        found = verdict(dir, id);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn every_mail_gets_its_verdict_after_its_250() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let server = launch(dir.path(), &dns).start();
    let honest = send(&server, "ann@x.test", "ann@x.test");
    let forged = send(&server, "ann@silent.test", "boss@ours.test");
    let verdict = judged(dir.path(), &honest);
    assert_eq!(verdict.spf[0].result.name(), "pass");
    let dmarc = verdict.dmarc.unwrap();
    assert_eq!((dmarc.check.result.name(), &*dmarc.disposition), ("pass", "none"));
    // What is asked about a loopback address is answered without DNS (RFC 6761 §6.3).
    assert_eq!(verdict.iprev.unwrap().result.name(), "pass");
    assert!(!verdict.from.own_domain_forged);
    // DNS is silent: the mail is there, and its verdict says so.
    let verdict = judged(dir.path(), &forged);
    assert_eq!(verdict.spf[0].result.name(), "temperror");
    assert!(verdict.from.own_domain_forged);
    for (labels, least) in [
        (["method=\"spf\"", "result=\"pass\""], 1.0),
        (["method=\"spf\"", "result=\"temperror\""], 1.0),
        (["method=\"dmarc\"", "result=\"pass\""], 1.0),
    ] {
        let value = server.metric("mailrace_policy_auth_results_total", &labels);
        assert!(value >= least, "{labels:?} {value}");
    }
    assert!(server.metric("mailrace_policy_dns_queries_total", &["result=\"timeout\""]) >= 1.0);
    eventually("no lag", Duration::from_secs(10), || {
        server.metric("mailrace_policy_auth_lag_records", &["shard=\"0\""]) == 0.0
    });
    assert_eq!(server.metric("mailrace_policy_auth_skipped_total", &[]), 0.0);
}

/// Killed at any time: what had no verdict gets it after the start, and nothing gets two.
#[test]
fn a_killed_server_judges_what_it_had_not() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let server = launch(dir.path(), &dns).start();
    let mut ids = vec![send(&server, "ann@x.test", "ann@x.test")];
    judged(dir.path(), &ids[0]);
    // The last of them wait for an answer when the server is killed.
    ids.extend((0..5).map(|_| send(&server, "ann@x.test", "ann@x.test")));
    ids.extend((0..3).map(|_| send(&server, "ann@silent.test", "ann@x.test")));
    server.kill();
    dns.set(zone());
    let server = launch(dir.path(), &dns).start();
    for id in &ids {
        judged(dir.path(), id);
    }
    drop(server);
    let mut lines = 0;
    for entry in std::fs::read_dir(dir.path().join("shard-000")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ver") {
            lines += std::fs::read_to_string(path).unwrap().lines().count();
        }
    }
    assert_eq!(lines, ids.len(), "one for each");
}

/// Events of an exporter to files, by their record ids.
pub fn events(dir: &Path) -> BTreeMap<String, Value> {
    let mut events = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                events.insert(event["id"].as_str().unwrap().to_owned(), event);
            }
        }
    }
    events
}

#[test]
fn exporters_wait_for_verdicts_filter_by_them_or_say_that_they_are_pending() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let mut launch = launch(&dir.path().join("data"), &dns);
    for (number, (name, more)) in [
        ("joined", vec!["wait_verdict=30s"]),
        ("failed", vec!["wait_verdict=30s", "filter.dmarc=fail"]),
        ("hasty", vec!["wait_verdict=0s"]),
        ("without", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(name);
        std::fs::create_dir(&out).unwrap();
        let common = [
            format!("name={name}"),
            "type=files".to_owned(),
            "layout=jsonl".to_owned(),
            "batch.delay=10ms".to_owned(),
            format!("dir={}", out.display()),
        ];
        for setting in common.into_iter().chain(more.into_iter().map(str::to_owned)) {
            launch = launch.set(&format!("export.{number}.{setting}"));
        }
    }
    let server = launch.start();
    let honest = send(&server, "ann@x.test", "ann@x.test");
    let forged = send(&server, "ann@x.test", "\"boss@ours.test\" <boss@x.test>");
    let failed = send(&server, "", "ann@x.test");
    // Its check of SPF waits for DNS until the exporters have had their turn.
    let slow = send(&server, "ann@silent.test", "ann@x.test");
    let of = |name: &str| events(&dir.path().join(name));
    eventually("all are exported", Duration::from_secs(40), || {
        of("joined").len() == 4 && of("failed").len() == 2 && of("hasty").len() == 4
    });
    let joined = of("joined");
    let auth = |id: &str| &joined[id]["data"]["auth"];
    assert_eq!(auth(&honest)["spf"]["result"], "pass");
    assert_eq!(auth(&honest)["dmarc"]["result"], "pass");
    assert_eq!(auth(&honest)["pending"], false);
    assert_eq!(auth(&forged)["from"]["misleading_name"], true);
    assert_eq!(auth(&failed)["dmarc"]["disposition"], "reject");
    assert_eq!(auth(&slow)["spf"]["result"], "temperror");
    // Whatever SPF would say of it, the other's sender is not of the author's domain.
    assert_eq!(of("failed").keys().collect::<Vec<_>>(), [&failed, &slow]);
    let hasty = of("hasty");
    assert_eq!(hasty[&slow]["data"]["auth"]["pending"], true);
    assert_eq!(hasty[&slow]["data"]["auth"]["spf"], Value::Null);
    eventually("those that do not wait", Duration::from_secs(10), || of("without").len() == 4);
    assert_eq!(of("without")[&honest]["data"]["auth"], Value::Null);
    // By hand.
    let data = dir.path().join("data");
    let text = |arguments: &[&str]| String::from_utf8(log_command(&data, arguments)).unwrap();
    let envelope = text(&["get", &failed, "--envelope"]);
    assert!(envelope.contains("\ndmarc     fail x.test: nothing that passed"), "{envelope}");
    let json: Value =
        serde_json::from_str(&text(&["get", &honest, "--envelope", "--json"])).unwrap();
    assert_eq!(json["auth"]["spf"][0]["result"], "pass");
    let lines = text(&["cat", "-f", "%o %{auth}\\n"]);
    assert!(lines.lines().next().unwrap().starts_with("0 spf=pass spf=none dmarc=pass"), "{lines}");
    let json = text(&["cat", "--json"]);
    assert!(json.contains("\"misleading_name\":true"), "{json}");
}

/// Off is off: nothing is asked, and nothing is shown.
#[test]
fn a_listener_that_does_not_verify_has_no_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let server = launch(dir.path(), &dns).set("listener.0.verify.methods=").start();
    send(&server, "ann@x.test", "ann@x.test");
    assert!(dns.asked().is_empty());
    let (_, text) = server.page("/metrics");
    assert!(!text.contains("policy_auth"), "{text}");
}
