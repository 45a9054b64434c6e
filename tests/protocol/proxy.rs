//! Proxies in front: PROXY headers over sockets, HAProxy, Postfix, swaks, our own load tester. What
//! counts is whom the record names as the client.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Launch, MAILRACE, Server, eventually, id_of, log_command, log_envelope,
    machine::has,
    servers::{self, certificates::Authority, haproxy::Haproxy},
    succeeded,
};

/// Nobody is exempt, but by a test's own settings.
fn launch(dir: &Path) -> Launch {
    Launch::new(&dir.join("data"))
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=")
        .set("listener.0.accept.domains=*")
}

/// A server that wants a header, from 127.0.0.1 to 127.0.0.99.
fn behind_proxy(dir: &Path) -> Launch {
    launch(dir)
        .set("listener.0.proxy_protocol.mode=required")
        .set("listener.0.proxy_protocol.trusted=127.0.0.0/26, 127.0.0.64/27")
}

/// A connection from an address of loopback.
fn socket_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: IpAddr = source.parse().unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn client_from(source: &str, to: SocketAddr) -> Client {
    Client::over(socket_from(source, to))
}

/// What is said behind a header, on a connection from 127.0.0.1.
fn behind(header: &[u8], to: SocketAddr) -> Client {
    let mut client = client_from("127.0.0.1", to);
    client.send(header);
    client
}

/// A version 2 header, checksum and all, of a client of 192.0.2.0/24.
fn v2(last: u8, items: &[u8]) -> Vec<u8> {
    let mut rest = vec![192, 0, 2, last, 127, 0, 0, 1, 0x30, 0x39, 0, 25];
    rest.extend_from_slice(items);
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &rest].concat()
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\r\n";

/// Sends a message; whom its record names.
#[track_caller]
fn client_of(server: &Server, client: &mut Client) -> String {
    client.ehlo();
    let id = id_of(&client.bdat(b"Subject: hi\r\n\r\nhi\r\n"));
    log_envelope(&server.dir, &id)["client"].as_str().unwrap().to_owned()
}

#[track_caller]
fn greeted(client: &mut Client) {
    let greeting = client.reply();
    assert!(greeting.starts_with("220 "), "{greeting}");
}

#[track_caller]
fn closed_without_a_word(mut client: Client) {
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
}

fn refused(server: &Server) -> f64 {
    server.metric("mailrace_smtp_connections_refused_total", &["proxy_header"])
}

fn told(server: &Server) -> usize {
    server.errors().matches("stage=proxy").count()
}

/// H1: on a listener without the protocol a header is a command nobody knows.
#[test]
fn h1_header_on_an_ordinary_listener() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    let mut client = server.client();
    let reply = client.say("PROXY TCP4 192.0.2.7 127.0.0.1 12345 25");
    assert!(reply.starts_with("500 "), "{reply}");
    assert!(client_of(&server, &mut client).starts_with("127.0.0.1:"));
}

/// H2: whoever is not trusted is closed, says it a header or not.
#[test]
fn h2_peer_outside_the_trusted_networks() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    for header in [&b""[..], V1, b"EHLO a\r\n"] {
        let mut client = client_from("127.0.0.100", server.smtp);
        client.send(header);
        closed_without_a_word(client);
    }
    eventually("it is counted", Duration::from_secs(10), || refused(&server) == 3.0);
    assert_eq!(server.metric("mailrace_smtp_sessions_active", &[]), 0.0);
    eventually("each has its line", Duration::from_secs(10), || told(&server) == 3);
}

/// H3.
#[test]
fn h3_no_header_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).set("limits.timeout.proxy=1s").start();
    for part in [&b""[..], &V1[..20], &v2(1, b"")[..27]] {
        let began = Instant::now();
        closed_without_a_word(behind(part, server.smtp));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    }
    assert_eq!(refused(&server), 3.0);
    // As of a balancer that waits for the client: what to change there.
    server.says("the proxy must send the header at once");
    let timeouts = || server.metric("mailrace_smtp_sessions_closed_total", &["timeout"]);
    eventually("they are counted", Duration::from_secs(10), || timeouts() == 3.0);
    eventually("each has its line", Duration::from_secs(10), || told(&server) == 3);
    // With the header the session has the time of a session.
    let mut client = behind(V1, server.smtp);
    greeted(&mut client);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(client_of(&server, &mut client), "192.0.2.7:12345");
}

