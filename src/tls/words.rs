//! Errors of rustls in plain words: it shows most of them by the names of its types.
//!
//! Libraries that use TLS for the sinks pass rustls' errors on as text, so text is what is read
//! here; [`plain`] reads the text of an error.

use rustls::{CertificateError, Error, pki_types::pem};

/// How rustls begins a text that goes on with the name of a variant, and how it begins here.
const BEGINNINGS: [(&str, &str); 7] = [
    ("received fatal alert: ", "the peer sent the alert: "),
    ("peer is incompatible: ", "the peer is not compatible: "),
    ("peer misbehaved: ", "the peer broke the protocol: "),
    ("received corrupt message of type ", "the peer sent a corrupt message: "),
    ("invalid certificate revocation list: ", "the revocation list cannot be used: "),
    ("encrypted client hello failure: ", "the encrypted client hello cannot be used: "),
    ("keys may not be consistent: ", "the key may not match the certificate: "),
];
const PEER_CERTIFICATE: &str = "invalid peer certificate: ";

/// An error of a connection.
pub fn plain(error: &Error) -> String {
    plain_text(error.to_string())
}

/// The same for an error that is of a certificate or key of our own.
pub fn plain_of_file(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(fault) => format!("the certificate {}", verdict_of(fault)),
        other => plain(other),
    }
}

/// What is wrong with a PEM file. Nothing that is in it is shown: it may be a key.
pub fn plain_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section has a broken BEGIN line".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it contains nothing of this kind".to_owned(),
        _ => "not PEM".to_owned(),
    }
}

/// A text that may hold one of rustls' with the name of a variant; any other stays as it is.
pub fn plain_text(text: String) -> String {
    if let Some((before, rest)) = text.split_once(PEER_CERTIFICATE) {
        return match Variant::read(rest) {
            Some((variant, after)) => {
                format!("{before}the peer's certificate {}{after}", verdict(&variant))
            }
            None => text,
        };
    }
    for (beginning, ours) in BEGINNINGS {
        let Some((before, rest)) = text.split_once(beginning) else { continue };
        let Some((variant, after)) = Variant::read(rest) else { continue };
        return format!("{before}{ours}{}{after}", variant.words());
    }
    match text.contains("received unexpected ") && text.contains("message: got ") {
        // These name a content type or a message of the protocol for each place.
        true => text.split(' ').map(one_word).collect::<Vec<_>>().join(" "),
        false => text,
    }
}

fn one_word(word: &str) -> String {
    match Variant::read(word) {
        Some((variant, after)) => format!("{}{after}", variant.words()),
        None => word.to_owned(),
    }
}

fn verdict_of(fault: &CertificateError) -> String {
    let text = fault.to_string();
    match Variant::read(&text) {
        Some((variant, _)) => verdict(&variant),
        None => format!("is not valid: {text}"),
    }
}

fn verdict(variant: &Variant<'_>) -> String {
    let text = match variant.name {
        "Expired" | "ExpiredContext" | "CertExpired" => "has expired",
        "NotValidYet" | "NotValidYetContext" | "CertNotValidYet" => "is not valid yet",
        "Revoked" | "CertRevoked" => "is revoked",
        "UnknownIssuer" => "is not issued by a trusted authority",
        "NotValidForName" | "NotValidForNameContext" | "CertNotValidForName" => {
            "is for another name"
        }
        "InvalidPurpose" | "InvalidPurposeContext" => "is not valid for this use",
        "BadSignature" => "has an invalid signature",
        "BadEncoding" | "BadDer" => "cannot be read",
        "UnsupportedCertVersion" => "has an X.509 version that is not supported: 3 is needed",
        "CaUsedAsEndEntity" => "belongs to an authority, but one of a server or client is needed",
        "UnhandledCriticalExtension" | "UnsupportedCriticalExtension" => {
            "has a critical extension that is not supported"
        }
        name if name.starts_with("UnsupportedSignatureAlgorithm") => {
            "is signed with an algorithm that is not supported"
        }
        _ => return format!("is not acceptable: {}", variant.words()),
    };
    text.to_owned()
}

/// The name of a variant as `Debug` shows it, and its argument where that is one word.
struct Variant<'a> {
    name: &'a str,
    argument: Option<&'a str>,
}

impl<'a> Variant<'a> {
    /// Reads one at the beginning of a text; `None` where a text of words stands there.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        if !text.starts_with(|c: char| c.is_ascii_uppercase()) {
            return None;
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let fields = rest.strip_prefix(" {").map(|rest| ('{', '}', rest));
        let fields = fields.or_else(|| rest.strip_prefix('(').map(|rest| ('(', ')', rest)));
        let Some((open, close, inner)) = fields else {
            return Some((Self { name, argument: None }, rest));
        };
        let (inner, after) = closed(inner, open, close);
        if matches!(name, "Other" | "OtherError")
            && let Some((variant, _)) = Self::read(inner)
        {
            return Some((variant, after));
        }
        let word = inner.trim_matches('"');
        let is_word = !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_alphanumeric());
        Some((Self { name, argument: is_word.then_some(word) }, after))
    }

    fn words(&self) -> String {
        match (self.name, self.argument) {
            ("Other" | "OtherError", _) => "no further information".to_owned(),
            ("NoCipherSuitesInCommon", _) => "no cipher suite in common".to_owned(),
            ("Tls12NotOffered" | "Tls12NotOfferedOrEnabled", _) => {
                "no TLS version in common: 1.2 or 1.3 is needed".to_owned()
            }
            // Those that rustls does not know: `AlertDescription(0xc8)`.
            ("AlertDescription" | "ContentType" | "HandshakeType", Some(number)) => {
                format!("number {number}")
            }
            (name, Some(argument)) => format!("{} ({})", split(name), split(argument)),
            (name, None) => split(name),
        }
    }
}

