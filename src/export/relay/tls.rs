//! TLS towards a server: rustls with aws-lc-rs, named at each configuration, for another provider
//! is compiled in as well and rustls would not guess.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::super::{ErrorClass, SinkError, TlsOptions};

/// Builds a configuration: the authorities of `ca_file` or the system's, and a client certificate
/// where there is one.
///
/// # Errors
/// A file that cannot be read or holds nothing of use; names it.
pub(in super::super) fn client_config(options: &TlsOptions) -> Result<ClientConfig, SinkError> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| bad(file, error))?;
            }
        }
        // Some of the system's may be unreadable or malformed: the others count.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let text = "the system has no certificate authorities: set tls.ca_file";
                return Err(SinkError::new(ErrorClass::Other, text));
            }
        }
    }
    let builder = builder()?.with_root_certificates(roots);
    let (Some(cert_file), Some(key_file)) = (&options.cert_file, &options.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad(key_file, error))?;
    builder
        .with_client_auth_cert(certificates(cert_file)?, key)
        .map_err(|error| bad(cert_file, error))
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| bad(file, error))?.collect();
    match found.map_err(|error| bad(file, error))? {
        found if found.is_empty() => Err(bad(file, "no certificate in it")),
        found => Ok(found),
    }
}

fn bad(file: &Path, why: impl std::fmt::Display) -> SinkError {
    SinkError::new(ErrorClass::Other, format_args!("{}: {why}", file.display()))
}

/// Believes nobody: for clients that want a configuration and use none.
///
/// # Errors
/// None in practice: the provider knows the protocol versions.
pub(in super::super) fn no_roots() -> Result<ClientConfig, SinkError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, SinkError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SinkError::new(ErrorClass::Other, error))
}