/// H4, H5, H7, H8; what each is refused for is tested with the parser.
#[test]
fn h4_to_h8_bad_headers() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    let mut checksum = v2(1, b"\x03\0\x04\0\0\0\0");
    let headers = [
        b"EHLO a\r\n".to_vec(),
        b"\x16\x03\x01\x02\0".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 65536 25\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 ::1 1 25\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7  127.0.0.1 1 25\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02xx".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0".to_vec(),
        v2(1, b"\x02\0\xffx"),
        checksum.clone(),
    ];
    for header in &headers {
        closed_without_a_word(behind(header, server.smtp));
    }
    let count = headers.len() as f64;
    eventually("they are counted", Duration::from_secs(10), || refused(&server) == count);
    eventually("each has its line", Duration::from_secs(10), || told(&server) == headers.len());
    assert_eq!(server.metric("mailrace_smtp_commands_total", &[]), 0.0);
    // The right one is taken.
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &checksum) as u32;
    checksum[31..35].copy_from_slice(&sum.to_be_bytes());
    let mut client = behind(&checksum, server.smtp);
    greeted(&mut client);
    assert_eq!(client_of(&server, &mut client), "192.0.2.1:12345");
}

/// H6: a proxy that knows no client, or has its own business, counts as what it is.
#[test]
fn h6_unknown_and_local() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x01";
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN 192.0.2.7 x\r\n", local] {
        let mut client = behind(header, server.smtp);
        greeted(&mut client);
        let client = client_of(&server, &mut client);
        assert!(client.starts_with("127.0.0.1:"), "{client}");
    }
}

/// H9.
#[test]
fn h9_second_header() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    let mut client = behind(&[V1, V1].concat(), server.smtp);
    greeted(&mut client);
    let reply = client.reply();
    assert!(reply.starts_with("500 "), "{reply}");
    assert_eq!(client_of(&server, &mut client), "192.0.2.7:12345");
    let mut client = behind(&[V1, &v2(1, b"")].concat(), server.smtp);
    greeted(&mut client);
    let replies = String::from_utf8(client.rest()).unwrap();
    assert!(replies.lines().all(|line| line.starts_with("500 ")), "{replies}");
}

/// H10: cut at each octet, with what follows glued on; nothing of it is a command.
#[test]
fn h10_header_and_commands_in_one_packet() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).set("limits.connections.per_ip=").start();
    for header in [V1.to_vec(), v2(7, b"\x04\0\x03abc")] {
        let input = [&header[..], b"EHLO client.test\r\n"].concat();
        for at in 1..=input.len() {
            let mut stream = socket_from("127.0.0.1", server.smtp);
            for part in [&input[..at], &input[at..]] {
                stream.write_all(part).unwrap();
            }
            let mut client = Client::over(stream);
            greeted(&mut client);
            let reply = client.reply();
            assert!(reply.starts_with("250-"), "{at}: {reply}");
            assert!(client.say("QUIT").starts_with("221 "));
        }
    }
    let commands = |labels: &[&str]| server.metric("mailrace_smtp_commands_total", labels);
    let sessions = commands(&["ehlo"]);
    assert_eq!(sessions, (V1.len() + v2(7, b"\x04\0\x03abc").len() + 36) as f64);
    assert_eq!(commands(&[]), 2.0 * sessions, "EHLO and QUIT, no others");
    // A message, octet by octet.
    let mut client = client_from("127.0.0.1", server.smtp);
    for octet in V1 {
        client.send(&[*octet]);
    }
    greeted(&mut client);
    assert_eq!(client_of(&server, &mut client), "192.0.2.7:12345");
    assert_eq!(refused(&server), 0.0);
}

/// H11: under TLS a header is nobody's; ahead of TLS from the first octet it is taken.
#[test]
fn h11_header_inside_of_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "server");
    let file = |kind: &str| dir.path().join("server").with_extension(kind).display().to_string();
    let server = behind_proxy(dir.path())
        .set(&format!("server.tls.cert_file={}", file("pem")))
        .set(&format!("server.tls.key_file={}", file("key")))
        .set("listener.0.tls_mode=implicit")
        .start();
    let mut stream = socket_from("127.0.0.1", server.smtp);
    // In one packet with the ClientHello, as far as that.
    let mut tls = tls_client();
    let mut first = V1.to_vec();
    tls.write_tls(&mut first).unwrap();
    stream.write_all(&first).unwrap();
    let mut client = rustls::StreamOwned::new(tls, stream);
    let mut reply = [0; 4];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"220 ");
    let mut seen = Vec::new();
    client.write_all(V1).unwrap();
    client.write_all(b"EHLO a\r\nQUIT\r\n".split_at(8).0).unwrap();
    while !seen.windows(10).any(|octets| octets == b"\r\n250 HELP") {
        let mut some = [0; 512];
        let len = client.read(&mut some).unwrap();
        assert!(len > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&some[..len]);
    }
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("\r\n500 5.5.2 "), "{seen}");
    // No handshake before the header, and none for nothing.
    closed_without_a_word(behind(b"\x16\x03\x01", server.smtp));
    assert_eq!(server.metric("mailrace_tls_handshakes_total", &["failed"]), 0.0);
}

