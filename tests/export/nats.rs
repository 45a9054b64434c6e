//! The JetStream sink against real servers: what arrives, what survives restarts and lost acks, and
//! what it says when it cannot deliver.

use std::{path::PathBuf, process::Command, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    stream,
};
use futures_util::{StreamExt, future::join_all};
use mailrace::export::{
    ErrorClass, Key, Nats, NatsOptions, Outcome, Record, Sink, SinkError, TlsOptions,
};

use crate::support::{
    self,
    servers::{
        certificates::Authority,
        lane::{PATIENCE, assert_complete, deliver_all, deliver_one, raw, record, records},
        nats::NatsServer,
        proxy::Proxy,
    },
};

fn options(url: &str) -> NatsOptions {
    NatsServer::options(url)
}

fn sink(options: NatsOptions) -> Nats {
    Nats::new(options, raw(Key::None), Duration::from_secs(20)).unwrap()
}

/// Why `check` does not succeed.
async fn refusal(options: NatsOptions) -> SinkError {
    sink(options).check().await.unwrap_err()
}

async fn jetstream(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

/// Messages that the stream holds.
async fn stored(url: &str) -> u64 {
    let mut stream = jetstream(url).await.get_stream("MAIL").await.unwrap();
    stream.info().await.unwrap().state.messages
}

/// All that the stream holds, by another client: ids and bodies in the stream's order.
async fn read(url: &str) -> Vec<(String, Vec<u8>)> {
    let count = stored(url).await as usize;
    let stream = jetstream(url).await.get_stream("MAIL").await.unwrap();
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    let read = messages.map(|message| {
        let message = message.unwrap();
        let headers = message.headers.as_ref().unwrap();
        let id = headers.get("ce-id").unwrap().to_string();
        assert!(headers.get("Nats-Msg-Id").unwrap().as_str().starts_with(&id));
        (id, message.payload.to_vec())
    });
    tokio::time::timeout(PATIENCE, read.collect()).await.unwrap()
}

/// Four shards' lanes at once.
async fn deliver_shards(sink: &Nats, shards: &[Vec<Record>], batch: usize) -> Vec<SinkError> {
    let lanes = shards.iter().map(|records| deliver_all(sink, records, batch));
    join_all(lanes).await.concat()
}

fn shards(count: u64) -> Vec<Vec<Record>> {
    (0..4).map(|shard| records(shard, count)).collect()
}

#[tokio::test]
async fn every_record_arrives_in_the_order_of_its_shard() {
    let Some(server) = NatsServer::start() else { return };
    let sink = sink(options(&server.url()));
    sink.check().await.unwrap();
    let shards = shards(1_250);
    assert_eq!(deliver_shards(&sink, &shards, 200).await, []);
    let read = read(&server.url()).await;
    assert_eq!(read.len(), 5_000);
    assert_complete(&read, &shards.concat());
    // Sent again, they are acknowledged and dropped.
    assert_eq!(deliver_all(&sink, &shards[0], 200).await, []);
    assert_eq!(stored(&server.url()).await, 5_000);
    let mut stream = jetstream(&server.url()).await.get_stream("MAIL").await.unwrap();
    let config = &stream.info().await.unwrap().config;
    assert_eq!(config.subjects, ["mail.>"]);
    assert_eq!(config.storage, stream::StorageType::File);
    assert_eq!(config.duplicate_window, Duration::from_secs(120));
}

/// nats-py sees the same subjects, headers and octets.
#[tokio::test]
async fn a_foreign_client_reads_them() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/servers/python/bin/python");
    let probe = Command::new(&python).args(["-c", "import nats"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        support::machine::skip("nats-py is missing: run tests/support/servers/nats.sh");
        return;
    }
    let Some(server) = NatsServer::start() else { return };
    let sent = records(3, 300);
    deliver_all(&sink(options(&server.url())), &sent, 100).await;
    let output = Command::new(python)
        .arg(root.join("tests/support/servers/nats_read.py"))
        .args([&server.url(), "MAIL", "300"])
        .output();
    let output = support::succeeded("nats_read.py", output.unwrap()).stdout;
    let lines = String::from_utf8(output).unwrap();
    assert_eq!(lines.lines().count(), sent.len());
    for (line, record) in lines.lines().zip(&sent) {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let domain = record.rcpt_domain().replace('.', "_");
        assert_eq!(message["subject"], format!("mail.smtp.{domain}"));
        assert_eq!(message["headers"]["Nats-Msg-Id"], record.id.to_string());
        assert_eq!(message["headers"]["ce-id"], record.id.to_string());
        assert_eq!(message["headers"]["ce-type"], mailrace::export::document::EVENT_TYPE);
        assert_eq!(message["headers"]["content-type"], "message/rfc822");
        use sha2::Digest as _;
        let sum = sha2::Sha256::digest(&record.data);
        let sum: String = sum.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(message["sha256"], sum);
    }
}

/// SIGKILL in the middle, then the same store again: nothing is missing, and what JetStream had
/// stored is not stored twice.
#[tokio::test]
async fn a_killed_server_loses_nothing() {
    let Some(mut server) = NatsServer::start() else { return };
    let sink = sink(options(&server.url()));
    sink.check().await.unwrap();
    let shards = shards(1_000);
    let url = server.url();
    let half = async {
        while stored(&url).await < 1_000 {
            tokio::task::yield_now().await;
        }
        server.kill();
        server.restart();
    };
    let (errors, ()) = tokio::join!(deliver_shards(&sink, &shards, 50), half);
    assert!(errors.iter().any(|error| error.class == ErrorClass::Connect), "{errors:?}");
    assert_complete(&read(&url).await, &shards.concat());
}

/// D4 (5): acks get lost. The attempt ends, the next one delivers, JetStream drops what it has.
#[tokio::test]
async fn lost_acks_make_no_duplicates() {
    let Some(server) = NatsServer::start() else { return };
    let proxy = Proxy::start(server.port);
    let timeout = Duration::from_millis(700);
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let sink = Nats::new(options(&url), raw(Key::None), timeout).unwrap();
    let sent = records(0, 500);
    assert_eq!(deliver_all(&sink, &sent[..100], 100).await, []);
    proxy.swallow(true);
    let outcomes = sink.deliver(&sent[100..]).await;
    for outcome in &outcomes {
        let Outcome::Retry(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.class, ErrorClass::Timeout, "{error}");
    }
    assert!(proxy.swallowed() > 0);
    // It had stored them all the same.
    assert_eq!(stored(&server.url()).await, 500);
    proxy.swallow(false);
    assert_eq!(deliver_all(&sink, &sent, 100).await, []);
    assert_eq!(stored(&server.url()).await, 500);
    assert_complete(&read(&server.url()).await, &sent);
}

/// T14: what was acknowledged is gone with the stream, and a replay brings it back.
#[tokio::test]
async fn a_replay_restores_a_lost_stream() {
    let Some(server) = NatsServer::start() else { return };
    let sink = sink(options(&server.url()));
    let sent = records(0, 500);
    assert_eq!(deliver_all(&sink, &sent, 100).await, []);
    jetstream(&server.url()).await.delete_stream("MAIL").await.unwrap();
    // The stream is made anew on the way.
    let errors = deliver_all(&sink, &sent, 100).await;
    assert!(errors.iter().all(|error| error.class == ErrorClass::Missing), "{errors:?}");
    assert!(!errors.is_empty());
    assert_complete(&read(&server.url()).await, &sent);
    assert_eq!(stored(&server.url()).await, 500);
}

/// T14, while JetStream still remembers the ids: it forgets the messages of a purge, not their ids.
#[tokio::test]
async fn a_replay_restores_a_purged_stream() {
    let Some(server) = NatsServer::start() else { return };
    let sink = sink(options(&server.url()));
    let mut sent = records(0, 500);
    assert_eq!(deliver_all(&sink, &sent, 100).await, []);
    jetstream(&server.url()).await.get_stream("MAIL").await.unwrap().purge().await.unwrap();
    assert_eq!(stored(&server.url()).await, 0);
    // Nobody asked for these: they are what they say, duplicates.
    assert_eq!(deliver_all(&sink, &sent, 100).await, []);
    assert_eq!(stored(&server.url()).await, 0);
    sent.iter_mut().for_each(|record| record.replay = true);
    assert_eq!(deliver_all(&sink, &sent, 100).await, []);
    assert_complete(&read(&server.url()).await, &sent);
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let Some(mut server) = NatsServer::start() else { return };
    server.kill();
    let sink = sink(options(&server.url()));
    let error = sink.check().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect, "{error}");
    assert!(error.text.contains(&server.url()), "{error}");
    let outcome = deliver_one(&sink, &record(0, 0, 10)).await;
    assert!(matches!(outcome, Outcome::Retry(error) if error.class == ErrorClass::Connect));
    server.restart();
    sink.check().await.unwrap();
    assert_eq!(deliver_one(&sink, &record(0, 0, 10)).await, Outcome::Delivered);
}

