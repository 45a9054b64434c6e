//! Relay to real servers on loopback: Dovecot by LMTP, Postfix by SMTP, smtp-sink that refuses and
//! breaks off to order, and hostile ones of our own.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mailrace::{
    export::{ErrorClass, Facts, Outcome, Record, Relay, RelayOptions, Sink, TlsOptions, testing},
    log::{Identity, Offset},
};

use crate::support::{
    self, Launch, Server,
    machine::has,
    ports,
    servers::{
        dovecot::{self, Dovecot},
        postfix::{self, Postfix, SmtpSink},
    },
};

/// Bounds each wait of these tests.
const PATIENCE: Duration = Duration::from_secs(90);

fn options(server: impl ToString) -> RelayOptions {
    RelayOptions {
        lmtp: false,
        server: server.to_string(),
        helo: "relay.test".to_owned(),
        by: "relay.test".to_owned(),
        return_path: false,
        connections: 1,
        tls: TlsOptions::default(),
        implicit_tls: false,
        user: String::new(),
        password_file: None,
    }
}

fn lmtp(server: impl ToString) -> RelayOptions {
    RelayOptions { lmtp: true, ..options(server) }
}

fn record(number: u64, rcpt_to: &[&str], data: impl Into<Bytes>) -> Record {
    let identity = Identity { node: [0x7f, 0x3a, 0x9c, 0x21, 0xb0, 0x4e], shard: 3 };
    Record {
        id: identity.record_id(Offset::new(number)),
        listener: "mx".to_owned(),
        mail_from: "a@s.test".to_owned(),
        rcpt_to: rcpt_to.iter().map(ToString::to_string).collect(),
        helo: "mx.example".to_owned(),
        data: data.into(),
        ..testing::record(3, number)
    }
}

/// A message of its own for each number: dots, octets beyond ASCII, white space, sizes to 6 KiB.
fn message(number: u64) -> String {
    let mut text = format!(
        "From: <a@s.test>\r\nSubject: {number}\r\n folded\r\nMessage-ID: <{number}@s.test>\r\n\r\n\
         .\r\n..\r\n.dot {number}\r\n \r\ntrailing  \r\nQUIT\r\nGrüße, 日本語\r\n"
    );
    for line in 0..number % 97 {
        text += &format!("{}{line} {}\r\n", ".".repeat(line as usize % 3), "x".repeat(60));
    }
    text
}

