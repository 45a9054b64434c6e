//! Reverse-paths and forward-paths (RFC 5321 §4.1.2, RFC 6531 §3.3), checked and kept as written.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// RFC 5321 §4.5.3.1.1, in octets.
const LOCAL_PART_BYTES_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2, in octets.
const DOMAIN_BYTES_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.3, in octets with the angle brackets.
const PATH_BYTES_MAX: usize = 256;
/// RFC 1035 §2.3.4, in octets.
const LABEL_BYTES_MAX: usize = 63;

/// A path taken from the front of an argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Mailbox as written, without brackets and source route; empty for the null path.
    pub(super) mailbox: &'a str,
    /// What follows the closing bracket.
    pub(super) rest: &'a str,
    /// A local-part without a domain.
    pub(super) no_domain: bool,
}

/// Parses `<...>` at the front of `argument`; `None` when it is outside the grammar.
pub(super) fn parse(argument: &str) -> Option<Path<'_>> {
    let inner = argument.strip_prefix('<')?;
    if let Some(rest) = inner.strip_prefix('>') {
        return Some(Path { mailbox: "", rest, no_domain: false });
    }
    // RFC 5321 §4.1.1.3, appendix C: a source route is checked and dropped.
    let with_route = inner.starts_with('@');
    let routed = if with_route { skip_route(inner)? } else { inner };

    let local = local_part_len(routed)?;
    if local > LOCAL_PART_BYTES_MAX {
        return None;
    }
    let (_, after) = routed.split_at_checked(local)?;
    let (mailbox_len, no_domain) = match after.strip_prefix('@') {
        Some(domain) => (local + 1 + domain_len(domain)?, false),
        // `<Postmaster>` stands alone: behind a route comes a whole mailbox.
        None if with_route => return None,
        None => (local, true),
    };
    let (mailbox, rest) = routed.split_at_checked(mailbox_len)?;
    let rest = rest.strip_prefix('>')?;
    if argument.len() - rest.len() > PATH_BYTES_MAX {
        return None;
    }
    Some(Path { mailbox, rest, no_domain })
}

/// Whether this is a mailbox (RFC 5321 §4.1.2), as a forward-path without its brackets.
pub fn is_mailbox(text: &str) -> bool {
    let Some(local) = local_part_len(text).filter(|len| *len <= LOCAL_PART_BYTES_MAX) else {
        return false;
    };
    let domain = text.get(local..).and_then(|rest| rest.strip_prefix('@'));
    domain.is_some_and(is_domain) && text.len() + 2 <= PATH_BYTES_MAX
}

/// Whether this is a domain or an address literal (RFC 5321 §4.1.2, §4.1.3).
pub fn is_domain(text: &str) -> bool {
    domain_len(text) == Some(text.len())
}

/// Skips `@a,@b:` and gives what follows.
fn skip_route(route: &str) -> Option<&str> {
    let mut route = route;
    loop {
        let domain = route.strip_prefix('@')?;
        // At-domain is a domain, never an address literal.
        if domain.starts_with('[') {
            return None;
        }
        let (_, rest) = domain.split_at_checked(domain_len(domain)?)?;
        match rest.strip_prefix(',') {
            Some(next) => route = next,
            None => return rest.strip_prefix(':'),
        }
    }
}

/// Length of the local-part at the front, at least 1.
fn local_part_len(text: &str) -> Option<usize> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_len(quoted).map(|len| len + 1);
    }
    // RFC 5321 §4.1.2 allows no dot at either end of a dot-string and no two in a row. Mobile
    // carriers gave out such addresses for years, so dots are taken anywhere; the local-part is
    // opaque to us.
    let len = text.bytes().take_while(|octet| is_atext(*octet) || *octet == b'.').count();
    (len > 0).then_some(len)
}

/// Length of a quoted string behind its opening quote, closing quote included.
fn quoted_len(text: &str) -> Option<usize> {
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Some(at + 1),
            // quoted-pairSMTP takes one printable ASCII octet.
            b'\\' => match octets.next() {
                Some((_, 0x20..=0x7e)) => {}
                _ => return None,
            },
            0x20..=0x7e | 0x80.. => {}
            _ => return None,
        }
    }
    None
}

/// Length of a domain or an address literal at the front, at most 255.
fn domain_len(text: &str) -> Option<usize> {
    let len = match text.strip_prefix('[') {
        Some(literal) => {
            let end = literal.bytes().position(|octet| octet == b']')?;
            is_literal(literal.get(..end)?).then_some(end + 2)?
        }
        None => {
            let len = text.bytes().take_while(|octet| is_domain_octet(*octet)).count();
            text.get(..len)?.split('.').all(is_label).then_some(len)?
        }
    };
    (len <= DOMAIN_BYTES_MAX).then_some(len)
}

/// RFC 5321 §4.1.3. No tag beside `IPv6` is registered, so none is taken.
fn is_literal(text: &str) -> bool {
    match text.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            Ipv6Addr::from_str(address).is_ok()
        }
        _ => Ipv4Addr::from_str(text).is_ok(),
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Letters, digits, hyphen, dot, and any octet of UTF-8 (RFC 6531 §3.3, U-labels).
fn is_domain_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | 0x80..)
}

/// RFC 5322 §3.2.3 atext, widened to UTF-8 by RFC 6531 §3.3.
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet) || octet >= 0x80
}
