//! Reverse-paths and forward-paths (RFC 5321 §4.1.2, RFC 6531 §3.3), checked and kept as written.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// RFC 1035 §2.3.4, in octets.
const LABEL_BYTES_MAX: usize = 63;
/// RFC 5321 §4.5.3.1.2, in octets.
const DOMAIN_BYTES_MAX: usize = 255;

/// Sizes in octets. RFC 5321 §4.5.3.1 asks for no limit where that is possible, and names these
/// only as what every server must take: SRS, VERP and BATV make longer local parts.
struct Sizes {
    /// RFC 5321 §4.5.3.1.1.
    local_part: usize,
    /// RFC 5321 §4.5.3.1.3, with the angle brackets.
    path: usize,
}

/// What is taken.
const TAKEN: Sizes = Sizes { local_part: 255, path: 512 };
/// What the RFC has every server take, and `paths = "strict"` takes.
const STANDARD: Sizes = Sizes { local_part: 64, path: 256 };

/// Ways in which the arguments of real senders leave the grammar of RFC 5321 and are taken all the
/// same. A closed set, the values of a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lenient {
    /// A local-part over 64 octets, or a path over 256.
    Long,
    /// A dot at an end of an unquoted local-part, or two in a row.
    Dots,
    /// `_` in a domain.
    Underscore,
    /// A dot at the end of a domain.
    FinalDot,
    /// EHLO, HELO or LHLO with neither a domain nor an address literal.
    Helo,
}

impl Lenient {
    /// Each of them, in the order of their counters.
    pub const ALL: [Self; 5] =
        [Self::Long, Self::Dots, Self::Underscore, Self::FinalDot, Self::Helo];

    /// Name as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Dots => "dots",
            Self::Underscore => "underscore",
            Self::FinalDot => "final_dot",
            Self::Helo => "helo",
        }
    }
}

/// Ways of [`Lenient`], a bit each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leniencies(u8);

impl Leniencies {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Lenient> {
        Lenient::ALL.into_iter().filter(move |way| self.0 & Self::bit(*way) != 0)
    }

    fn note(&mut self, way: Lenient, found: bool) {
        self.0 |= if found { Self::bit(way) } else { 0 };
    }

    const fn bit(way: Lenient) -> u8 {
        1 << way as u8
    }
}

/// A path taken from the front of an argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Mailbox as written, without brackets and source route; empty for the null path.
    pub(super) mailbox: &'a str,
    /// What follows the closing bracket.
    pub(super) rest: &'a str,
    /// A local-part without a domain.
    pub(super) no_domain: bool,
    /// Where it leaves the grammar.
    pub(super) lenient: Leniencies,
}

/// Parses `<...>` at the front of `argument`; `None` when it is outside of what is taken.
pub(super) fn parse(argument: &str) -> Option<Path<'_>> {
    let mut lenient = Leniencies::default();
    let inner = argument.strip_prefix('<')?;
    if let Some(rest) = inner.strip_prefix('>') {
        return Some(Path { mailbox: "", rest, no_domain: false, lenient });
    }
    // RFC 5321 §4.1.1.3, appendix C: a source route is checked and dropped.
    let with_route = inner.starts_with('@');
    let routed = if with_route { skip_route(inner, &mut lenient)? } else { inner };

    let local = local_part_len(routed, &mut lenient)?;
    let (_, after) = routed.split_at_checked(local)?;
    let (mailbox_len, no_domain) = match after.strip_prefix('@') {
        Some(domain) => (local + 1 + domain_len(domain, &mut lenient)?, false),
        // `<Postmaster>` stands alone: behind a route comes a whole mailbox.
        None if with_route => return None,
        None => (local, true),
    };
    let (mailbox, rest) = routed.split_at_checked(mailbox_len)?;
    let rest = rest.strip_prefix('>')?;
    let len = argument.len() - rest.len();
    lenient.note(Lenient::Long, len > STANDARD.path);
    (len <= TAKEN.path).then_some(Path { mailbox, rest, no_domain, lenient })
}

/// Whether this is a mailbox that MAIL and RCPT take, without its brackets.
pub fn is_mailbox(text: &str) -> bool {
    let mut lenient = Leniencies::default();
    let Some(local) = local_part_len(text, &mut lenient) else { return false };
    let domain = text.get(local..).and_then(|rest| rest.strip_prefix('@'));
    domain.is_some_and(is_domain) && text.len() + 2 <= TAKEN.path
}

