//! An SPF record as a list of terms (RFC 7208 §4.6.1, §12). All of it is checked before any of it is
//! evaluated: a syntax error anywhere is permerror.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::macros::Template;

/// What a mechanism that matches says (RFC 7208 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// Lengths of the prefixes that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// RFC 7208 §5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(Template),
    /// `None`: the current domain.
    A(Option<Template>, Prefix),
    Mx(Option<Template>, Prefix),
    Ptr(Option<Template>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(Template),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) mechanisms: Vec<(Qualifier, Mechanism)>,
    pub(super) redirect: Option<Template>,
    pub(super) exp: Option<Template>,
}

/// Its text is not one of RFC 7208 §12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax;

/// Whether a TXT record is one of SPF, version 1 (RFC 7208 §4.5).
pub(super) fn is_spf(text: &[u8]) -> bool {
    let version = text.get(..6).is_some_and(|front| front.eq_ignore_ascii_case(b"v=spf1"));
    version && matches!(text.get(6), None | Some(b' '))
}

impl Record {
    /// Of a text that [`is_spf`].
    pub(super) fn parse(text: &[u8]) -> Result<Self, Syntax> {
        let text = str::from_utf8(text).ok().filter(|text| text.is_ascii()).ok_or(Syntax)?;
        let mut record = Self { mechanisms: Vec::new(), redirect: None, exp: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            match modifier(term) {
                Some((name, value)) => record.modify(name, value)?,
                None => record.mechanisms.push(directive(term)?),
            }
        }
        Ok(record)
    }

    fn modify(&mut self, name: &str, value: &str) -> Result<(), Syntax> {
        let place = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.exp,
            // RFC 7208 §6: others are ignored, but have to be macro-strings.
            _ => return Template::parse(value).map(|_| ()),
        };
        // RFC 7208 §6: each at most once.
        if place.is_some() {
            return Err(Syntax);
        }
        *place = Some(domain_spec(value)?);
        Ok(())
    }
}

/// `name=value`, where name is one.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let rest = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let first = name.bytes().next()?;
    (first.is_ascii_alphabetic() && name.bytes().all(rest)).then_some((name, value))
}

fn directive(term: &str) -> Result<(Qualifier, Mechanism), Syntax> {
    let (qualifier, term) = match term.as_bytes().first() {
        Some(b'+') => (Qualifier::Pass, &term[1..]),
        Some(b'-') => (Qualifier::Fail, &term[1..]),
        Some(b'~') => (Qualifier::SoftFail, &term[1..]),
        Some(b'?') => (Qualifier::Neutral, &term[1..]),
        _ => (Qualifier::Pass, term),
    };
    let end = term.find([':', '/']).unwrap_or(term.len());
    let (name, rest) = term.split_at(end);
    let target = rest.strip_prefix(':');
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(target.ok_or(Syntax)?)?),
        "exists" => Mechanism::Exists(domain_spec(target.ok_or(Syntax)?)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(target.ok_or(Syntax)?)?)),
        "a" => {
            let (target, prefix) = host(rest)?;
            Mechanism::A(target, prefix)
        }
        "mx" => {
            let (target, prefix) = host(rest)?;
            Mechanism::Mx(target, prefix)
        }
        "ip4" => {
            let (address, len) = network(target.ok_or(Syntax)?, 32)?;
            Mechanism::Ip4(ip4(address)?, len)
        }
        "ip6" => {
            let (address, len) = network(target.ok_or(Syntax)?, 128)?;
            Mechanism::Ip6(address.parse().map_err(|_| Syntax)?, len)
        }
        _ => return Err(Syntax),
    };
    Ok((qualifier, mechanism))
}

/// The standard library takes no leading zeros, and neither does RFC 7208 §12 (`qnum`).
fn ip4(address: &str) -> Result<Ipv4Addr, Syntax> {
    address.parse().map_err(|_| Syntax)
}

fn network(text: &str, most: u8) -> Result<(&str, u8), Syntax> {
    match text.split_once('/') {
        Some((address, len)) => Ok((address, prefix_len(len, most)?)),
        None => Ok((text, most)),
    }
}

/// No leading zeros (RFC 7208 §5.6).
fn prefix_len(text: &str, most: u8) -> Result<u8, Syntax> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let plain = digits && (text.len() == 1 || !text.starts_with('0'));
    let len: u8 = text.parse().map_err(|_| Syntax)?;
    (plain && len <= most).then_some(len).ok_or(Syntax)
}

/// `[":" domain-spec] [dual-cidr-length]`. A slash may be part of a domain-spec: lengths are what
/// stands at the end.
fn host(rest: &str) -> Result<(Option<Template>, Prefix), Syntax> {
    let (rest, v6) = match rest.rsplit_once("//") {
        Some((front, len)) if is_len(len) => (front, prefix_len(len, 128)?),
        _ => (rest, 128),
    };
    let (rest, v4) = match rest.rsplit_once('/') {
        Some((front, len)) if is_len(len) => (front, prefix_len(len, 32)?),
        _ => (rest, 32),
    };
    let target = match rest.strip_prefix(':') {
        Some(target) => Some(domain_spec(target)?),
        None if rest.is_empty() => None,
        None => return Err(Syntax),
    };
    Ok((target, Prefix { v4, v6 }))
}

fn is_len(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// RFC 7208 §7.1: a macro-string that ends in a macro or in a top label, which is no number.
fn domain_spec(text: &str) -> Result<Template, Syntax> {
    let template = Template::parse(text)?;
    if template.ends_in_macro() {
        return Ok(template);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let top = text.rsplit_once('.').map(|(_, top)| top).ok_or(Syntax)?;
    let inner = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    let is_top = !top.is_empty()
        && top.bytes().all(inner)
        && !top.starts_with('-')
        && !top.ends_with('-')
        && !top.bytes().all(|octet| octet.is_ascii_digit());
    is_top.then_some(template).ok_or(Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_is_wrong_spoils_the_record() {
        for bad in [
            "v=spf1 +-all",
            "v=spf1 all:x.test",
            "v=spf1 a:111.222.33.44",
            "v=spf1 ip4:1.2.3.256",
            "v=spf1 ip4:1.2.3",
            "v=spf1 ip4:1.2.3.4/032",
            "v=spf1 a/33",
            "v=spf1 a:x.test:8080",
            "v=spf1 include",
            "v=spf1 exp=a.test exp=b.test",
            "v=spf1 moo.cow/far_out=man:dog/cat",
            "v=spf1 a:%{d0}.test",
            "v=spf1 exists:%(ir).test",
            "v=spf1 redirect=",
            "v=spf1 \u{e9}:x",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), Err(Syntax), "{bad}");
        }
    }

    #[test]
    fn lengths_stand_at_the_end() {
        let record = Record::parse(b"v=spf1 A:foo:bar/baz.test/24//64 -all x=%{d}").unwrap();
        let Some((Qualifier::Pass, Mechanism::A(Some(_), prefix))) = record.mechanisms.first()
        else {
            panic!("{record:?}");
        };
        assert_eq!(*prefix, Prefix { v4: 24, v6: 64 });
        assert_eq!(record.mechanisms.get(1), Some(&(Qualifier::Fail, Mechanism::All)));
        assert!(is_spf(b"v=spf1") && is_spf(b"V=SPF1 -all") && !is_spf(b"v=spf10 -all"));
    }
}
