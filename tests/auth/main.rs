//! AUTH over sockets: foreign clients log in and deliver, guesses get nowhere, and nobody else
//! waits for a password to be hashed.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod clients;
mod command;
mod flood;
mod guesses;
mod submission;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use support::{Launch, MAILRACE, Server, machine, servers::certificates::Authority, succeeded};

const USER: &str = "tim@example.test";
const PASSWORD: &str = "tanstaaf tanstaaf, 1=2";

/// A server with TLS by STARTTLS that demands AUTH, with one user and a certificate for
/// `localhost`; `ca.pem` signed it, and `client.pem` for a client.
struct Case {
    server: Server,
    dir: tempfile::TempDir,
}

impl Case {
    fn new(mechanisms: &str) -> Self {
        Self::with(mechanisms, &[])
    }

    fn with(mechanisms: &str, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let authority = Authority::new();
        authority.write(dir.path(), "ca");
        authority.issue(dir.path(), "server");
        authority.issue(dir.path(), "client");
        user_add(&dir.path().join("users"), USER, PASSWORD);
        let launch = Launch::new(&dir.path().join("data"))
            .set("server.shards=1")
            .set("log.segment_size=16MiB")
            .set(&format!("server.tls.cert_file={}", path("server.pem")))
            .set(&format!("server.tls.key_file={}", path("server.key")))
            .set("listener.0.tls_mode=starttls")
            .set(&format!("listener.0.auth.mechanisms={mechanisms}"))
            .set(&format!("listener.0.auth.users_file={}", path("users")))
            .set("listener.0.auth.required=true");
        let ca = format!("listener.0.tls.client_ca_file={}", path("ca.pem"));
        let launch = if mechanisms.contains("EXTERNAL") { launch.set(&ca) } else { launch };
        let launch = settings.iter().fold(launch, |launch, setting| launch.set(setting));
        Self { server: launch.start(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn port(&self) -> String {
        self.server.smtp.port().to_string()
    }

    /// `host:port` by the name of the certificate.
    fn at(&self) -> String {
        format!("localhost:{}", self.server.smtp.port())
    }

    /// A session under TLS; EHLO was said.
    fn client(&self) -> TlsClient {
        let mut client = self.server.client();
        client.ehlo();
        assert!(client.say("STARTTLS").starts_with("220 2.0.0 "));
        let mut client = TlsClient::over(client.stream.into_inner(), &self.path("ca.pem"));
        assert!(client.say("EHLO tls.test").starts_with("250"));
        client
    }

    /// AUTH commands that ended so.
    fn counted(&self, mechanism: &str, result: &str) -> f64 {
        let labels = [&*format!("mechanism=\"{mechanism}\""), &*format!("result=\"{result}\"")];
        self.server.metric("mailrace_smtp_auth_total", &labels)
    }

    /// One message was delivered after one AUTH of this mechanism.
    #[track_caller]
    fn check(&self, mechanism: &str) {
        assert_eq!(self.counted(mechanism, "ok"), 1.0, "{mechanism}");
        assert_eq!(support::verified(&self.server.dir), 1);
        assert!(!self.server.heard().contains("tanstaaf"), "no secret is logged");
    }
}

/// `mailrace user add`, the password on stdin.
fn user_add(file: &Path, name: &str, password: &str) -> String {
    let output = run_with(&["user", "add", &file.display().to_string(), name], password);
    String::from_utf8(succeeded("user add", output).stdout).unwrap()
}

/// Runs the program with a line on stdin.
fn run_with(arguments: &[&str], line: &str) -> Output {
    let line = format!("{line}\n");
    machine::run_with_input(Command::new(MAILRACE).args(arguments), line.as_bytes())
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))
}

/// A client that speaks TLS and says what it is told.
struct TlsClient {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl TlsClient {
    fn over(stream: TcpStream, ca: &Path) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Self { stream: BufReader::new(StreamOwned::new(connection, stream)) }
    }

    /// The next reply, all its lines; empty: the stream ended.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let at = reply.len();
            if !matches!(self.stream.read_line(&mut reply), Ok(1..))
                || reply.as_bytes().get(at + 3) != Some(&b'-')
            {
                return reply;
            }
        }
    }

    fn send(&mut self, octets: &[u8]) -> bool {
        let stream = self.stream.get_mut();
        stream.write_all(octets).and_then(|()| stream.flush()).is_ok()
    }

    fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    #[track_caller]
    fn deliver(&mut self) {
        for (line, code) in [
            ("MAIL FROM:<a@client.test>", "250 2.1.0"),
            ("RCPT TO:<b@server.test>", "250 2.1.5"),
            ("BDAT 4 LAST\r\nhi", "250 2.0.0 Ok: queued"),
        ] {
            let reply = self.say(line);
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
    }
}
