//! What goes along with the body: CloudEvents attributes, and the envelope of a raw message.
//!
//! Clients decide how long most of these are, and receivers have limits: HTTP servers often 8 KiB
//! of header lines in all, NATS 4 KiB unless configured otherwise. So they are bounded here, for
//! every sink alike:
//!
//! * a value has at most [`VALUE_BYTES_MAX`] bytes, percent-encoded, and those of the envelope
//!   [`ENVELOPE_BYTES_MAX`] together;
//! * `mailrace_rcpt_count` counts the forward-paths, `mailrace_rcpt_to` has as many of them, from
//!   the first on, as fit; any other value that does not fit is left out;
//! * `mailrace_truncated` then names what was cut or left out, such as `rcpt_to, helo`, and
//!   `mailrace_envelope` is the address of the whole event, if there is one.

use std::borrow::Cow;

use super::{EVENT_TYPE, Names};
use crate::{DocumentOptions, Encoding, Record};

/// Most bytes of one value.
pub(super) const VALUE_BYTES_MAX: usize = 4 << 10;

/// Most bytes of the names and values of an envelope. With the CloudEvents attributes and what an
/// HTTP client adds, a request stays below 8 KiB.
pub(super) const ENVELOPE_BYTES_MAX: usize = 6 << 10;

/// The same where a receiver did not take that: about what a single recipient needs.
pub(super) const ENVELOPE_BYTES_SMALL: usize = 1 << 10;

/// Values of the envelope, as far as there is room.
struct Envelope<'a> {
    all: &'a mut Vec<(String, String)>,
    room: usize,
    truncated: Vec<&'a str>,
}

impl<'a> Envelope<'a> {
    /// What a header line takes besides: `: `, CR LF.
    const LINE: usize = 4;

    fn push(&mut self, name: &'a str, value: &str) {
        let bytes = name.len() + Self::LINE + percent_encode(value).len();
        if bytes > self.room || percent_encode(value).len() > VALUE_BYTES_MAX {
            self.truncated.push(name.strip_prefix("mailrace_").unwrap_or(name));
            return;
        }
        self.room -= bytes;
        self.all.push((name.to_owned(), value.to_owned()));
    }

    /// As many as fit, from the first on: none is cut in the middle.
    fn push_list(&mut self, name: &'a str, values: &[String]) {
        let most = VALUE_BYTES_MAX.min(self.room.saturating_sub(name.len() + Self::LINE));
        let mut joined = String::new();
        let mut bytes = 0;
        for value in values {
            let separator = if joined.is_empty() { "" } else { ", " };
            let more = percent_encode(separator).len() + percent_encode(value).len();
            if bytes + more > most {
                self.truncated.push(name.strip_prefix("mailrace_").unwrap_or(name));
                break;
            }
            bytes += more;
            joined.push_str(separator);
            joined.push_str(value);
        }
        self.room = self.room.saturating_sub(name.len() + Self::LINE + bytes);
        self.all.push((name.to_owned(), joined));
    }
}