#[tokio::test]
async fn what_is_too_large_is_refused_alone() {
    let Some(server) =
        NatsServer::with("max_payload: 65536\njetstream { store_dir: \"DIR/store\" }")
    else {
        return;
    };
    let sink = sink(options(&server.url()));
    let mut sent = records(0, 30);
    sent[10] = record(0, 10, 100_000);
    let outcomes = sink.deliver(&sent).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Refused(error) if at == 10 => {
                assert_eq!(error.class, ErrorClass::TooLarge);
                assert!(error.text.contains("65536"), "{error}");
                assert!(error.text.contains("100"), "{error}");
            }
            outcome => assert_eq!((at, outcome), (at, &Outcome::Delivered)),
        }
    }
    // The stream may take less than the server.
    let context = jetstream(&server.url()).await;
    let mut config = context.get_stream("MAIL").await.unwrap().cached_info().config.clone();
    config.max_message_size = 2_000;
    context.update_stream(config).await.unwrap();
    let outcome = deliver_one(&sink, &record(1, 0, 5_000)).await;
    assert!(
        matches!(&outcome, Outcome::Refused(error) if error.class == ErrorClass::TooLarge),
        "{outcome:?}"
    );
    assert_eq!(deliver_one(&sink, &record(1, 1, 100)).await, Outcome::Delivered);
}

