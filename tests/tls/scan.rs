//! TLS as others judge it, and under a flood of handshakes.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::support::{
    self, body, eventually, id_of,
    machine::has,
    servers::{
        certificates::Authority,
        secure,
        secure::{Case, launch},
    },
    succeeded,
};

/// What a scanner is pointed at: the mode of TLS, and the name it asks for. The second certificate
/// is shown to who asks for it by name.
const SCANNED: [(&str, &str); 3] =
    [("starttls", "localhost"), ("implicit", "localhost"), ("implicit", "other.test")];

/// A server with two certificates.
fn scanned(mode: &str) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca");
    authority.issue(dir.path(), "server");
    authority.issue_for(dir.path(), "other", &["other.test"]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let server = launch(dir.path(), "other", "other")
        .set(&format!("listener.0.tls_mode={mode}"))
        .set(&format!("listener.0.tls.cert_file={}", path("server.pem")))
        .set(&format!("listener.0.tls.key_file={}", path("server.key")))
        .start();
    Case { server, dir }
}

#[test]
fn sslscan() {
    if !has("sslscan") {
        return;
    }
    for (mode, name) in SCANNED {
        let case = scanned(mode);
        let mut command = Command::new("sslscan");
        if mode == "starttls" {
            command.arg("--starttls-smtp");
        }
        let output = command
            .args(["--xml=-", "--ipv4", &format!("--sni-name={name}")])
            .arg(format!("localhost:{}", case.port()))
            .output();
        let output = succeeded("sslscan", output.unwrap());
        let told = String::from_utf8(output.stdout).unwrap();
        let lines = |start: &str| {
            let start = format!("<{start} ");
            told.lines().map(str::trim).filter(|line| line.starts_with(&start)).collect::<Vec<_>>()
        };
        let offered: Vec<_> =
            lines("protocol").into_iter().filter(|line| !line.contains("enabled=\"0\"")).collect();
        assert_eq!(offered.len(), 2, "{told}");
        assert!(offered[0].contains("version=\"1.2\"") && offered[1].contains("version=\"1.3\""));
        let suites = lines("cipher");
        assert!(suites.len() >= 5, "{told}");
        for suite in suites {
            let good = ["strong", "acceptable"].map(|word| format!("strength=\"{word}\""));
            assert!(good.iter().any(|good| suite.contains(good)), "{suite}");
        }
        for line in lines("heartbleed") {
            assert!(line.contains("vulnerable=\"0\""), "{line}");
        }
        for line in lines("renegotiation") {
            assert!(line.contains("supported=\"0\""), "{line}");
        }
        assert!(told.contains(&format!("DNS:{name}")), "the certificate of {name}: {told}");
    }
}

/// Sections of testssl: protocols, standard cipher lists, forward secrecy, server preference,
/// server defaults (certificate, chain), vulnerabilities.
const SECTIONS: [&str; 6] = ["-p", "-s", "-f", "-P", "-S", "-U"];

/// What testssl says of the tests' authority, which runs no service of revocation; and of itself.
const NOT_OURS: [&str; 2] = ["cert_revocation", "engine_problem"];

/// Nothing above LOW. The scans wait more than they work, so they go side by side.
#[test]
fn testssl() {
    if !has("testssl") || !has("hexdump") {
        return;
    }
    std::thread::scope(|scope| {
        for (mode, name) in SCANNED {
            scope.spawn(move || scan(mode, name));
        }
    });
}