/// The attributes of a record's document, without `datacontenttype`: that is its content type. `mail`
/// is what a raw document holds, or refers to.
pub(super) fn attributes(
    record: &Record,
    options: &DocumentOptions,
    names: &Names,
    envelope_bytes: usize,
    mail: &[u8],
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
    // What has a bound of its own first, so that it is there in any case.
    push("mailrace_rcpt_count", &record.rcpt_to.len().to_string());
    push("mailrace_smtputf8", if record.smtputf8 { "true" } else { "false" });
    push("mailrace_body", record.metadata().body());
    push("mailrace_client_ip", &record.client.ip().to_string());
    push("mailrace_client_port", &record.client.port().to_string());
    // Names of a closed set.
    let flags = record.flag_names().collect::<Vec<_>>().join(", ");
    if !flags.is_empty() {
        push("mailrace_flags", &flags);
    }
    push("mailrace_size", &mail.len().to_string());
    if options.sha256 {
        push("mailrace_sha256", &super::sha256(mail));
    }
    let mut envelope = Envelope { all: &mut all, room: envelope_bytes, truncated: Vec::new() };
    envelope.push("mailrace_listener", &record.listener);
    envelope.push("mailrace_mail_from", &record.mail_from);
    for (name, value) in [
        ("mailrace_auth_user", &record.facts.auth_user),
        ("mailrace_tls_version", &record.facts.tls_version),
        ("mailrace_tls_cipher", &record.facts.tls_cipher),
        ("mailrace_rdns", &record.facts.rdns),
    ] {
        if !value.is_empty() {
            envelope.push(name, value);
        }
    }
    envelope.push("mailrace_helo", &record.helo);
    envelope.push_list("mailrace_rcpt_to", &record.rcpt_to);
    if !envelope.truncated.is_empty() {
        let truncated = envelope.truncated.join(", ");
        all.push(("mailrace_truncated".to_owned(), truncated));
        if !options.reference_url.is_empty() {
            let event = format!("{}/v1/messages/{}", options.reference_url, names.id);
            all.push(("mailrace_envelope".to_owned(), event));
        }
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

    fn raw(record: &Record, bytes: usize) -> Vec<(String, String)> {
        let options = DocumentOptions {
            encoding: Encoding::Raw,
            inline_max: u64::MAX,
            reference_url: "https://m.test".to_owned(),
            sha256: true,
            key: crate::Key::Rcpt,
        };
        attributes(record, &options, &Names::new(record, &options), bytes, &record.data)
    }

    /// A client with all it can say: whatever it says, the headers stay below 8 KiB.
    #[test]
    fn headers_are_bounded_and_say_what_is_missing() {
        let mut record = crate::testing::record(1, 7);
        record.rcpt_to = (0..300).map(|n| format!("somebody.with.a.name.{n:03}@d.test")).collect();
        let get = |all: &[(String, String)], name: &str| {
            all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let bytes = |all: &[(String, String)]| -> usize {
            all.iter().map(|(name, value)| name.len() + 4 + percent_encode(value).len()).sum()
        };
        let all = raw(&record, ENVELOPE_BYTES_MAX);
        assert_eq!(get(&all, "mailrace_rcpt_count").as_deref(), Some("300"));
        assert_eq!(get(&all, "mailrace_truncated").as_deref(), Some("rcpt_to"));
        let id = record.id.to_string();
        assert_eq!(
            get(&all, "mailrace_envelope"),
            Some(format!("https://m.test/v1/messages/{id}"))
        );
        let listed = get(&all, "mailrace_rcpt_to").unwrap();
        let listed: Vec<_> = listed.split(", ").collect();
        assert!(listed.len() > 90 && listed == record.rcpt_to[..listed.len()], "{}", listed.len());
        assert!(all.iter().all(|(_, value)| percent_encode(value).len() <= VALUE_BYTES_MAX));
        assert!(bytes(&all) < 7_400, "{}", bytes(&all));
        assert!(bytes(&raw(&record, ENVELOPE_BYTES_SMALL)) < 2_000);

        // Everything long at once, and three times as long in percent-encoding.
        let long = "ü".repeat(2_000);
        record.helo.clone_from(&long);
        record.mail_from = format!("{long}@s.test");
        record.rcpt_to = vec![format!("{long}@d.test")];
        record.facts.rdns.clone_from(&long);
        record.facts.auth_user.clone_from(&long);
        record.facts.tls_cipher.clone_from(&long);
        let all = raw(&record, ENVELOPE_BYTES_MAX);
        assert!(bytes(&all) < 7_400, "{}", bytes(&all));
        assert_eq!(
            get(&all, "mailrace_truncated").as_deref(),
            Some("mail_from, auth_user, tls_cipher, rdns, helo, rcpt_to")
        );
        assert_eq!(get(&all, "mailrace_rcpt_to").as_deref(), Some(""));
        assert!(get(&all, "partitionkey").unwrap().starts_with("sha256:"));

        // What fits says nothing of it.
        let all = raw(&crate::testing::record(1, 7), ENVELOPE_BYTES_MAX);
        assert_eq!((get(&all, "mailrace_truncated"), get(&all, "mailrace_envelope")), (None, None));
    }

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
