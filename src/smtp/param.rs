//! Parameters of MAIL and RCPT (RFC 5321 §4.1.2).

use super::reply::{self, Reply};
use super::transaction::BodyType;

/// What the parameters of a MAIL command asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MailParams {
    pub(super) size: Option<u64>,
    pub(super) body: Option<BodyType>,
    pub(super) smtputf8: bool,
}

/// Walks `KEYWORD[=value]` items; the outer error is a syntax error.
fn items(text: &str, max: usize) -> impl Iterator<Item = Result<(&str, Option<&str>), Reply>> {
    let mut count = 0;
    text.split(' ').filter(|item| !item.is_empty()).map(move |item| {
        count += 1;
        let (keyword, value) = match item.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (item, None),
        };
        let good_keyword = keyword.starts_with(|first: char| first.is_ascii_alphanumeric())
            && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        // esmtp-value: printable, without `=` and space.
        let good_value = value.is_none_or(|value| {
            !value.is_empty() && value.bytes().all(|octet| matches!(octet, 33..=60 | 62..=126))
        });
        if count > max || !good_keyword || !good_value {
            return Err(reply::BAD_ARGUMENT);
        }
        Ok((keyword, value))
    })
}

/// Reads the parameters of MAIL.
pub(super) fn parse_mail(text: &str, esmtp: bool, max: usize) -> Result<MailParams, Reply> {
    let mut params = MailParams::default();
    for item in items(text, max) {
        let (keyword, value) = item?;
        // RFC 5321 §4.1.1.1: a client that said HELO may use no extension.
        if !esmtp {
            return Err(reply::UNKNOWN_PARAMETER);
        }
        // RFC 5321 §4.1.1.11: an unknown parameter is 555; a known one given twice is 501.
        let first = if keyword.eq_ignore_ascii_case("SIZE") {
            params.size.replace(parse_size(value)?).is_none()
        } else if keyword.eq_ignore_ascii_case("BODY") {
            params.body.replace(parse_body(value)?).is_none()
        } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
            // RFC 6531 §3.4: the parameter takes no value.
            if value.is_some() {
                return Err(reply::BAD_ARGUMENT);
            }
            !std::mem::replace(&mut params.smtputf8, true)
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        };
        if !first {
            return Err(reply::BAD_ARGUMENT);
        }
    }
    Ok(params)
}

/// Reads the parameters of RCPT: none is known.
pub(super) fn parse_rcpt(text: &str, max: usize) -> Result<(), Reply> {
    match items(text, max).next() {
        None => Ok(()),
        Some(Err(reply)) => Err(reply),
        Some(Ok(_)) => Err(reply::UNKNOWN_PARAMETER),
    }
}

/// RFC 1870 §5: up to 20 digits. What does not fit in 64 bits is over any limit anyway.
fn parse_size(value: Option<&str>) -> Result<u64, Reply> {
    let digits = value.ok_or(reply::BAD_ARGUMENT)?;
    if digits.len() > 20 {
        return Err(reply::BAD_ARGUMENT);
    }
    parse_digits(digits.as_bytes()).ok_or(reply::BAD_ARGUMENT)
}

/// Reads decimal digits only, saturating; `None` for anything else.
pub(super) fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.wrapping_sub(b'0');
        (digit < 10).then(|| number.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

/// RFC 6152 §2, RFC 3030 §3.
fn parse_body(value: Option<&str>) -> Result<BodyType, Reply> {
    let value = value.ok_or(reply::BAD_ARGUMENT)?;
    if value.eq_ignore_ascii_case("8BITMIME") {
        Ok(BodyType::EightBit)
    } else if value.eq_ignore_ascii_case("7BIT") {
        Ok(BodyType::SevenBit)
    } else if value.eq_ignore_ascii_case("BINARYMIME") {
        Ok(BodyType::BinaryMime)
    } else {
        Err(reply::BAD_ARGUMENT)
    }
}
