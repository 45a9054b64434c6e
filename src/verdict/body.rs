//! Hashes of a body (RFC 6376 §3.4.3, §3.4.4), piece by piece.
//!
//! Fence 1: mail-auth counts lines of blanks at the end of a body, where relaxed makes them empty and so
//! leaves them out; and it cuts at `l=` before it has canonicalised. Its hashes are replaced by these.

use sha2::{Digest, Sha256};

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) relaxed: bool,
    /// `l=`; 0: all of it.
    pub(crate) limit: u64,
}

/// A finished hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BodyHash {
    pub(crate) wanted: Wanted,
    pub(crate) hash: [u8; 32],
    /// Octets of the canonical body, the limit aside.
    pub(crate) bytes: u64,
}

/// Takes a body piece by piece.
pub(crate) struct BodyHasher {
    wanted: Wanted,
    sha: Sha256,
    bytes: u64,
    /// Line ends that count only if something follows.
    line_ends: u64,
    /// White space that counts only if something follows in its line.
    blank: bool,
    /// The last octet was CR: LF may follow.
    cr: bool,
}

impl BodyHasher {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, sha: Sha256::new(), bytes: 0, line_ends: 0, blank: false, cr: false }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(&octet) = rest.first() {
            if std::mem::take(&mut self.cr) {
                if octet == b'\n' {
                    self.line_ends += 1;
                    self.blank = false;
                    rest = &rest[1..];
                    continue;
                }
                // A CR alone ends no line (RFC 5322 §2.3).
                self.text(b"\r");
            }
            match octet {
                b'\r' => {
                    self.cr = true;
                    rest = &rest[1..];
                }
                b' ' | b'\t' if self.wanted.relaxed => {
                    self.blank = true;
                    rest = &rest[1..];
                }
                _ => {
                    let end = match self.wanted.relaxed {
                        true => memchr::memchr3(b'\r', b' ', b'\t', rest),
                        false => memchr::memchr(b'\r', rest),
                    };
                    let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
                    self.text(text);
                    rest = after;
                }
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            self.write(b"\r\n");
        }
        if std::mem::take(&mut self.blank) {
            self.write(b" ");
        }
        self.write(text);
    }

    fn write(&mut self, octets: &[u8]) {
        let kept = match self.wanted.limit {
            0 => octets,
            limit => {
                let left = usize::try_from(limit.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
                &octets[..left.min(octets.len())]
            }
        };
        self.bytes += octets.len() as u64;
        self.sha.update(kept);
    }

    pub(crate) fn finish(mut self) -> BodyHash {
        if std::mem::take(&mut self.cr) {
            self.text(b"\r");
        }
        // RFC 6376 §3.4.3: an empty body is CRLF; §3.4.4: it is nothing.
        if self.bytes > 0 || !self.wanted.relaxed {
            self.write(b"\r\n");
        }
        BodyHash { wanted: self.wanted, hash: self.sha.finalize().into(), bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(body: &[u8], relaxed: bool, limit: u64) -> BodyHash {
        let wanted = Wanted { relaxed, limit };
        let mut whole = BodyHasher::new(wanted);
        whole.push(body);
        let whole = whole.finish();
        for cut in 0..=body.len() {
            let mut parts = BodyHasher::new(wanted);
            parts.push(&body[..cut]);
            parts.push(&body[cut..]);
            assert_eq!(parts.finish(), whole, "cut at {cut}");
        }
        whole
    }

    fn sha(octets: &[u8]) -> [u8; 32] {
        Sha256::digest(octets).into()
    }

    #[test]
    fn bodies_are_canonical() {
        for (body, relaxed, simple) in [
            // RFC 6376 §3.4.5.
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C\r\nD E\r\n"[..], &b" C \r\nD \t E\r\n"[..]),
            (b"", b"", b"\r\n"),
            (b"\r\n\r\n", b"", b"\r\n"),
            // Fence 1: lines of blanks at the end are empty lines.
            (b"a\r\n \t\r\n \r\n", b"a\r\n", b"a\r\n \t\r\n \r\n"),
            (b" \r\n", b"", b" \r\n"),
            (b"a", b"a\r\n", b"a\r\n"),
            (b"a\r", b"a\r\r\n", b"a\r\r\n"),
            (b"a\rb\nc\r\n", b"a\rb\nc\r\n", b"a\rb\nc\r\n"),
            (b"a\r\n\r\nb\t\tc \r\n", b"a\r\n\r\nb c\r\n", b"a\r\n\r\nb\t\tc \r\n"),
        ] {
            assert_eq!(hash(body, true, 0).hash, sha(relaxed), "{}", body.escape_ascii());
            assert_eq!(hash(body, true, 0).bytes, relaxed.len() as u64);
            assert_eq!(hash(body, false, 0).hash, sha(simple), "{}", body.escape_ascii());
        }
        // The limit counts what is canonical.
        assert_eq!(hash(b"a  b\r\nc", true, 3).hash, sha(b"a b"));
        assert_eq!(hash(b"a  b\r\nc", true, 3).bytes, 8);
    }
}
