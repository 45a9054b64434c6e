//! Load under TLS: against the program itself, against OpenSSL, and against a server of the test's
//! own that fails in every way a handshake can.

use std::{
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{support::servers::certificates::Authority, *};

use crate::support;

/// Certificates for `localhost` and 127.0.0.1: `server`, and `stranger` of another authority.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (authority, name) in [("ca", "server"), ("other", "stranger")] {
            let signer = Authority::new();
            signer.write(dir.path(), authority);
            signer.issue(dir.path(), name);
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.display().to_string()
    }

    fn config(&self, name: &str) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }

    /// A server of ours; the directory of its log.
    fn server(&self, mode: &str) -> (Server, String) {
        let data = self.0.path().join(format!("data-{mode}"));
        let settings = [
            "server.shards=1".to_owned(),
            "log.segment_size=256MiB".to_owned(),
            format!("server.tls.cert_file={}", self.path("server.pem")),
            format!("server.tls.key_file={}", self.path("server.key")),
            format!("listener.0.tls_mode={mode}"),
        ];
        let settings = settings.iter().map(String::as_str).collect::<Vec<_>>();
        (Server::start_with(&data, &settings), data.display().to_string())
    }
}

/// How the `number`th connection goes, from 0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A good server's.
    Good,
    /// Its certificate is of another authority.
    Stranger,
    /// Connected, and nothing more.
    Silent,
    /// Closed once the client has said something.
    Closing,
    /// Greets in the clear where TLS is due.
    Clear,
    /// No STARTTLS in its EHLO.
    NoStarttls,
    /// STARTTLS gets 454.
    Refusing,
    /// A reply in the clear behind the 220, before TLS.
    Injecting,
    /// No AUTH in its EHLO.
    NoAuth,
    /// AUTH gets 535.
    Denying,
}

/// What a server of the test's own is like.
struct Play {
    starttls: bool,
    proxied: bool,
    acts: &'static [Act],
}

/// Where it listens, and the lines of AUTH and the PROXY headers it saw; `Good` behind the acts.
fn perform(keys: &Keys, play: Play) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (good, stranger) = (keys.config("server"), keys.config("stranger"));
    let (tell, told) = mpsc::channel();
    let tell = Arc::new(Mutex::new(tell));
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let act = play.acts.get(number).copied().unwrap_or(Act::Good);
            let config = if act == Act::Stranger { &stranger } else { &good }.clone();
            let tell = tell.lock().unwrap().clone();
            let (starttls, proxied) = (play.starttls, play.proxied);
            thread::spawn(move || serve(stream, config, act, starttls, proxied, &tell));
        }
    });
    (address, told)
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    act: Act,
    starttls: bool,
    proxied: bool,
    tell: &mpsc::Sender<String>,
) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut out = stream;
    if proxied {
        let claim = peer::header(&mut input);
        tell.send(format!("{claim:?}")).ok()?;
    }
    if starttls {
        let offers = if act == Act::NoStarttls { "" } else { "250-STARTTLS\r\n" };
        out.write_all(b"220 mx\r\n").ok()?;
        assert!(line(&mut input)?.starts_with("EHLO "));
        // RFC 3207 §4.2: whoever believes this behind STARTTLS pipelines, and is found out.
        out.write_all(format!("250-mx\r\n{offers}250 PIPELINING\r\n").as_bytes()).ok()?;
        assert_eq!(line(&mut input)?, "STARTTLS");
        let reply: &[u8] = match act {
            Act::Refusing => b"454 4.7.0 busy\r\n",
            Act::Injecting => b"220 go\r\n250 ok\r\n",
            _ => b"220 go\r\n",
        };
        out.write_all(reply).ok()?;
    }
    assert!(input.buffer().is_empty() || proxied, "it speaks before TLS");
    match act {
        Act::Silent => {
            let _ = out.read_to_end(&mut Vec::new());
            return None;
        }
        Act::Closing => {
            let _ = out.read(&mut [0; 16]);
            return None;
        }
        Act::Clear => {
            out.write_all(b"220 mx\r\n").ok()?;
            let _ = out.read_to_end(&mut Vec::new());
            return None;
        }
        _ => {}
    }
    let mut connection = ServerConnection::new(config).unwrap();
    // What came behind the PROXY header.
    let mut early = input.buffer();
    while !early.is_empty() {
        connection.read_tls(&mut early).unwrap();
    }
    connection.process_new_packets().ok()?;
    let mut stream = BufReader::new(StreamOwned::new(connection, out));
    if !starttls {
        stream.get_mut().write_all(b"220 mx\r\n").ok()?;
    }
    let mut is_data = false;
    loop {
        let line = line(&mut stream)?;
        let auth = if act == Act::NoAuth { "" } else { "250-AUTH LOGIN PLAIN\r\n" };
        let reply = match line.as_str() {
            "." => {
                is_data = false;
                "250 ok\r\n".to_owned()
            }
            _ if is_data => continue,
            "DATA" => {
                is_data = true;
                "354 go\r\n".to_owned()
            }
            "QUIT" => "221 bye\r\n".to_owned(),
            ehlo if ehlo.starts_with("EHLO ") => format!("250-mx\r\n{auth}250 8BITMIME\r\n"),
            auth if auth.starts_with("AUTH ") => {
                tell.send(auth.to_owned()).ok()?;
                match act {
                    Act::Denying => "535 5.7.8 no\r\n",
                    _ => "235 2.7.0 welcome\r\n",
                }
                .to_owned()
            }
            _ => "250 ok\r\n".to_owned(),
        };
        assert!(stream.buffer().is_empty() || is_data, "pipelined behind {line}");
        stream.get_mut().write_all(reply.as_bytes()).ok()?;
        if line == "QUIT" {
            // RFC 8446 §6.1: the client says that it is done, too; rustls tells where it does not.
            let mut rest = Vec::new();
            let clean = stream.read_to_end(&mut rest).is_ok();
            tell.send(format!("goodbye {clean}")).ok()?;
            return None;
        }
    }
}

