//! What goes beside the body: CloudEvents attributes, and the envelope of a raw one.

use std::borrow::Cow;

use super::{EVENT_TYPE, Names};
use crate::export::{DocumentOptions, Encoding, Record};

/// The attributes of a record's document, without `datacontenttype`: that is its content type.
pub(super) fn attributes(
    record: &Record,
    options: &DocumentOptions,
    names: &Names,
) -> Vec<(String, String)> {
    let mut all = Vec::with_capacity(24);
    let mut push = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    push("specversion", "1.0");
    push("type", EVENT_TYPE);
    push("source", &names.source);
    push("id", &names.id);
    push("time", &names.time);
    push("sequence", &names.sequence);
    if let Some(key) = &names.key {
        push("partitionkey", key);
    }
    if let Some(reference) = &names.reference {
        push("dataref", reference);
    }
    if record.replay {
        push("mailracereplay", "true");
    }
    if options.encoding != Encoding::Raw {
        return all;
    }
    push("mailrace_listener", &record.listener);
    push("mailrace_mail_from", &record.mail_from);
    push("mailrace_rcpt_to", &record.rcpt_to.join(", "));
    push("mailrace_smtputf8", if record.smtputf8 { "true" } else { "false" });
    push("mailrace_body", record.body());
    push("mailrace_client_ip", &record.client.ip().to_string());
    push("mailrace_client_port", &record.client.port().to_string());
    push("mailrace_helo", &record.helo);
    let flags = record.flag_names().collect::<Vec<_>>().join(", ");
    for (name, value) in [
        ("mailrace_flags", &flags),
        ("mailrace_rdns", &record.facts.rdns),
        ("mailrace_auth_user", &record.facts.auth_user),
        ("mailrace_tls_version", &record.facts.tls_version),
        ("mailrace_tls_cipher", &record.facts.tls_cipher),
    ] {
        if !value.is_empty() {
            push(name, value);
        }
    }
    push("mailrace_size", &record.data.len().to_string());
    if options.sha256 {
        push("mailrace_sha256", &super::sha256(&record.data));
    }
    all
}

/// A value as headers of HTTP and NATS bear it: spaces, quotes, percent signs and what is not
/// printable US-ASCII percent-encoded (CloudEvents 1.0, HTTP protocol binding §3.1.3.2).
#[must_use]
pub fn percent_encode(value: &str) -> Cow<'_, str> {
    let plain = |octet: u8| matches!(octet, b'!' | b'#'..=b'$' | b'&'..=b'~');
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(value.len() + 16);
    for octet in value.bytes() {
        if plain(octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(octet >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(octet & 15)]));
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_made_safe() {
        for (value, encoded) in [
            ("a@x.test", "a@x.test"),
            ("", ""),
            ("a b\"%\\", "a%20b%22%25\\"),
            ("\r\nX: y", "%0D%0AX:%20y"),
            ("ü\u{7f}~", "%C3%BC%7F~"),
        ] {
            assert_eq!(percent_encode(value), encoded);
        }
        assert!(matches!(percent_encode("a@x.test"), Cow::Borrowed(_)));
    }
}
