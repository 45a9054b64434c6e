//! Which authorities to trust, and the tickets with which a connection continues an earlier one.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Error, Tls};
use mailrace_tls::{TlsOptions, client_config};

/// TLS of a run, checked.
#[derive(Clone, Debug)]
pub(in super::super) struct Secure {
    config: ClientConfig,
    name: ServerName<'static>,
    resumes: bool,
}

impl Secure {
    /// Connections to `host`, whose certificate is held against the authorities in `ca_file`, or
    /// those of the system; with `insecure` against none. Reads files.
    ///
    /// # Errors
    /// A text for the user: the host is no name, or no authority can be read.
    pub(in super::super) fn new(
        host: &str,
        ca_file: Option<&Path>,
        insecure: bool,
        resumes: bool,
    ) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is not a name that a certificate can have"))?;
        let options = TlsOptions {
            enabled: !insecure,
            ca_file: ca_file.map(Path::to_owned),
            ..TlsOptions::default()
        };
        let mut config = client_config(&options).map_err(|error| error.to_string())?;
        if insecure {
            let provider = Arc::clone(config.crypto_provider());
            config.dangerous().set_certificate_verifier(Arc::new(Anybody(provider)));
        }
        Ok(Self { config, name, resumes })
    }

    /// What one thread needs for so many connections.
    pub(in super::super) fn client(&self, connections: usize) -> Client {
        let mut config = self.config.clone();
        config.resumption = if self.resumes {
            Resumption::store(Arc::new(Tickets::new(connections)))
        } else {
            Resumption::disabled()
        };
        Client { config: Arc::new(config), name: self.name.clone() }
    }
}

/// TLS of a thread's connections, which resume each other's sessions.
#[derive(Debug)]
pub(in super::super) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Begins TLS on one more connection.
    ///
    /// # Errors
    /// The provider has no random numbers.
    pub(in super::super) fn begin(&self) -> Result<Tls, Error> {
        Tls::new(Arc::clone(&self.config), self.name.clone())
    }
}

/// Tickets of the one server that is loaded. rustls' own store keeps eight for a server, so of many
/// connections that close at once most would begin anew.
#[derive(Debug)]
struct Tickets {
    /// A ticket for each connection.
    most: usize,
    /// Used by one thread; rustls asks for the lock.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    session: Option<Tls12ClientSessionValue>,
    /// Newest last. Each is used once (RFC 8446 §C.4).
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.with(|kept| kept.session = Some(session));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|kept| kept.session.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|kept| kept.session = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.with(|kept| {
            if kept.tickets.len() == self.most {
                kept.tickets.pop_front();
            }
            kept.tickets.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|kept| kept.tickets.pop_back())
    }
}

/// Believes every certificate; that the server has its key is checked all the same, as the work is
/// part of a handshake.
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