fn records(count: u64, rcpt_to: &[&str]) -> Vec<Record> {
    (0..count).map(|number| record(number, rcpt_to, message(number))).collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

/// One attempt at one record.
async fn once(sink: &Relay, record: &Record) -> Outcome {
    let mut outcomes = sink.deliver(std::slice::from_ref(record)).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// As the runner does it: what was not taken is sent again, until all has come to an end. Says how
/// many attempts there were.
async fn deliver_all(sink: &Relay, records: &[Record]) -> (Vec<Outcome>, usize) {
    let mut outcomes = vec![None; records.len()];
    for attempt in 1.. {
        let open: Vec<usize> = (0..records.len()).filter(|at| outcomes[*at].is_none()).collect();
        let batch: Vec<Record> = open.iter().map(|at| records[*at].clone()).collect();
        for (at, outcome) in open.iter().zip(sink.deliver(&batch).await) {
            if !matches!(outcome, Outcome::Retry(_)) {
                outcomes[*at] = Some(outcome);
            }
        }
        if outcomes.iter().all(Option::is_some) {
            return (outcomes.into_iter().flatten().collect(), attempt);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

/// Each record's mail as it must lie in a mailbox behind LMTP.
fn with_id(record: &Record) -> Vec<u8> {
    [format!("X-Mailrace-Id: {}\r\n", record.id).as_bytes(), &record.data].concat()
}

/// How often each of `records` is in a mailbox; anything else there, or another octet, fails.
#[track_caller]
fn counted(mails: Vec<Vec<u8>>, records: &[Record]) -> Vec<usize> {
    let mut known: BTreeMap<Vec<u8>, usize> =
        records.iter().enumerate().map(|(at, record)| (with_id(record), at)).collect();
    assert_eq!(known.len(), records.len());
    let mut counts = vec![0; records.len()];
    for mail in mails {
        // Our Received stands between id and message.
        let mail = match mail.windows(11).position(|octets| octets == b"\r\nReceived:") {
            Some(at) if at < 60 => {
                let from = mail.windows(7).position(|octets| octets == b"\r\nFrom:").unwrap();
                [&mail[..at], &mail[from..]].concat()
            }
            _ => mail,
        };
        let at = known.get(&mail).unwrap_or_else(|| {
            panic!("not as sent: {:?}", String::from_utf8_lossy(&mail[..mail.len().min(600)]))
        });
        counts[*at] += 1;
    }
    known.clear();
    counts
}

#[track_caller]
fn retry(outcome: &Outcome) -> (ErrorClass, &str) {
    match outcome {
        Outcome::Retry(error) => (error.class, &error.text),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(outcome: &Outcome) -> (ErrorClass, &str) {
    match outcome {
        Outcome::Refused(error) => (error.class, &error.text),
        other => panic!("{other:?}"),
    }
}

/// A certificate for loopback that vouches for itself: its file and that of its key.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

fn believing(certificate: &Path) -> TlsOptions {
    TlsOptions { enabled: true, ca_file: Some(certificate.to_owned()), ..TlsOptions::default() }
}

#[test]
fn a_thousand_mails_lie_in_dovecot_octet_by_octet() {
    if !dovecot::available() {
        return;
    }
    let dovecot = Dovecot::start(None);
    let records = records(1_000, &["alice@d.test", "bob@d.test"]);
    let sink = Relay::new(&RelayOptions { connections: 4, ..lmtp(dovecot.lmtp) }).unwrap();
    run(async {
        sink.check().await.unwrap();
        for batch in records.chunks(250) {
            let outcomes = sink.deliver(batch).await;
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
        }
    });
    for user in ["alice", "bob"] {
        assert!(counted(dovecot.mails(user), &records).iter().all(|count| *count == 1), "{user}");
    }
}

/// RFC 5321 §4.4: what a mailbox has behind LMTP. Its server writes Return-Path, and one that does
/// not is told by `return_path`; there is one in any case, whatever the sender wrote.
#[test]
fn a_mailbox_has_one_return_path_and_our_trace() {
    if !dovecot::available() {
        return;
    }
    let dovecot = Dovecot::start(None);
    let forged = "Return-Path: <forged@evil.test>\r\nFrom: <a@s.test>\r\n\r\nx\r\n";
    let dots = Record {
        mail_from: "a..b@s.test".to_owned(),
        ..record(1, &["alice@d.test"], forged.to_owned())
    };
    let sink = Relay::new(&lmtp(dovecot.lmtp)).unwrap();
    assert_eq!(run(once(&sink, &dots)), Outcome::Delivered);
    let [stored] = &dovecot.stored("alice")[..] else { panic!("one mail") };
    assert!(stored.starts_with("Return-Path: <\"a..b\"@s.test>\n"), "{stored}");
    assert_eq!(stored.to_lowercase().matches("return-path:").count(), 1, "{stored}");
    let received = format!("by relay.test with ESMTP id {}\n\tfor <alice@d.test>;", dots.id);
    assert!(stored.contains(&received), "{stored}");
    assert!(stored.contains(&format!("\nX-Mailrace-Id: {}\n", dots.id)), "{stored}");
}

/// Paths that are no Dot-strings go on quoted and are recorded by the next server; what is said of
/// them names them as they came.
#[test]
fn dots_that_stand_alone_reach_the_next_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let port = server.smtp.port();
    let dots = Record {
        mail_from: ".a@s.test".to_owned(),
        ..record(1, &["b..c@d.test", "d.@d.test"], message(1))
    };
    // By name: `localhost` may be ::1 first, where nobody listens.
    let sink = Relay::new(&options(format!("localhost:{port}"))).unwrap();
    assert_eq!(run(once(&sink, &dots)), Outcome::Delivered);
    let envelope = support::log_command(&server.dir, &["cat", "--json"]);
    let envelope: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
    assert_eq!(envelope["mail_from"], "\".a\"@s.test");
    assert_eq!(envelope["rcpt_to"], serde_json::json!(["\"b..c\"@d.test", "\"d.\"@d.test"]));
    if !dovecot::available() {
        return;
    }
    let dovecot = Dovecot::start(None);
    let sink = Relay::new(&lmtp(dovecot.lmtp)).unwrap();
    let outcome = run(once(&sink, &dots));
    let (_, text) = refused(&outcome);
    assert!(text.contains("<b..c@d.test>: 550") && text.contains("<d.@d.test>: 550"), "{text}");
}

#[test]
fn each_recipient_in_dovecot_is_tracked_alone() {
    if !dovecot::available() {
        return;
    }
    let dovecot = Dovecot::start(None);
    let rcpt_to = ["alice", "full", "later", "ghost", "carol"].map(|user| format!("{user}@d.test"));
    let rcpt_to: Vec<&str> = rcpt_to.iter().map(String::as_str).collect();
    let record = record(7, &rcpt_to, message(7));
    let sink = Relay::new(&lmtp(dovecot.socket().display())).unwrap();
    run(async {
        for _ in 0..3 {
            let outcome = once(&sink, &record).await;
            let (class, text) = retry(&outcome);
            assert_eq!(class, ErrorClass::Throttled);
            assert!(text.starts_with("<later@d.test>: 451 4.2.0"), "{text}");
        }
        dovecot.make_room_for_later();
        let outcome = once(&sink, &record).await;
        let (class, text) = refused(&outcome);
        assert_eq!(class, ErrorClass::Refused);
        assert!(text.starts_with("<full@d.test>: 552 5.2.2"), "{text}");
        assert!(text.contains("; <ghost@d.test>: 550 5.1.1"), "{text}");
        assert!(!text.contains("later") && !text.contains("alice"), "{text}");
    });
    for (user, count) in [("alice", 1), ("carol", 1), ("later", 1), ("full", 0)] {
        let mails = counted(dovecot.mails(user), std::slice::from_ref(&record));
        assert_eq!(mails, [count], "{user}");
    }
}

#[test]
fn a_dovecot_that_crashes_loses_nothing() {
    if !dovecot::available() {
        return;
    }
    let mut dovecot = Dovecot::start(None);
    let records = records(600, &["alice@d.test"]);
    let sink = Relay::new(&RelayOptions { connections: 2, ..lmtp(dovecot.lmtp) }).unwrap();
    let all = records.clone();
    let sender = std::thread::spawn(move || run(async { deliver_all(&sink, &all).await }));
    for mails in [20, 150, 300] {
        support::eventually("mails arrive", PATIENCE, || dovecot.mails_count("alice") >= mails);
        dovecot.kill();
        dovecot.restart();
    }
    let (outcomes, attempts) = sender.join().unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    assert!(attempts > 1, "no crash was noticed");
    let counts = counted(dovecot.mails("alice"), &records);
    let twice = counts.iter().filter(|count| **count > 1).count();
    assert!(counts.iter().all(|count| *count >= 1), "lost");
    // D4: at most what was in doubt, one message a connection and crash.
    assert!(twice <= 6, "{twice} came twice");
}

#[test]
fn starttls_with_dovecot() {
    if !dovecot::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(dir.path(), "dovecot");
    let (stranger, _) = self::certificate(dir.path(), "stranger");
    let dovecot = Dovecot::start(Some((&certificate, &key)));
    let records = records(50, &["alice@d.test"]);
    run(async {
        let sink = Relay::new(&RelayOptions { tls: believing(&certificate), ..lmtp(dovecot.lmtp) })
            .unwrap();
        let (outcomes, attempts) = deliver_all(&sink, &records).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
        assert_eq!(attempts, 1);
        let sink =
            Relay::new(&RelayOptions { tls: believing(&stranger), ..lmtp(dovecot.lmtp) }).unwrap();
        let error = sink.check().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Connect);
        assert!(error.text.contains("certificate"), "{error}");
    });
    assert_eq!(counted(dovecot.mails("alice"), &records), vec![1; 50]);
    let plain = Dovecot::start(None);
    let options = RelayOptions { tls: believing(&certificate), ..lmtp(plain.lmtp) };
    let error = run(async { Relay::new(&options).unwrap().check().await.unwrap_err() });
    assert_eq!(error.text, "the server offers no STARTTLS");
}

#[test]
fn postfix_with_tls_and_auth() {
    if !postfix::available() || !dovecot::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(dir.path(), "postfix");
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    fs::write(&right, "secret\n").unwrap();
    fs::write(&wrong, "guess\n").unwrap();
    let dovecot = Dovecot::start(None);
    let postfix = Postfix::start(Some((&certificate, &key)), Some(&dovecot.auth()));
    let starttls = RelayOptions {
        tls: believing(&certificate),
        user: "alice".to_owned(),
        password_file: Some(right),
        connections: 2,
        ..options(postfix.smtp)
    };
    let records = records(200, &["alice@d.test", "bob@d.test"]);
    let (first, second) = records.split_at(100);
    run(async {
        let sink = Relay::new(&starttls).unwrap();
        let (outcomes, _) = deliver_all(&sink, first).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
        let implicit = RelayOptions {
            server: postfix.smtps.to_string(),
            implicit_tls: true,
            ..starttls.clone()
        };
        let sink = Relay::new(&implicit).unwrap();
        let (outcomes, _) = deliver_all(&sink, second).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");

        let guess = RelayOptions { password_file: Some(wrong), ..starttls.clone() };
        let error = Relay::new(&guess).unwrap().check().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Auth);
        assert!(error.text.starts_with("AUTH PLAIN: 535 "), "{error}");
        // Without a user Postfix says 554 Relay access denied or 530; without TLS it says 530.
        let plain = RelayOptions { tls: TlsOptions::default(), user: String::new(), ..starttls };
        let outcome = once(&Relay::new(&plain).unwrap(), &records[0]).await;
        let (class, text) = retry(&outcome);
        assert_eq!(class, ErrorClass::Auth);
        assert!(text.contains("530 5.7.0 Must issue a STARTTLS command first"), "{text}");
    });
    for user in ["alice", "bob"] {
        // Postfix has them in its queue when it says 250; the mailbox follows.
        support::eventually("postfix delivers", PATIENCE, || postfix.mails(user).len() >= 200);
        assert_eq!(counted(postfix.mails(user), &records), vec![1; 200], "{user}");
    }
}

#[test]
fn each_recipient_in_postfix_is_tracked_alone() {
    if !postfix::available() {
        return;
    }
    let postfix = Postfix::start(None, None);
    let record = record(9, &["later@d.test", "alice@d.test", "ghost@d.test"], message(9));
    let other = self::record(10, &["alice@d.test"], message(10));
    run(async {
        let sink = Relay::new(&options(postfix.smtp)).unwrap();
        for _ in 0..3 {
            let outcome = once(&sink, &record).await;
            let (class, text) = retry(&outcome);
            assert_eq!(class, ErrorClass::Throttled);
            assert!(text.starts_with("<later@d.test>: 450 4.2.1"), "{text}");
            assert!(text.contains("; <ghost@d.test>: 550 5.1.1"), "{text}");
        }
        // The session that was reset in between serves the next message.
        assert_eq!(once(&sink, &other).await, Outcome::Delivered);
    });
    support::eventually("postfix delivers", PATIENCE, || postfix.mails("alice").len() >= 2);
    assert_eq!(counted(postfix.mails("alice"), &[record, other]), [1, 1]);
}

#[test]
fn large_mails_and_too_large_ones() {
    if !dovecot::available() || !postfix::available() {
        return;
    }
    let dovecot = Dovecot::start(None);
    let postfix = Postfix::start(None, None);
    let line = format!("{}\r\n..dots\r\n", "0123456789".repeat(7));
    let data = |octets: usize| {
        let mut data = b"From: <a@s.test>\r\n\r\n".to_vec();
        data.extend(line.as_bytes().iter().cycle().take(octets / line.len() * line.len()));
        Bytes::from(data)
    };
    let large = record(1, &["alice@d.test"], data(25 << 20));
    let too_large = record(2, &["alice@d.test"], data(51 << 20));
    run(async {
        let sink = Relay::new(&lmtp(dovecot.lmtp)).unwrap();
        assert_eq!(once(&sink, &large).await, Outcome::Delivered);
        let sink = Relay::new(&options(postfix.smtp)).unwrap();
        assert_eq!(once(&sink, &large).await, Outcome::Delivered);
        let outcome = once(&sink, &too_large).await;
        let (class, text) = refused(&outcome);
        assert_eq!(class, ErrorClass::TooLarge);
        assert!(text.ends_with("the server accepts at most 52428800 (SIZE)"), "{text}");
    });
    let large = [large];
    assert_eq!(counted(dovecot.mails("alice"), &large), [1]);
    support::eventually("postfix delivers", PATIENCE, || postfix.mails("alice").len() == 1);
    assert_eq!(counted(postfix.mails("alice"), &large), [1]);
}

/// What Dovecot and Postfix do not offer, Mailrace does: BINARYMIME in chunks, and SMTPUTF8.
#[test]
fn mailrace_takes_binary_and_internationalized_mail() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let to = |number, rcpt_to: &str, data: &[u8]| record(number, &[rcpt_to], data.to_vec());
    let utf8 = "Subject: Grüße\r\n\r\n.\r\n..\r\nä\r\n".as_bytes();
    let records = [
        Record { body_type: 2, ..to(1, "b@d.test", b"S: x\r\n\r\n\0\n.\r\n.\n\r.\xff") },
        Record { smtputf8: true, mail_from: "ä@s.test".to_owned(), ..to(2, "ü@d.test", utf8) },
        Record { mail_from: String::new(), body_type: 0, ..to(3, "Postmaster", b"S: no end") },
    ];
    let sink = Relay::new(&options(server.smtp)).unwrap();
    let outcomes = run(sink.deliver(&records));
    assert_eq!(outcomes, vec![Outcome::Delivered; 3]);
    let cat = support::log_command(&server.dir, &["cat", "--json"]);
    let envelopes: Vec<serde_json::Value> =
        cat.split_inclusive(|o| *o == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(envelopes.len(), 3);
    let ends: [&[u8]; 3] = [b"", b"", b"\r\n"];
    for ((envelope, record), end) in envelopes.iter().zip(&records).zip(ends) {
        let stored = server.get(envelope["id"].as_str().unwrap());
        let front = format!(
            "X-Mailrace-Id: {}\r\nReceived: from mx.example ([192.0.2.10])\r\n\tby relay.test with ",
            record.id
        );
        assert!(stored.starts_with(front.as_bytes()), "{}", String::from_utf8_lossy(&stored));
        let from = memchr::memmem::find(&stored, b" +0000\r\n").unwrap() + 8;
        assert!(stored[from..] == [&record.data, end].concat(), "{envelope}");
        assert_eq!(envelope["mail_from"], record.mail_from);
        assert_eq!(envelope["rcpt_to"][0], record.rcpt_to[0]);
        assert_eq!(envelope["smtputf8"], record.smtputf8);
        assert_eq!(envelope["body"], record.metadata().body());
        assert_eq!(envelope["helo"], "relay.test");
    }
}

/// Parameters of DSN, for so many forward-paths.
fn dsn(recipients: usize) -> Facts {
    let params = |n| format!("NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2B{n}@o.test");
    Facts {
        ret: 2,
        envid: "id=1 +".to_owned(),
        rcpt_params: (0..recipients).map(params).collect::<Vec<_>>().join("\n"),
        ..Facts::default()
    }
}

/// RFC 3461 §5.2.1: Postfix takes the parameters, and Mailrace has what was sent.
#[test]
fn dsn_parameters_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(&dir.path().join("data")).set("server.shards=1");
    let server = launch.set("listener.0.dsn=true").start();
    let asked = Record { facts: dsn(2), ..record(1, &["alice@d.test", "bob@d.test"], message(1)) };
    let sink = Relay::new(&options(server.smtp)).unwrap();
    assert_eq!(run(once(&sink, &asked)), Outcome::Delivered);
    let cat = support::log_command(&server.dir, &["cat", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&cat).unwrap();
    assert_eq!((&told["ret"], &told["envid"]), (&"HDRS".into(), &"id=1 +".into()));
    let params = [0, 1].map(|n| format!("NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2B{n}@o.test"));
    assert_eq!(told["rcpt_params"], serde_json::json!(params));
    if postfix::available() {
        let postfix = Postfix::start(None, None);
        let sink = Relay::new(&options(postfix.smtp)).unwrap();
        assert_eq!(run(once(&sink, &asked)), Outcome::Delivered);
    }
}

/// RFC 8689 §4.2.1: who offers no REQUIRETLS under TLS does not get such a mail; it is dead.
#[test]
fn requiretls_is_no_wish() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let facts = Facts { require_tls: true, ..Facts::default() };
    let strict = Record { facts, ..record(1, &["alice@d.test"], message(1)) };
    let sink = Relay::new(&options(server.smtp)).unwrap();
    let outcome = run(once(&sink, &strict));
    let (class, text) = refused(&outcome);
    assert_eq!(class, ErrorClass::Refused);
    assert!(text.contains("5.7.30 the mail needs TLS (REQUIRETLS)"), "{text}");
    assert_eq!(support::verified(&server.dir), 0);
}

/// smtp-sink's options, and what becomes of a message then.
#[test]
fn smtp_sink_refuses_and_breaks_off() {
    if !has("smtp-sink") {
        return;
    }
    let mut plain = record(1, &["a@d.test", "b@d.test"], message(1).replace(['ü', 'ß'], "?"));
    plain.data = Bytes::from(String::from_utf8_lossy(&plain.data).replace("日本語", "?"));
    let eight = record(2, &["a@d.test"], message(2));
    let ok = "delivered";
    for (sink_options, protocol, mail, expected) in [
        (&[][..], "smtp", &plain, ok),
        (&["-p"], "smtp", &plain, ok),
        (&["-e"], "smtp", &plain, ok),
        (&["-L"], "lmtp", &plain, ok),
        (&["-L", "-p"], "lmtp", &eight, ok),
        (&["-8"], "smtp", &plain, ok),
        (&["-8"], "smtp", &eight, "refused refused 8-bit mail; the server offers no 8BITMIME"),
        (&["-e"], "smtp", &eight, "refused refused 8-bit mail; the server offers no 8BITMIME"),
        (&["-r", "MAIL"], "smtp", &plain, "retry throttled <a@d.test>: 450"),
        (&["-r", "RCPT"], "smtp", &plain, "retry throttled <a@d.test>: 450"),
        (&["-r", "DATA"], "smtp", &plain, "retry throttled <a@d.test>: 450"),
        (&["-r", "."], "smtp", &plain, "retry throttled <a@d.test>: 450"),
        (&["-L", "-r", "."], "lmtp", &plain, "retry throttled <a@d.test>: 450"),
        (&["-f", "MAIL"], "smtp", &plain, "refused refused <a@d.test>: 500"),
        (&["-f", "RCPT"], "smtp", &plain, "refused refused <a@d.test>: 500"),
        (&["-f", "DATA"], "smtp", &plain, "refused refused <a@d.test>: 500"),
        (&["-f", "."], "smtp", &plain, "refused refused <a@d.test>: 500"),
        (&["-L", "-f", "."], "lmtp", &plain, "refused refused <a@d.test>: 500"),
        (&["-q", "CONNECT"], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-q", "EHLO"], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-q", "MAIL"], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-q", "RCPT"], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-q", "DATA"], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-q", "."], "smtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-L", "-q", "."], "lmtp", &plain, "retry connect <a@d.test>: connection lost"),
        (&["-Q", "MAIL"], "smtp", &plain, "retry throttled <a@d.test>: 421"),
        (&["-Q", "RCPT"], "smtp", &plain, "retry throttled <a@d.test>: 421"),
        (&["-Q", "."], "smtp", &plain, "retry throttled <a@d.test>: 421"),
    ] {
        let server = SmtpSink::start(sink_options);
        let options = match protocol {
            "lmtp" => lmtp(server.address),
            _ => options(server.address),
        };
        let sink = Relay::new(&options).unwrap();
        let outcome = run(async { once(&sink, mail).await });
        let told = match outcome {
            Outcome::Delivered => ok.to_owned(),
            Outcome::Retry(error) => format!("retry {} {}", error.class.name(), error.text),
            Outcome::Refused(error) => format!("refused {} {}", error.class.name(), error.text),
        };
        assert!(told.starts_with(expected), "{sink_options:?}: {told}, not {expected}");
    }
}

/// RFC 5321 §4.5.3.1.8: more than a hundred recipients go in several transactions.
#[test]
fn a_thousand_recipients() {
    if !has("smtp-sink") {
        return;
    }
    let server = SmtpSink::start(&[]);
    let mut record = record(1, &[], message(1));
    record.rcpt_to = (0..1_000).map(|n| format!("{}{n}@d.test", "x".repeat(50))).collect();
    let sink = Relay::new(&options(server.address)).unwrap();
    assert_eq!(run(async { once(&sink, &record).await }), Outcome::Delivered);
}

/// A server of our own: `serve` gets each connection with its number.
fn fake(serve: impl Fn(usize, &mut Peer) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut peer = Peer(BufReader::new(stream.unwrap()));
            serve(number, &mut peer);
        }
    });
    address
}

