//! A mail as it is judged: its header, and hashes of its body. The body itself is never held.

use mail_auth::{AuthenticatedMessage, common::crypto::HashAlgorithm, dkim::Canonicalization};

use crate::body::{BodyHash, BodyHasher, Wanted};

/// Octets of a header at most; what is longer is not judged by its content.
pub const HEADER_BYTES_MAX: usize = 1 << 20;

/// Fields of a header at most: each name in `h=` is searched for among all of them.
pub const FIELDS_MAX: usize = 4096;

/// Fence 2: signatures that are looked at, from the top. mail-auth has no limit.
pub const SIGNATURES_MAX: usize = 10;

/// Names in the `h=` of a signature at most.
pub(crate) const NAMES_MAX: usize = 256;

/// Kinds of body hashes at most: that of each signature, and one for ARC.
const HASHES_MAX: usize = SIGNATURES_MAX + 1;

/// Reads a mail piece by piece.
#[derive(Default)]
pub struct LetterReader {
    header: Vec<u8>,
    /// The header is complete; these take the body.
    bodies: Option<Vec<BodyHasher>>,
    too_large: bool,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Letter {
    header: Vec<u8>,
    hashes: Vec<BodyHash>,
    too_large: bool,
}

impl std::fmt::Debug for LetterReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LetterReader")
    }
}

impl LetterReader {
    /// Takes the next octets of the mail data.
    pub fn push(&mut self, piece: &[u8]) {
        if self.too_large {
            return;
        }
        if let Some(bodies) = &mut self.bodies {
            for body in bodies {
                body.push(piece);
            }
            return;
        }
        // The empty line may be cut in two.
        let from = self.header.len().saturating_sub(4);
        let from = memchr::memrchr(b'\n', &self.header[..from]).map_or(0, |at| at + 1);
        self.header.extend_from_slice(piece);
        match mailrace_header::end(&self.header[from..]) {
            Some(len) if from + len <= HEADER_BYTES_MAX => {
                let body = self.header.split_off(from + len);
                let empty = if body.starts_with(b"\r") { 2 } else { 1 };
                self.begin_body();
                self.push(&body[empty..]);
            }
            _ if self.header.len() > HEADER_BYTES_MAX => {
                self.too_large = true;
                self.header = Vec::new();
            }
            Some(_) | None => {}
        }
    }

    fn begin_body(&mut self) {
        let wanted = parse(&self.header).map(|message| wanted(&message)).unwrap_or_default();
        self.bodies = Some(wanted.into_iter().map(BodyHasher::new).collect());
    }

    /// That was all.
    #[must_use]
    pub fn finish(mut self) -> Letter {
        if self.bodies.is_none() && !self.too_large {
            // RFC 5322 §2.1: no body. A field whose line has no end is one all the same.
            if !self.header.is_empty() && !self.header.ends_with(b"\n") {
                self.header.extend_from_slice(b"\r\n");
            }
            self.begin_body();
        }
        let hashes = self.bodies.unwrap_or_default().into_iter().map(BodyHasher::finish).collect();
        Letter { header: self.header, hashes, too_large: self.too_large }
    }
}

impl Letter {
    /// Of mail data that is there as a whole.
    #[must_use]
    pub fn of(mail: &[u8]) -> Self {
        let mut reader = LetterReader::default();
        reader.push(mail);
        reader.finish()
    }

    /// Its header was longer than is looked at.
    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// As mail-auth sees it, with body hashes of ours; `None`: there is no field.
    pub(crate) fn message(&self) -> Option<AuthenticatedMessage<'_>> {
        let mut message = parse(&self.header)?;
        for (canonicalization, algorithm, limit, hash) in &mut message.body_hashes {
            let relaxed = *canonicalization == Canonicalization::Relaxed;
            let wanted = Wanted { relaxed, limit: *limit };
            *hash = match (*algorithm, self.hash(wanted)) {
                (HashAlgorithm::Sha256, Some(body)) => body.hash.to_vec(),
                _ => Vec::new(),
            };
        }
        Some(message)
    }

    pub(crate) fn hash(&self, wanted: Wanted) -> Option<&BodyHash> {
        self.hashes.iter().find(|body| body.wanted == wanted)
    }
}

/// Of the header alone: mail-auth hashes what body it is given, and is given none.
fn parse(header: &[u8]) -> Option<AuthenticatedMessage<'_>> {
    AuthenticatedMessage::parse_with_opts(header, None, false)
}

fn wanted(message: &AuthenticatedMessage<'_>) -> Vec<Wanted> {
    let of = |canonicalization, limit| Wanted {
        relaxed: canonicalization == Canonicalization::Relaxed,
        limit,
    };
    let dkim = message.dkim_headers.iter().take(SIGNATURES_MAX);
    let dkim = dkim.map(|signature| of(signature.header.cb, signature.header.l));
    // Only the last of a chain covers the body as it is.
    let arc = message.ams_headers.iter().max_by_key(|signature| signature.header.i);
    let arc = arc.map(|signature| of(signature.header.cb, signature.header.l));
    let mut wanted: Vec<Wanted> = Vec::new();
    for one in dkim.chain(arc) {
        if !wanted.contains(&one) && wanted.len() < HASHES_MAX {
            wanted.push(one);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_the_same_in_pieces() {
        let signature = |c: &str| {
            format!(
                "DKIM-Signature: v=1; a=rsa-sha256; c={c}; d=a.test; s=s; h=from; bh=YWE=; b=YWE=\r\n"
            )
        };
        let mail = format!(
            "{}{}From: a@a.test\r\n\r\nHello\r\n \r\n",
            signature("relaxed/relaxed"),
            signature("simple/simple")
        );
        let whole = Letter::of(mail.as_bytes());
        assert_eq!(whole.hashes.len(), 2);
        assert!(whole.header.ends_with(b"From: a@a.test\r\n"));
        for cut in 0..mail.len() {
            let mut reader = LetterReader::default();
            reader.push(&mail.as_bytes()[..cut]);
            reader.push(&mail.as_bytes()[cut..]);
            let letter = reader.finish();
            assert_eq!(letter.header, whole.header, "cut at {cut}");
            assert_eq!(letter.hashes, whole.hashes, "cut at {cut}");
        }
        assert!(Letter::of(b"").message().is_none());
        assert!(Letter::of(b"From: a@a.test").message().is_some());
        assert!(Letter::of(b"From: a@a.test\r\n").message().is_some());
    }

    #[test]
    fn a_header_without_end_is_not_kept() {
        let mut reader = LetterReader::default();
        for _ in 0..40 {
            reader.push(&[b'a'; 64 << 10]);
        }
        let letter = reader.finish();
        assert!(letter.is_too_large() && letter.header().is_empty());
    }
}
