//! TLS over sockets: foreign clients deliver through it, and what breaks it gets nowhere.

use std::{
    io::{BufRead, Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    self, Client, Launch, Server, body, eventually, id_of,
    machine::{has, has_swaks_with_tls, run_with_input},
    servers::{
        certificates::Authority,
        secure::{Case, TlsClient, launch},
    },
    succeeded,
};

/// What the server still says, however the connection ends.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

/// A large message through TLS, octet by octet the same; replies keep their order.
#[test]
fn messages_are_byte_exact() {
    for mode in ["starttls", "required", "implicit"] {
        let case = Case::new(mode);
        let mut client = case.client(mode);
        for (seed, bytes) in [(1, 100), (2, 16_384), (3, 1 << 20), (4, 20_000), (5, 5 << 20)] {
            let body = body(seed, bytes);
            let reply = client.bdat(&body);
            assert!(case.server.get(&id_of(&reply)) == body, "{mode}: {bytes}");
            // RFC 3848.
            let field =
                support::log_command(&case.server.dir, &["get", &id_of(&reply), "--received"]);
            let field = String::from_utf8_lossy(&field[..200]).into_owned();
            assert!(field.contains(" with ESMTPS id "), "{field}");
        }
        // RFC 2920: a group of messages and QUIT in one write.
        let mut group = Vec::new();
        for _ in 0..20 {
            group.extend(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4 LAST\r\nhi\r\n");
        }
        group.extend(b"QUIT\r\n");
        client.send(&group);
        for _ in 0..20 {
            for code in ["250 2.1.0", "250 2.1.5", "250 2.0.0 Ok: queued as "] {
                let reply = client.reply();
                assert!(reply.starts_with(code), "{reply}");
            }
        }
        assert!(client.reply().starts_with("221 "));
        // A close_notify comes before the FIN: rustls would call anything else an error.
        assert_eq!(client.stream.read(&mut [0; 16]).unwrap(), 0);
        assert_eq!(support::verified(&case.server.dir), 25);
        assert_eq!(case.metric("mailrace_tls_handshakes_total", "result=\"ok\""), 1.0);
        assert_eq!(case.metric("mailrace_tls_handshakes_total", "result=\"failed\""), 0.0);
        assert_eq!(case.metric("mailrace_tls_truncated_total", ""), 0.0);
        assert_eq!(case.metric("mailrace_tls_handshake_duration_seconds_count", ""), 1.0);
        let expiry = case.metric("mailrace_tls_certificate_expiry_timestamp_seconds", "");
        // What the tests' authority gives a certificate: 90 days from yesterday on.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let days = (expiry - now) / 86_400.0;
        assert!((88.9..=89.1).contains(&days), "{days} days");
    }
}

/// Memory runs short: reading stops and goes on, and nothing is lost or mixed up.
#[test]
fn back_pressure_holds_under_tls() {
    let case = Case::with("implicit", &["limits.inflight_bytes=26MiB"]);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let case = &case;
            scope.spawn(move || {
                let mut client = case.client("implicit");
                let body = body(seed, 20 << 20);
                let reply = client.bdat(&body);
                assert!(case.server.get(&id_of(&reply)) == body, "{seed}");
            });
        }
    });
    assert_eq!(support::verified(&case.server.dir), 4);
}

/// F1 and F2: what is said in the clear behind STARTTLS is never executed.
#[test]
fn f1_injection() {
    let case = Case::new("starttls");
    let mut client = case.server.client();
    client.ehlo();
    client.send(b"STARTTLS\r\nEHLO evil\r\n");
    assert!(client.reply().starts_with("554 5.5.0 "));
    assert_eq!(client.rest(), b"");
    // The tail arrives behind the 220.
    let mut client = case.server.client();
    client.ehlo();
    assert!(client.say("STARTTLS").starts_with("220 "));
    client.send(b"EHLO evil\r\nQUIT\r\n");
    let rest = client.rest();
    assert!(matches!(rest[..], [21, 3, _, 0, 2, 2, _]), "an alert: {rest:?}");
    // And in the middle of TLS.
    let mut client = case.client("starttls");
    client.stream.get_mut().sock.write_all(b"QUIT\r\n").unwrap();
    let mut text = Vec::new();
    let _ = client.stream.read_to_end(&mut text);
    assert_eq!(text, b"");
    assert_eq!(case.metric("mailrace_tls_handshakes_total", "result=\"failed\""), 1.0);
    let quit = case.server.metric("mailrace_smtp_commands_total", &["command=\"quit\""]);
    assert_eq!(quit, 0.0);
    case.server.says("stage=tls");
}

