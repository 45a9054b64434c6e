//! What sessions count: commands, replies, errors, messages, TLS, AUTH.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Move, Moves, Scrape, moved};

use crate::support::{
    Client, Launch, MAILRACE, Server, body, id_of,
    servers::{
        certificates::Authority,
        secure,
        secure::{Case, TlsClient},
    },
};

pub const MOVES: Moves = &[
    ("smtp_connections_total", "", &[]),
    ("smtp_sessions_active", "", &[]),
    ("smtp_sessions_closed_total", "reason", &["quit", "client_gone", "timeout", "error_limit"]),
    ("smtp_session_duration_seconds", "", &[]),
    (
        "smtp_commands_total",
        "command",
        &[
            "ehlo", "helo", "lhlo", "mail", "rcpt", "data", "bdat", "rset", "noop", "quit", "vrfy",
            "help", "auth", "xclient", "xforward", "retired", "http", "other",
        ],
    ),
    (
        "smtp_replies_total",
        "code",
        &[
            "214", "220", "221", "250", "252", "354", "421", "452", "500", "501", "502", "503",
            "521", "523", "538", "550", "552", "553", "554", "555",
        ],
    ),
    (
        "smtp_protocol_errors_total",
        "reason",
        &["bare_lf", "line_too_long", "bad_sequence", "bad_syntax", "early_talker"],
    ),
    ("smtp_lenient_arguments_total", "kind", &["long", "dots", "underscore", "final_dot", "helo"]),
    ("smtp_messages_received_total", "", &[]),
    ("smtp_received_bytes_total", "", &[]),
    ("smtp_replies_undelivered_total", "", &[]),
    ("smtp_messages_rejected_total", "class", &["4xx", "5xx"]),
    ("smtp_messages_rejected_total", "reason", &["size", "recipients", "policy", "content"]),
    ("smtp_message_size_bytes", "", &[]),
    ("smtp_message_recipients", "", &[]),
    ("smtp_message_ack_duration_seconds", "", &[]),
    ("smtp_transaction_duration_seconds", "", &[]),
];

/// A server for everything that needs no TLS, though it offers it.
fn server(dir: &std::path::Path) -> Server {
    let path = |name: &str| dir.join(name).display().to_string();
    let authority = Authority::new();
    authority.issue(dir, "server");
    user_add(&path("users"));
    Launch::new(&dir.join("data"))
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.recipients=100")
        .set("limits.message_size=64KiB")
        .set("limits.errors.soft=1000")
        .set("limits.timeout.command=1s")
        .set(&format!("server.tls.cert_file={}", path("server.pem")))
        .set(&format!("server.tls.key_file={}", path("server.key")))
        .set("listener.0.tls_mode=starttls")
        .set("listener.0.auth.mechanisms=PLAIN")
        .set(&format!("listener.0.auth.users_file={}", path("users")))
        .set("listener.0.accept.domains=server.test")
        .set("listener.0.require_tls=true")
        .set("listener.0.greet_check=true")
        .start()
}

