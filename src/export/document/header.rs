//! The header of a mail as a document shows it: fields in order, unfolded, within bounds.

use std::borrow::Cow;

use mail_parser::{HeaderValue, parsers::MessageStream};
use serde::Serialize;

/// Fields that a document shows at most.
pub const FIELDS_MAX: usize = 200;
/// Octets that these fields take in JSON at most, names and values.
pub const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Of the mail data, looked at for Subject and Message-ID.
const FRONT_BYTES: usize = 256 << 10;
/// Octets of a decoded subject that are shown at most: four lines of RFC 5322 §2.1.1.
const SUBJECT_BYTES_MAX: usize = 4 * 998;
/// RFC 5322 §2.1.1: a line's length. A longer Message-ID is none.
const MESSAGE_ID_BYTES_MAX: usize = 998;

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: Cow<'a, str>,
}

/// What a document tells of the header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) fields: Vec<Field<'a>>,
    /// There were more of them, or too large ones.
    pub(super) truncated: bool,
    pub(super) message_id: Option<String>,
    /// With encoded words (RFC 2047) decoded.
    pub(super) subject: Option<String>,
}

impl<'a> Header<'a> {
    /// Reads the header at the front of mail data.
    pub(super) fn read(data: &'a [u8]) -> Self {
        let front = data.get(..FRONT_BYTES).unwrap_or(data);
        let mut lines = Lines { rest: front };
        let mut header = Self { fields: Vec::with_capacity(24), ..Self::default() };
        let mut room = FIELDS_BYTES_MAX;
        for (name, folded) in lines.by_ref() {
            let value = || trim(unfold(folded));
            // RFC 5322 §3.6: each of the two once; of several the first counts.
            if header.message_id.is_none() && name.eq_ignore_ascii_case(b"message-id") {
                header.message_id =
                    Some(lossy(value())).filter(|id| within(id, MESSAGE_ID_BYTES_MAX)).map(owned);
            } else if header.subject.is_none() && name.eq_ignore_ascii_case(b"subject") {
                header.subject = Some(subject(value()));
            }
            if header.truncated {
                if header.message_id.is_some() && header.subject.is_some() {
                    break;
                }
                continue;
            }
            let field = Field { name: lossy(Cow::Borrowed(name)), value: lossy(value()) };
            let bytes = json_bytes(&field.name) + json_bytes(&field.value);
            if header.fields.len() == FIELDS_MAX || bytes > room {
                header.truncated = true;
                continue;
            }
            room -= bytes;
            header.fields.push(field);
        }
        header.truncated |= lines.rest.is_empty() && front.len() < data.len();
        header
    }
}

fn within(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
}

fn owned(text: Cow<'_, str>) -> String {
    text.into_owned()
}

/// The fields of a header: name, and value with its line ends.
///
/// An empty line ends the header (RFC 5322 §2.1), and so does a line that is no field, for the body
/// of a mail that was sent without header begins there. A bare LF, where it was let in, ends a line.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let first = memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
        let name_len = memchr::memchr(b':', self.rest.get(..first)?)?;
        // RFC 5322 §4.5: white space before the colon was once allowed.
        let name = self.rest.get(..name_len)?.trim_ascii_end();
        // RFC 5322 §2.2: printable US-ASCII.
        if name.is_empty() || !name.iter().all(|octet| (33..=126).contains(octet)) {
            return None;
        }
        let mut end = first;
        // RFC 5322 §2.2.3: a line that begins with white space goes on with the field.
        while let Some(b' ' | b'\t') = self.rest.get(end) {
            let rest = self.rest.get(end..).unwrap_or_default();
            end += memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        }
        let (field, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some((name, field.get(name_len + 1..)?))
    }
}

/// RFC 5322 §2.2.3: unfolding takes away the line ends, and nothing else.
fn unfold(folded: &[u8]) -> Cow<'_, [u8]> {
    let line = |line| strip_line_end(line);
    match memchr::memchr(b'\n', folded) {
        None => Cow::Borrowed(folded),
        Some(at) if at + 1 == folded.len() => Cow::Borrowed(line(folded)),
        Some(_) => {
            let mut value = Vec::with_capacity(folded.len());
            for part in folded.split_inclusive(|&octet| octet == b'\n') {
                value.extend_from_slice(line(part));
            }
            Cow::Owned(value)
        }
    }
}

fn strip_line_end(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

fn trim(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim_ascii()),
        Cow::Owned(value) => Cow::Owned(value.trim_ascii().to_vec()),
    }
}

