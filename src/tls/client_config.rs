//! TLS towards sinks: which authorities to trust, and our own certificate.
//!
//! Two cryptographic providers are compiled in (rskafka brings ring along), so rustls has no
//! process-wide default that it could find by itself: every configuration names aws-lc-rs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{plain, plain_of_file, plain_pem};

/// TLS towards a server: whether to use it, which authorities to believe, who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Use it. Without `ca_file` the system's roots are believed.
    pub enabled: bool,
    /// PEM file of the authorities to believe, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
}

/// Why no client can be configured: a text that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfigError(String);

impl fmt::Display for ClientConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientConfigError {}

/// What a client of a sink is configured with. Reads files: not for an executor's thread.
///
/// If [`TlsOptions::enabled`] is not set no certificate is trusted, so that a server which insists
/// on TLS is refused instead of trusted by chance.
///
/// # Errors
/// A file cannot be read, holds no certificate or key, or key and certificate do not belong together.
pub fn client_config(options: &TlsOptions) -> Result<ClientConfig, ClientConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&format!("TLS: {}", plain(&error))))?
        .with_root_certificates(roots(options)?);
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let certificates = certificates(cert)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| failed(&format!("{}: {}", key.display(), plain_pem(&error))))?;
            builder
                .with_client_auth_cert(certificates, secret)
                .map_err(|error| failed(&format!("{}: {}", cert.display(), plain_of_file(&error))))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(failed("a client certificate needs both cert_file and key_file")),
    }
}

/// Authorities that are believed.
fn roots(options: &TlsOptions) -> Result<RootCertStore, ClientConfigError> {
    let mut roots = RootCertStore::empty();
    if !options.enabled {
        return Ok(roots);
    }
    let Some(path) = &options.ca_file else {
        let system = rustls_native_certs::load_native_certs();
        // Systems have odd certificates among their roots: one that does not parse is no reason to
        // refuse the others.
        let (added, _) = roots.add_parsable_certificates(system.certs);
        return match (added, system.errors.first()) {
            (0, Some(error)) => Err(failed(&format!("the system's trusted certificates: {error}"))),
            (0, None) => Err(failed("the system has no trusted certificates: set ca_file")),
            _ => Ok(roots),
        };
    };
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| named(path, &plain_of_file(&error)))?;
    }
    Ok(roots)
}

/// Certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientConfigError> {
    let broken = |error| named(path, &plain_pem(&error));
    let found = CertificateDer::pem_file_iter(path)
        .map_err(broken)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken)?;
    if found.is_empty() { Err(named(path, "no certificate")) } else { Ok(found) }
}

fn named(path: &Path, text: &str) -> ClientConfigError {
    failed(&format!("{}: {text}", path.display()))
}

fn failed(text: &str) -> ClientConfigError {
    ClientConfigError(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: &TlsOptions) -> String {
        client_config(options).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.pem");
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for path in [&missing, &empty] {
            let options =
                TlsOptions { enabled: true, ca_file: Some(path.clone()), ..TlsOptions::default() };
            assert!(text(&options).starts_with(&path.display().to_string()), "{}", text(&options));
        }
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let options = TlsOptions { cert_file: Some("cert.pem".into()), ..TlsOptions::default() };
        assert!(text(&options).contains("key_file"));
    }

    #[test]
    fn without_tls_nobody_is_believed() {
        assert!(roots(&TlsOptions::default()).unwrap().is_empty());
        assert!(client_config(&TlsOptions::default()).is_ok());
    }
}
