//! The client: one connection after the other, the same for every server.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite::TLS13_AES_128_GCM_SHA256, kx_group},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};

/// A server that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    X25519,
    X25519Mlkem768,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::X25519Mlkem768 => "x25519mlkem768",
        }
    }
}

/// Makes connections of one kind.
#[derive(Debug)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    tickets: Arc<Tickets>,
}

/// A connection that has been greeted.
#[derive(Debug)]
pub(crate) struct Met {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    pub(crate) resumed: bool,
}

impl Client {
    pub(crate) fn new(group: Group, resumes: bool) -> Self {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![match group {
                Group::X25519 => kx_group::X25519,
                Group::X25519Mlkem768 => kx_group::X25519MLKEM768,
            }],
            ..aws_lc_rs::default_provider()
        });
        let tickets = Arc::new(Tickets { resumes, kept: Mutex::default() });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the suite is of this version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.resumption = Resumption::store(tickets.clone());
        Self { config: Arc::new(config), tickets }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Connects, and has the ticket and, where the server `greets`, the greeting.
    pub(crate) fn meet(&self, port: u16, greets: bool) -> io::Result<Met> {
        let mut stream = connect(port)?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        let tls = ClientConnection::new(self.config(), name).map_err(io::Error::other)?;
        let mut tls = Box::new(tls);
        let before = self.tickets.came();
        let mut greeting = Vec::new();
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut stream)?;
            }
            if self.tickets.came() > before && (!greets || greeting.ends_with(b"\r\n")) {
                break;
            }
            receive(&mut stream, &mut tls, &mut greeting)?;
        }
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Met { stream, tls: Some(tls), resumed })
    }
}

/// Connects without TLS, and has the greeting.
pub(crate) fn meet_clear(port: u16) -> io::Result<Met> {
    let mut met = Met { stream: connect(port)?, tls: None, resumed: false };
    met.reply()?;
    Ok(met)
}

impl Met {
    /// Says what there is to say at the end, and closes.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Sends a line and has its reply.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.stream.write_all(octets) };
        let mut rest = octets;
        while !rest.is_empty() {
            let taken = tls.writer().write(rest)?;
            rest = &rest[taken..];
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    pub(crate) fn reply(&mut self) -> io::Result<String> {
        let mut octets = Vec::new();
        loop {
            match &mut self.tls {
                Some(tls) => receive(&mut self.stream, tls, &mut octets)?,
                None => {
                    let mut buffer = [0; 4096];
                    let count = self.stream.read(&mut buffer)?;
                    octets.extend_from_slice(&buffer[..count]);
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            let text = String::from_utf8_lossy(&octets);
            let is_last = |line: &str| line.as_bytes().get(3) != Some(&b'-');
            if text.ends_with("\r\n") && text.lines().last().is_some_and(is_last) {
                return Ok(text.into_owned());
            }
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Takes what comes next.
fn receive(
    stream: &mut TcpStream,
    tls: &mut ClientConnection,
    plain: &mut Vec<u8>,
) -> io::Result<()> {
    if tls.read_tls(stream)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let state = tls.process_new_packets().map_err(io::Error::other)?;
    let start = plain.len();
    plain.resize(start + state.plaintext_bytes_to_read(), 0);
    tls.reader().read_exact(&mut plain[start..])
}

/// Tells when a ticket came, whether it will be used or not.
#[derive(Debug)]
struct Tickets {
    resumes: bool,
    kept: Mutex<(u64, Option<Tls13ClientSessionValue>)>,
}

impl Tickets {
    fn came(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0 + 1, Some(ticket));
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.take().filter(|_| self.resumes)
    }
}

/// Who the server is does not matter here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
