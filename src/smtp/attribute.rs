//! Attributes of XCLIENT and XFORWARD, as in Postfix's XCLIENT_README and XFORWARD_README:
//! `NAME=xtext` items with spaces between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::param::parse_digits;
use super::proxy_facts::printable;

/// XCLIENT_README, note 1: logins and names of HELO have up to 255 octets.
const VALUE_BYTES_MAX: usize = 255;

/// What an attribute is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The client's name.
    Name,
    Addr,
    Port,
    Proto,
    Helo,
    Login,
    DestAddr,
    DestPort,
    /// What the sender calls the message.
    Ident,
    /// `LOCAL` or `REMOTE`.
    Source,
}

impl Kind {
    pub(super) const XCLIENT: &[Self] = &[
        Self::Name,
        Self::Addr,
        Self::Port,
        Self::Proto,
        Self::Helo,
        Self::Login,
        Self::DestAddr,
        Self::DestPort,
    ];
    pub(super) const XFORWARD: &[Self] =
        &[Self::Name, Self::Addr, Self::Port, Self::Proto, Self::Helo, Self::Ident, Self::Source];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Addr => "ADDR",
            Self::Port => "PORT",
            Self::Proto => "PROTO",
            Self::Helo => "HELO",
            Self::Login => "LOGIN",
            Self::DestAddr => "DESTADDR",
            Self::DestPort => "DESTPORT",
            Self::Ident => "IDENT",
            Self::Source => "SOURCE",
        }
    }
}

/// An item: what it is about, and its value, which is `None` for `[UNAVAILABLE]` and
/// `[TEMPUNAVAIL]`.
pub(super) type Attribute = (Kind, Option<String>);

/// Reads the items of a command that knows `names`; `None`: one breaks the grammar, is not known or
/// has a value that it cannot have; or there are none.
pub(super) fn parse(argument: &[u8], names: &[Kind]) -> Option<Vec<Attribute>> {
    let mut found: Vec<Attribute> = Vec::new();
    for item in argument.split(|octet| *octet == b' ') {
        let at = item.iter().position(|octet| *octet == b'=')?;
        let (name, value) = item.split_at(at);
        let name =
            *names.iter().find(|known| name.eq_ignore_ascii_case(known.text().as_bytes()))?;
        let value = xtext(value.get(1..)?)?;
        if found.iter().any(|(other, _)| *other == name) || value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let known = !value.eq_ignore_ascii_case(b"[UNAVAILABLE]")
            && !value.eq_ignore_ascii_case(b"[TEMPUNAVAIL]");
        // Postfix neuters, too, what another client said to it.
        let value = known.then(|| printable(&value));
        if value.as_deref().is_some_and(|value| !is_valid(name, value)) {
            return None;
        }
        found.push((name, value));
    }
    (!found.is_empty()).then_some(found)
}

/// RFC 3461 §4: printable octets, others as `+` and two hexadecimal digits. Not empty.
fn xtext(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&octet) = rest.next() {
        octets.push(match octet {
            b'+' => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    (!octets.is_empty()).then_some(octets)
}

/// Clients write small letters, too, which the RFC does not have.
fn digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn is_valid(kind: Kind, value: &str) -> bool {
    match kind {
        Kind::Addr | Kind::DestAddr => parse_address(value).is_some(),
        Kind::Port | Kind::DestPort => parse_port(value).is_some(),
        Kind::Name => !value.contains(' '),
        Kind::Source => ["LOCAL", "REMOTE"].iter().any(|word| value.eq_ignore_ascii_case(word)),
        // As given to the proxy, which is no more of a judge than EHLO here.
        Kind::Helo | Kind::Proto | Kind::Login | Kind::Ident => true,
    }
}

/// An IPv4 address, or an IPv6 one after `IPV6:`.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((prefix, text)) if prefix.eq_ignore_ascii_case("IPV6:") => {
            text.parse::<Ipv6Addr>().ok().map(|address| IpAddr::from(address).to_canonical())
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    }
}

pub(super) fn parse_port(text: &str) -> Option<u16> {
    parse_digits(text.as_bytes()).and_then(|port| u16::try_from(port).ok())
}
