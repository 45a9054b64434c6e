//! What the server says on stderr: a line for each session and each refusal, in text and JSON, by
//! which a filter such as fail2ban's can act; and a stderr that nobody reads stops no mail.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use regex::Regex;

use crate::support::{self, Client, Launch, Server, eventually};

const LIMIT: Duration = Duration::from_secs(20);

fn launch(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("listener.0.accept.domains=example.com")
}

/// The first line that a pattern finds.
#[track_caller]
fn line(server: &Server, pattern: &str) -> String {
    let pattern = Regex::new(pattern).unwrap();
    let mut found = None;
    eventually(pattern.as_str(), LIMIT, || {
        found = server.errors().lines().find(|line| pattern.is_match(line)).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// One message, then a recipient of others.
fn visit(server: &Server) {
    let mut client = server.client();
    client.say("EHLO mx.sender.example");
    client.say("MAIL FROM:<alice@sender.example>");
    client.say("RCPT TO:<bob@example.com>");
    assert!(client.say("DATA").starts_with("354"));
    client.send(b"Subject: s\r\n\r\nbody\r\n.\r\n");
    assert!(client.reply().starts_with("250"));
    client.say("MAIL FROM:<alice@sender.example>");
    assert!(client.say("RCPT TO:<\"x\\\" client=192.0.2.9\"@else.example>").starts_with("55"));
    client.say("QUIT");
}

#[test]
fn sessions_and_refusals_are_lines_of_text() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    visit(&server);
    // As a filter of fail2ban would have it, with <HOST> as an address.
    let refused = line(
        &server,
        r"^\S+ INFO  refused client=(?P<host>[0-9a-fA-F.:]+) port=\d+ listener=\S+ stage=rcpt code=55\d ",
    );
    assert!(refused.contains(" client=127.0.0.1 "), "{refused}");
    assert!(refused.contains("from=alice@sender.example"), "{refused}");
    // What a client sends is quoted: it makes no field of its own.
    assert!(refused.contains(r#"\" client=192.0.2.9"#), "{refused}");
    let session = line(&server, "^\\S+ INFO  session ended client=127.0.0.1 port=\\d+ listener=");
    for field in ["helo=mx.sender.example", " messages=1 recipients=1 bytes=", " closed=quit"] {
        assert!(session.contains(field), "{field}: {session}");
    }
    for word in ["started ", "recovered "] {
        line(&server, &format!("^\\S+ INFO  {word}"));
    }
    let mut server = server;
    support::signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(LIMIT), Some(0));
    line(&server, "INFO  draining");
    line(&server, r"INFO  stopped seconds=\d");
    assert!(!server.errors().contains("body"), "no content");
}

#[test]
fn the_same_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("server.log_format=auto").start();
    visit(&server);
    let refused = line(
        &server,
        r#""message":"refused","client":"(?P<host>[0-9a-fA-F.:]+)","port":\d+,"listener":"[^"]+","stage":"rcpt","code":55\d,"#,
    );
    let refused: serde_json::Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused["client"], "127.0.0.1");
    assert_eq!(refused["to"], "\"x\\\" client=192.0.2.9\"@else.example");
    let session = line(&server, r#""message":"session ended""#);
    let session: serde_json::Value = serde_json::from_str(&session).unwrap();
    assert_eq!(session["messages"], 1);
    assert_eq!(session["closed"], "quit");
    for line in server.stop_and_read().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// BAD-INPUTS A9.
#[test]
fn other_protocols_on_the_port_are_a_line_each() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    let mut web = server.client();
    web.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    web.rest();
    let web = line(&server, r"INFO  refused client=127\.0\.0\.1 .*web server");
    assert!(web.contains("code=421"), "{web}");
    let mut tls = server.client();
    tls.send(&[0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00]);
    tls.rest();
    line(&server, r"INFO  refused client=127\.0\.0\.1 .*TLS handshake");
}

#[test]
fn a_level_silences() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("server.log_level=error").start();
    visit(&server);
    assert_eq!(server.stop_and_read(), "");
}

/// RUST_LOG wins over the key, both ways.
#[test]
fn the_variable_wins_over_the_key() {
    for (key, variable, starts) in [("info", "error", false), ("error", "info", true)] {
        let dir = tempfile::tempdir().unwrap();
        let launch = launch(dir.path()).set(&format!("server.log_level={key}"));
        let said = launch.variable("RUST_LOG", variable).start().stop_and_read();
        assert_eq!(said.contains("INFO  started"), starts, "{key} {variable}: {said}");
    }
}

#[test]
fn a_stderr_that_nobody_reads_stops_no_mail() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(dir.path()).set("limits.exempt=127.0.0.0/8");
    let mut command = launch.command("serve");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = |word: &str| loop {
        let line = out.next().unwrap().unwrap();
        let mut words = line.split_whitespace();
        if words.next() == Some(word) {
            let url = words.next().unwrap().trim_start_matches("http://");
            break url.trim_end_matches('/').parse::<std::net::SocketAddr>().unwrap();
        }
    };
    let (smtp, admin) = (address("smtp"), address("admin"));
    let dropped = || {
        let mut stream = std::net::TcpStream::connect(admin).unwrap();
        let wish = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, wish).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        let name = "mailrace_server_log_lines_dropped_total ";
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.parse::<f64>().unwrap()
    };
    assert_eq!(dropped() as u64, 0);
    // 64 KiB of a pipe and a queue of 8,192 lines, then lines are lost; sessions with mail have a
    // budget of 1,000 lines a second.
    let mut sent = 0;
    eventually("lines are dropped", Duration::from_secs(120), || {
        for _ in 0..200 {
            let mut client = Client::connect(smtp);
            client.send(b"EHLO x.example\r\n");
            client.reply();
            client
                .send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\nBDAT 4 LAST\r\na:\r\nQUIT\r\n");
            let replies = String::from_utf8(client.rest()).unwrap();
            assert!(replies.contains("250 2.0.0 Ok: queued as"), "{replies}");
            sent += 1;
        }
        dropped() > 0.0
    });
    assert!(sent > 0);
    support::signal(&child, libc::SIGTERM);
    assert_eq!(support::ended(&mut child, LIMIT), Some(0));
}
