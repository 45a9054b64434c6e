//! What a listener asks of clients before it takes their mail, over sockets: whose mail it is, the
//! wait before the greeting, and what the DNS says.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Launch, Server, eventually, id_of, log_envelope, servers::unbound::Unbound, signal,
};

/// A server with one shard that spares nobody.
fn launch(dir: &Path) -> Launch {
    Launch::new(&dir.join("data"))
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=")
}

/// RFC 5321 §3.3, §4.5.1; PROTOCOL §2.
#[test]
fn recipients_are_ours_or_refused_at_rcpt() {
    let dir = tempfile::tempdir().unwrap();
    let recipients = dir.path().join("recipients");
    fs::write(&recipients, "# ours\nbob@example.com\n@whole.example\n").unwrap();
    let server = launch(dir.path())
        .set("listener.0.accept.domains=example.com,*.example.org")
        .set(&format!("listener.0.accept.recipients_file={}", recipients.display()))
        .start();
    assert!(server.greeting.contains("mail for 3 domains, 2 recipients"), "{}", server.greeting);
    let mut client = server.client();
    client.ehlo();
    client.dialogue(&[
        ("MAIL FROM:<a@client.test>", "250"),
        ("RCPT TO:<Bob+tag@EXAMPLE.com>", "250 2.1.5"),
        ("RCPT TO:<eve@example.com>", "550 5.1.1"),
        ("RCPT TO:<eve@x.example.org>", "550 5.1.1"),
        ("RCPT TO:<bob@elsewhere.example>", "550 5.7.1"),
        ("RCPT TO:<bob%elsewhere.example@example.com>", "550 5.1.1"),
        ("RCPT TO:<elsewhere.example!bob@[127.0.0.1]>", "550 5.7.1"),
        ("RCPT TO:<@example.com:bob@elsewhere.example>", "550 5.7.1"),
        ("RCPT TO:<any@whole.example>", "250 2.1.5"),
        ("RCPT TO:<Postmaster>", "250 2.1.5"),
        ("RCPT TO:<postmaster@x.example.org>", "250 2.1.5"),
        ("DATA", "354"),
        ("hi\r\n.", "250"),
    ]);
    let refused =
        server.metric("mailrace_smtp_messages_rejected_total", &["class=\"5xx\"", "\"policy\""]);
    assert_eq!(refused as u64, 6);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_mistake_in_a_file_is_found_before_the_server_starts() {
    let dir = tempfile::tempdir().unwrap();
    let recipients = dir.path().join("recipients");
    fs::write(&recipients, "bob@example.com\n\nnobody\n").unwrap();
    let launch = launch(dir.path())
        .set(&format!("listener.0.accept.recipients_file={}", recipients.display()));
    let wanted = format!(
        "listener.0.accept.recipients_file (--set): {}:3: \"nobody\" is not a mailbox",
        recipients.display()
    );
    let checked = launch.command("check").output().unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(told.contains(&wanted), "{told} is not {wanted}");
    let Err(failure) = launch.try_start() else { panic!("it starts") };
    assert!(failure.errors.contains(&wanted), "{failure}");
    assert_eq!((failure.code, checked.status.code()), (Some(78), Some(78)));
}

/// The time from the connect to the greeting.
#[track_caller]
fn greeted_after(client: &mut Client, began: Instant) -> Duration {
    let greeting = client.reply();
    assert!(greeting.starts_with("220 "), "{greeting}");
    began.elapsed()
}

#[test]
fn the_greeting_comes_after_the_delay_and_early_octets_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("listener.0.greet_delay=400ms").start();
    let began = Instant::now();
    let mut silent = Client::open(server.smtp);
    // More than is kept for an early talker; all of it is served in the end.
    let mut early = Client::open(server.smtp);
    assert!(early.send(b"EHLO a\r\n"));
    let mut flood = Client::open(server.smtp);
    let noops = 40_000;
    let mut writer = flood.stream.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &b"RSET\r\n".repeat(noops))
    });
    let gone = Client::open(server.smtp);
    gone.reset();
    // Half a close behind a whole dialogue.
    let mut half = Client::open(server.smtp);
    assert!(half.send(b"HELO a\r\nQUIT\r\n"));
    half.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();

    let waited = greeted_after(&mut silent, began);
    assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(5), "{waited:?}");
    assert!(greeted_after(&mut early, began) >= Duration::from_millis(400));
    assert!(early.reply().starts_with("250-"));
    greeted_after(&mut flood, began);
    let answers = (0..noops).map_while(|_| flood.try_reply());
    // More than 100 commands without a message end a session: it was served as ever.
    assert_eq!(answers.filter(|answer| answer.starts_with("250 ")).count(), 101);
    let _ = writing.join();
    greeted_after(&mut half, began);
    assert_eq!(half.reply().get(..4), Some("250 "));
    assert_eq!(half.reply().get(..4), Some("221 "));
    assert_eq!(server.stop(), Some(0));
}

