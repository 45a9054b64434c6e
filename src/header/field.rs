//! The fields of a header, and where it ends.

use std::borrow::Cow;

/// Octets at the front of mail data that are looked at for fields.
pub const SCAN_BYTES_MAX: usize = 256 << 10;

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As it was written: printable US-ASCII (RFC 5322 §2.2).
    pub name: &'a str,
    /// All of it as it stands in the mail data, with its line ends.
    pub lines: &'a [u8],
    folded: &'a [u8],
}

impl<'a> Field<'a> {
    /// Field names are the same in any case (RFC 5322 §1.2.2).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value without its line ends (RFC 5322 §2.2.3: unfolding takes away nothing else) and
    /// without the white space around it.
    #[must_use]
    pub fn value(&self) -> Cow<'a, [u8]> {
        let folded = self.folded.trim_ascii();
        if memchr::memchr(b'\n', folded).is_none() {
            return Cow::Borrowed(folded);
        }
        let mut value = Vec::with_capacity(folded.len());
        for line in folded.split_inclusive(|&octet| octet == b'\n') {
            value.extend_from_slice(strip_line_end(line));
        }
        Cow::Owned(value)
    }
}

/// The fields of a header in order.
///
/// Only an empty line ends the header (RFC 5322 §2.1), as for the count of Received fields while a
/// mail comes in. A line that is not a field (the `From a@x.test ...` of mbox files, a torn line, a
/// continuation of nothing) is skipped with the lines that continue it. A bare LF, if it was let
/// in, ends a line.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// There is mail data that is not looked at.
    cut: bool,
}

impl<'a> Fields<'a> {
    /// Of mail data, or of its front.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        let front = data.get(..SCAN_BYTES_MAX);
        Self {
            rest: front.unwrap_or(data),
            cut: front.is_some_and(|front| front.len() < data.len()),
        }
    }

    /// All that is looked at was read, and the header goes on.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut && self.rest.is_empty()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            if self.rest.starts_with(b"\r\n") || self.rest.starts_with(b"\n") {
                *self = Self { rest: &[], cut: false };
            }
            if self.rest.is_empty() {
                return None;
            }
            let first = line_len(self.rest);
            let mut len = first;
            // RFC 5322 §2.2.3: a line that begins with white space goes on with the field.
            while let Some(b' ' | b'\t') = self.rest.get(len) {
                len += line_len(self.rest.get(len..).unwrap_or_default());
            }
            let (lines, rest) = self.rest.split_at(len);
            self.rest = rest;
            if let Some(field) = field(lines, first) {
                return Some(field);
            }
        }
    }
}

fn line_len(octets: &[u8]) -> usize {
    memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1)
}

/// Of its lines, the first of which has `first` octets.
fn field(lines: &[u8], first: usize) -> Option<Field<'_>> {
    let colon = memchr::memchr(b':', lines.get(..first)?)?;
    // RFC 5322 §4.5: white space before the colon was once allowed.
    let name = lines.get(..colon)?.trim_ascii_end();
    let plain = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(name).ok().filter(|_| plain)?;
    Some(Field { name, lines, folded: lines.get(colon + 1..)? })
}

fn strip_line_end(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

/// Octets of the header at the front of mail data, without the empty line that ends it; `None` if
/// it continues beyond these octets.
#[must_use]
pub fn end(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = octets.get(at..).unwrap_or_default();
        if rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
            return Some(at);
        }
        at += memchr::memchr(b'\n', rest)? + 1;
    }
}

/// The whole header of mail data; all of the data if no empty line ends it.
#[must_use]
pub fn section(data: &[u8]) -> &[u8] {
    end(data).and_then(|len| data.get(..len)).unwrap_or(data)
}