/// F10, E12: a FIN without close_notify completes nothing, and is counted.
#[test]
fn f10_truncation() {
    let case = Case::new("implicit");
    for (count, last) in [(1.0, "DATA"), (2.0, "BDAT 100 LAST")] {
        let mut client = case.client("implicit");
        client.begin(last);
        client.send(b"half a message\r\n.\r");
        client.stream.get_mut().sock.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        let _ = client.stream.read_to_string(&mut text);
        assert!(text.is_empty() || text.starts_with("354 "), "{text}");
        assert!(!text.contains("queued"), "{text}");
        eventually("it is counted", Duration::from_secs(10), || {
            case.metric("mailrace_tls_truncated_total", "") == count
        });
    }
    // An orderly end in a message is no truncation, but no message either.
    let mut client = case.client("implicit");
    client.begin("BDAT 100 LAST");
    client.send(b"half a message\r\n");
    client.stream.get_mut().conn.send_close_notify();
    client.send(b"");
    let stream = client.stream.get_mut();
    stream.conn.write_tls(&mut stream.sock).unwrap_or_default();
    // Octets in the clear behind it are nobody's.
    let _ = stream.sock.write_all(&[b'x'; 200]);
    let mut text = String::new();
    let _ = client.stream.read_to_string(&mut text);
    assert_eq!(text, "");
    assert_eq!(support::verified(&case.server.dir), 0);
    assert_eq!(case.metric("mailrace_tls_truncated_total", ""), 2.0);
    // A whole message before it is answered and kept.
    let mut client = case.client("implicit");
    client.begin("BDAT 4 LAST");
    client.stream.get_mut().conn.writer().write_all(b"hi\r\n").unwrap();
    client.stream.get_mut().conn.send_close_notify();
    client.send(b"");
    assert!(client.reply().starts_with("250 2.0.0 Ok: queued as "));
    assert_eq!(support::verified(&case.server.dir), 1);
}