/// BAD-INPUTS A21.
#[test]
fn a21_who_talks_before_the_greeting_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let checks = launch(dir.path()).set("listener.0.greet_check=true");
    let server = Launch::start(&checks.set("listener.0.greet_delay=20s"));
    let mut early = Client::open(server.smtp);
    assert!(early.send(b"EHLO a\r\n"));
    let began = Instant::now();
    assert!(early.reply().starts_with("554 5.5.0 "));
    assert_eq!(early.rest(), b"");
    assert!(began.elapsed() < Duration::from_secs(10), "at once, not after the delay");
    let errors = server.metric("mailrace_smtp_protocol_errors_total", &["reason=\"early_talker\""]);
    assert_eq!(errors as u64, 1);
    // A drain does not wait for those who wait.
    let mut waiting = Client::open(server.smtp);
    eventually("it is accepted", Duration::from_secs(10), || {
        server.metric("mailrace_smtp_connections_total", &[]) as u64 == 2
    });
    signal(&server.child, libc::SIGTERM);
    assert!(waiting.reply().starts_with("421 4.3.2 "));
}

/// Without a delay too: what is there at the accept came before the greeting.
#[test]
fn a21_octets_that_are_there_at_the_accept_are_early() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("listener.0.greet_check=true").start();
    // Stopped, so that it accepts when the octets are there.
    signal(&server.child, libc::SIGSTOP);
    let stopped = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
        let stats =
            tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        stats.into_iter().all(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
    };
    eventually("it stands still", Duration::from_secs(10), stopped);
    let mut early = Client::open(server.smtp);
    assert!(early.send(b"EHLO a\r\n"));
    let mut patient = Client::open(server.smtp);
    signal(&server.child, libc::SIGCONT);
    assert!(early.reply().starts_with("554 5.5.0 "));
    assert_eq!(early.rest(), b"");
    assert!(patient.reply().starts_with("220 "));
    patient.ehlo();
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn exempt_peers_wait_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path())
        .set("limits.exempt=127.0.0.1/32")
        .set("listener.0.greet_delay=30s")
        .set("listener.0.greet_check=true")
        .start();
    let began = Instant::now();
    let mut exempt = Client::open(server.smtp);
    assert!(greeted_after(&mut exempt, began) < Duration::from_secs(10));
    exempt.ehlo();
    // The other one waits still.
    let mut other = Client::open_from(server.smtp, 2);
    assert!(other.send(b"QUIT\r\n"));
    assert!(other.reply().starts_with("554 5.5.0 "));
}

const ZONES: &str = r#"
    local-zone: "bl.test." static
    local-data: "2.2.0.192.bl.test. 300 IN A 127.0.0.2"
    local-zone: "wl.test." static
    local-zone: "in-addr.arpa." static
    local-zone: "192.in-addr.arpa." static
    local-data: "2.2.0.192.in-addr.arpa. 300 IN PTR listed.test."
    local-data: "3.2.0.192.in-addr.arpa. 300 IN PTR mx.test."
    local-data: "4.2.0.192.in-addr.arpa. 300 IN PTR mx.test."
    local-data: "listed.test. 300 IN A 192.0.2.2"
    local-data: "mx.test. 300 IN A 192.0.2.3"
"#;