fn line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|count| *count > 0)?;
    Some(line.trim_end().to_owned())
}

/// One connection after the other, a message each.
const SINGLY: [&str; 7] = ["-c", "1", "--messages-per-connection", "1", "--timeout", "0.4s", "-n"];

fn connections(report: &Value) -> &Value {
    &report["errors"]["connections"]
}

#[test]
fn load_under_tls_is_verified() {
    let keys = Keys::new();
    let ca = keys.path("ca.pem");
    for mode in ["implicit", "starttls", "required"] {
        let (server, log) = keys.server(mode);
        let (scheme, starttls) = match mode {
            "implicit" => ("smtps", &[][..]),
            _ => ("smtp", &["--starttls"][..]),
        };
        for (host, arguments) in [
            ("localhost", &["--size", "1k..100k"][..]),
            ("127.0.0.1", &["--chunking", "--in-flight", "8", "--size", "mix:2k=70,2m=5"]),
            ("localhost", &["--threads", "2", "--pipelining", "off", "--e2e"]),
            ("localhost", &["--no-resumption", "-r", "2k", "--warmup", "0.1s"]),
        ] {
            let target = format!("{scheme}://{host}:{}", server.smtp.port());
            let common = ["-n", "300", "-c", "6", "--messages-per-connection", "10"];
            let check = ["--ca-file", &ca, "--verify", "--log-dir", &log];
            let all = [&common[..], &check, starttls, arguments].concat();
            let (output, report) = outcome_of(&target, &all);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(is_made(&output), "{mode} {arguments:?}: {said}");
            assert_eq!(count(&report, "/errors/total"), 0, "{mode} {arguments:?}");
            assert_eq!(count(&report, "/verify/found"), 300, "{mode} {arguments:?}");
            assert_eq!(count(&report, "/verify/corrupt"), 0, "{mode} {arguments:?}");
            let (full, resumed) = (count(&report, "/tls/full"), count(&report, "/tls/resumed"));
            assert!(full + resumed >= 30, "{mode}: {full}, {resumed}");
            if arguments[0] == "--no-resumption" {
                assert_eq!(resumed, 0, "{mode}");
            } else {
                // Only those whose connections began before there was a ticket.
                assert!(full <= 6, "{mode} {arguments:?}: {full}, {resumed}");
            }
            assert_eq!(count(&report, "/tls/failed"), 0, "{mode}");
            assert_eq!(report["tls"]["version"], "TLSv1.3");
            assert!(report["tls"]["cipher"].as_str().unwrap().starts_with("TLS_"), "{report}");
            assert_eq!(count(&report, "/latency/tls/count"), full + resumed);
            assert!(report["latency"]["tls"]["p50"].as_f64().unwrap() > 0.0);
        }
        // The server saw as many as we did, and that each said goodbye.
        let truncated = server.metric("mailrace_tls_truncated_total", &["listener=\"smtp\""]);
        // Those that stand idle when a run ends are dropped without a word: six of each run at most,
        // of thirty or more.
        assert!(truncated <= 24.0, "{mode}: {truncated}");
    }
}

