//! Who a client is, from its verified certificate.

use std::fmt::Write;

use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    prelude::FromDer,
    x509::{AttributeTypeAndValue, X509Name},
};

/// Octets of a subject that are kept; it goes into each record of the connection.
const SUBJECT_BYTES_MAX: usize = 512;

/// What a certificate says of who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Its subject as RFC 4514 writes it; if it has none, its identity stands for it.
    pub subject: String,
    /// Whom it stands for: the first mailbox, else the first host of its alternative names, else
    /// its common name.
    pub identity: Option<String>,
}

impl Client {
    /// Reads a certificate whose chain was verified.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let identity = identity(&certificate);
        let mut subject = distinguished_name(certificate.subject());
        if subject.is_empty() {
            subject = identity.clone().unwrap_or_default();
        }
        subject.truncate(subject.floor_char_boundary(SUBJECT_BYTES_MAX));
        Some(Self { subject, identity })
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Option<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let mailbox = names.clone().find_map(|name| match name {
        GeneralName::RFC822Name(mailbox) => usable(mailbox),
        _ => None,
    });
    let host = || {
        names.clone().find_map(|name| match name {
            GeneralName::DNSName(host) => usable(host),
            _ => None,
        })
    };
    let common = || {
        let mut names = certificate.subject().iter_common_name();
        names.find_map(|name| usable(name.as_str().ok()?))
    };
    mailbox.or_else(host).or_else(common).map(str::to_owned)
}

/// A name with a NUL in it does not count, whatever authority signed it.
fn usable(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty() && !name.contains(char::is_control))
}

/// RFC 4514 §2: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let mut between = ',';
        for attribute in part.iter() {
            if !text.is_empty() {
                text.push(between);
            }
            write_attribute(attribute, &mut text);
            between = '+';
        }
    }
    text
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let kind = attribute.attr_type();
    match oid2abbrev(kind, oid_registry()) {
        Ok(abbreviation) => text.push_str(abbreviation),
        Err(_) => text.push_str(&kind.to_id_string()),
    }
    text.push('=');
    let Ok(value) = attribute.as_str() else {
        text.push('#');
        for octet in attribute.attr_value().data {
            let _ = write!(text, "{octet:02x}");
        }
        return;
    };
    // RFC 4514 §2.4.
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' | ' ' if at == 0 => text.extend(['\\', c]),
            ' ' if at == last => text.push_str("\\ "),
            c if c.is_control() => {
                let mut octets = [0; 4];
                for octet in c.encode_utf8(&mut octets).bytes() {
                    let _ = write!(text, "\\{octet:02X}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, SanType};

    use super::*;

    fn client(names: &[(DnType, &str)], alternative: Vec<SanType>) -> Client {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = alternative;
        let signed = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Client::from_der(signed.der()).unwrap()
    }

    #[test]
    fn the_identity_is_a_mailbox_or_a_host_or_the_common_name() {
        let mailbox = SanType::Rfc822Name("u@a.test".try_into().unwrap());
        let host = SanType::DnsName("h.a.test".try_into().unwrap());
        let common = [(DnType::CommonName, "c")];
        for (names, alternative, identity, subject) in [
            (&common[..], vec![host.clone(), mailbox.clone()], Some("u@a.test"), "CN=c"),
            (&common, vec![host.clone()], Some("h.a.test"), "CN=c"),
            (&common, vec![], Some("c"), "CN=c"),
            (&[], vec![mailbox], Some("u@a.test"), "u@a.test"),
            (&[(DnType::OrganizationName, "o")], vec![], None, "O=o"),
            (&[(DnType::CommonName, "a\0b")], vec![], None, "CN=a\\00b"),
        ] {
            let client = client(names, alternative);
            assert_eq!((client.identity.as_deref(), &*client.subject), (identity, subject));
        }
    }

    /// RFC 4514 §2.3, §2.4: nobody's value looks like another part.
    #[test]
    fn a_subject_is_written_without_doubt() {
        let names = [
            (DnType::OrganizationName, " a, Inc. "),
            (DnType::CommonName, "#x,O=\"other\"\n\u{e4}"),
        ];
        let odd = client(&names, vec![]);
        assert_eq!(odd.subject, "CN=\\#x\\,O=\\\"other\\\"\\0A\u{e4},O=\\ a\\, Inc.\\ ");
        let long = "\u{e4}".repeat(400);
        let long = client(&[(DnType::CommonName, &long)], vec![]);
        assert_eq!(long.subject.len(), 511);
    }

    #[test]
    fn octets_that_are_no_certificate_have_no_client() {
        let signed = rcgen::CertificateParams::default();
        let signed = signed.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der = signed.der().to_vec();
        for len in 0..der.len() {
            assert_eq!(Client::from_der(&der[..len]), None);
        }
        for at in 0..der.len() {
            let mut forged = der.clone();
            forged[at] ^= 0xff;
            let _ = Client::from_der(&forged);
        }
    }
}
