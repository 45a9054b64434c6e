//! Exporters that cannot deliver: not there, not allowed, nothing to write to, too much for it. The
//! server starts and takes mail, tells what is wrong, and loses nothing: once it is put right
//! everything arrives.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    self, Launch, Server, eventually,
    machine::{self, SmallDisk, has, skip},
    servers::{
        flow::{
            PATIENCE, SHARDS, await_drained, count, errors, group, is_up,
            load::{Load, lines_of},
            peer, peer_available, read_kafka, read_nats, read_s3,
            s3rver::S3rver,
        },
        kafka::KafkaServer,
        nats::NatsServer,
    },
};

const DRAIN: Duration = Duration::from_secs(60);
const MAILS: u64 = 200;
const JETSTREAM: &str = "jetstream { store_dir: \"DIR/store\" }\n";

/// A gateway with one exporter, which is called `main` and tries again soon.
fn gateway(dir: &Path, settings: &[&str]) -> Launch {
    let fixed = ["name=main", "encoding=raw", "retry.initial=50ms", "retry.max=200ms"];
    let launch =
        Launch::new(dir).set(&format!("server.shards={SHARDS}")).set("log.segment_size=16MiB");
    let all = fixed.iter().chain(settings);
    all.fold(launch, |launch, setting| launch.set(&format!("export.0.{setting}")))
}

fn nats_exporter(dir: &Path, nats: &NatsServer, more: &[&str]) -> Launch {
    let servers = format!("servers={}", nats.url());
    gateway(dir, &[&["type=nats", "inline_max=4MiB", &servers], more].concat())
}

/// A server with JetStream whose messages may have 2 MiB, and with these lines.
fn jetstream(more: &str) -> Option<NatsServer> {
    if !peer_available() {
        return None;
    }
    NatsServer::with(&format!("max_payload: 8MB\n{JETSTREAM}{more}"))
}

/// Mail is taken; metrics and the log tell class and cause; nothing is dead, nothing committed.
#[track_caller]
fn await_trouble(server: &Server, load: &Load, class: &str, cause: &str) {
    let from = load.acked();
    load.send_to(server.smtp, from + MAILS);
    eventually("it is counted", PATIENCE, || errors(server, "main", class) >= 2.0);
    assert!(!is_up(server, "main"));
    let wrong = ["connect", "auth", "missing", "timeout", "other", "too_large"];
    for other in wrong.into_iter().filter(|other| *other != class) {
        assert_eq!(
            errors(server, "main", other),
            0.0,
            "{other} beside {class}: {}",
            server.errors()
        );
    }
    let said = server.heard();
    let line = said.lines().find(|line| line.contains("WARN") && line.contains(class));
    let line = line.unwrap_or_else(|| panic!("no line tells {class}: {said}"));
    assert!(line.contains("main") && line.contains(cause), "{line}");
    let times = said.lines().filter(|line| line.contains("WARN") && line.contains(class)).count();
    assert!(times <= 2, "the same is told once a minute: {said}");
    assert!(!said.contains("async_nats") && !said.contains("rskafka"), "{said}");
    for shard in group(&server.dir, &["describe", "main"]) {
        assert_eq!(shard["lag"], shard["end"], "{shard}");
    }
    assert_eq!(count(server, "main", "dead_lettered"), 0.0);
    assert_eq!(server.page("/healthz").0, 200, "it is the sink that is ill");
}

#[track_caller]
fn await_cure(server: &Server, load: &Load) {
    // Mail behind the cure, too.
    load.send_to(server.smtp, load.acked() + MAILS);
    await_drained(server, &["main"], DRAIN);
    assert!(is_up(server, "main"));
    assert_eq!(count(server, "main", "delivered"), load.acked() as f64);
}