fn tls_client() -> rustls::ClientConnection {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Trusting))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap()
}

/// Takes any certificate: what is tested is who the client is.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// PROTOCOL §5: limits of addresses are those of the client's, and exempt is who it is.
#[test]
fn limits_are_judged_after_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["limits.connections.per_ip=1", "limits.exempt=192.0.2.128/25"];
    let launch = settings.iter().fold(behind_proxy(dir.path()), |launch, set| launch.set(set));
    let server = launch.start();
    let mut first = behind(&v2(1, b""), server.smtp);
    greeted(&mut first);
    let mut second = behind(&v2(1, b""), server.smtp);
    let reply = second.reply();
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    let mut other = behind(&v2(2, b""), server.smtp);
    greeted(&mut other);
    let mut exempt: Vec<_> = (0..3).map(|_| behind(&v2(200, b""), server.smtp)).collect();
    exempt.iter_mut().for_each(greeted);
    drop(first);
    eventually("the place is free again", Duration::from_secs(10), || {
        behind(&v2(1, b""), server.smtp).reply().starts_with("220 ")
    });
}

/// D16: who has not sent its header yet does not hold a drain up, and hears nothing.
#[test]
fn drain_while_a_header_is_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    let waiting = behind(&V1[..10], server.smtp);
    eventually("it is seen", Duration::from_secs(10), || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 1.0
    });
    let stopping = std::thread::spawn(move || server.stop());
    closed_without_a_word(waiting);
    assert_eq!(stopping.join().unwrap(), Some(0));
}

/// HAProxy with version 1 and 2: the record has the client's address, not the proxy's.
#[test]
fn haproxy_sends_proxy() {
    if !has("haproxy") {
        return;
    }
    for options in
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"]
    {
        let dir = tempfile::tempdir().unwrap();
        let server = behind_proxy(dir.path()).start();
        let haproxy = Haproxy::start("", (server.smtp, options), "");
        let mut client = client_from("127.0.0.77", haproxy.front);
        let own = client.stream.get_ref().local_addr().unwrap();
        greeted(&mut client);
        assert_eq!(client_of(&server, &mut client), own.to_string(), "{options}");
        assert_eq!(refused(&server), 0.0);
    }
}

