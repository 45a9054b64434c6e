//! Version 2 (§2.2).
//!
//! ```text
//!   0  12  signature
//!  12   1  version, command
//!  13   1  address family, transport protocol
//!  14   2  length of what follows
//!  16   -  both addresses, both ports; then items of type (1), length (2) and value
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{BadHeader, HEADER_BYTES_MAX, Header, begins};
use crate::smtp::push_proxy_fact;

/// No older protocol begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// §2.2.5.
const UNIQUE_ID_BYTES_MAX: usize = 128;

pub(super) fn parse(input: &[u8]) -> Result<Option<(usize, Header)>, BadHeader> {
    if !begins(input, SIGNATURE)? {
        return Ok(None);
    }
    let Some(&[command, protocol, high, low]) = input.get(12..16) else { return Ok(None) };
    if !matches!(command, LOCAL | PROXY) {
        return Err(BadHeader::Version);
    }
    let bytes = 16 + usize::from(u16::from_be_bytes([high, low]));
    if bytes > HEADER_BYTES_MAX {
        return Err(BadHeader::TooLong);
    }
    let Some(header) = input.get(..bytes) else { return Ok(None) };
    if command == LOCAL {
        // §2.2: a connection of the proxy's own, such as a health check; all else is discarded.
        return Ok(Some((bytes, Header { client: None, told: String::new() })));
    }
    // §2.2: what is no TCP over IP is treated as unspecified, where it is known at all, and the
    // connection's own addresses count.
    let length = match protocol {
        0x00 => 0,
        0x11 | 0x12 => 2 * (4 + 2),
        0x21 | 0x22 => 2 * (16 + 2),
        0x31 | 0x32 => 2 * 108,
        // §2.2: one half unspecified, the other known.
        0x01 | 0x02 | 0x10 | 0x20 | 0x30 => 0,
        _ => return Err(BadHeader::Protocol),
    };
    let Some((addresses, items)) = header.get(16..).and_then(|rest| rest.split_at_checked(length))
    else {
        return Err(BadHeader::Length);
    };
    if length == 0 {
        // Where items would begin is not said.
        return Ok(Some((bytes, Header { client: None, told: String::new() })));
    }
    let told = told(header, items)?;
    Ok(Some((bytes, Header { client: source(protocol, addresses), told })))
}

fn source(protocol: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let (ip, port): (IpAddr, &[u8]) = match protocol {
        0x11 => (Ipv4Addr::from(*addresses.first_chunk::<4>()?).into(), addresses.get(8..10)?),
        0x21 => (Ipv6Addr::from(*addresses.first_chunk::<16>()?).into(), addresses.get(32..34)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port.try_into().ok()?)))
}

/// Type, value, and what follows them.
type Item<'a> = (u8, &'a [u8], &'a [u8]);

/// Takes an item off the front.
fn item(items: &[u8]) -> Result<Item<'_>, BadHeader> {
    let [kind, high, low, rest @ ..] = items else { return Err(BadHeader::Item) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(BadHeader::Item)?;
    Ok((*kind, value, rest))
}

/// What the items say; checks them all, and the checksum.
fn told(header: &[u8], mut items: &[u8]) -> Result<String, BadHeader> {
    let (mut told, mut seen) = (String::new(), 0_u64);
    while !items.is_empty() {
        let (kind, value, rest) = item(items)?;
        if matches!(kind, 0x01 | 0x02 | 0x03 | 0x05 | 0x20) {
            // Two names of one thing: which one counts would be a guess.
            if seen & 1 << kind != 0 {
                return Err(BadHeader::Item);
            }
            seen |= 1 << kind;
        }
        match kind {
            0x01 => push_proxy_fact(&mut told, "PROXY_", "ALPN", value),
            0x02 => push_proxy_fact(&mut told, "PROXY_", "AUTHORITY", value),
            0x03 => check(header, header.len() - rest.len(), value)?,
            0x05 if value.len() > UNIQUE_ID_BYTES_MAX => return Err(BadHeader::Item),
            0x05 => {
                let hex: String = value.iter().map(|octet| format!("{octet:02x}")).collect();
                // Its 256 digits are one more than a value may have, so it is put there by hand.
                push_proxy_fact(&mut told, "PROXY_", "UNIQUE_ID", b"");
                told.push_str(&hex);
            }
            0x20 => tls(value, &mut told)?,
            // NOOP, the name space, private ones, and what a later version adds.
            _ => {}
        }
        items = rest;
    }
    Ok(told)
}

/// §2.2.3: the checksum of the header with zeros in its place, which ends before `end`.
fn check(header: &[u8], end: usize, value: &[u8]) -> Result<(), BadHeader> {
    let wanted = <[u8; 4]>::try_from(value).map_err(|_| BadHeader::Item)?;
    let mut octets = header.to_vec();
    octets.get_mut(end - 4..end).ok_or(BadHeader::Item)?.fill(0);
    let found = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &octets) as u32;
    (found.to_be_bytes() == wanted).then_some(()).ok_or(BadHeader::Checksum)
}

/// §2.2.6: the TLS that ended at the proxy.
fn tls(value: &[u8], told: &mut String) -> Result<(), BadHeader> {
    let [client, v1, v2, v3, v4, items @ ..] = value else { return Err(BadHeader::Item) };
    let mut items = items;
    let (mut version, mut name, mut cipher) = (None, None, None);
    while !items.is_empty() {
        let (kind, value, rest) = item(items)?;
        let place = match kind {
            0x21 => &mut version,
            0x22 => &mut name,
            0x23 => &mut cipher,
            _ => &mut None,
        };
        if place.replace(value).is_some() {
            return Err(BadHeader::Item);
        }
        items = rest;
    }
    if client & 0x01 == 0 {
        return Ok(());
    }
    for (key, value) in [("TLS_VERSION", version), ("TLS_CIPHER", cipher)] {
        if let Some(value) = value {
            push_proxy_fact(told, "PROXY_", key, value);
        }
    }
    // A certificate of this connection, or of the session that it resumes.
    if client & 0x06 != 0 {
        let verified = [*v1, *v2, *v3, *v4] == [0; 4];
        let word: &[u8] = if verified { b"yes" } else { b"no" };
        push_proxy_fact(told, "PROXY_", "TLS_CLIENT_VERIFIED", word);
        push_proxy_fact(told, "PROXY_", "TLS_CLIENT_CN", name.unwrap_or_default());
    }
    Ok(())
}