pub fn user_add(file: &str) {
    let mut child = std::process::Command::new(MAILRACE)
        .args(["user", "add", file, "tim"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"tanstaaf tanstaaf\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[track_caller]
fn dialogue(server: &Server, lines: &[(&str, &str)]) {
    server.client().dialogue(lines);
}

#[test]
fn sessions_count_what_is_said_and_how_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let before = Scrape::of(&server);
    dialogue(
        &server,
        &[
            ("HELP", "214"),
            ("MAIL FROM:<a@b.test>", "503"),
            ("HELO client.test", "250"),
            ("EHLO my pc", "250"),
            ("EHLO client.test", "250"),
            ("VRFY bob", "252"),
            ("NOOP", "250"),
            ("RSET", "250"),
            ("EXPN all", "502"),
            ("NONSENSE", "500"),
            ("LHLO client.test", "500"),
            ("XCLIENT NAME=x", "5"),
            ("XFORWARD NAME=x", "5"),
            ("AUTH PLAIN", "538"),
            ("MAIL FROM:a b", "501"),
            ("MAIL FROM:<a@b.test> FOO=1", "555"),
            ("MAIL FROM:<a@b.test> REQUIRETLS", "523"),
            ("MAIL FROM:<a@b.test> SIZE=99999999", "552"),
            ("MAIL FROM:<\u{e9}@b.test>", "553"),
            ("MAIL FROM:<a..b@b_1.test.>", "250"),
            ("RSET", "250"),
            (&format!("MAIL FROM:<{}@b.test>", "l".repeat(80)), "250"),
            ("RCPT TO:<x@elsewhere.test>", "550"),
            ("RCPT TO:<a..b@server.test.>", "250"),
            (&format!("RCPT TO:<{}@server.test>", "l".repeat(70)), "250"),
            ("RCPT TO:<x@else_where.test>", "550"),
            ("EHLO my pc", "250"),
            ("QUIT", "221"),
        ],
    );
    let mut client = server.client();
    client.ehlo();
    assert!(client.data(b"Subject: bare\n\r\n").starts_with("550"));
    assert!(client.say("MAIL FROM:<a@client.test>").starts_with("250"));
    for _ in 0..100 {
        assert!(client.say("RCPT TO:<b@server.test>").starts_with("250"));
    }
    assert!(client.say("RCPT TO:<b@server.test>").starts_with("452"));
    assert!(client.say("RSET").starts_with("250"));
    id_of(&client.data(&body(1, 500)));
    assert!(client.say("MAIL FROM:<a@client.test>").starts_with("250"));
    assert!(client.say("BDAT many").starts_with("521"));
    // Closed by the server: for a browser, for an early talker, for a line without end.
    let mut browser = server.client();
    browser.send(b"GET / HTTP/1.1\r\n\r\n");
    browser.rest();
    let mut early = Client::open(server.smtp);
    early.send(b"EHLO early\r\nEHLO early\r\n");
    early.rest();
    let mut early = server.client();
    early.send(b"EHLO early\r\nNOOP\r\nNOOP\r\n");
    early.rest();
    let mut bare = server.client();
    bare.send(b"NOOP\n");
    bare.reply();
    let mut long = server.client();
    long.send(&[b'x'; 5_000]);
    long.send(b"\r\n");
    long.reply();
    // Gone in the middle of a dialogue, and silent.
    server.client().reset();
    let mut silent = server.client();
    assert!(silent.reply().starts_with("421"));
    undelivered(&server);
    let held = server.client();
    moved(&server, &before, MOVES);
    drop(held);
}

/// Mail whose sender is gone before its 250 can be sent: it hangs up behind the last octet.
fn undelivered(server: &Server) {
    for seed in 0..200 {
        let mut client = server.client();
        client.ehlo();
        client.begin_data();
        let mut octets = body(seed, 20_000);
        octets.extend_from_slice(b".\r\n");
        client.send(&octets);
        client.reset();
        if server.metric("mailrace_smtp_replies_undelivered_total", &[]) > 0.0 {
            return;
        }
    }
}

pub const TLS_MOVES: Moves = &[
    ("smtp_commands_total", "command", &["starttls"]),
    ("tls_handshakes_total", "result", &["ok", "failed"]),
    ("tls_handshake_duration_seconds", "", &[]),
    ("tls_truncated_total", "", &[]),
    ("smtp_replies_total", "code", &["235", "334", "504", "530", "534", "535"]),
    ("smtp_messages_rejected_total", "reason", &["auth"]),
    (
        "smtp_auth_total",
        "mechanism",
        &["plain", "login", "scram-sha-256", "scram-sha-256-plus", "external"],
    ),
    ("smtp_auth_total", "result", &["ok", "failed", "aborted"]),
];

#[test]
fn tls_and_auth_count_how_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users").display().to_string();
    user_add(&users);
    let case = auth_case(&users, "PLAIN,LOGIN");
    let before = Scrape::of(&case.server);
    let plain =
        |password: &str| format!("AUTH PLAIN {}", STANDARD.encode(format!("\0tim\0{password}")));
    let mut client = case.client("starttls");
    assert!(client.say("MAIL FROM:<a@b.test>").starts_with("530"));
    assert!(client.say("AUTH NONSENSE").starts_with("504"));
    assert!(client.say(&plain("wrong")).starts_with("535"));
    assert!(client.say("AUTH LOGIN").starts_with("334"));
    assert!(client.say("*").starts_with("501"));
    assert!(client.say(&plain("tanstaaf tanstaaf")).starts_with("235"));
    // Gone without a close_notify.
    drop(client);
    let mut plain_text = case.server.client();
    plain_text.ehlo();
    assert!(plain_text.say("STARTTLS").starts_with("220"));
    plain_text.send(b"this is no handshake\r\n");
    plain_text.rest();
    let here: &[Move] = &[
        TLS_MOVES[0],
        TLS_MOVES[1],
        TLS_MOVES[2],
        TLS_MOVES[3],
        ("smtp_replies_total", "code", &["235", "334", "504", "530", "535"]),
        TLS_MOVES[5],
        ("smtp_auth_total", "mechanism", &["plain", "login"]),
        TLS_MOVES[7],
    ];
    moved(&case.server, &before, here);

    // Where SCRAM is asked for, a password in the clear is too weak.
    let case = auth_case(&users, "SCRAM-SHA-256,SCRAM-SHA-256-PLUS");
    let before = Scrape::of(&case.server);
    let mut client = case.client("starttls");
    assert!(client.say("AUTH PLAIN").starts_with("534"));
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"] {
        assert!(client.say(&format!("AUTH {mechanism}")).starts_with("334"), "{mechanism}");
        assert!(client.say("*").starts_with("501"));
    }
    let scram: &[Move] = &[
        ("smtp_replies_total", "code", &["534"]),
        ("smtp_auth_total", "mechanism", &["scram-sha-256", "scram-sha-256-plus"]),
    ];
    moved(&case.server, &before, scram);
    external(&users);
}

