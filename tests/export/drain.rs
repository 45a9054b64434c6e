//! `mailrace drain --until-exported`: SMTP closes, the server stays, and the command ends once
//! everything that somebody waits for has left the log.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    self, Launch, MAILRACE, Server, eventually,
    machine::has,
    servers::{flow::hook::Hook, nats::NatsServer},
    signal,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
const MAILS: u64 = 20;

fn gateway(dir: &Path, settings: &[&str]) -> Launch {
    let launch = Launch::new(dir).set("server.shards=2").set("log.segment_size=16MiB");
    settings.iter().fold(launch, |launch, setting| launch.set(setting))
}

/// With one exporter, which is called `main`.
fn exporting(dir: &Path, settings: &[&str]) -> Launch {
    let fixed = ["name=main", "retry.initial=50ms", "retry.max=200ms"];
    let all = fixed.iter().chain(settings).map(|setting| format!("export.0.{setting}"));
    let all: Vec<_> = all.collect();
    gateway(dir, &all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn drain(server: &Server, more: &[&str]) -> Command {
    let mut command = Command::new(MAILRACE);
    support::without_settings(&mut command);
    command.args(["drain", "--admin", &server.admin.to_string()]).args(more);
    command.stdin(Stdio::null());
    command
}

fn finished(server: &Server, more: &[&str]) -> Output {
    drain(server, more).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn progress(server: &Server) -> Value {
    let (status, page) = server.page("/v1/drain");
    assert_eq!(status, 200, "{page}");
    serde_json::from_str(&page).unwrap()
}

fn is_closed(server: &Server) -> bool {
    TcpStream::connect(server.smtp).is_err()
}

/// Mail in both shards, which the kernel chooses.
fn mail_in_both(server: &Server) -> u64 {
    let mut sent = 0;
    eventually("both shards have mail", PATIENCE, || {
        sent += support::send(server, MAILS, 500).len() as u64;
        let (_, page) = server.page("/v1/shards");
        let shards: Value = serde_json::from_str(&page).unwrap();
        let marks = shards["shards"].as_array().unwrap().iter();
        marks.filter(|shard| shard["high_water_mark"].as_u64() > Some(0)).count() == 2
    });
    sent
}

/// The sink is away: the command waits, says what is left, and a bounded one fails with its names.
/// The sink comes back: all of it arrives, the command ends, and the server stays for its SIGTERM.
fn a_drain_waits_for(server: &mut Server, sent: u64, comes_back: impl FnOnce(&Server)) {
    let mut waiting = drain(server, &["--until-exported"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let wanted = format!("draining: {sent} records left (main {sent})");
    // Its first look may have been before the ports were closed.
    let line = said.by_ref().map(Result::unwrap).find(|line| *line == wanted);
    assert_eq!(line, Some(wanted));

    eventually("the port is closed", SOON, || is_closed(server));
    let (status, why) = server.page("/readyz");
    assert!(status == 503 && why.contains("draining"), "{status} {why}");
    let late = finished(server, &["--until-exported", "--timeout", "500ms"]);
    let told = text(&late.stderr);
    assert_eq!(late.status.code(), Some(1), "{told}");
    let what = format!("mailrace: not exported after 500ms: {sent} records left (main {sent})\n");
    assert!(told.contains(&what), "{told}");
    let left = progress(server);
    for place in left["left"].as_array().unwrap() {
        let (shard, left) = (&place["shard"], place["left"].as_u64().unwrap());
        let line = format!("  main, shard {shard}: {left} record");
        assert!(told.contains(&line), "{line} is missing in {told}");
    }
    assert_eq!(left["left"].as_array().unwrap().len(), 2, "{left}");
    assert_eq!((&left["phase"], &left["exported"]), (&"closed".into(), &false.into()), "{left}");
    assert_eq!(waiting.try_wait().unwrap(), None, "it waits still");

    comes_back(server);
    let done = waiting.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let what =
        "drained: every record is exported; the server stays until SIGTERM or `mailrace drain`";
    assert_eq!(text(&done.stdout).trim_end(), what);
    assert_eq!(progress(server)["exported"], true);
    assert_eq!(server.child.try_wait().unwrap(), None, "the server stays");
    assert_eq!(server.page("/readyz").0, 503);
    assert_eq!(server.metric("mailrace_export_records_total", &["delivered"]), sent as f64);
    signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(SOON), Some(0));
}

#[test]
fn a_drain_waits_for_a_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let mut hook = Hook::start();
    hook.kill();
    let url = format!("url={}", hook.url());
    let mut server = exporting(dir.path(), &["type=webhook", &url]).start();
    let sent = mail_in_both(&server);
    a_drain_waits_for(&mut server, sent, |server| {
        // Longer than a heart may stand still that has to beat.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(server.page("/healthz"), (200, "ok\n".to_owned()), "no restart helps it");
        hook.restart();
    });
    let taken = fs::read_to_string(hook.taken()).unwrap();
    assert_eq!(taken.lines().count() as u64, sent);
}

#[test]
fn a_drain_waits_for_nats() {
    let Some(mut nats) = NatsServer::start() else { return };
    nats.kill();
    let dir = tempfile::tempdir().unwrap();
    let servers = format!("servers={}", nats.url());
    let settings = ["type=nats", &servers, "stream=MAIL", "create=true"];
    let mut server = exporting(dir.path(), &settings).start();
    let sent = mail_in_both(&server);
    a_drain_waits_for(&mut server, sent, |_| nats.restart());
}

/// No mail will come that would fill the batch.
#[test]
fn a_drain_waits_for_no_full_batch() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    fs::create_dir(&folder).unwrap();
    let path = format!("dir={}", folder.display());
    let settings = ["type=folder", &path, "batch.delay=1h", "batch.records=10000"];
    let server = exporting(&dir.path().join("data"), &settings).start();
    support::send(&server, MAILS, 500);
    let done = finished(&server, &["--until-exported", "--timeout", "20s", "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(text(&done.stderr), "", "nothing but JSON");
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&told["exported"], &told["records_left"]), (&true.into(), &0.into()), "{told}");
    assert_eq!(told["waits_for"], serde_json::json!(["main"]));
    assert_eq!(server.stop(), Some(0));
}

/// Retention waits for every group, and so does a drain; without the guard for none but exporters.
#[test]
fn a_drain_waits_for_the_groups_that_retention_waits_for() {
    for (guard, code) in [("true", 1), ("false", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let guard = format!("log.retention.require_consumed={guard}");
        let server = gateway(dir.path(), &[&guard]).start();
        mail_in_both(&server);
        let commit = |offsets: &str| {
            let url = format!("http://{}/v1/groups/mine/commit", server.admin);
            let mut curl = Command::new("curl");
            support::succeeded("curl", curl.args(["-sf", "-d", offsets, &url]).output().unwrap());
        };
        if !has("curl") {
            return;
        }
        commit(r#"{"0":0,"1":0}"#);
        let most = if code == 0 { "30s" } else { "1s" };
        let done = finished(&server, &["--until-exported", "--timeout", most]);
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{guard}: {told}");
        assert_eq!(told.contains("  mine, shard 0: "), code == 1, "{guard}: {told}");
        if code == 0 {
            let what = "drained: there is no exporter and no consumer group to wait for; ";
            assert!(text(&done.stdout).starts_with(what), "{}", text(&done.stdout));
            continue;
        }
        // The API is open while the server stays: the consumer reads what is left.
        let left = progress(&server);
        let ends = left["left"].as_array().unwrap().iter();
        let ends: Vec<_> = ends.map(|at| format!("\"{}\":{}", at["shard"], at["end"])).collect();
        commit(&format!("{{{}}}", ends.join(",")));
        let done = finished(&server, &["--until-exported"]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        // A drain without a wish stops it.
        support::succeeded("drain", finished(&server, &[]));
        let mut server = server;
        assert_eq!(server.ended(SOON), Some(0));
    }
}

/// A reload still works while the server stays: it can correct the address of a sink.
#[test]
fn what_a_drain_waits_for_can_be_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let (file, hook) = (dir.path().join("mailrace.toml"), Hook::start());
    let write = |url: &str| {
        let export =
            "name = \"main\"\ntype = \"webhook\"\nretry = { initial = \"50ms\", max = \"200ms\" }";
        fs::write(&file, format!("[[export]]\n{export}\nurl = \"{url}\"\n")).unwrap();
    };
    write("http://127.0.0.1:9/");
    let server = gateway(&dir.path().join("data"), &[]).file(&file).start();
    support::send(&server, MAILS, 500);
    let late = finished(&server, &["--until-exported", "--timeout", "500ms"]);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late.stderr));
    write(&hook.url());
    signal(&server.child, libc::SIGHUP);
    let done = finished(&server, &["--until-exported", "--timeout", "20s"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(server.stop(), Some(0));
}

/// A server that is told to stop does not wait for its exporters, whoever asks.
#[test]
fn a_server_that_stops_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["type=webhook", "url=http://127.0.0.1:9/"];
    let launch = || exporting(dir.path(), &settings).set("server.drain.lead=1h");
    let mut server = launch().start();
    support::send(&server, 1, 500);
    signal(&server.child, libc::SIGTERM);
    eventually("it is no longer ready", SOON, || server.page("/readyz").0 == 503);
    let refused = finished(&server, &["--until-exported"]);
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("the server is stopping already"), "{told}");
    signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(SOON), Some(0));

    // SIGTERM while it stays: what is left is named by who waited.
    let mut server = exporting(dir.path(), &settings).start();
    let mut waiting = drain(&server, &["--until-exported"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the log has ended", SOON, || progress(&server)["phase"] == "closed");
    signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(SOON), Some(0));
    let done = waiting.wait_with_output().unwrap();
    let told = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("the server is gone before all was exported"), "{told}");
    assert!(told.contains(": 1 record left"), "{told}");
}
