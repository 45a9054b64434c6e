//! A certificate with its key, read from PEM files.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, InconsistentKeys,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};

use super::words::{plain_of_file, plain_pem};

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: the certificate, then those of the authorities between it and a root.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
}

/// Why a certificate cannot be used, by the file to blame. The text names the file, never what is
/// in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The certificate's file.
    Certificate(String),
    /// The key's file.
    Key(String),
    /// The file of the authorities that clients' certificates must be of.
    ClientAuthorities(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(text) | Self::Key(text) | Self::ClientAuthorities(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// A certificate that may be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Seconds since 1970 at which it ends.
    pub not_after: i64,
}

/// Tells the contents of a pair of files from any others.
pub(super) type Fingerprint = [u8; 32];

/// What both files hold.
pub(super) struct Contents {
    certificate: Result<Vec<u8>, LoadError>,
    key: Result<Vec<u8>, LoadError>,
}

impl Files {
    pub(super) fn read(&self) -> Contents {
        let read = |path: &PathBuf, blame: fn(String) -> LoadError| {
            std::fs::read(path).map_err(|error| blame(format!("{}: {error}", path.display())))
        };
        Contents {
            certificate: read(&self.cert_file, LoadError::Certificate),
            key: read(&self.key_file, LoadError::Key),
        }
    }
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key] {
            match part {
                Ok(octets) => {
                    hash.update((octets.len() as u64).to_le_bytes());
                    hash.update(octets);
                }
                Err(error) => hash.update(error.to_string()),
            }
        }
        hash.finalize().into()
    }
}

impl Certificate {
    /// Reads a certificate and its key. Reads files: not for a shard's thread.
    ///
    /// # Errors
    /// A file cannot be read or holds nothing of its kind, the two do not belong together, or the
    /// certificate is not valid at this time.
    pub fn load(files: &Files) -> Result<Self, LoadError> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Self::from_contents(files, files.read(), &provider)
    }

    pub(super) fn from_contents(
        files: &Files,
        contents: Contents,
        provider: &CryptoProvider,
    ) -> Result<Self, LoadError> {
        let cert = |text: &dyn fmt::Display| {
            LoadError::Certificate(format!("{}: {text}", files.cert_file.display()))
        };
        let key = |text: &dyn fmt::Display| {
            LoadError::Key(format!("{}: {text}", files.key_file.display()))
        };
        let chain = CertificateDer::pem_slice_iter(&contents.certificate?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| cert(&format!("not PEM: {}", plain_pem(&error))))?;
        let Some(first) = chain.first() else { return Err(cert(&"no certificate in it")) };
        let (not_before, not_after) =
            validity(first).ok_or_else(|| cert(&"not a certificate (X.509)"))?;
        let secret = PrivateKeyDer::from_pem_slice(&contents.key?)
            .map_err(|error| key(&format!("no private key in it: {}", plain_pem(&error))))?;
        let certified =
            CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    key(&format!("does not match the certificate in {}", files.cert_file.display()))
                }
                Error::InvalidCertificate(_) => cert(&plain_of_file(&error)),
                other => key(&plain_of_file(&other)),
            })?;
        let now = unix_seconds();
        if not_after <= now {
            return Err(cert(&format!("expired {} days ago", (now - not_after) / 86_400)));
        }
        if not_before > now {
            let hours = (not_before - now) / 3_600 + 1;
            return Err(cert(&format!("not valid before {hours} hours from now")));
        }
        Ok(Self { key: Arc::new(certified), not_after })
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate begins and ends, in seconds since 1970 (RFC 5280 §4.1): rustls keeps that to
/// itself.
///
/// ```text
///   Certificate { tbsCertificate { [0] version, serial, algorithm, issuer, validity { from, to } ..
/// ```
fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (SEQUENCE, certificate, _) = element(der)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _ in ["serial", "algorithm", "issuer"] {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (tag, from, rest) = element(validity)?;
    let from = time(tag, from)?;
    let (tag, to, _) = element(rest)?;
    Some((from, time(tag, to)?))
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (octets, behind) = rest.split_at_checked(count)?;
        len = octets.iter().fold(0, |len, octet| len << 8 | usize::from(*octet));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(len)?;
    Some((tag, content, behind))
}

/// RFC 5280 §4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, else `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year);
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year), rest)
        }
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let mut next = || parts.next();
    let (month, day) = (next()?, next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (hour, minute, second) = (next()?, next()?, next()?);
    // Years begin in March, so that the leap day comes last. Source: Howard Hinnant,
    // "chrono-Compatible Low-Level Date Algorithms".
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229235959Z", Some(1_709_251_199)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "700101000000Z", None),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "7001010000x0Z", None),
        ] {
            assert_eq!(time(tag, text.as_bytes()), expected, "{text}");
        }
    }

    /// What is cut or forged gives no answer, and no panic.
    #[test]
    fn a_certificate_is_read_with_care() {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2050, 6, 1);
        let signed = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der: &[u8] = signed.der();
        assert_eq!(validity(der), Some((1_577_836_800, 2_537_654_400)));
        for len in 0..der.len() {
            assert_eq!(validity(&der[..len]), None, "{len}");
        }
        for at in 0..der.len().min(200) {
            let mut forged = der.to_vec();
            forged[at] ^= 0xff;
            let _ = validity(&forged);
        }
    }
}