fn asking(dir: &Path, dns: SocketAddr) -> Launch {
    launch(dir)
        .set(&format!("server.dns.servers={dns}"))
        .set("listener.0.dns.lists=bl.test=5,wl.test=-3")
        .set("listener.0.dns.reject_at=5")
        .set("listener.0.dns.reverse=true")
        .set("listener.0.proxy_protocol.mode=required")
        .set("listener.0.proxy_protocol.trusted=127.0.0.0/8")
        .set("listener.0.accept.domains=*")
}

/// Connects as a proxy does for 192.0.2.`last`: the resolver knows all names of 127.0.0.0/8 by
/// itself.
fn open_for(server: SocketAddr, last: u8) -> Client {
    let mut client = Client::open(server);
    client.send(format!("PROXY TCP4 192.0.2.{last} 127.0.0.1 4321 25\r\n").as_bytes());
    client
}

#[track_caller]
fn recorded(server: &Server, client: &mut Client, recipient: &str) -> (String, i64) {
    client.dialogue(&[
        ("MAIL FROM:<a@client.test>", "250"),
        (&format!("RCPT TO:<{recipient}>"), "250 2.1.5"),
        ("DATA", "354"),
    ]);
    let envelope = log_envelope(&server.dir, &id_of(&client.say("hi\r\n.")));
    let score = envelope["list_score"].as_i64().expect("a number");
    (envelope["rdns"].as_str().unwrap_or_default().to_owned(), score)
}

#[test]
fn listed_clients_are_refused_at_rcpt_and_the_record_keeps_what_was_found() {
    let Some(dns) = Unbound::start(ZONES) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = asking(dir.path(), dns.address).set("listener.0.dns.deadline=20s").start();
    let mut listed = open_for(server.smtp, 2);
    assert!(listed.reply().starts_with("220 "), "it is greeted like anybody");
    listed.ehlo();
    let refusal = "554 5.7.1 Service unavailable; client listed by bl.test\r\n";
    listed.dialogue(&[
        ("MAIL FROM:<>", "250"),
        ("RCPT TO:<b@server.test>", refusal),
        ("RSET", "250"),
    ]);
    let found = recorded(&server, &mut listed, "postmaster");
    assert_eq!(found, ("listed.test".to_owned(), 5));
    // The list's hit and the refusal, each with the client that the proxy named.
    server.says("on a DNS list client=192.0.2.2 ");
    server.says(" list=bl.test");
    server.says("refused client=192.0.2.2 ");
    for (last, name) in [(3, "mx.test"), (4, "")] {
        let mut client = open_for(server.smtp, last);
        assert!(client.reply().starts_with("220 "));
        client.ehlo();
        let found = recorded(&server, &mut client, "b@server.test");
        assert_eq!(found, (name.to_owned(), 0), "192.0.2.{last}");
    }
    let name = "mailrace_policy_dns_queries_total";
    assert_eq!(server.metric(name, &["result=\"ok\""]) as u64, 6);
    assert_eq!(server.metric(name, &["result=\"nxdomain\""]) as u64, 5);
    assert_eq!(server.metric(name, &["result=\"servfail\""]) as u64, 0);
    let took = server.metric("mailrace_policy_dns_query_duration_seconds_count", &[]);
    assert_eq!(took as u64, 11);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn without_an_answer_the_greeting_comes_at_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = asking(dir.path(), silent.local_addr().unwrap())
        .set("listener.0.dns.deadline=300ms")
        .start();
    for result in ["ok", "nxdomain", "timeout", "servfail", "shed"] {
        let (_, text) = server.page("/metrics");
        let series = format!("mailrace_policy_dns_queries_total{{result=\"{result}\"}} 0\n");
        assert!(text.contains(&series), "{series}");
    }
    // One is gone before the answer: nobody notices.
    open_for(server.smtp, 9).reset();
    let began = Instant::now();
    let mut client = open_for(server.smtp, 2);
    let waited = greeted_after(&mut client, began);
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(5), "{waited:?}");
    client.ehlo();
    let found = recorded(&server, &mut client, "b@server.test");
    assert_eq!(found, (String::new(), 0));
    eventually("the queries are counted", Duration::from_secs(20), || {
        server.metric("mailrace_policy_dns_queries_total", &["\"timeout\""]) as u64 >= 3
    });
    assert_eq!(server.stop(), Some(0));
}

