//! A server with certificates, and a client that speaks TLS.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::certificates::Authority;
use crate::support::{Launch, Server};

/// A server with a certificate for `localhost`, and the authority that signed it in `ca.pem`.
pub struct Case {
    pub server: Server,
    pub dir: tempfile::TempDir,
}

impl Case {
    pub fn new(mode: &str) -> Self {
        Self::with(mode, &[])
    }

    pub fn with(mode: &str, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(dir.path(), "ca");
        authority.issue(dir.path(), "server");
        let launch =
            launch(dir.path(), "server", "server").set(&format!("listener.0.tls_mode={mode}"));
        let launch = settings.iter().fold(launch, |launch, setting| launch.set(setting));
        Self { server: launch.start(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ca(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    pub fn port(&self) -> String {
        self.server.smtp.port().to_string()
    }

    pub fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.smtp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A session under TLS, greeted; EHLO was said.
    pub fn client(&self, mode: &str) -> TlsClient {
        let stream = if mode == "implicit" {
            self.socket()
        } else {
            let mut client = self.server.client();
            client.ehlo();
            assert!(client.say("STARTTLS").starts_with("220 2.0.0 "));
            client.stream.into_inner()
        };
        let mut client = TlsClient::over(stream, &self.path("ca.pem"));
        if mode == "implicit" {
            assert!(client.reply().starts_with("220 "));
        }
        assert!(client.say("EHLO tls.test").starts_with("250"));
        client
    }

    /// A series of the listener's.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.server.metric(name, &["listener=\"smtp\"", label])
    }
}

pub fn launch(dir: &Path, certificate: &str, key: &str) -> Launch {
    let file = |name: &str, kind: &str| dir.join(format!("{name}.{kind}")).display().to_string();
    Launch::new(&dir.join("data"))
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set(&format!("server.tls.cert_file={}", file(certificate, "pem")))
        .set(&format!("server.tls.key_file={}", file(key, "key")))
}

/// A client that speaks TLS and says what it is told.
pub struct TlsClient {
    pub stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl TlsClient {
    pub fn over(stream: TcpStream, ca: &Path) -> Self {
        Self::with(stream, client_config(ca, None), "localhost")
    }

    pub fn with(stream: TcpStream, config: ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Self { stream: BufReader::new(StreamOwned::new(connection, stream)) }
    }

    #[track_caller]
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let at = reply.len();
            self.stream.read_line(&mut reply).unwrap();
            if reply.as_bytes().get(at + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    #[track_caller]
    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    #[track_caller]
    pub fn begin(&mut self, last: &str) {
        for line in ["MAIL FROM:<a@client.test>", "RCPT TO:<b@server.test>"] {
            assert!(self.say(line).starts_with("250"), "{line}");
        }
        self.send(format!("{last}\r\n").as_bytes());
    }

    #[track_caller]
    pub fn bdat(&mut self, body: &[u8]) -> String {
        self.begin(&format!("BDAT {} LAST", body.len()));
        self.send(body);
        self.reply()
    }
}

/// Of a client that trusts `ca` and shows the certificate `NAME.pem` with `NAME.key`.
pub fn client_config(ca: &Path, shows: Option<&Path>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let groups = [
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
    ];
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match shows {
        None => config.with_no_client_auth(),
        Some(name) => {
            let certificate = CertificateDer::from_pem_file(name.with_extension("pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(name.with_extension("key")).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}