/// F4: the whole handshake has one deadline, however busy the peer seems.
#[test]
fn f4_a_slow_handshake() {
    let case = Case::with("implicit", &["limits.timeout.handshake=1s"]);
    let began = Instant::now();
    let mut silent = case.socket();
    let mut slow = case.socket();
    // A hello that never ends.
    slow.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut trickle = slow.try_clone().unwrap();
    let busy = std::thread::spawn(move || {
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(rest(&mut silent), b"");
    assert_eq!(rest(&mut slow), b"");
    let took = began.elapsed();
    assert!((900..5_000).contains(&took.as_millis()), "{took:?}");
    drop(slow);
    busy.join().unwrap();
    eventually("both are counted", Duration::from_secs(5), || {
        case.metric("mailrace_tls_handshakes_total", "result=\"failed\"") == 2.0
    });
    case.client("implicit").bdat(b"hi\r\n");
    // One that is established has all the time of any session.
    let mut client = case.client("implicit");
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(client.say("NOOP").starts_with("250 "));
}

/// BAD-INPUTS I10: so many handshakes at once and no more; who is done or gone makes room.
#[test]
fn i10_handshakes_under_way_are_bounded() {
    let case = Case::new("starttls");
    let mut waiting: Vec<_> = (0..256)
        .map(|_| {
            let mut client = case.server.client();
            assert!(client.say("STARTTLS").starts_with("220 "));
            client
        })
        .collect();
    let mut late = case.server.client();
    assert!(late.say("STARTTLS").starts_with("454 4.7.0 "));
    waiting.pop();
    eventually("there is room", Duration::from_secs(10), || {
        late.say("STARTTLS").starts_with("220 ")
    });
    let mut client = TlsClient::over(late.stream.into_inner(), &case.path("ca.pem"));
    assert!(client.say("EHLO a").starts_with("250"));
    id_of(&client.bdat(b"hi\r\n"));
}

/// F14, and a hello where none is wanted.
#[test]
fn f14_the_wrong_port() {
    let case = Case::new("implicit");
    let mut plain = case.socket();
    plain.write_all(b"EHLO a\r\n").unwrap();
    let told = rest(&mut plain);
    assert!(matches!(told[..], [21, 3, _, 0, 2, 2, _]), "an alert, nothing in the clear: {told:?}");
    let case = Case::new("starttls");
    let mut client = Client::connect(case.server.smtp);
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(client.reply(), "500 5.5.2 This is not SMTP\r\n");
    assert_eq!(client.rest(), b"");
}

/// RFC 3207 §4: 530 until TLS is there.
#[test]
fn required_is_required() {
    let case = Case::new("required");
    let mut client = case.server.client();
    assert!(client.say("EHLO a").contains("250-STARTTLS\r\n"));
    let refused = "530 5.7.0 Must issue a STARTTLS command first\r\n";
    assert_eq!(client.say("MAIL FROM:<a@b.test>"), refused);
    let mut client = case.client("required");
    assert!(!client.say("EHLO a").contains("STARTTLS"));
    id_of(&client.bdat(b"hi\r\n"));
    assert!(client.say("STARTTLS").starts_with("503 "));
    // Without a certificate nothing is offered.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert!(!server.client().say("EHLO a").contains("STARTTLS"));
    assert!(server.client().say("STARTTLS").starts_with("502 "));
    assert!(!server.page("/metrics").1.contains("mailrace_tls_"));
}

/// A drain says 421 under TLS, and drops who is still at the handshake.
#[test]
fn a_drain_ends_sessions_under_tls() {
    let case = Case::new("implicit");
    let mut client = case.client("implicit");
    let mut half = case.socket();
    eventually("both are there", Duration::from_secs(5), || {
        case.metric("mailrace_smtp_connections_total", "") == 2.0
    });
    support::signal(&case.server.child, libc::SIGTERM);
    assert!(client.reply().starts_with("421 4.3.2 "));
    assert_eq!(rest(&mut half), b"");
    let Case { mut server, .. } = case;
    assert_eq!(server.ended(Duration::from_secs(20)), Some(0));
}

/// A mistake in a certificate is one of the configuration.
#[test]
fn certificates_are_checked_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "server");
    authority.issue(dir.path(), "other");
    for (certificate, key, wanted) in [
        ("server", "other", "server.tls.key_file (--set): "),
        ("server", "missing", "missing.key: No such file"),
        ("missing", "server", "server.tls.cert_file (--set): "),
    ] {
        let failure = launch(dir.path(), certificate, key).try_start().err().unwrap();
        assert_eq!(failure.code, Some(78), "{failure}");
        assert!(failure.errors.contains(wanted), "{wanted}: {failure}");
    }
    let launch = Launch::new(&dir.path().join("data")).set("listener.0.tls_mode=implicit");
    let failure = launch.try_start().err().unwrap();
    assert_eq!(failure.code, Some(78));
    assert!(failure.errors.contains("listener.0.tls_mode (--set): a certificate"), "{failure}");
}

/// What is served follows the files.
#[test]
fn a_new_certificate_is_served_without_a_restart() {
    let case = Case::new("implicit");
    case.client("implicit");
    let authority = Authority::new();
    authority.write(case.dir.path(), "new");
    std::fs::write(case.path("server.key"), "half of it").unwrap();
    eventually("the bad one is told", Duration::from_secs(60), || {
        case.server.errors().contains("server.key: no private key in it")
    });
    case.client("implicit");
    let unusable =
        || case.server.metric("mailrace_config_files_unusable", &["kind=\"certificates\""]);
    eventually("the metric", Duration::from_secs(60), || unusable() == 1.0);
    authority.issue(case.dir.path(), "server");
    eventually("the new one is served", Duration::from_secs(60), || {
        let mut client = TlsClient::over(case.socket(), &case.path("new.pem"));
        let mut line = String::new();
        client.stream.read_line(&mut line).is_ok() && line.starts_with("220 ")
    });
    eventually("the metric", Duration::from_secs(60), || unusable() == 0.0);
}

