//! One listener's TLS: what is negotiated, which certificate is shown, and how that is replaced.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, Ticketer, kx_group},
    },
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets,
        ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    Certificate, Error, Files, LoadError, callbacks,
    certificate::{Contents, Fingerprint},
    suites::{self, Order},
};

/// Names that a client of ours may give its protocol by; one that speaks another is turned away,
/// so that a browser cannot be made to talk to us (ALPACA). None at all is the rule for mail.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// See the module's page. Both planes: sessions are made on the shards, files are read elsewhere.
pub struct Config {
    pub(super) server: Arc<ServerConfig>,
    /// The same for clients that put ChaCha20-Poly1305 first.
    pub(super) server_chacha: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    watched: Mutex<Vec<Watched>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("tls::Config").finish_non_exhaustive()
    }
}

/// What a listener demands of its clients; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// PEM: authorities, of one of which every client must show a certificate. There is no asking
    /// without demanding: a certificate that nobody verifies proves nothing.
    pub client_authorities: Option<PathBuf>,
    /// Clients that ask for a name that no certificate has are turned away (RFC 6066 §3).
    pub known_name: bool,
}

impl Demands {
    /// Who verifies clients' certificates. Reads a file: not for a shard's thread.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is no authority.
    pub fn load(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, LoadError> {
        let provider = Arc::new(provider());
        self.client_authorities.as_deref().map(|file| verifier(file, provider)).transpose()
    }
}

fn verifier(
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let bad = |text: &dyn fmt::Display| {
        LoadError::ClientAuthorities(format!("{}: {text}", file.display()))
    };
    let octets = std::fs::read(file).map_err(|error| bad(&error))?;
    let mut authorities = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&octets) {
        let authority = authority
            .map_err(|error| bad(&format!("not PEM: {}", super::words::plain_pem(&error))))?;
        authorities.add(authority).map_err(|error| bad(&super::words::plain_of_file(&error)))?;
    }
    if authorities.is_empty() {
        return Err(bad(&"no certificate in it"));
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
        .build()
        .map(|verifier| -> Arc<dyn ClientCertVerifier> { verifier })
        .map_err(|error| bad(&error))
}

/// Certificates that were read and are not served yet.
#[derive(Debug)]
pub struct Prepared {
    certificates: Vec<Certificate>,
    watched: Vec<Watched>,
}

fn read(files: &[Files], provider: &CryptoProvider) -> Result<Prepared, LoadError> {
    let mut prepared = Prepared { certificates: Vec::new(), watched: Vec::new() };
    for files in files {
        let contents = files.read();
        prepared.watched.push(Watched {
            files: files.clone(),
            seen: contents.fingerprint(),
            usable: true,
        });
        prepared.certificates.push(Certificate::from_contents(files, contents, provider)?);
    }
    Ok(prepared)
}

/// Files, and what was last seen in them, good or bad.
#[derive(Debug)]
struct Watched {
    files: Files,
    seen: Fingerprint,
    /// Whether what was last seen is served.
    usable: bool,
}

impl Config {
    /// Certificates for one listener: the first is shown to clients that ask for no name or for one
    /// that none of them has. Reads files: not for a shard's thread.
    ///
    /// # Errors
    /// See [`Certificate::load`] and [`Demands::load`].
    pub fn new(files: &[Files], demands: &Demands) -> Result<Self, LoadError> {
        let provider = Arc::new(provider());
        let Prepared { certificates, watched } = read(files, &provider)?;
        let known_name = demands.known_name;
        let resolver = Arc::new(Resolver { certificates: RwLock::new(certificates), known_name });
        let verifier = demands.load()?;
        // A ticket would carry a client past the verification of its certificate. Its keys are this
        // listener's alone, and are changed every six hours.
        let tickets =
            verifier.is_none().then(|| Ticketer::new().expect("the system has random numbers"));
        let parts = Parts { resolver: resolver.clone(), verifier, tickets };
        let server = parts.server(provider.clone());
        let server_chacha = parts.server(Arc::new(provider_of(Order::ChaCha)));
        let watched = Mutex::new(watched);
        Ok(Self { server, server_chacha, provider, resolver, watched })
    }