/// Whether this is a domain or an address literal that MAIL and RCPT take.
pub fn is_domain(text: &str) -> bool {
    domain_len(text, &mut Leniencies::default()) == Some(text.len())
}

/// Whether this is a domain or an address literal by the letter of RFC 5321 §4.1.2, §4.1.3, as
/// EHLO and HELO are to have: before EHLO nobody has asked for UTF-8.
pub(super) fn is_standard_name(text: &str) -> bool {
    let mut lenient = Leniencies::default();
    text.is_ascii() && domain_len(text, &mut lenient) == Some(text.len()) && lenient.is_empty()
}

/// A mailbox for a server that takes what RFC 5321 §4.1.2 allows and no more: a local-part with
/// dots where a dot-string has none is quoted (`"a..b"@c`, the same mailbox by RFC 5321 §4.1.2);
/// all else stays as it is.
pub fn quoted_mailbox(mailbox: &str) -> Cow<'_, str> {
    let mut lenient = Leniencies::default();
    match local_part_len(mailbox, &mut lenient).and_then(|len| mailbox.split_at_checked(len)) {
        Some((local, rest)) if lenient.iter().any(|way| way == Lenient::Dots) => {
            Cow::Owned(format!("\"{local}\"{rest}"))
        }
        _ => Cow::Borrowed(mailbox),
    }
}

/// Skips `@a,@b:` and gives what follows.
fn skip_route<'a>(route: &'a str, lenient: &mut Leniencies) -> Option<&'a str> {
    let mut route = route;
    loop {
        let domain = route.strip_prefix('@')?;
        // At-domain is a domain, never an address literal.
        if domain.starts_with('[') {
            return None;
        }
        let (_, rest) = domain.split_at_checked(domain_len(domain, lenient)?)?;
        match rest.strip_prefix(',') {
            Some(next) => route = next,
            None => return rest.strip_prefix(':'),
        }
    }
}

/// Length of the local-part at the front, at least 1.
fn local_part_len(text: &str, lenient: &mut Leniencies) -> Option<usize> {
    let len = match text.strip_prefix('"') {
        Some(quoted) => quoted_len(quoted)? + 1,
        None => dot_string_len(text, lenient)?,
    };
    lenient.note(Lenient::Long, len > STANDARD.local_part);
    (len <= TAKEN.local_part).then_some(len)
}

/// RFC 5321 §4.1.2 allows no dot at either end of a dot-string and no two in a row. Mobile carriers
/// gave out such addresses for years, so dots are taken anywhere; the local-part is opaque to us.
fn dot_string_len(text: &str, lenient: &mut Leniencies) -> Option<usize> {
    let (mut len, mut before, mut odd) = (0, b'.', false);
    for octet in text.bytes().take_while(|octet| is_atext(*octet) || *octet == b'.') {
        odd |= octet == b'.' && before == b'.';
        before = octet;
        len += 1;
    }
    lenient.note(Lenient::Dots, len > 0 && (odd || before == b'.'));
    (len > 0).then_some(len)
}

/// Length of a quoted string after its opening quote, including the closing quote.
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
///
/// Hosts called `db_1`, and programs that write a domain with its root dot, send mail like others.
fn domain_len(text: &str, lenient: &mut Leniencies) -> Option<usize> {
    let len = match text.strip_prefix('[') {
        Some(literal) => {
            let end = literal.bytes().position(|octet| octet == b']')?;
            is_literal(literal.get(..end)?).then_some(end + 2)?
        }
        None => {
            let len = text.bytes().take_while(|octet| is_domain_octet(*octet)).count();
            let domain = text.get(..len)?;
            let name = domain.strip_suffix('.').unwrap_or(domain);
            lenient.note(Lenient::FinalDot, name.len() < len);
            lenient.note(Lenient::Underscore, name.bytes().any(|octet| octet == b'_'));
            name.split('.').all(is_label).then_some(len)?
        }
    };
    (len <= DOMAIN_BYTES_MAX).then_some(len)
}

/// RFC 5321 §4.1.3. No tag besides `IPv6` is registered, so none is accepted.
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

/// Letters, digits, hyphen, underscore, dot, and any octet of UTF-8 (RFC 6531 §3.3, U-labels).
fn is_domain_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | 0x80..)
}

/// RFC 5322 §3.2.3 atext, widened to UTF-8 by RFC 6531 §3.3.
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet) || octet >= 0x80
}
