//! Parameters of MAIL and RCPT (RFC 5321 §4.1.2).

use super::dsn;
use super::limits::Config;
use super::reply::{self, Reply};
use super::transaction::{BodyType, Ret};

/// What the parameters of a MAIL command asked for; texts as they stand in the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MailParams<'a> {
    pub(super) size: Option<u64>,
    pub(super) body: Option<BodyType>,
    pub(super) smtputf8: bool,
    pub(super) require_tls: bool,
    pub(super) ret: Option<Ret>,
    pub(super) mt_priority: Option<i8>,
    /// Good xtext.
    pub(super) envid: Option<&'a str>,
    /// Good xtext, or `<>`.
    pub(super) auth: Option<&'a str>,
}

impl MailParams<'_> {
    /// Whether there is anything that few clients ask for.
    pub(super) fn is_rare(&self) -> bool {
        let rare = (self.require_tls, self.ret, self.mt_priority, self.envid, self.auth);
        rare != (false, None, None, None, None)
    }
}

/// What the parameters of a RCPT command asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RcptParams<'a> {
    pub(super) notify: Option<dsn::Notify>,
    /// Good `type;xtext`.
    pub(super) orcpt: Option<&'a str>,
}

/// What a client may ask for: what the reply to its EHLO offered, and no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) config: &'a Config,
    pub(super) esmtp: bool,
    pub(super) under_tls: bool,
}

impl Offer<'_> {
    /// RFC 4954 §5: `AUTH=` goes with AUTH, which is offered under TLS only.
    fn auth(self) -> bool {
        self.config.auth.is_offered() && self.under_tls
    }
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
        // esmtp-value: printable, without `=` and space; UTF-8 too (RFC 6531 §3.3).
        let good_value = value.is_none_or(|value| {
            !value.is_empty()
                && value.bytes().all(|octet| matches!(octet, 33..=60 | 62..=126 | 128..))
        });
        if count > max || !good_keyword || !good_value {
            return Err(reply::BAD_ARGUMENT);
        }
        Ok((keyword, value))
    })
}

/// Reads the parameters of MAIL.
pub(super) fn parse_mail<'a>(text: &'a str, offer: Offer<'_>) -> Result<MailParams<'a>, Reply> {
    let mut params = MailParams::default();
    for item in items(text, offer.config.limits.parameters_max) {
        let (keyword, value) = item?;
        // RFC 5321 §4.1.1.1: a client that said HELO may use no extension.
        if !offer.esmtp {
            return Err(reply::UNKNOWN_PARAMETER);
        }
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        let value_of =
            |parse: fn(&str) -> bool| value.filter(|value| parse(value)).ok_or(reply::BAD_ARGUMENT);
        let dsn = offer.config.dsn;
        // RFC 5321 §4.1.1.11: an unknown parameter is 555; a known one given twice is 501.
        let first = if is("SIZE") {
            params.size.replace(parse_size(value)?).is_none()
        } else if is("BODY") {
            params.body.replace(parse_body(value)?).is_none()
        } else if is("SMTPUTF8") {
            // RFC 6531 §3.4: the parameter takes no value.
            no_value(value)?;
            !std::mem::replace(&mut params.smtputf8, true)
        } else if dsn && is("RET") {
            params.ret.replace(dsn::parse_ret(value)?).is_none()
        } else if dsn && is("ENVID") {
            params.envid.replace(value_of(dsn::is_envid)?).is_none()
        } else if offer.config.require_tls && is("REQUIRETLS") {
            // RFC 8689 §2: without a value, and under TLS only.
            no_value(value)?;
            if !offer.under_tls {
                return Err(reply::REQUIRETLS_NEEDS_TLS);
            }
            !std::mem::replace(&mut params.require_tls, true)
        } else if offer.config.mt_priority && is("MT-PRIORITY") {
            params.mt_priority.replace(parse_priority(value)?).is_none()
        } else if offer.auth() && is("AUTH") {
            params.auth.replace(value_of(dsn::is_xtext)?).is_none()
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        };
        once(first)?;
    }
    Ok(params)
}

/// Reads the parameters of RCPT. `smtputf8`: its MAIL asked for that.
pub(super) fn parse_rcpt<'a>(
    text: &'a str,
    offer: Offer<'_>,
    smtputf8: bool,
) -> Result<RcptParams<'a>, Reply> {
    let mut params = RcptParams::default();
    for item in items(text, offer.config.limits.parameters_max) {
        let (keyword, value) = item?;
        if !offer.esmtp || !offer.config.dsn {
            return Err(reply::UNKNOWN_PARAMETER);
        }
        let first = if keyword.eq_ignore_ascii_case("NOTIFY") {
            params.notify.replace(dsn::parse_notify(value)?).is_none()
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let value = value.filter(|value| dsn::is_orcpt(value, smtputf8));
            params.orcpt.replace(value.ok_or(reply::BAD_ARGUMENT)?).is_none()
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        };
        once(first)?;
    }
    Ok(params)
}

/// Each parameter is given once.
fn once(is_first: bool) -> Result<(), Reply> {
    if is_first { Ok(()) } else { Err(reply::BAD_ARGUMENT) }
}

fn no_value(value: Option<&str>) -> Result<(), Reply> {
    if value.is_some() { Err(reply::BAD_ARGUMENT) } else { Ok(()) }
}

/// RFC 6710 §5: `-9` to `9`, one way to write each.
fn parse_priority(value: Option<&str>) -> Result<i8, Reply> {
    let value = value.ok_or(reply::BAD_ARGUMENT)?;
    let (sign, digit) = match value.strip_prefix('-') {
        Some(digit) => (-1, digit),
        None => (1, value),
    };
    match digit.as_bytes() {
        [digit @ b'1'..=b'9'] => Ok(sign * (digit - b'0') as i8),
        b"0" if sign > 0 => Ok(0),
        _ => Err(reply::BAD_ARGUMENT),
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
