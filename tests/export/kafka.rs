//! The Kafka sink against a real broker: what an independent client reads back, what happens when
//! the broker dies, does not answer or refuses, and what the sink says then.

use std::{
    collections::HashMap,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use mailrace::export::{
    Compression, ErrorClass, Kafka, KafkaOptions, Key, Outcome, Record, Sink, TlsOptions,
};

use crate::support::{
    self, machine,
    ports::free_address,
    servers::{
        certificates,
        kafka::{self, KafkaServer, answering, plain},
        lane::{deliver_all, deliver_one, raw, record, records},
        proxy::Proxy,
    },
};

fn options(port: u16) -> KafkaOptions {
    KafkaOptions {
        brokers: vec![format!("127.0.0.1:{port}")],
        topic: "mail".into(),
        create_partitions: 4,
        compression: Compression::None,
        user: String::new(),
        password_file: None,
        tls: TlsOptions::default(),
    }
}

fn sink(options: KafkaOptions) -> Kafka {
    Kafka::new(options, raw(Key::RcptDomain), Duration::from_secs(20))
}

/// What an independent client reads; `None`: it is not installed.
fn read(server: &KafkaServer) -> Option<Vec<serde_json::Value>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/servers/python/bin/python");
    let probe = Command::new(&python).args(["-c", "import kafka"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        machine::skip("kafka-python is missing: run tests/support/servers/kafka.sh");
        return None;
    }
    let output = Command::new(python)
        .arg(root.join("tests/support/servers/kafka_read.py"))
        .args([&server.address(), "mail"])
        .output();
    let output = support::succeeded("kafka_read.py", output.unwrap()).stdout;
    let lines = String::from_utf8(output).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Asserts that every record is there, octet by octet, in the partition of its key, in the order of
/// its shard within the partition. Returns how many there are more than once.
#[track_caller]
fn assert_complete(read: &[serde_json::Value], sent: &[Record]) -> usize {
    let wanted: HashMap<String, &Record> =
        sent.iter().map(|record| (record.id.to_string(), record)).collect();
    let mut seen = HashMap::new();
    let mut last = HashMap::new();
    for line in read {
        let id = line["headers"]["ce_id"].as_str().unwrap();
        let record = wanted.get(id).unwrap_or_else(|| panic!("{id} was never sent"));
        assert_eq!(line["sha256"], sha256(&record.data), "{id}");
        assert_eq!(line["key"], record.rcpt_domain());
        assert_eq!(line["partition"], line["expected"], "{id}");
        assert_eq!(line["headers"]["content-type"], "message/rfc822");
        assert_eq!(line["timestamp"], record.received_at / 1_000);
        let times = seen.entry(id.to_owned()).or_insert(0);
        *times += 1;
        if *times > 1 {
            continue;
        }
        let place = (line["partition"].as_u64().unwrap(), record.id.shard);
        if let Some(last) = last.insert(place, record.id.offset) {
            assert!(last < record.id.offset, "{id} came behind {last} of its shard");
        }
    }
    let missing = wanted.keys().filter(|id| !seen.contains_key(*id)).count();
    assert_eq!(missing, 0, "of {} records some are missing", wanted.len());
    seen.values().filter(|times| **times > 1).count()
}

fn sha256(data: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(data).iter().map(|octet| format!("{octet:02x}")).collect()
}

#[tokio::test]
async fn every_record_arrives_in_the_partition_of_its_key() {
    let Some(server) = KafkaServer::start() else { return };
    let sink = sink(options(server.port));
    sink.check().await.unwrap();
    let shards: Vec<_> = (0..4).map(|shard| records(shard, 1_250)).collect();
    let lanes = shards.iter().map(|records| deliver_all(&sink, records, 200));
    assert_eq!(join_all(lanes).await.concat(), []);
    let Some(read) = read(&server) else { return };
    assert_eq!(read.len(), 5_000);
    assert_eq!(assert_complete(&read, &shards.concat()), 0);
}

#[tokio::test]
async fn each_compression_is_understood() {
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Snappy] {
        let Some(server) = KafkaServer::start() else { return };
        let sink = sink(KafkaOptions { compression, ..options(server.port) });
        let sent = records(0, 100);
        assert_eq!(deliver_all(&sink, &sent, 30).await, []);
        let Some(read) = read(&server) else { return };
        assert_eq!(assert_complete(&read, &sent), 0, "{compression:?}");
    }
}

/// Without a key a batch stays together, and batches take turns.
#[tokio::test]
async fn batches_without_a_key_take_turns() {
    let Some(server) = KafkaServer::start() else { return };
    let sink = Kafka::new(options(server.port), raw(Key::None), Duration::from_secs(20));
    assert_eq!(deliver_all(&sink, &records(0, 40), 10).await, []);
    let Some(read) = read(&server) else { return };
    for partition in 0..4 {
        let there = read.iter().filter(|line| line["partition"] == partition);
        assert_eq!(there.count(), 10, "partition {partition}");
    }
    assert!(read.iter().all(|line| line["key"].is_null()));
}

/// SIGKILL in the middle. This broker forgets all (T14); the lane goes on as soon as there is one
/// again, and a replay restores what was acknowledged.
#[tokio::test]
async fn a_killed_broker_is_waited_for_and_a_replay_restores() {
    let Some(mut server) = KafkaServer::start() else { return };
    let sink = sink(options(server.port));
    let sent = records(0, 2_000);
    assert_eq!(deliver_all(&sink, &sent[..1_000], 100).await, []);
    server.kill();
    let Outcome::Retry(error) = deliver_one(&sink, &sent[1_000]).await else { panic!("delivered") };
    assert_eq!(error.class, ErrorClass::Connect, "{error}");
    let error = sink.check().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect, "{error}");
    server.restart();
    deliver_all(&sink, &sent[1_000..], 100).await;
    if let Some(read) = read(&server) {
        assert_eq!(read.len(), 1_000);
        assert_complete(&read, &sent[1_000..]);
    }
    assert_eq!(deliver_all(&sink, &sent[..1_000], 100).await, []);
    let Some(read) = read(&server) else { return };
    let ids: std::collections::HashSet<_> =
        read.iter().map(|line| line["headers"]["ce_id"].to_string()).collect();
    assert_eq!(ids.len(), 2_000);
}

