//! xtext (RFC 3461 §4): text that fits into a parameter of MAIL or RCPT. Records keep ORCPT in it.

use std::fmt::Write as _;

/// Writes what is no printable ASCII, `+` and `=` as `+` with two hexadecimal digits.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => push_hex(octet, &mut encoded),
            b'!'..=b'~' => encoded.push(char::from(octet)),
            _ => push_hex(octet, &mut encoded),
        }
    }
    encoded
}

fn push_hex(octet: u8, encoded: &mut String) {
    // Writing into a String cannot fail.
    let _ = write!(encoded, "+{octet:02X}");
}

/// `None` where it is no xtext, or not that of a text without control characters.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'+' {
            octets.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digit =
            |octet: &u8| char::from(*octet).to_digit(16).filter(|_| !octet.is_ascii_lowercase());
        let value = digits.iter().try_fold(0, |value, octet| Some(value * 16 + digit(octet)?))?;
        octets.push(u8::try_from(value).ok()?);
        rest = behind;
    }
    String::from_utf8(octets).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3461_4_xtext() {
        for (text, encoded) in
            [("a@b", "a@b"), ("a+b=c", "a+2Bb+3Dc"), (" \u{e4}", "+20+C3+A4"), ("", "")]
        {
            assert_eq!(encode(text), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(text));
        }
        for bad in ["+", "+4", "+4g", "+2b", "+0A", "+FF"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