/// Health checks, with a LOCAL header or none, are no clients and disturb nobody.
#[test]
fn haproxy_checks_health() {
    if !has("haproxy") {
        return;
    }
    for (check, backend) in [
        ("send-proxy-v2 check check-send-proxy inter 50", "option smtpchk EHLO check.test"),
        ("send-proxy check check-send-proxy inter 50", "option smtpchk EHLO check.test"),
        ("send-proxy-v2 check inter 50", ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = behind_proxy(dir.path()).start();
        let haproxy = Haproxy::start("", (server.smtp, check), backend);
        let connections = || server.metric("mailrace_smtp_connections_total", &[]);
        eventually("checks come", Duration::from_secs(20), || connections() >= 4.0);
        let mut client = client_from("127.0.0.77", haproxy.front);
        let own = client.stream.get_ref().local_addr().unwrap();
        greeted(&mut client);
        assert_eq!(client_of(&server, &mut client), own.to_string(), "{check}");
        assert!(client.say("QUIT").starts_with("221 "));
        server.says("helo=client.test ");
        let said = server.errors();
        assert_eq!((refused(&server), told(&server)), (0.0, 0), "{check}: {said}");
        if !backend.is_empty() {
            let ehlos = || server.metric("mailrace_smtp_commands_total", &["ehlo"]);
            eventually("checks are answered", Duration::from_secs(20), || ehlos() >= 4.0);
            let log = String::from_utf8(log_command(&server.dir, &["cat", "--json"])).unwrap();
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}

/// TLS ends at HAProxy, which tells of it.
#[test]
fn haproxy_ends_tls() {
    if !has("haproxy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "server");
    let path = |kind: &str| dir.path().join("server").with_extension(kind);
    let both = [std::fs::read(path("pem")).unwrap(), std::fs::read(path("key")).unwrap()];
    let file = dir.path().join("both.pem");
    std::fs::write(&file, both.concat()).unwrap();
    let server = behind_proxy(dir.path()).start();
    let options =
        "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,authority,unique-id,crc32c";
    let bind = format!("ssl crt {}", file.display());
    let haproxy = Haproxy::start(&bind, (server.smtp, options), "");
    let stream = socket_from("127.0.0.77", haproxy.front);
    let own = stream.local_addr().unwrap();
    let mut client = rustls::StreamOwned::new(tls_client(), stream);
    let mut reply = [0; 4];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"220 ");
    client.write_all(b"EHLO a\r\n").unwrap();
    let text = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4 LAST\r\nhi\r\nQUIT\r\n";
    let mut seen = String::new();
    let mut some = [0; 512];
    while !seen.contains("250 HELP") {
        let len = client.read(&mut some).unwrap();
        seen.push_str(&String::from_utf8_lossy(&some[..len]));
    }
    client.write_all(text.as_bytes()).unwrap();
    let _ = client.read_to_string(&mut seen);
    let queued = seen.lines().find(|line| line.contains("queued as")).unwrap();
    let envelope = log_envelope(&server.dir, &id_of(queued));
    assert_eq!(envelope["client"], own.to_string());
    assert!(envelope["proxy"].as_str().unwrap().starts_with("127.0.0.1:"), "{envelope}");
    let told = envelope["proxy_facts"].as_str().unwrap();
    for fact in ["PROXY_UNIQUE_ID=", "PROXY_TLS_VERSION=TLSv1.3", "PROXY_TLS_CIPHER=TLS_"] {
        assert!(told.lines().any(|line| line.starts_with(fact)), "{fact}: {told}");
    }
}

/// Our own load tester claims clients of a network.
#[test]
fn load_tester_behind_the_protocol() {
    for version in ["v1", "v2"] {
        let dir = tempfile::tempdir().unwrap();
        let server = behind_proxy(dir.path()).start();
        let output = Command::new(MAILRACE)
            .arg("bench")
            .args([&format!("smtp://{}", server.smtp), "-n", "40", "-c", "4"])
            .args(["--messages-per-connection", "2", "--proxy-protocol", version])
            .args(["--client-net", "10.0.0.0/8", "--format", "json"])
            .output();
        succeeded("loadtest", output.unwrap());
        let log = String::from_utf8(log_command(&server.dir, &["cat", "--json"])).unwrap();
        assert_eq!(log.lines().count(), 40);
        for line in log.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(record["client"].as_str().unwrap().starts_with("10."), "{record}");
        }
        assert_eq!(refused(&server), 0.0);
    }
}

/// swaks speaks PROXY as well.
#[test]
fn swaks_sends_proxy() {
    if !has("swaks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).start();
    for version in ["1", "2"] {
        let family = if version == "1" { "TCP4" } else { "AF_INET" };
        let output = swaks(&server)
            .args(["--proxy-version", version, "--proxy-family", family])
            .args(["--proxy-source", "192.0.2.7", "--proxy-source-port", "12345"])
            .args(["--proxy-dest", "192.0.2.25", "--proxy-dest-port", "25"])
            .output();
        let envelope = log_envelope(&server.dir, &queued_by(&succeeded("swaks", output.unwrap())));
        assert_eq!(envelope["client"], "192.0.2.7:12345");
    }
}

fn swaks(server: &Server) -> Command {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.smtp.to_string(), "--from", "a@example.test"]);
    command.args(["--to", "b@example.test", "--ehlo", "swaks.test", "--body", "hi"]);
    command
}

fn queued_by(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("queued as ").unwrap_or_else(|| panic!("no id in {text}"));
    rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').collect()
}

/// A27 over a socket, and who the client is once a trusted peer said so.
#[test]
fn xclient_from_trusted_peers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path())
        .set("listener.0.xclient.trusted=127.0.0.77")
        .set("limits.connections.per_ip=1")
        .start();
    let mut stranger = server.client();
    assert!(!stranger.say("EHLO a").contains("XCLIENT"));
    assert!(stranger.say("XCLIENT ADDR=192.0.2.1").starts_with("502 5.5.1 "));

    let mut peer = client_from("127.0.0.77", server.smtp);
    greeted(&mut peer);
    assert!(peer.say("EHLO a").contains("250-XCLIENT NAME ADDR "));
    let reply = peer.say("XCLIENT NAME=spike.test ADDR=192.0.2.1 PORT=12345 PROTO=ESMTP");
    assert!(reply.starts_with("220 "), "{reply}");
    assert_eq!(client_of(&server, &mut peer), "192.0.2.1:12345");
    // The peer's own place is free, the client's is taken.
    let mut other = client_from("127.0.0.77", server.smtp);
    greeted(&mut other);
    let reply = other.say("XCLIENT ADDR=192.0.2.1");
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    // Its right does not hang on who it says the client is.
    let reply = peer.say("XCLIENT ADDR=IPV6:2001:db8::1 PORT=[UNAVAILABLE] HELO=h.test");
    assert!(reply.starts_with("220 "), "{reply}");
    assert_eq!(client_of(&server, &mut peer), "[2001:db8::1]:0");
    drop(peer);
    let active = || server.metric("mailrace_smtp_sessions_active", &[]);
    eventually("its session ends", Duration::from_secs(10), || active() == 1.0);
    let mut again = client_from("127.0.0.77", server.smtp);
    greeted(&mut again);
    for address in ["192.0.2.1", "IPV6:2001:db8::1", "192.0.2.1"] {
        let reply = again.say(&format!("XCLIENT ADDR={address}"));
        assert!(reply.starts_with("220 "), "nothing is counted for ever: {reply}");
    }
}