pub const BUSY_MOVES: Moves =
    &[("smtp_auth_total", "result", &["unavailable"]), ("smtp_replies_total", "code", &["454"])];

/// More guesses at once than wait for a hash: 128, and one for each of the few threads.
#[test]
fn guesses_that_cannot_be_looked_at_now_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users").display().to_string();
    user_add(&users);
    let case = auth_case(&users, "PLAIN");
    let before = Scrape::of(&case.server);
    let mut clients: Vec<_> = (0..200).map(|_| case.client("starttls")).collect();
    for client in &mut clients {
        client.send(b"AUTH PLAIN AHRpbQB3cm9uZw==\r\n");
    }
    moved(&case.server, &before, BUSY_MOVES);
}

fn auth_case(users: &str, mechanisms: &str) -> Case {
    Case::with(
        "starttls",
        &[
            &format!("listener.0.auth.users_file={users}"),
            &format!("listener.0.auth.mechanisms={mechanisms}"),
            "listener.0.auth.required=true",
        ],
    )
}

/// By the certificate of the client, whose name no user has.
fn external(users: &str) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca");
    authority.issue(dir.path(), "server");
    authority.issue(dir.path(), "client");
    let ca = dir.path().join("ca.pem");
    let server = secure::launch(dir.path(), "server", "server")
        .set("listener.0.tls_mode=starttls")
        .set(&format!("listener.0.tls.client_ca_file={}", ca.display()))
        .set(&format!("listener.0.auth.users_file={users}"))
        .set("listener.0.auth.mechanisms=EXTERNAL")
        .start();
    let before = Scrape::of(&server);
    let mut client = server.client();
    client.ehlo();
    assert!(client.say("STARTTLS").starts_with("220"));
    let config = secure::client_config(&ca, Some(&dir.path().join("client")));
    let stream = client.stream.into_inner();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = TlsClient::with(stream, config, "localhost");
    assert!(client.say("EHLO tls.test").starts_with("250"));
    client.say("AUTH EXTERNAL =");
    moved(&server, &before, &[("smtp_auth_total", "mechanism", &["external"])]);
}