#[test]
fn a_broker_that_is_not_there_at_the_start() {
    let Some(mut nats) = jetstream("") else { return };
    nats.kill();
    let dir = tempfile::tempdir().unwrap();
    let server = nats_exporter(dir.path(), &nats, &[]).start();
    let load = Load::default();
    await_trouble(&server, &load, "connect", "Connection refused");
    nats.restart();
    await_cure(&server, &load);
    let again = load.check("nats", &read_nats(&nats.url(), "MAIL", &server), |_| true);
    assert!(again.is_empty());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_password_that_is_wrong() {
    let users = "authorization { user: mail, password: right }\n";
    let Some(nats) = jetstream(users) else { return };
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    fs::write(&password, "wrong").unwrap();
    let file = format!("password_file={}", password.display());
    let launch = nats_exporter(&dir.path().join("data"), &nats, &["user=mail", &file]);
    let server = launch.start();
    let load = Load::default();
    await_trouble(&server, &load, "auth", "authorization violation");
    let began = Instant::now();
    let said = server.stop_and_read();
    let took = began.elapsed();
    assert!(!said.contains("password=\"wrong\"") && !said.contains("right"), "{said}");
    assert!(took < Duration::from_secs(3), "a sink that takes nothing holds the stop up: {took:?}");
    // The next start reads the file.
    fs::write(&password, "right\n").unwrap();
    let server = launch.start();
    await_cure(&server, &load);
    let url = format!("nats://mail:right@127.0.0.1:{}", nats.port);
    assert!(load.check("nats", &read_nats(&url, "MAIL", &server), |_| true).is_empty());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_stream_that_is_missing() {
    let Some(nats) = jetstream("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = nats_exporter(dir.path(), &nats, &["create=false"]).start();
    let load = Load::default();
    await_trouble(&server, &load, "missing", "the stream MAIL is missing, and create is not set");
    peer(&["make-stream", &nats.url(), "MAIL", "mail.>"]);
    await_cure(&server, &load);
    assert!(load.check("nats", &read_nats(&nats.url(), "MAIL", &server), |_| true).is_empty());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_topic_that_is_missing() {
    if !peer_available() {
        return;
    }
    let Some(kafka) = KafkaServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let brokers = format!("brokers={}", kafka.address());
    let server = gateway(dir.path(), &["type=kafka", "topic=mail", &brokers]).start();
    let load = Load::default();
    await_trouble(&server, &load, "missing", "mail");
    peer(&["make-topic", &kafka.address(), "mail"]);
    await_cure(&server, &load);
    assert!(load.check("kafka", &read_kafka(&kafka, "mail", &server), |_| true).is_empty());
    assert_eq!(server.stop(), Some(0));
}

/// The library's text of an error holds times and counts; the same is told once all the same.
#[test]
fn a_store_that_is_not_there() {
    if !peer_available() {
        return;
    }
    let Some(mut s3) = S3rver::start() else { return };
    s3.kill();
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("endpoint={}", s3.endpoint());
    let secret = format!("secret_key_file={}", s3.secret_file().display());
    let fixed =
        ["type=s3", "bucket=mail", "access_key=S3RVER", "encoding=json", "batch.delay=20ms"];
    let server = gateway(dir.path(), &[&fixed[..], &[&endpoint, &secret]].concat()).start();
    let load = Load::default();
    await_trouble(&server, &load, "connect", "Connection refused");
    s3.restart();
    await_cure(&server, &load);
    assert!(load.check("s3", &read_s3(&s3, &server), |_| true).is_empty());
    assert_eq!(server.stop(), Some(0));
}

/// What the broker does not take is a dead letter with its cause; what stands behind it goes on.
#[test]
fn a_message_larger_than_the_broker_takes() {
    if !peer_available() {
        return;
    }
    let Some(mut nats) = NatsServer::with(&format!("max_payload: 65536\n{JETSTREAM}")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = nats_exporter(dir.path(), &nats, &[]).start();
    let load = Load::default();
    // The last of one connection's is refused, with none behind it: that is no sink that is away.
    load.send_to(server.smtp, 12);
    eventually("it is dead", PATIENCE, || errors(&server, "main", "too_large") == 2.0);
    assert!(is_up(&server, "main"));
    load.send_to(server.smtp, MAILS);
    await_drained(&server, &["main"], DRAIN);
    // Of 100 KiB and of 2 MiB, see the load.
    let is_large = |seed| lines_of(seed) > 1_000;
    let large: Vec<_> = load.ids().into_iter().filter(|(_, seed)| is_large(*seed)).collect();
    assert_eq!(large.len(), 2);
    let read = read_nats(&nats.url(), "MAIL", &server);
    assert!(load.check("nats", &read, |seed| !is_large(seed)).is_empty());
    assert_eq!(count(&server, "main", "dead_lettered"), 2.0);
    assert_eq!(count(&server, "main", "delivered"), (MAILS - 2) as f64);
    assert_eq!(errors(&server, "main", "too_large"), 2.0);
    server.says("moved to the dead-letter queue: ");
    let dead = |server: &Server| server.metric("mailrace_export_dead_letters", &["main"]);
    eventually("the dead are told", PATIENCE, || dead(&server) == 2.0);
    let listed = group(dir.path(), &["dead", "ls", "main"]);
    assert_eq!(listed.len(), 2);
    for letter in &listed {
        let id = letter["id"].as_str().unwrap();
        assert!(large.iter().any(|(known, _)| known == id), "{letter}");
        assert_eq!(letter["class"], "too_large");
        let said = server.heard();
        let named =
            |line: &str| line.contains("moved to the dead-letter queue: ") && line.contains(id);
        assert!(said.lines().any(named), "each has a line: {id} has none: {said}");
        let text = letter["text"].as_str().unwrap();
        assert!(text.contains("65536 exceeded"), "{letter}");
        // The mail itself is at hand.
        let (_, seed) = large.iter().find(|(known, _)| known == id).unwrap();
        assert!(server.get(id) == support::bulk(*seed, lines_of(*seed)), "{id}");
    }
    // The broker takes more now, and the operator has them tried again.
    let config = nats.dir().join("nats.conf");
    let lines = fs::read_to_string(&config).unwrap().replace("65536", "8MB");
    fs::write(&config, lines).unwrap();
    nats.kill();
    nats.restart();
    group(dir.path(), &["dead", "requeue", "main", "--all"]);
    eventually("none is dead", PATIENCE, || dead(&server) == 0.0);
    let read = read_nats(&nats.url(), "MAIL", &server);
    assert!(load.check("nats", &read, |_| true).is_empty());
    assert_eq!(server.stop(), Some(0));
}

/// D9, D12: a sink that is away while mail fills the disk. Nothing it has not had is deleted; mail
/// is turned away before the disk is full, and comes again once the sink has taken what there is.
#[test]
fn a_sink_that_is_away_until_the_disk_is_full() {
    let root = machine::is_root() || skip("a file system of one's own needs root");
    if !(root && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let Some(mut nats) = jetstream("") else { return };
    nats.kill();
    let disk = SmallDisk::ext4(256);
    let data = disk.path.join("data");
    // Retention wants all gone at once; only the exporter holds it back.
    let server = nats_exporter(&data, &nats, &[])
        .set("log.retention.size=1MiB")
        .set("log.retention.retain_after_export=0s")
        .set("limits.message_size=4MiB")
        .start();
    let load = Load::scaled(16);
    let deleted = || server.metric("mailrace_log_segments_deleted_total", &[]);
    let starts = || {
        group(&data, &["describe", "main"])
            .iter()
            .map(|at| at["start"].as_u64())
            .collect::<Vec<_>>()
    };
    let refused = load.fill(server.smtp);
    assert!(refused.starts_with("452 4.3.1 "), "{refused}");
    let full = load.acked();
    println!("full behind {full} messages, {} MiB free", disk.free() >> 20);
    assert!(full > 1_000, "{full} messages");
    eventually("the metric tells", PATIENCE, || {
        server.metric("mailrace_log_disk_state", &[]) == 2.0
    });
    // Two looks of the retention thread.
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(deleted(), 0.0, "nothing un-exported is deleted");
    assert_eq!(starts(), [Some(0); SHARDS]);
    assert!(load.fill(server.smtp).starts_with("452 4.3.1 "), "still full");
    let full = load.acked();
    assert_eq!(support::verified(&data), full);

    nats.restart();
    await_drained(&server, &["main"], DRAIN);
    eventually("segments go", PATIENCE, || deleted() > 4.0);
    eventually("mail is accepted again", PATIENCE, || {
        server.metric("mailrace_log_disk_state", &[]) < 2.0
    });
    load.send_more(server.smtp, MAILS);
    await_drained(&server, &["main"], DRAIN);
    let again = load.check("nats", &read_nats(&nats.url(), "MAIL", &server), |_| true);
    assert!(again.is_empty());
    assert_eq!(server.stop(), Some(0));
}