    /// Reads other files than before, or the same; [`Config::install`] serves them. Not for a
    /// shard's thread.
    ///
    /// # Errors
    /// See [`Certificate::load`]; what is served stays.
    pub fn prepare(&self, files: &[Files]) -> Result<Prepared, LoadError> {
        read(files, &self.provider)
    }

    /// Serves these certificates from now on; sessions that stand keep what they have.
    pub fn install(&self, prepared: Prepared) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let resolver = &self.resolver.certificates;
        *resolver.write().unwrap_or_else(PoisonError::into_inner) = prepared.certificates;
        *watched = prepared.watched;
    }

    /// Checks whether files have changed and serves their new content; established sessions keep
    /// what they have. Returns an entry for each pair of files that changed: why the content cannot
    /// be used and the previous certificate stays (reported once, not at each check), or which
    /// files it was. Reads files: not for a shard's thread.
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
            watched.usable = loaded.is_ok();
            outcomes.push(loaded.map(|certificate| {
                self.resolver.replace(index, certificate);
                watched.files.clone()
            }));
        }
        outcomes
    }

    /// Whether who asks for a name that no certificate has is turned away.
    pub(super) fn wants_known_name(&self) -> bool {
        self.resolver.known_name
    }

    /// Files that changed and cannot be used as they are: what they held before is served.
    pub fn unusable(&self) -> Vec<Files> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.iter().filter(|watched| !watched.usable).map(|at| at.files.clone()).collect()
    }

    /// When the first of its certificates ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        let certificates =
            self.resolver.certificates.read().unwrap_or_else(PoisonError::into_inner);
        certificates.iter().map(|certificate| certificate.not_after).min().unwrap_or_default()
    }
}

/// What a listener's configurations have in common.
struct Parts {
    resolver: Arc<Resolver>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Parts {
    fn server(&self, provider: Arc<CryptoProvider>) -> Arc<ServerConfig> {
        // RFC 8996: nothing older.
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites of both versions");
        let mut server = match self.verifier.clone() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(self.resolver.clone());
        // The default is a mutex that all shards would share; tickets need no memory of ours.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        if let Some(tickets) = &self.tickets {
            server.ticketer = tickets.clone();
            server.send_tls13_tickets = 1;
        }
        // All suites are good ones; scanners want to see an order kept.
        server.ignore_client_order = true;
        server.key_log = Arc::new(callbacks::Exporter);
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Arc::new(server)
    }
}

/// aws-lc-rs, named wherever a provider is wanted: ring is in the program as well (rskafka brings
/// it), so rustls would not choose. The hybrid group comes first: mail recorded today is not to be
/// read by tomorrow's quantum computer.
fn provider() -> CryptoProvider {
    provider_of(Order::Aes)
}

fn provider_of(order: Order) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: suites::cipher_suites(order),
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
    /// See [`Demands::known_name`].
    known_name: bool,
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
        callbacks::leave_name(name);
        let certificates = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let named = match (name, certificates.len()) {
            (Some(name), 2..) => certificates.iter().find(|certificate| is_for(certificate, name)),
            (Some(name), 1) if self.known_name => {
                certificates.first().filter(|certificate| is_for(certificate, name))
            }
            _ => None,
        };
        if self.known_name && name.is_some() && named.is_none() {
            callbacks::leave_refusal();
            return None;
        }
        named.or(certificates.first()).map(|certificate| certificate.key.clone())
    }
}

fn is_for(certificate: &Certificate, name: &str) -> bool {
    let parsed = certificate.key.end_entity_cert().ok();
    let parsed = parsed.and_then(|der| ParsedCertificate::try_from(der).ok());
    let name = ServerName::try_from(name).ok();
    parsed.zip(name).is_some_and(|(parsed, name)| verify_server_name(&parsed, &name).is_ok())
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self(super::words::plain(&error))
    }
}
