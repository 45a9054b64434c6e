//! One listener's TLS: what is negotiated, which certificate is shown, and how that is replaced.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, Ticketer, kx_group},
    },
    pki_types::ServerName,
    server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    Certificate, Error, Files, LoadError,
    certificate::{Contents, Fingerprint},
};

/// Names that a client of ours may give its protocol by; one that speaks another is turned away,
/// so that a browser cannot be made to talk to us (ALPACA). None at all is the rule for mail.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// See the module's page. Both planes: sessions are made on the shards, files are read elsewhere.
pub struct Config {
    pub(super) server: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    watched: Mutex<Vec<Watched>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("tls::Config").finish_non_exhaustive()
    }
}

/// Files, and what was last seen in them, good or bad.
struct Watched {
    files: Files,
    seen: Fingerprint,
}

impl Config {
    /// Certificates for one listener: the first is shown to clients that ask for no name or for one
    /// that none of them has. Reads files: not for a shard's thread.
    ///
    /// # Errors
    /// See [`Certificate::load`].
    pub fn new(files: &[Files]) -> Result<Self, LoadError> {
        let provider = Arc::new(provider());
        let mut certificates = Vec::new();
        let mut watched = Vec::new();
        for files in files {
            let contents = files.read();
            watched.push(Watched { files: files.clone(), seen: contents.fingerprint() });
            certificates.push(Certificate::from_contents(files, contents, &provider)?);
        }
        let resolver = Arc::new(Resolver { certificates: RwLock::new(certificates) });
        // RFC 8996: nothing older. Client certificates are not asked for.
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites of both versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        // The default is a mutex that all shards would share; tickets need no memory of ours.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        // Its keys are this listener's alone, and are changed every six hours.
        server.ticketer = Ticketer::new().expect("the system has random numbers");
        server.send_tls13_tickets = 1;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Self { server: Arc::new(server), provider, resolver, watched: Mutex::new(watched) })
    }

    /// Looks whether files have changed and serves what is in them now; sessions that stand keep
    /// what they have. An entry for each pair of files that changed: what it holds cannot be used
    /// and the certificate so far stays (told once, not at each look), or which files it was.
    /// Reads files: not for a shard's thread.
    pub fn reload(&self) -> Vec<Result<Files, LoadError>> {
        let mut outcomes = Vec::new();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, watched) in watched.iter_mut().enumerate() {
            let contents: Contents = watched.files.read();
            let seen = contents.fingerprint();
            if seen == watched.seen {
                continue;
            }
            watched.seen = seen;
            let loaded = Certificate::from_contents(&watched.files, contents, &self.provider);
            outcomes.push(loaded.map(|certificate| {
                self.resolver.replace(index, certificate);
                watched.files.clone()
            }));
        }
        outcomes
    }

    /// When the first of its certificates ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        let certificates =
            self.resolver.certificates.read().unwrap_or_else(PoisonError::into_inner);
        certificates.iter().map(|certificate| certificate.not_after).min().unwrap_or_default()
    }
}

/// aws-lc-rs, named wherever a provider is wanted: ring is in the program as well (rskafka brings
/// it), so rustls would not choose. The hybrid group comes first: mail recorded today is not to be
/// read by tomorrow's quantum computer.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Certificates by the name asked for.
#[derive(Debug)]
struct Resolver {
    /// Read for each handshake, of a fifth of a millisecond; written when a file changes.
    certificates: RwLock<Vec<Certificate>>,
}

impl Resolver {
    fn replace(&self, index: usize, certificate: Certificate) {
        let mut certificates = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = certificates.get_mut(index) {
            *slot = certificate;
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        NAME.set(name.map(Box::from));
        let certificates = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let named = match (name, certificates.len()) {
            (Some(name), 2..) => certificates.iter().find(|certificate| is_for(certificate, name)),
            _ => None,
        };
        named.or(certificates.first()).map(|certificate| certificate.key.clone())
    }
}

fn is_for(certificate: &Certificate, name: &str) -> bool {
    let parsed = certificate.key.end_entity_cert().ok();
    let parsed = parsed.and_then(|der| ParsedCertificate::try_from(der).ok());
    let name = ServerName::try_from(name).ok();
    parsed.zip(name).is_some_and(|(parsed, name)| verify_server_name(&parsed, &name).is_ok())
}

thread_local! {
    /// The name that the hello just read asks for: rustls' unbuffered interface tells it to the
    /// resolver and to nobody else, in the middle of one call.
    static NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The name that was asked for since the last call, on this thread.
pub(super) fn take_name() -> Option<Box<str>> {
    NAME.take()
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}
