//! Values of the DSN parameters (RFC 3461 §4), and xtext, in which they are written.

use super::reply::{self, Reply};
use super::transaction::Ret;

/// RFC 3461 §4.4, in octets before they are made xtext.
const ENVID_BYTES_MAX: usize = 100;
/// RFC 3461 §4.2, in octets as they stand in the command.
const ORCPT_BYTES_MAX: usize = 500;

/// The events of `NOTIFY=`, a bit each (RFC 3461 §4.1); none: NEVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notify(u8);

const EVENTS: [&str; 3] = ["SUCCESS", "FAILURE", "DELAY"];

impl Notify {
    /// Appends the value as RFC 3461 writes it.
    pub(super) fn push_to(self, out: &mut String) {
        if self.0 == 0 {
            out.push_str("NEVER");
        }
        let mut comma = "";
        for (place, event) in EVENTS.iter().enumerate() {
            if self.0 & 1 << place != 0 {
                out.push_str(comma);
                out.push_str(event);
                comma = ",";
            }
        }
    }
}

/// `NEVER`, alone, or a list of the events.
pub(super) fn parse_notify(value: Option<&str>) -> Result<Notify, Reply> {
    let value = value.ok_or(reply::BAD_ARGUMENT)?;
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify(0));
    }
    let bits = value.split(',').try_fold(0, |bits, word| {
        let place = EVENTS.iter().position(|event| event.eq_ignore_ascii_case(word))?;
        Some(bits | 1 << place)
    });
    bits.map(Notify).ok_or(reply::BAD_ARGUMENT)
}

/// `FULL` or `HDRS`.
pub(super) fn parse_ret(value: Option<&str>) -> Result<Ret, Reply> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("FULL") => Ok(Ret::Full),
        Some(value) if value.eq_ignore_ascii_case("HDRS") => Ok(Ret::Headers),
        _ => Err(reply::BAD_ARGUMENT),
    }
}

/// Whether it is xtext of at most 100 octets.
pub(super) fn is_envid(value: &str) -> bool {
    is_xtext(value) && xtext(value).count() <= ENVID_BYTES_MAX
}

/// Whether it is `type;xtext`, the type an atom such as `rfc822` or `utf-8` (RFC 6533 §3).
/// `smtputf8`: the address may hold UTF-8 as it is, where that is its type.
pub(super) fn is_orcpt(value: &str, smtputf8: bool) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let good_kind = !kind.is_empty()
        && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet));
    let utf8 = smtputf8 && kind.eq_ignore_ascii_case("utf-8");
    value.len() <= ORCPT_BYTES_MAX
        && good_kind
        && !address.is_empty()
        && if utf8 { is_utf8_xtext(address) } else { is_xtext(address) }
}

/// Whether it is xtext (RFC 3461 §4) of printable ASCII and spaces. A coded control octet would
/// come out where it is written into a line (CVE-2020-28021, CVE-2020-28026).
pub(super) fn is_xtext(value: &str) -> bool {
    value.is_ascii() && is_utf8_xtext(value)
}

fn is_utf8_xtext(value: &str) -> bool {
    let printable = value.chars().all(|c| !c.is_control() && c != ' ' && c != '=');
    let mut rest = value;
    while let Some((_, coded)) = rest.split_once('+') {
        match hex_pair(coded.as_bytes()) {
            Some(0x20..=0x7e) => rest = coded.get(2..).unwrap_or_default(),
            _ => return false,
        }
    }
    printable
}

/// The octets that good xtext stands for.
pub(super) fn xtext(value: &str) -> impl Iterator<Item = char> {
    let mut rest = value.chars();
    std::iter::from_fn(move || match rest.next()? {
        '+' => {
            let octet = hex_pair(rest.as_str().as_bytes());
            rest.nth(1);
            octet.map(char::from)
        }
        other => Some(other),
    })
}

/// Two hexadecimal digits, in upper case as RFC 3461 §4 has them.
fn hex_pair(octets: &[u8]) -> Option<u8> {
    let digit = |octet: &u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    Some(digit(octets.first()?)? << 4 | digit(octets.get(1)?)?)
}
