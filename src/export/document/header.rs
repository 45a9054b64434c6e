//! The header of a mail as a document shows it: fields in order, unfolded, within bounds.

use std::borrow::Cow;

use serde::Serialize;

use mailrace_header::{Fields, Summary};

/// Fields that a document shows at most.
pub const FIELDS_MAX: usize = 200;
/// Octets that these fields take in JSON at most, names and values.
pub const FIELDS_BYTES_MAX: usize = 64 << 10;

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    /// Invalid UTF-8 replaced.
    pub(super) value: Cow<'a, str>,
}

/// What a document shows of the header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) fields: Vec<Field<'a>>,
    /// There were more of them, or too large ones.
    pub(super) truncated: bool,
    pub(super) summary: Summary,
}

impl<'a> Header<'a> {
    /// Reads the header at the front of mail data.
    pub(super) fn read(data: &'a [u8]) -> Self {
        let mut fields = Fields::new(data);
        let mut header = Self { fields: Vec::with_capacity(24), ..Self::default() };
        let mut room = FIELDS_BYTES_MAX;
        for field in fields.by_ref() {
            header.summary.take(&field);
            if header.truncated {
                continue;
            }
            let field = Field { name: field.name, value: lossy(field.value()) };
            let bytes = json_bytes(field.name) + json_bytes(&field.value);
            if header.fields.len() == FIELDS_MAX || bytes > room {
                header.truncated = true;
                continue;
            }
            room -= bytes;
            header.fields.push(field);
        }
        header.summary.finish();
        header.truncated |= fields.is_cut();
        header
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
    use mailrace_header::SCAN_BYTES_MAX;

    #[test]
    fn bounds_hold_and_subject_is_found_beyond_them() {
        let tail = "Subject: here\r\nMessage-ID: <a@b>\r\n\r\n";
        let many = "X: y\r\n".repeat(FIELDS_MAX);
        for (mail, count, truncated) in [
            (many.clone() + "\r\n", FIELDS_MAX, false),
            (many + tail, FIELDS_MAX, true),
            (format!("A: {}\r\n{tail}", "x".repeat(FIELDS_BYTES_MAX - 1)), 1, true),
            (format!("A: {}\r\n{tail}", "x".repeat(FIELDS_BYTES_MAX)), 0, true),
            // Six octets each in JSON.
            (format!("A: {}\r\n{tail}", "\u{1}".repeat(FIELDS_BYTES_MAX / 6 + 1)), 0, true),
            (format!("{}A: {}\r\n", "B: c\r\n", " \r\n".repeat(SCAN_BYTES_MAX)), 2, true),
        ] {
            let header = Header::read(mail.as_bytes());
            assert_eq!((header.fields.len(), header.truncated), (count, truncated));
            if mail.ends_with(tail) {
                assert_eq!(header.summary.subject.as_deref(), Some("here"));
                assert_eq!(header.summary.message_id.as_deref(), Some("<a@b>"));
            }
        }
    }
}