/// D4 (5): the broker's answers get lost; what is stored twice has the same id.
#[tokio::test]
async fn lost_answers_are_tried_again() {
    let port = free_address().port();
    let proxy = Proxy::start(port);
    let Some(server) = KafkaServer::behind(port, proxy.port) else { return };
    let timeout = Duration::from_millis(1_500);
    let sink = Kafka::new(options(proxy.port), raw(Key::RcptDomain), timeout);
    let sent = records(0, 200);
    assert_eq!(deliver_all(&sink, &sent[..100], 100).await, []);
    proxy.swallow(true);
    for outcome in sink.deliver(&sent[100..]).await {
        let Outcome::Retry(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.class, ErrorClass::Timeout, "{error}");
    }
    assert!(proxy.swallowed() > 0);
    proxy.swallow(false);
    assert_eq!(deliver_all(&sink, &sent[100..], 100).await, []);
    let Some(read) = read(&server) else { return };
    assert_eq!(assert_complete(&read, &sent), 100);
}

/// MESSAGE_TOO_LARGE is of the whole request: it is cut until the record is found, and only that
/// one is refused. The proxy stands in for `max.message.bytes`, which this broker does not have.
#[tokio::test]
async fn what_is_too_large_is_refused_alone() {
    let target = free_address().port();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let port = answering(
        target,
        Arc::new(move |request| {
            let large = request.is_produce() && request.frame.len() > 200_000;
            large.then(|| {
                count.fetch_add(1, Ordering::SeqCst);
                request.produce_error(10)
            })
        }),
    );
    let Some(server) = KafkaServer::behind(target, port) else { return };
    let sink = sink(KafkaOptions { create_partitions: 1, ..options(port) });
    let mut sent: Vec<_> = (0..60).map(|offset| record(0, offset, 10_000)).collect();
    sent[20] = record(0, 20, 300_000);
    let outcomes = sink.deliver(&sent).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Refused(error) if at == 20 => {
                assert_eq!(error.class, ErrorClass::TooLarge);
                assert!(error.text.contains("MESSAGE_TOO_LARGE"), "{error}");
                assert!(error.text.contains("bytes to mail"), "{error}");
            }
            outcome => assert_eq!((at, outcome), (at, &Outcome::Delivered)),
        }
    }
    // From now on requests are as the broker takes them.
    refused.store(0, Ordering::SeqCst);
    let more: Vec<_> = (60..120).map(|offset| record(0, offset, 10_000)).collect();
    assert_eq!(sink.deliver(&more).await, vec![Outcome::Delivered; 60]);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
    sent.remove(20);
    sent.extend(more);
    let Some(read) = read(&server) else { return };
    assert_eq!(assert_complete(&read, &sent), 0);
}