/// Invalid UTF-8 replaced.
fn lossy(octets: Cow<'_, [u8]>) -> Cow<'_, str> {
    match octets {
        Cow::Borrowed(octets) => String::from_utf8_lossy(octets),
        Cow::Owned(octets) => Cow::Owned(
            String::from_utf8(octets)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

/// Decodes RFC 2047; most subjects hold no encoded word.
fn subject(value: Cow<'_, [u8]>) -> String {
    let decoded = if memchr::memmem::find(&value, b"=?").is_some() {
        // Only what can be shown is decoded: three octets of UTF-8 take at most 9 in Q.
        let mut line = value.get(..12 * SUBJECT_BYTES_MAX).unwrap_or(&value).to_vec();
        line.push(b'\n');
        match MessageStream::new(&line).parse_unstructured() {
            HeaderValue::Text(text) => text.into_owned(),
            _ => String::new(),
        }
    } else {
        lossy(value).into_owned()
    };
    shorten(decoded)
}

fn shorten(mut subject: String) -> String {
    if subject.len() > SUBJECT_BYTES_MAX {
        let mut end = SUBJECT_BYTES_MAX;
        while !subject.is_char_boundary(end) {
            end -= 1;
        }
        subject.truncate(end);
    }
    subject
}

/// Octets that a text takes in JSON.
fn json_bytes(text: &str) -> usize {
    let of = |octet| match octet {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(data: &[u8]) -> Vec<(String, String)> {
        let header = Header::read(data);
        header.fields.into_iter().map(|f| (f.name.into_owned(), f.value.into_owned())).collect()
    }

    #[test]
    fn fields_are_unfolded_in_order() {
        let mail = b"Received: one;\r\n\ttwo\r\n  three\r\nFrom : a@x.test\r\nEmpty:\r\n\
            From: \t b@x.test \r\nbare: lf\nfold: a\n b\r\n\r\nBody: no\r\n";
        let want = [
            ("Received", "one;\ttwo  three"),
            ("From", "a@x.test"),
            ("Empty", ""),
            ("From", "b@x.test"),
            ("bare", "lf"),
            ("fold", "a b"),
        ];
        assert_eq!(fields(mail), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        for (mail, count) in [
            (&b""[..], 0),
            (b"\r\nA: b\r\n", 0),
            (b"no header at all\r\nA: b\r\n", 0),
            (b" A: b\r\n", 0),
            (b": b\r\n", 0),
            (b"A b: c\r\n", 0),
            (b"\xff: c\r\n", 0),
            (b"A: b", 1),
            (b"A:", 1),
            (b"A: b\r\nhello: \r\nhello there\r\nC: d\r\n", 2),
        ] {
            assert_eq!(fields(mail).len(), count, "{}", String::from_utf8_lossy(mail));
        }
    }

    #[test]
    fn subjects_are_decoded() {
        for (raw, want) in [
            ("Order", "Order"),
            ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?UTF-8?B?R3LDvMOfZQ==?= all", "Grüße all"),
            ("=?iso-8859-1?q?a?=\r\n =?iso-8859-1?q?b=E9?=", "abé"),
            ("=?utf-8?q?broken", "=?utf-8?q?broken"),
            ("2 =? 3", "2 =? 3"),
            ("a\r\n b", "a b"),
            ("", ""),
        ] {
            let mail = format!("SUBJECT: {raw}\r\nSubject: second\r\n\r\n");
            assert_eq!(Header::read(mail.as_bytes()).subject.as_deref(), Some(want), "{raw}");
        }
        let raw = b"Subject: \xff\xfeabc\r\n\r\n";
        assert_eq!(Header::read(raw).subject.as_deref(), Some("\u{fffd}\u{fffd}abc"));
        let long = format!("Subject: {}\r\n\r\n", "ü".repeat(10_000));
        assert_eq!(Header::read(long.as_bytes()).subject.unwrap(), "ü".repeat(1_996));
    }

    #[test]
    fn bounds_hold_and_subject_is_found_behind_them() {
        let tail = "Subject: here\r\nMessage-ID: <a@b>\r\n\r\n";
        let many = "X: y\r\n".repeat(FIELDS_MAX);
        for (mail, count, truncated) in [
            (many.clone() + "\r\n", FIELDS_MAX, false),
            (many + tail, FIELDS_MAX, true),
            (format!("A: {}\r\n{tail}", "x".repeat(FIELDS_BYTES_MAX - 1)), 1, true),
            (format!("A: {}\r\n{tail}", "x".repeat(FIELDS_BYTES_MAX)), 0, true),
            // Six octets each in JSON.
            (format!("A: {}\r\n{tail}", "\u{1}".repeat(FIELDS_BYTES_MAX / 6 + 1)), 0, true),
            (format!("{}A: {}\r\n", "B: c\r\n", " \r\n".repeat(FRONT_BYTES)), 2, true),
        ] {
            let header = Header::read(mail.as_bytes());
            assert_eq!((header.fields.len(), header.truncated), (count, truncated));
            if mail.ends_with(tail) {
                assert_eq!(header.subject.as_deref(), Some("here"));
                assert_eq!(header.message_id.as_deref(), Some("<a@b>"));
            }
        }
        let long = format!("Message-ID: <{}>\r\n\r\n", "x".repeat(998));
        assert_eq!(Header::read(long.as_bytes()).message_id, None);
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_read(data: Vec<u8>, encoded in "=\\?[ -~]{0,20}\\?[bqBQx]\\?[ -~]{0,40}(\\?=)?") {
            Header::read(&data);
            let mail = [b"Subject: ", encoded.as_bytes(), b"\r\n\r\n"].concat();
            proptest::prop_assert!(Header::read(&mail).subject.is_some());
        }
    }
}