#[test]
fn the_text_tells_of_tls() {
    let keys = Keys::new();
    let (server, _) = keys.server("implicit");
    let target = format!("smtps://{}", server.smtp);
    let output = bench(&[&target, "--insecure", "-n", "20", "-c", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let line =
        text.lines().find(|line| line.starts_with(" tls  ")).unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.contains("TLSv1.3 TLS_") && line.ends_with("2 full   0 resumed   0 failed"),
        "{line}"
    );
    let phases = text.lines().find(|line| line.starts_with(" by phase")).unwrap();
    assert!(phases.contains("  tls "), "{phases}");
}

#[test]
fn openssl_is_loaded() {
    if !support::machine::has("openssl") {
        support::machine::skip("openssl is not installed");
        return;
    }
    let keys = Keys::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It hands on what clients send, decrypted, and sends them what it reads.
        let mut child = Command::new("openssl")
            .args(["s_server", "-quiet", version, "-naccept", "1"])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args(["-cert", &keys.path("server.pem"), "-key", &keys.path("server.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = child.stdin.take().unwrap();
        let input = BufReader::new(child.stdout.take().unwrap());
        let serving = thread::spawn(move || peer::talk(input, &mut out));
        let ca = keys.path("ca.pem");
        // The first attempt may come before it listens, and is the only one it takes.
        support::eventually("s_server listens", Duration::from_secs(10), || {
            let ports = fs::read_to_string("/proc/net/tcp").unwrap();
            ports.contains(&format!(":{port:04X} 00000000:0000 0A"))
        });
        let arguments =
            ["-n", "40", "-c", "1", "--size", "100k", "--ca-file", &ca, "--drain", "1s"];
        let (output, report) = outcome_of(&format!("smtps://127.0.0.1:{port}"), &arguments);
        assert!(is_made(&output), "{version}: {output:?}");
        assert_eq!(count(&report, "/totals/acked"), 40, "{version}");
        assert_eq!(report["errors"]["total"], 0, "{version}");
        let told = if version == "-tls1_2" { "TLSv1.2" } else { "TLSv1.3" };
        assert_eq!(report["tls"]["version"], told);
        let _ = child.kill();
        child.wait().unwrap();
        serving.join().unwrap();
    }
}

#[test]
fn handshakes_that_fail_are_counted_by_class() {
    let keys = Keys::new();
    let acts = &[Act::Good, Act::Stranger, Act::Silent, Act::Closing, Act::Clear];
    let (server, told) = perform(&keys, Play { starttls: false, proxied: false, acts });
    let ca = keys.path("ca.pem");
    let arguments = [&SINGLY[..], &["3", "--ca-file", &ca]].concat();
    let (output, report) = outcome_of(&format!("smtps://{server}"), &arguments);
    assert!(is_made(&output), "{output:?}");
    assert_eq!(count(&report, "/totals/acked"), 3);
    let wanted = serde_json::json!({"certificate": 1, "handshake": 2, "handshake_timeout": 1});
    assert_eq!(*connections(&report), wanted);
    assert_eq!(count(&report, "/tls/failed"), 4);
    assert!(told.recv_timeout(Duration::from_secs(10)).is_ok_and(|told| told == "goodbye true"));
}

#[test]
fn starttls_that_fails_is_counted_by_class() {
    let keys = Keys::new();
    let acts =
        &[Act::Good, Act::NoStarttls, Act::Refusing, Act::Injecting, Act::Stranger, Act::Silent];
    let (server, _told) = perform(&keys, Play { starttls: true, proxied: false, acts });
    let ca = keys.path("ca.pem");
    let arguments = [&SINGLY[..], &["3", "--starttls", "--ca-file", &ca]].concat();
    let (output, report) = outcome_of(&format!("smtp://{server}"), &arguments);
    assert!(is_made(&output), "{output:?}");
    assert_eq!(count(&report, "/totals/acked"), 3);
    let wanted = serde_json::json!({
        "starttls": 2, "handshake": 1, "certificate": 1, "handshake_timeout": 1,
    });
    assert_eq!(*connections(&report), wanted);
    assert_eq!(report["errors"]["samples"]["454"], "4.7.0 busy");
}

#[test]
fn passwords_are_said_under_tls_in_turn() {
    let keys = Keys::new();
    let file = keys.path("passwords");
    fs::write(&file, "ann:secret:1\nbob:secret2\n").unwrap();
    let ca = keys.path("ca.pem");
    for starttls in [false, true] {
        let acts = &[Act::Good, Act::Good, Act::Good, Act::Denying, Act::NoAuth];
        let (server, told) = perform(&keys, Play { starttls, proxied: false, acts });
        let scheme = if starttls { "smtp" } else { "smtps" };
        let options = ["4", "--ca-file", &ca, "--auth-file", &file];
        let more = if starttls { &["--starttls"][..] } else { &[] };
        let (output, report) =
            outcome_of(&format!("{scheme}://{server}"), &[&SINGLY[..], &options, more].concat());
        assert!(is_made(&output), "{output:?}");
        assert_eq!(count(&report, "/totals/acked"), 4);
        assert_eq!(*connections(&report), serde_json::json!({"auth": 2}));
        let said = told.try_iter().filter(|told| told.starts_with("AUTH ")).collect::<Vec<_>>();
        // RFC 4616 §2; connections are numbered from 1.
        let plain = |user: &str| format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}")));
        let (ann, bob) = (plain("ann\0secret:1"), plain("bob\0secret2"));
        assert_eq!(said[..4], [&bob, &ann, &bob, &ann].map(String::clone));
        let text = format!("{report}{output:?}");
        assert!(!text.contains("secret") && !text.contains(&ann[11..]), "{text}");
    }
    // Nobody's password goes out in the clear.
    let sink = Sink::start();
    let (output, _) = outcome(sink.1, &["-n", "1", "-c", "1", "--auth-file", &file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs TLS"));
}

#[test]
fn the_proxy_header_goes_ahead_of_tls() {
    let keys = Keys::new();
    let ca = keys.path("ca.pem");
    for (starttls, version) in [(false, "v1"), (false, "v2"), (true, "v2")] {
        let (server, told) = perform(&keys, Play { starttls, proxied: true, acts: &[] });
        let scheme = if starttls { "smtp" } else { "smtps" };
        let net =
            ["6", "--ca-file", &ca, "--proxy-protocol", version, "--client-net", "10.32.0.0/16"];
        let more = if starttls { &["--starttls"][..] } else { &[] };
        let (output, report) =
            outcome_of(&format!("{scheme}://{server}"), &[&SINGLY[..], &net, more].concat());
        assert!(is_made(&output), "{output:?}");
        assert_eq!(count(&report, "/totals/acked"), 6);
        assert_eq!(report["errors"]["total"], 0);
        let claims = told.try_iter().filter(|told| told.contains("Relayed(10.32.0.")).count();
        assert!(claims >= 6, "{version}: {claims}");
    }
}

#[test]
fn a_server_that_is_not_believed_is_told() {
    let keys = Keys::new();
    let (ca, other) = (keys.path("ca.pem"), keys.path("other.pem"));
    let (server, _) = keys.server("starttls");
    let (implicit, _) = keys.server("implicit");
    let clear = Sink::start();
    let named = |address: SocketAddr| format!("smtp://{address}");
    let secure = format!("smtps://{}", implicit.smtp);
    for (target, arguments, why) in [
        (named(server.smtp), &["--starttls", "--ca-file", &other][..], "certificate"),
        (secure.clone(), &["--ca-file", &other], "certificate"),
        (format!("smtps://127.0.0.1:{}", clear.1.port()), &["--ca-file", &ca], "TLS"),
        (named(clear.1), &["--starttls", "--ca-file", &ca], "refuses STARTTLS"),
    ] {
        let started = Instant::now();
        let (output, _) = outcome_of(&target, &[arguments, &["-n", "5", "-c", "2"]].concat());
        assert_eq!(output.status.code(), Some(1), "{target}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(why), "{target}: {said}");
        assert!(started.elapsed() < Duration::from_secs(15), "{target}");
    }
    // Whoever it is.
    let believed = ["--insecure", "-n", "5", "-c", "2"];
    let (output, report) = outcome_of(&secure, &believed);
    assert!(is_made(&output), "{output:?}");
    assert_eq!(count(&report, "/totals/acked"), 5);
}

#[test]
fn a_run_ends_where_the_server_is_gone_for_good() {
    let keys = Keys::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = keys.config("server");
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        let (tell, _told) = mpsc::channel();
        serve(stream, config, Act::Good, false, false, &tell);
    });
    let arguments = [&SINGLY[..], &["100", "--insecure", "--drain", "1s"]].concat();
    let started = Instant::now();
    let (output, report) = outcome_of(&format!("smtps://{address}"), &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(count(&report, "/totals/acked"), 1);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no connection was open for 1.4 s"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(10));
}