struct Peer(BufReader<TcpStream>);

impl Peer {
    /// Errors are the client's business here.
    fn say(&mut self, text: &str) -> bool {
        self.0.get_mut().write_all(text.as_bytes()).is_ok()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line.trim_end().to_owned()
    }

    /// Plays a well-behaved server up to 354 and takes the mail data. Says whom it was for.
    fn take_mail(&mut self) -> Vec<String> {
        let mut recipients = Vec::new();
        loop {
            let line = self.line();
            match line.get(..4).unwrap_or_default() {
                "RCPT" => recipients.push(line),
                "DATA" => break,
                "" => return recipients,
                _ => {}
            }
            self.say("250 ok\r\n");
        }
        self.say("354 go\r\n");
        while !matches!(self.line().as_str(), "." | "") {}
        recipients
    }
}

/// RFC 2033 §4.2: who has had a reply is not sent to again, though the connection broke.
#[test]
fn a_connection_lost_between_two_replies() {
    let (told, heard) = mpsc::channel();
    let address = fake(move |number, peer| {
        peer.say("220 fake\r\n");
        let recipients = peer.take_mail();
        told.send(recipients).unwrap();
        peer.say(if number == 0 { "250 saved\r\n" } else { "250 saved\r\n250 saved\r\n" });
    });
    let record = record(1, &["a@d.test", "b@d.test", "c@d.test"], "S: x\r\n\r\nx y\r\n");
    let sink = Relay::new(&lmtp(address)).unwrap();
    run(async {
        let outcome = once(&sink, &record).await;
        let (class, text) = retry(&outcome);
        assert_eq!(class, ErrorClass::Connect);
        assert!(text.starts_with("<b@d.test>: connection lost"), "{text}");
        assert_eq!(once(&sink, &record).await, Outcome::Delivered);
        // A replay begins anew.
        let replay = Record { replay: true, ..record.clone() };
        retry(&once(&sink, &replay).await);
    });
    let to = |users: &[&str]| users.iter().map(|u| format!("RCPT TO:<{u}@d.test>")).collect();
    let expected: [Vec<String>; 3] = [to(&["a", "b", "c"]), to(&["b", "c"]), to(&["a", "b", "c"])];
    assert_eq!(heard.iter().take(3).collect::<Vec<_>>(), expected);
}