fn python(case: &Case, script: &str) -> String {
    let output = Command::new("python3")
        .args(["-c", script, &case.port(), &case.ca()])
        .arg(case.path("message"))
        .output();
    String::from_utf8(succeeded("python3", output.unwrap()).stdout).unwrap()
}

/// Python's ssl is OpenSSL: another implementation than ours.
#[test]
fn python_ssl() {
    if !has("python3") {
        return;
    }
    for (mode, open) in [
        ("starttls", "smtplib.SMTP('localhost', port); s.ehlo(); s.starttls(context=c)"),
        ("implicit", "smtplib.SMTP_SSL('localhost', port, context=c)"),
    ] {
        let case = Case::new(mode);
        let body = body(7, 1 << 20);
        std::fs::write(case.path("message"), &body).unwrap();
        let told = python(
            &case,
            &format!(
                "import smtplib, ssl, sys
port = int(sys.argv[1])
for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
    c = ssl.create_default_context(cafile=sys.argv[2])
    c.maximum_version = version
    s = {open}
    s.ehlo()
    assert not s.has_extn('starttls')
    s.mail('a@example.test')
    s.rcpt('b@example.test')
    print(s.sock.version(), s.data(open(sys.argv[3], 'rb').read())[1].decode())
    s.quit()"
            ),
        );
        let lines: Vec<_> = told.lines().collect();
        let [old, new] = lines[..] else { panic!("{told}") };
        assert!(old.starts_with("TLSv1.2 ") && new.starts_with("TLSv1.3 "), "{told}");
        for line in lines {
            let (_, id) = line.rsplit_once(' ').unwrap();
            assert!(case.server.get(id) == body, "{mode}: {line}");
        }
        assert_eq!(case.metric("mailrace_tls_truncated_total", ""), 0.0);
    }
}

/// A session resumes by its ticket, on whichever shard.
#[test]
fn openssl_resumes() {
    if !has("python3") {
        return;
    }
    let case = Case::with("implicit", &["server.shards=2"]);
    let told = python(
        &case,
        "import socket, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[2])
session, reused = None, 0
for _ in range(20):
    s = c.wrap_socket(socket.create_connection(('localhost', int(sys.argv[1]))),
                      server_hostname='localhost', session=session)
    assert s.recv(200).startswith(b'220 ')
    s.sendall(b'QUIT\\r\\n')
    while s.recv(200): pass
    reused += s.session_reused
    session = s.session
print(reused)",
    );
    assert_eq!(told.trim(), "19");
}

#[test]
fn swaks() {
    if !has_swaks_with_tls() {
        return;
    }
    for (mode, flag) in [("starttls", "--tls"), ("required", "--tls"), ("implicit", "--tlsc")] {
        let case = Case::new(mode);
        let output = Command::new("swaks")
            .args(["--server", &format!("localhost:{}", case.port()), flag])
            .args(["--tls-verify", "--tls-ca-path", &case.ca()])
            .args(["--from", "a@example.test", "--to", "b@example.test", "--body", "through TLS"])
            .output();
        let output = succeeded("swaks", output.unwrap());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, id) = told.split_once("queued as ").unwrap_or_else(|| panic!("{told}"));
        let id = id.split_whitespace().next().unwrap();
        let stored = String::from_utf8(case.server.get(id)).unwrap();
        assert!(stored.contains("\r\nthrough TLS\r\n"), "{stored}");
        assert_eq!(case.metric("mailrace_tls_handshakes_total", "result=\"ok\""), 1.0);
    }
}

#[test]
fn curl() {
    if !has("curl") {
        return;
    }
    for (mode, scheme) in [("starttls", "smtp"), ("implicit", "smtps")] {
        let case = Case::new(mode);
        let body = body(9, 1 << 20);
        std::fs::write(case.path("message"), &body).unwrap();
        let output = Command::new("curl")
            .args(["-sv", "--ssl-reqd", "--cacert", &case.ca()])
            .arg(format!("{scheme}://localhost:{}", case.port()))
            .args(["--mail-from", "a@example.test", "--mail-rcpt", "b@example.test", "-T"])
            .arg(case.path("message"))
            .output();
        let output = succeeded("curl", output.unwrap());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, id) = told.split_once("queued as ").unwrap_or_else(|| panic!("{told}"));
        assert!(case.server.get(id.split_whitespace().next().unwrap()) == body, "{mode}");
    }
}

