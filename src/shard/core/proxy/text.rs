//! Version 1 (§2.1): a line.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use memchr::memchr2;

use super::{BadHeader, Header, begins};

/// §2.1: the longest line that a sender makes, CRLF included.
const LINE_BYTES_MAX: usize = 107;

pub(super) fn parse(input: &[u8]) -> Result<Option<(usize, Header)>, BadHeader> {
    if !begins(input, b"PROXY ")? {
        return Ok(None);
    }
    let window = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    // §2.1: neither a CR nor an LF alone ends the line.
    let end = match memchr2(b'\r', b'\n', window) {
        Some(end) if window.get(end) == Some(&b'\n') => return Err(BadHeader::Line),
        Some(end) => match window.get(end + 1) {
            Some(b'\n') => end,
            Some(_) => return Err(BadHeader::Line),
            None if window.len() == LINE_BYTES_MAX => return Err(BadHeader::LineTooLong),
            None => return Ok(None),
        },
        None if window.len() == LINE_BYTES_MAX => return Err(BadHeader::LineTooLong),
        None => return Ok(None),
    };
    let line = window.get(..end).unwrap_or_default();
    let client = source(line).ok_or(BadHeader::Line)?;
    Ok(Some((end + 2, Header { client, told: String::new() })))
}

/// The source that a line without its CRLF names.
fn source(line: &[u8]) -> Option<Option<SocketAddr>> {
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        // §2.1: whatever else stands there is ignored.
        return Some(None);
    }
    let words: Vec<&str> = str::from_utf8(line).ok()?.split(' ').collect();
    let &["PROXY", family, source, destination, source_port, destination_port] = words.as_slice()
    else {
        return None;
    };
    let ends = match family {
        "TCP4" => addresses::<Ipv4Addr>(source, destination)?,
        "TCP6" => addresses::<Ipv6Addr>(source, destination)?,
        _ => return None,
    };
    port(destination_port)?;
    Some(Some(SocketAddr::new(ends, port(source_port)?)))
}

/// The first of two addresses of one family. The library's parser takes no heading zeros.
fn addresses<T: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<IpAddr> {
    destination.parse::<T>().ok()?;
    let source: IpAddr = source.parse::<T>().ok()?.into();
    Some(source.to_canonical())
}

/// §2.1: decimal, without heading zeros.
fn port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|octet| octet.is_ascii_digit());
    let plain = plain && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}