/// A text up to the mark that closes what was opened before it, and what follows.
fn closed(text: &str, open: char, close: char) -> (&str, &str) {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
        }
        if depth == 0 {
            let (inner, after) = text.split_at(at);
            return (inner, after.get(close.len_utf8()..).unwrap_or_default());
        }
    }
    (text, "")
}

/// `UnknownPSKIdentity` as `unknown PSK identity`.
fn split(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 8);
    let mut before = ' ';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let after = letters.peek().copied().unwrap_or('A');
        let begins = letter.is_ascii_uppercase()
            && (!before.is_ascii_uppercase() || after.is_ascii_lowercase());
        if begins && before != ' ' {
            words.push(' ');
        }
        let is_short = !begins || after.is_ascii_uppercase();
        words.push(if is_short { letter } else { letter.to_ascii_lowercase() });
        before = letter;
    }
    words.replace("tls12", "TLS 1.2").replace("tls13", "TLS 1.3").replace("kx ", "key exchange ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        AlertDescription, ContentType, HandshakeType, InconsistentKeys, InvalidMessage, OtherError,
        PeerIncompatible, PeerMisbehaved, pki_types::UnixTime,
    };

    use super::*;

    fn looks_like_debug(text: &str) -> bool {
        let pattern = regex::Regex::new(r"[a-z][A-Z]|[A-Za-z]\(|\{|\[|Some|None|Other");
        pattern.expect("a pattern").is_match(text)
    }

    #[test]
    fn errors_of_rustls_are_plain_words() {
        let other = |text: &'static str| {
            /// Shown as its `Debug` text is, like webpki's.
            #[derive(Debug)]
            struct Named(&'static str);
            impl std::fmt::Display for Named {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.0)
                }
            }
            impl std::error::Error for Named {}
            OtherError(Arc::new(Named(text)))
        };
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(9));
        let untrusted = CertificateError::UnknownIssuer;
        for (error, wanted) in [
            (Error::AlertReceived(AlertDescription::UnknownCA), "alert: unknown CA"),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "alert: handshake failure"),
            (
                Error::AlertReceived(AlertDescription::UnknownPSKIdentity),
                "alert: unknown PSK identity",
            ),
            (Error::AlertReceived(AlertDescription::Unknown(200)), "alert: number 0xc8"),
            (Error::InvalidCertificate(untrusted), "not issued by a trusted authority"),
            (Error::InvalidCertificate(CertificateError::Expired), "certificate has expired"),
            (
                Error::InvalidCertificate(CertificateError::ExpiredContext {
                    time,
                    not_after: time,
                }),
                "expired",
            ),
            (Error::InvalidCertificate(CertificateError::NotValidForName), "for another name"),
            (Error::InvalidCertificate(CertificateError::BadEncoding), "cannot be read"),
            (
                Error::InvalidCertificate(
                    CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                        signature_algorithm_id: vec![1, 2],
                        public_key_algorithm_id: vec![3, 4],
                    },
                ),
                "an algorithm that is not supported",
            ),
            (Error::InvalidCertificate(CertificateError::Other(other("odd"))), "not acceptable"),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "no cipher suite in common",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "no TLS version in common",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(
                    Some(vec![]),
                )),
                "server rejected encrypted client hello",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
                "no key exchange groups in common",
            ),
            (Error::PeerMisbehaved(PeerMisbehaved::MissingKeyShare), "missing key share"),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "invalid content type"),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerName")),
                "missing data (server name)",
            ),
            (
                Error::InvalidMessage(InvalidMessage::DuplicateExtension(13)),
                "duplicate extension (13)",
            ),
            (
                Error::InappropriateMessage {
                    expect_types: vec![ContentType::Handshake, ContentType::ChangeCipherSpec],
                    got_type: ContentType::ApplicationData,
                },
                "got application data when expecting",
            ),
            (
                Error::InappropriateHandshakeMessage {
                    expect_types: vec![HandshakeType::ClientHello],
                    got_type: HandshakeType::Unknown(99),
                },
                "got number 0x63 when expecting client hello",
            ),
            (
                Error::InconsistentKeys(InconsistentKeys::Unknown),
                "may not match the certificate: unknown",
            ),
            (Error::General("no luck".to_owned()), "no luck"),
            (Error::NoCertificatesPresented, "no certificates"),
            (Error::DecryptError, "cannot decrypt"),
        ] {
            let text = plain(&error);
            assert!(text.contains(wanted), "{wanted}: {text}");
            assert!(!looks_like_debug(&text), "{text}");
        }
    }

    #[test]
    fn texts_of_other_libraries_keep_what_is_around_the_words() {
        for (given, wanted) in [
            (
                "broker \"a\": IO Error: invalid peer certificate: UnknownIssuer; next",
                "broker \"a\": IO Error: the peer's certificate is not issued by a trusted authority; next",
            ),
            (
                "TLS: invalid peer certificate: Other(OtherError(UnsupportedCertVersion)), b",
                "TLS: the peer's certificate has an X.509 version that is not supported: 3 is \
                 needed, b",
            ),
            (
                "tls: received fatal alert: BadCertificate",
                "tls: the peer sent the alert: bad certificate",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                "invalid peer certificate: certificate not valid for name \"a\"",
            ),
            ("Connection refused (os error 111)", "Connection refused (os error 111)"),
        ] {
            assert_eq!(plain_text(given.to_owned()), wanted);
        }
    }
}