/// The right to XCLIENT is judged by the client of a PROXY header.
#[test]
fn xclient_behind_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let server = behind_proxy(dir.path()).set("listener.0.xclient.trusted=192.0.2.1").start();
    let mut stranger = behind(&v2(2, b""), server.smtp);
    greeted(&mut stranger);
    assert!(stranger.say("XCLIENT ADDR=192.0.2.1").starts_with("502 "));
    let mut peer = behind(&v2(1, b""), server.smtp);
    greeted(&mut peer);
    assert!(peer.say("XCLIENT ADDR=192.0.2.99 PORT=9").starts_with("220 "));
    assert_eq!(client_of(&server, &mut peer), "192.0.2.99:9");
}

#[test]
fn swaks_sends_xclient() {
    if !has("swaks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("listener.0.xclient.trusted=127.0.0.0/8").start();
    let output = swaks(&server)
        .args(["--xclient-addr", "192.0.2.9", "--xclient-port", "12345"])
        .args(["--xclient-name", "spike.test", "--xclient-helo", "helo.test"])
        .args(["--xclient-proto", "ESMTP", "--xclient-delim", "--xclient-login", "bob@a=b"])
        .output();
    let envelope = log_envelope(&server.dir, &queued_by(&succeeded("swaks", output.unwrap())));
    assert_eq!(envelope["client"], "192.0.2.9:12345");
    assert_eq!(server.metric("mailrace_smtp_commands_total", &["xclient"]), 2.0);
}

/// A real Postfix relays and tells where its mail came from, by XFORWARD.
#[test]
fn postfix_sends_xforward() {
    if !servers::postfix::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("listener.0.xclient.trusted=127.0.0.0/8").start();
    let postfix = servers::postfix::Postfix::relay(server.smtp);
    let mut client = client_from("127.0.0.77", postfix.smtp);
    greeted(&mut client);
    client.ehlo();
    for (line, code) in [
        ("MAIL FROM:<a@client.test>", "250"),
        ("RCPT TO:<b@server.test>", "250"),
        ("DATA", "354"),
        ("Subject: hi\r\n\r\nhi\r\n.", "250"),
    ] {
        let reply = client.say(line);
        assert!(reply.starts_with(code), "{line}: {reply}");
    }
    let received = || server.metric("mailrace_smtp_messages_received_total", &[]);
    eventually("Postfix relays it", Duration::from_secs(30), || received() == 1.0);
    assert!(server.metric("mailrace_smtp_commands_total", &["xforward"]) >= 1.0);
    assert_eq!(server.metric("mailrace_smtp_protocol_errors_total", &[]), 0.0);
    let log = String::from_utf8(log_command(&server.dir, &["cat", "--json"])).unwrap();
    let record: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let told = record["proxy_facts"].as_str().unwrap();
    assert!(told.lines().any(|line| line == "XFORWARD_ADDR=127.0.0.77"), "{told}");
    // XFORWARD says where it came from; the client is Postfix.
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
}
