//! The header with which a proxy names the client whose connection it relays: HAProxy's PROXY
//! protocol, versions 1 (text) and 2 (binary), read without a socket. Section numbers are those of
//! "The PROXY protocol", 2020/03/05.
//!
//! This is code of our own because the crate `ppp` 2.3 accepts `+25` as a port, leaves checksum and
//! bounds to its caller, and waits for a line end even if the first octet is wrong already.

mod binary;
mod text;

use std::{fmt, net::SocketAddr};

/// What is read of a header at most. §2 wants it to fit a segment of 536 octets; certificates' names
/// make it longer.
pub const HEADER_BYTES_MAX: usize = 2048;

/// A whole header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose connection is relayed, an IPv4 address always as such. `None`: it is the proxy's own
    /// (`LOCAL`), or the proxy does not know (`UNKNOWN`, `UNSPEC`, another protocol than TCP): the
    /// connection counts as what it looks like.
    pub client: Option<SocketAddr>,
    /// What else it said: `KEY=value` items joined by LF, printable.
    pub told: String,
}

/// Why something is no header. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // `Display` says it.
pub enum BadHeader {
    Missing,
    LineTooLong,
    Line,
    TooLong,
    Version,
    Protocol,
    Length,
    Item,
    Checksum,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "something else arrived instead",
            Self::LineTooLong => "no CRLF in the first 107 bytes",
            Self::Line => "its line has a syntax error",
            Self::TooLong => "longer than 2 KiB",
            Self::Version => "unknown version or command",
            Self::Protocol => "unknown address family or protocol",
            Self::Length => "too short for its addresses",
            Self::Item => "an item is malformed or occurs twice",
            Self::Checksum => "wrong checksum",
        })
    }
}

/// Reads the header at the front of `input`, which may continue after it; returns it with its
/// length. `None`: it is not complete, and may still become so.
///
/// # Errors
/// The octets are not a header, whatever follows.
pub fn parse(input: &[u8]) -> Result<Option<(usize, Header)>, BadHeader> {
    match input.first() {
        None => Ok(None),
        Some(b'P') => text::parse(input),
        Some(b'\r') => binary::parse(input),
        Some(_) => Err(BadHeader::Missing),
    }
}

/// Whether `input` begins as `word` does; it is an error if it cannot come to that any more.
fn begins(input: &[u8], word: &[u8]) -> Result<bool, BadHeader> {
    let common = input.len().min(word.len());
    match input.get(..common) == word.get(..common) {
        true => Ok(common == word.len()),
        false => Err(BadHeader::Missing),
    }
}

#[cfg(test)]
mod tests;