/// A stream that is full says so until there is room; the records behind are not lost.
#[tokio::test]
async fn a_full_stream_is_waited_for() {
    let Some(server) = NatsServer::start() else { return };
    let context = jetstream(&server.url()).await;
    let config = stream::Config {
        name: "MAIL".into(),
        subjects: vec!["mail.>".into()],
        max_messages: 10,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    let sink = sink(options(&server.url()));
    let sent = records(0, 12);
    let outcomes = sink.deliver(&sent).await;
    assert_eq!(outcomes[..10], vec![Outcome::Delivered; 10]);
    for outcome in &outcomes[10..] {
        let Outcome::Retry(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.class, ErrorClass::Throttled, "{error}");
    }
    stream.purge().await.unwrap();
    assert_eq!(deliver_all(&sink, &sent[10..], 10).await, []);
}

#[tokio::test]
async fn a_stream_that_does_not_fit_is_named() {
    let Some(server) = NatsServer::start() else { return };
    let missing = refusal(NatsOptions { create: false, ..options(&server.url()) }).await;
    assert_eq!(missing.class, ErrorClass::Missing);
    assert!(missing.text.contains("MAIL is missing"), "{missing}");
    let context = jetstream(&server.url()).await;
    for (name, subject) in [("MAIL", "post.>"), ("OTHER", "mail.>")] {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![subject.into()],
            ..stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
    }
    let other = refusal(options(&server.url())).await;
    assert_eq!(other.class, ErrorClass::Missing);
    assert!(other.text.contains("accepts post.> but not mail.*.*"), "{other}");
    // A stream of that name cannot be made beside one that takes its subjects.
    let overlap = refusal(NatsOptions { stream: "NEW".into(), ..options(&server.url()) }).await;
    assert!(overlap.text.contains("creating the stream NEW"), "{overlap}");
    // A record never goes to another stream than the one that was meant.
    let partly = NatsOptions { subject: "{listener}.a.b".into(), ..options(&server.url()) };
    let sink = sink(partly);
    let mut record = record(0, 0, 10);
    record.listener = "mail".into();
    let Outcome::Retry(error) = deliver_one(&sink, &record).await else { panic!("delivered") };
    assert_eq!(error.class, ErrorClass::Missing, "{error}");
    let mut other = context.get_stream("OTHER").await.unwrap();
    assert_eq!(other.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let Some(server) = NatsServer::with("") else { return };
    let error = refusal(options(&server.url())).await;
    assert_eq!(error.class, ErrorClass::Missing, "{error}");
    assert!(error.text.contains("JetStream is not enabled"), "{error}");
}

const ACCOUNTS: &str = "jetstream { store_dir: \"DIR/store\" }
accounts {
  MAIL {
    jetstream: { max_file: 100K, max_mem: 0, max_streams: 1 }
    users: [
      { user: gateway, password: right }
      { user: reader, password: right, permissions: { publish: [\"$JS.API.>\"] } }
    ]
  }
  BARE { users: [ { user: bare, password: right } ] }
}";

fn with_password(
    options: NatsOptions,
    dir: &std::path::Path,
    user: &str,
    password: &str,
) -> NatsOptions {
    let path = dir.join(format!("{user}-{password}"));
    std::fs::write(&path, format!("{password}\n")).unwrap();
    NatsOptions { user: user.into(), password_file: Some(path), ..options }
}

#[tokio::test]
async fn credentials_and_rights_are_told_apart() {
    let Some(server) = NatsServer::with(ACCOUNTS) else { return };
    let options = options(&server.url());
    let user = |user, password| with_password(options.clone(), server.dir(), user, password);
    let wrong = refusal(user("gateway", "wrong")).await;
    assert_eq!(wrong.class, ErrorClass::Auth, "{wrong}");
    assert!(!wrong.text.contains("wrong"), "{wrong}");
    let none = refusal(options.clone()).await;
    assert_eq!(none.class, ErrorClass::Auth, "{none}");
    let file = Some(server.dir().join("none"));
    let unreadable = refusal(NatsOptions { password_file: file, ..options.clone() }).await;
    assert_eq!(unreadable.class, ErrorClass::Auth, "{unreadable}");
    // An account without JetStream.
    let bare = refusal(user("bare", "right")).await;
    assert_eq!(bare.class, ErrorClass::Missing, "{bare}");
    assert!(bare.text.contains("not enabled"), "{bare}");
    // One that may ask but not publish: the server says so out of band and never acknowledges.
    sink(user("gateway", "right")).check().await.unwrap();
    let reader = sink(user("reader", "right"));
    reader.check().await.unwrap();
    let Outcome::Retry(error) = deliver_one(&reader, &record(0, 0, 10)).await else {
        panic!("delivered")
    };
    assert_eq!(error.class, ErrorClass::Auth, "{error}");
    // The account is full.
    let gateway = sink(user("gateway", "right"));
    let large: Vec<_> = (0..4).map(|offset| record(0, offset, 40_000)).collect();
    let outcomes = gateway.deliver(&large).await;
    assert_eq!(outcomes[0], Outcome::Delivered);
    let Outcome::Retry(error) = &outcomes[3] else { panic!("{outcomes:?}") };
    assert_eq!(error.class, ErrorClass::Throttled, "{error}");
    // And has no room for another stream.
    let full = NatsOptions {
        stream: "MORE".into(),
        subject: "more.{shard}".into(),
        ..user("gateway", "right")
    };
    let full = refusal(full).await;
    assert_eq!(full.class, ErrorClass::Throttled, "{full}");
}

#[tokio::test]
async fn a_token_is_a_password_without_a_user() {
    let config = "authorization { token: sesame }\njetstream { store_dir: \"DIR/store\" }";
    let Some(server) = NatsServer::with(config) else { return };
    let right = with_password(options(&server.url()), server.dir(), "", "sesame");
    sink(right).check().await.unwrap();
    let wrong = refusal(with_password(options(&server.url()), server.dir(), "", "no")).await;
    assert_eq!(wrong.class, ErrorClass::Auth, "{wrong}");
}

/// A server that wants a client certificate of its authority.
#[tokio::test]
async fn tls_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    Authority::write_mutual(dir.path());
    let config = "tls { cert_file: \"DIR/server.pem\", key_file: \"DIR/server.key\",
        ca_file: \"DIR/ca.pem\", verify: true }
        jetstream { store_dir: \"DIR/store\" }";
    let Some(server) = NatsServer::in_dir(dir, config) else { return };
    let file = |name: &str| Some(server.dir().join(name));
    let believed = Authority::mutual(server.dir());
    let with = |tls: &TlsOptions| NatsOptions { tls: tls.clone(), ..options(&server.url()) };
    let sink = sink(with(&believed));
    sink.check().await.unwrap();
    assert_eq!(deliver_all(&sink, &records(0, 200), 50).await, []);
    // Another authority; no certificate; no TLS at all.
    let other = refusal(with(&TlsOptions { ca_file: file("other.pem"), ..believed.clone() })).await;
    assert_eq!(other.class, ErrorClass::Connect, "{other}");
    assert!(other.text.contains("certificate"), "{other}");
    let bare = TlsOptions { cert_file: None, key_file: None, ..believed };
    let bare = refusal(with(&bare)).await;
    assert_eq!(bare.class, ErrorClass::Connect, "{bare}");
    let plain = refusal(with(&TlsOptions::default())).await;
    assert_eq!(plain.class, ErrorClass::Connect, "{plain}");
    assert!(plain.text.contains("TLS is not enabled"), "{plain}");
}