/// NOT_LEADER_OR_FOLLOWER, then NOT_ENOUGH_REPLICAS: tried again, and nothing is refused for good.
#[tokio::test]
async fn a_leader_that_moves_is_tried_again() {
    let target = free_address().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let port = answering(
        target,
        Arc::new(move |request| {
            let nth = || count.fetch_add(1, Ordering::SeqCst);
            match request.is_produce().then(nth)? {
                1 => Some(request.produce_error(6)),
                3 => Some(request.produce_error(19)),
                _ => None,
            }
        }),
    );
    let Some(server) = KafkaServer::behind(target, port) else { return };
    let sink = sink(KafkaOptions { create_partitions: 1, ..options(port) });
    let sent = records(0, 50);
    let errors = deliver_all(&sink, &sent, 10).await;
    let classes: Vec<_> = errors.iter().map(|error| error.class).collect();
    assert_eq!(classes, [[ErrorClass::Connect; 10], [ErrorClass::Throttled; 10]].concat());
    let Some(read) = read(&server) else { return };
    assert_eq!(assert_complete(&read, &sent), 0);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let closed = machine::closed_port();
    let nobody = sink(options(closed.address.port())).check().await.unwrap_err();
    assert_eq!(nobody.class, ErrorClass::Connect, "{nobody}");
    let Some(server) = KafkaServer::start() else { return };
    let options = KafkaOptions { create_partitions: 0, ..options(server.port) };
    let sink_without = sink(options.clone());
    let missing = sink_without.check().await.unwrap_err();
    assert_eq!(missing.class, ErrorClass::Missing, "{missing}");
    assert!(missing.text.contains("the topic mail does not exist"), "{missing}");
    let outcome = deliver_one(&sink_without, &record(0, 0, 10)).await;
    assert!(matches!(outcome, Outcome::Retry(error) if error.class == ErrorClass::Missing));
    // Once somebody has made it, it is used.
    sink(KafkaOptions { create_partitions: 2, ..options }).check().await.unwrap();
    assert_eq!(deliver_one(&sink_without, &record(0, 0, 10)).await, Outcome::Delivered);
    let user = KafkaOptions { user: "alice".into(), ..self::options(server.port) };
    let error = sink(user).check().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Auth, "{error}");
}

#[tokio::test]
async fn sasl_plain() {
    let dir = tempfile::tempdir().unwrap();
    let target = free_address().port();
    let port = answering(target, plain("alice", "secret"));
    let Some(_server) = KafkaServer::behind(target, port) else { return };
    let with = |password: &str| {
        let path = dir.path().join(password);
        std::fs::write(&path, format!("{password}\n")).unwrap();
        sink(KafkaOptions { user: "alice".into(), password_file: Some(path), ..options(port) })
    };
    let right = with("secret");
    right.check().await.unwrap();
    assert_eq!(deliver_all(&right, &records(0, 50), 10).await, []);
    let wrong = with("guess").check().await.unwrap_err();
    assert_eq!(wrong.class, ErrorClass::Auth, "{wrong}");
    assert!(!wrong.text.contains("guess"), "{wrong}");
}

/// OpenSSL, by Python, ends TLS in front of the broker and wants a client certificate.
#[tokio::test]
async fn tls_in_both_directions() {
    if !machine::has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    certificates::Authority::write_mutual(dir.path());
    let (target, port) = (free_address().port(), free_address().port());
    let Some(_server) = KafkaServer::behind(target, port) else { return };
    let _proxy = kafka::tls_proxy(dir.path(), port, target);
    let file = |name: &str| Some(dir.path().join(name));
    let believed = certificates::Authority::mutual(dir.path());
    let with = |tls: &TlsOptions| sink(KafkaOptions { tls: tls.clone(), ..options(port) });
    let right = with(&believed);
    right.check().await.unwrap();
    assert_eq!(deliver_all(&right, &records(0, 50), 10).await, []);
    let other = TlsOptions { ca_file: file("other.pem"), ..believed.clone() };
    let other = with(&other).check().await.unwrap_err();
    assert_eq!(other.class, ErrorClass::Connect, "{other}");
    assert!(other.text.contains("certificate"), "{other}");
    let bare = TlsOptions { cert_file: None, key_file: None, ..believed };
    let bare = with(&bare).check().await.unwrap_err();
    assert_eq!(bare.class, ErrorClass::Connect, "{bare}");
    let plain = with(&TlsOptions::default()).check().await.unwrap_err();
    assert_eq!(plain.class, ErrorClass::Connect, "{plain}");
}