/// A dropped future leaves what it had settled.
#[test]
fn an_attempt_that_is_given_up() {
    let (told, heard) = mpsc::channel();
    let address = fake(move |number, peer| {
        peer.say("220 fake\r\n");
        let recipients = peer.take_mail();
        told.send(recipients).unwrap();
        peer.say("250 saved\r\n");
        if number == 0 {
            // The second message is taken and never answered.
            told.send(peer.take_mail()).unwrap();
            peer.line();
        }
    });
    let records = [record(1, &["a@d.test"], "S: 1\r\n"), record(2, &["b@d.test"], "S: 2\r\n")];
    let sink = Relay::new(&options(address)).unwrap();
    run(async {
        let given_up = tokio::time::timeout(Duration::from_millis(500), sink.deliver(&records));
        given_up.await.unwrap_err();
        let outcomes = sink.deliver(&records).await;
        assert_eq!(outcomes, [Outcome::Delivered, Outcome::Delivered]);
    });
    let to: Vec<Vec<String>> = heard.iter().take(3).collect();
    let (a, b) = ("RCPT TO:<a@d.test>".to_owned(), "RCPT TO:<b@d.test>".to_owned());
    assert_eq!(to, [vec![a], vec![b.clone()], vec![b]]);
}

/// A server may end an idle session at any time; that is no failed attempt. One that stays open is
/// used again, and ends with QUIT.
#[test]
fn idle_connections_are_used_again_and_closed() {
    let (told, heard) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    let address = fake(move |number, peer| {
        told.send(format!("connection {number}")).unwrap();
        peer.say("220 fake\r\n");
        peer.take_mail();
        peer.say("250 saved\r\n");
        if number == 0 {
            // Once the client has put the connection away.
            ended.recv().unwrap();
            peer.say("421 idle\r\n");
            peer.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
            told.send("idle".to_owned()).unwrap();
            return;
        }
        peer.take_mail();
        peer.say("250 saved\r\n");
        told.send(peer.line()).unwrap();
        peer.say("221 bye\r\n");
    });
    let next = || heard.recv_timeout(PATIENCE).unwrap();
    run(async {
        let sink = Relay::new(&options(address)).unwrap();
        let records: Vec<_> =
            (0..3).map(|number| record(number, &["a@d.test"], "S: x\r\n")).collect();
        assert_eq!(once(&sink, &records[0]).await, Outcome::Delivered);
        assert_eq!(next(), "connection 0");
        end.send(()).unwrap();
        assert_eq!(next(), "idle");
        assert_eq!(once(&sink, &records[1]).await, Outcome::Delivered);
        assert_eq!(next(), "connection 1");
        assert_eq!(once(&sink, &records[2]).await, Outcome::Delivered);
        drop(sink);
        // The goodbye is a task of this runtime.
        while let Err(mpsc::TryRecvError::Empty) = heard.try_recv().map(|line| {
            assert_eq!(line, "QUIT");
        }) {
            tokio::task::yield_now().await;
        }
    });
}