/// RFC 8996: nothing older than 1.2, and nobody renegotiates.
#[test]
fn openssl_s_client() {
    if !has("openssl") {
        return;
    }
    let case = Case::new("starttls");
    let run = |arguments: &[&str], input: &str| {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-starttls", "smtp", "-verify_return_error", "-CAfile", &case.ca()])
            .args(["-connect", &format!("localhost:{}", case.port()), "-servername", "localhost"])
            .args(arguments);
        let output = run_with_input(&mut openssl, input.as_bytes());
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (good, told) = run(&["-crlf", "-ign_eof"], "QUIT\n");
    assert!(good && told.contains("Verify return code: 0 (ok)"), "{told}");
    assert!(told.contains("221 2.0.0 Bye"), "{told}");
    for old in ["-tls1", "-tls1_1"] {
        let (good, told) = run(&[old, "-cipher", "ALL:@SECLEVEL=0"], "QUIT\n");
        assert!(!good && !told.contains("Verify return code: 0 (ok)\n---\n250"), "{old}: {told}");
    }
    let (good, told) = run(&["-alpn", "h2"], "QUIT\n");
    assert!(!good && told.contains("no application protocol"), "{told}");
}

/// F7: names that are none (SNI), with OpenSSL, which sends what it is given and finishes only where
/// both sides have the same transcript: TLS 1.2 and 1.3, with a second hello, and resumed by a
/// ticket. Where a known name is demanded the alert says so.
#[test]
fn f7_names_that_are_none() {
    if !has("openssl") {
        return;
    }
    let names = ["x\\", "[mx.example.org]", "mx:25", "b\u{fc}ro.test", "a..test", "192.0.2.1"];
    let case = Case::new("implicit");
    let connect = |case: &Case, name: &str, arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-verify_return_error", "-CAfile", &case.ca()])
            .args(["-connect", &format!("localhost:{}", case.port()), "-servername", name])
            .args(["-crlf", "-ign_eof"])
            .args(arguments);
        let output = run_with_input(&mut openssl, b"QUIT\n");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let session = case.path("session").display().to_string();
    let runs: [&[&str]; 5] = [
        &["-tls1_3"],
        &["-tls1_2"],
        // It offers a key of a group that the server has not, and is asked for another.
        &["-tls1_3", "-groups", "X448:P-256"],
        &["-tls1_3", "-sess_out", &session],
        &["-tls1_3", "-sess_in", &session],
    ];
    for name in names {
        for arguments in runs {
            let (good, told) = connect(&case, name, arguments);
            assert!(good && told.contains("221 2.0.0 Bye"), "{name} {arguments:?}: {told}");
            let resumed = told.contains("Reused, TLSv1.3");
            assert_eq!(resumed, arguments.contains(&"-sess_in"), "{name} {arguments:?}: {told}");
        }
    }
    let malformed = || case.metric("mailrace_tls_malformed_names_total", "");
    // The address is none of them: RFC 6066 §3 forbids it, and rustls passes over it.
    let expected = ((names.len() - 1) * runs.len()) as f64;
    eventually("they are counted", Duration::from_secs(10), || malformed() == expected);
    assert_eq!(case.metric("mailrace_tls_handshakes_total", "result=\"failed\""), 0.0);

    let case = Case::with("implicit", &["listener.0.tls.unknown_name=reject"]);
    for version in ["-tls1_3", "-tls1_2"] {
        let (good, told) = connect(&case, "mx:25", &[version]);
        assert!(!good && told.contains("unrecognized name"), "{version}: {told}");
    }
    assert!(connect(&case, "localhost", &[]).0);
    assert_eq!(case.metric("mailrace_tls_malformed_names_total", ""), 2.0);
}