/// Nobody's mail is taken: nothing has failed, and still each message is refused. Said in the log
/// and by /readyz until somebody is there.
#[test]
fn a_listener_that_refuses_everybody_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let recipients = dir.path().join("recipients");
    fs::write(&recipients, "# nobody yet\n").unwrap();
    let server = launch(dir.path())
        .set("listener.0.accept.domains=example.com")
        .set(&format!("listener.0.accept.recipients_file={}", recipients.display()))
        .start();
    let line = "listener smtp: its accept table lists no recipients";
    let (status, ready) = server.page("/readyz");
    assert!(status == 503 && ready.contains(line), "{status} {ready}");
    server.says(line);
    fs::write(&recipients, "bob@example.com\n").unwrap();
    eventually("it is ready", Duration::from_secs(30), || server.page("/readyz").0 == 200);
    fs::write(&recipients, "").unwrap();
    signal(&server.child, libc::SIGHUP);
    eventually("it is not", Duration::from_secs(10), || server.page("/readyz").0 == 503);
}

#[test]
fn memory_that_holds_no_message_of_a_shard_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(&dir.path().join("data"))
        .set("server.shards=4")
        .set("log.segment_size=1MiB")
        .set("limits.message_size=1MiB")
        .set("limits.inflight_bytes=1MiB")
        .start();
    let line = "limits.inflight_bytes leaves each of 4 shards 256KiB, and 512KiB are needed";
    let (status, ready) = server.page("/readyz");
    assert!(status == 503 && ready.contains(line), "{status} {ready}");
    server.says(line);
    assert_eq!(server.stop(), Some(0));
}

/// C7, C7a, C34: what real senders say beyond the grammar is taken, counted and recorded as it was
/// given; a strict listener refuses it.
#[test]
fn names_outside_the_grammar_are_taken_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        launch(dir.path()).set("listener.0.accept.domains=example.com,db_1.example").start();
    let long = format!("{}@example.com", "l".repeat(200));
    let mut client = server.client();
    client.dialogue(&[
        ("EHLO my pc", "250"),
        ("MAIL FROM:<root@db_1.example.org>", "250"),
        ("RCPT TO:<a..b@example.com.>", "250"),
        ("RCPT TO:<root@db_1.example>", "250"),
        (&format!("RCPT TO:<{long}>"), "250"),
        ("RCPT TO:<a@example.org.>", "550 5.7.1"),
        ("DATA", "354"),
    ]);
    let id = id_of(&client.say("hi\r\n."));
    let counted = |server: &Server, kind: &str| {
        let label = format!("kind=\"{kind}\"");
        server.metric("mailrace_smtp_lenient_arguments_total", &[&label]) as u64
    };
    let kinds = ["long", "dots", "underscore", "final_dot", "helo"];
    eventually("the counters", Duration::from_secs(10), || {
        kinds.map(|kind| counted(&server, kind)) == [1, 1, 2, 2, 1]
    });
    assert_eq!(server.stop(), Some(0));
    let envelope = log_envelope(&dir.path().join("data"), &id);
    assert_eq!(envelope["helo"], "my pc", "{envelope}");
    let text = envelope.to_string();
    let paths = ["root@db_1.example.org", "a..b@example.com.", "root@db_1.example", &long];
    for path in paths {
        assert!(text.contains(&format!("\"{path}\"")), "{path}: {text}");
    }

    let strict = launch(&dir.path().join("strict"))
        .set("listener.0.paths=strict")
        .set("listener.0.helo=strict")
        .start();
    let mut client = strict.client();
    client.dialogue(&[
        ("EHLO my pc", "501"),
        ("EHLO pc.example", "250"),
        ("MAIL FROM:<a..b@c.example>", "501 5.1.7"),
        ("MAIL FROM:<a@c_1.example>", "501 5.1.7"),
        ("MAIL FROM:<a@c.example>", "250"),
        ("RCPT TO:<a@c.example.>", "501 5.1.3"),
    ]);
    let refused = || strict.metric("mailrace_smtp_replies_total", &["code=\"501\""]) as u64;
    eventually("four refusals", Duration::from_secs(10), || refused() == 4);
    assert_eq!(kinds.map(|kind| counted(&strict, kind)), [0; 5], "not taken, not counted");
    assert_eq!(strict.stop(), Some(0));
}