/// Whatever comes, an attempt ends soon, with a retry and a bounded amount read.
#[test]
fn hostile_servers() {
    fn endless(peer: &mut Peer, text: &str) {
        while peer.say(text) {}
    }
    let record = record(1, &["a@d.test"], "S: x\r\n");
    type Serve = fn(usize, &mut Peer);
    let cases: [(Serve, &str); 7] = [
        (|_, peer| endless(peer, "220-hello\r\n"), "reply of more than 65,536 bytes"),
        (|_, peer| endless(peer, "220 hello "), "reply line of more than 2,048 bytes"),
        (|_, peer| endless(peer, "\0\x01\x02\r\n"), "not an SMTP reply"),
        (|_, peer| _ = peer.say("SSH-2.0-OpenSSH_9.2\r\n"), "not an SMTP reply"),
        (|_, peer| _ = peer.say("220-hello\r\n221 hello\r\n"), "several codes"),
        (
            |_, peer| {
                peer.say("220 fake\r\n");
                peer.line();
                endless(peer, "250-X\r\n");
            },
            "reply of more than 65,536 bytes",
        ),
        (
            |_, peer| {
                peer.say("220 fake\r\n");
                peer.take_mail();
                endless(peer, "250-saved\r\n");
            },
            "reply of more than 65,536 bytes",
        ),
    ];
    for (serve, expected) in cases {
        let sink = Relay::new(&options(fake(serve))).unwrap();
        let began = Instant::now();
        let outcome = run(async { once(&sink, &record).await });
        let (_, text) = retry(&outcome);
        assert!(text.contains(expected), "{text}, not {expected}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    // Nobody there at all: the batch ends with the first.
    let nowhere = ports::free_address();
    let sink = Relay::new(&options(nowhere)).unwrap();
    let outcomes = run(async { sink.deliver(&records(100, &["a@d.test"])).await });
    for outcome in &outcomes {
        assert_eq!(retry(outcome).0, ErrorClass::Connect);
    }
    let missing = Relay::new(&lmtp("/nonexistent/lmtp.sock")).unwrap();
    let error = run(async { missing.check().await.unwrap_err() });
    assert_eq!(error.class, ErrorClass::Connect);
    assert!(error.text.starts_with("/nonexistent/lmtp.sock: "), "{error}");
}