fn scan(mode: &str, name: &str) {
    let case = scanned(mode);
    let report = case.path("report.json");
    let mut command = Command::new("testssl");
    if mode == "starttls" {
        command.args(["-t", "smtp"]);
    }
    let output = command
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1"])
        .args(["--add-ca", &case.ca(), "--jsonfile"])
        .arg(&report)
        .args(SECTIONS)
        .arg(format!("{name}:{}", case.port()))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings = std::fs::read(&report).unwrap_or_else(|error| panic!("{error}: {told}"));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&findings).unwrap();
    let text = |finding: &serde_json::Value, field: &str| {
        finding[field].as_str().unwrap_or_default().to_owned()
    };
    for finding in &findings {
        let harmless = ["OK", "INFO", "LOW", "DEBUG", "WARN"];
        let severity = text(finding, "severity");
        let known = NOT_OURS.contains(&&*text(finding, "id"));
        assert!(known || harmless.contains(&&*severity), "{mode}, {name}: {finding}");
    }
    // It got to the end, and saw what there is to see.
    for (id, wanted) in [
        ("TLS1_3", "offered with final"),
        ("cert_chain_of_trust", "passed."),
        ("cert_commonName", if name == "localhost" { "server" } else { "other" }),
        ("PFS", "offered"),
        ("heartbleed", "not vulnerable, no heartbeat extension"),
        ("secure_client_renego", "not vulnerable"),
        ("RC4", "not vulnerable"),
    ] {
        let found = findings.iter().find(|finding| finding["id"] == id);
        let found = found.unwrap_or_else(|| panic!("{mode}, {name}: no {id}: {told}"));
        assert_eq!(text(found, "finding"), wanted, "{mode}, {name}: {id}");
    }
}

/// How long handshakes flood in.
const FLOOD: Duration = Duration::from_secs(5);

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Handshakes under way on a shard.
const HANDSHAKES: usize = 256;

/// BAD-INPUTS I10, F4: half-open handshakes and garbage take neither memory nor another client's turn.
#[test]
fn a_flood_of_handshakes() {
    support::machine::raise_descriptors();
    let case = Case::with("implicit", &["limits.timeout.handshake=2s"]);
    let mut client = case.client("implicit");
    let body = body(3, 4_096);
    // What is allocated once is allocated.
    let send = |client: &mut secure::TlsClient| {
        let began = Instant::now();
        let id = id_of(&client.bdat(&body));
        (id, began.elapsed())
    };
    for _ in 0..20 {
        send(&mut client);
    }
    half_open(&case, HANDSHAKES);
    eventually("they are over", Duration::from_secs(20), || sessions(&case) == 1.0);
    let before = case.server.status_of("VmRSS");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Half of a hello, held.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let held = half_open(&case, 400);
                eventually("256 are under way and no more", HANDSHAKE / 2, || {
                    held.iter().filter(|stream| is_open(stream)).count() <= HANDSHAKES
                });
            }
        });
        // Hellos of garbage, one after the other.
        scope.spawn(|| {
            let mut seed = 7_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
                hello.extend((0..506).map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) as u8
                }));
                // It may be turned away while it speaks.
                let _ = case.socket().write_all(&hello);
            }
        });
        let _over = support::Raise(&stop);
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        // However slow the machine is, beside other tests.
        while began.elapsed() < FLOOD || count < 50 {
            let (_, took) = send(&mut client);
            slowest = slowest.max(took);
            count += 1;
        }
        println!("{count} messages beside the flood, the slowest took {slowest:?}");
        // What bounds a turn is tested without a clock, in `shard::core::tests`; this is for faults of
        // another kind, far beyond what a busy machine does.
        assert!(slowest < Duration::from_secs(15), "{slowest:?} for a message");
    });
    let after = case.server.status_of("VmRSS");
    assert!(after < before + (24 << 10), "{before} KiB before, {after} behind");
    // It was one, and it is over: whoever comes now is served.
    let failed = case.metric("mailrace_tls_handshakes_total", "result=\"failed\"");
    assert!(failed > 500.0, "{failed}");
    eventually("there is room", Duration::from_secs(20), || sessions(&case) == 1.0);
    id_of(&case.client("implicit").bdat(b"hi\r\n"));
}

/// Connections that have begun a handshake.
fn half_open(case: &Case, count: usize) -> Vec<TcpStream> {
    let begin = |_| {
        let mut stream = case.socket();
        // It may have been turned away.
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        stream
    };
    (0..count).map(begin).collect()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Sessions, handshakes under way among them.
fn sessions(case: &Case) -> f64 {
    case.metric("mailrace_smtp_sessions_active", "")
}
