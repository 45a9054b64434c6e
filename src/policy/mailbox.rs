//! Mailboxes in the form in which they are compared.

use std::{borrow::Cow, io::Write, net::IpAddr};

use idna::AsciiDenyList;

use super::names::NAME_BYTES_MAX;

/// RFC 1035 §2.3.4, in octets.
const LABEL_BYTES_MAX: usize = 63;

/// A mailbox in the form in which it is compared, on the stack.
///
/// * The local part loses its quotes: `"a.b"@c` is `a.b@c` (RFC 5321 §4.1.2), and is opaque
///   otherwise: `a%b@c` and `b!a@c` are names like any other.
/// * ASCII letters are compared without case. RFC 5321 §2.4 leaves the case of the local part to
///   its host, and hardly any tells `Bob` from `bob`; other letters stay as they are (RFC 6531
///   §3.2 forbids no more).
/// * The domain is in A-label form, in lower case (RFC 6531 §3.7.1, RFC 5890 §2.3.2.1), without the
///   dot that may stand at its end; an address literal is written in one way.
pub(super) struct Mailbox {
    octets: [u8; NAME_BYTES_MAX],
    /// Of the local part.
    local: usize,
    len: usize,
}

impl Mailbox {
    /// `None` where nothing can be equal to it: its domain is none, or it is too long.
    ///
    /// Nothing is allocated for a domain in ASCII.
    pub(super) fn new(mailbox: &str) -> Option<Self> {
        let mut new = Self { octets: [0; NAME_BYTES_MAX], local: 0, len: 0 };
        // A domain has no @, a quoted local part may.
        let (local, domain) = match mailbox.rfind('@') {
            Some(at) => (&mailbox[..at], Some(&mailbox[at + 1..])),
            None => (mailbox, None),
        };
        let quoted = local.strip_prefix('"').and_then(|local| local.strip_suffix('"'));
        let mut escaped = false;
        for octet in quoted.unwrap_or(local).bytes() {
            if quoted.is_some() && octet == b'\\' && !escaped {
                escaped = true;
                continue;
            }
            escaped = false;
            new.push(octet.to_ascii_lowercase())?;
        }
        new.local = new.len;
        if let Some(domain) = domain {
            new.push(b'@')?;
            new.push_domain(domain)?;
        }
        Some(new)
    }

    /// A domain alone.
    pub(super) fn of_domain(domain: &str) -> Option<Self> {
        let mut new = Self { octets: [0; NAME_BYTES_MAX], local: 0, len: 0 };
        new.push(b'@')?;
        new.push_domain(domain)?;
        Some(new)
    }

    /// The same with another local part.
    fn with_local(&self, local: &[u8]) -> Option<Self> {
        let mut new = Self { octets: [0; NAME_BYTES_MAX], local: local.len(), len: 0 };
        for part in [local, &self.octets[self.local..self.len]] {
            part.iter().try_for_each(|octet| new.push(*octet))?;
        }
        Some(new)
    }

    /// Without the detail after a delimiter: `user+detail` is `user` (RFC 5233 §1). `None` if there
    /// is none; a delimiter at the front is part of the name.
    pub(super) fn without_detail(&self, delimiter: u8) -> Option<Self> {
        let local = self.local();
        let at = local.iter().skip(1).position(|octet| *octet == delimiter)? + 1;
        self.with_local(&local[..at])
    }

    pub(super) fn local(&self) -> &[u8] {
        &self.octets[..self.local]
    }

    /// Empty: it has none.
    pub(super) fn domain(&self) -> &[u8] {
        self.octets[..self.len].get(self.local + 1..).unwrap_or_default()
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    fn push(&mut self, octet: u8) -> Option<()> {
        *self.octets.get_mut(self.len)? = octet;
        self.len += 1;
        Some(())
    }

    fn push_domain(&mut self, domain: &str) -> Option<()> {
        if let Some(literal) = domain.strip_prefix('[') {
            return self.push_literal(literal.strip_suffix(']')?);
        }
        let ascii = match domain.is_ascii() {
            true => Cow::Borrowed(domain),
            // What ASCII may stand there is said below: hosts may be called `büro_1`.
            false => idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::EMPTY).ok()?,
        };
        // The dot of the root names the same domain.
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        let is_label = |label: &str| {
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
            !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(plain)
        };
        if !name.split('.').all(is_label) {
            return None;
        }
        name.bytes().try_for_each(|octet| self.push(octet.to_ascii_lowercase()))
    }

    fn push_literal(&mut self, literal: &str) -> Option<()> {
        let address: IpAddr = match literal.split_at_checked(5) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                IpAddr::V6(address.parse().ok()?)
            }
            _ => IpAddr::V4(literal.parse().ok()?),
        };
        let mut room = &mut self.octets[self.len..];
        let before = room.len();
        write!(room, "[{address}]").ok()?;
        self.len += before - room.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mailbox: &str, compared: &str) {
        let found = Mailbox::new(mailbox).map(|m| String::from_utf8_lossy(m.octets()).into_owned());
        assert_eq!(found.as_deref(), Some(compared), "{mailbox}");
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        check("Bob@Example.COM", "bob@example.com");
        check("\"Bob\"@example.com", "bob@example.com");
        check(r#""a\"\\ @b"@c"#, r#"a"\ @b@c"#);
        check("a%b@c", "a%b@c");
        check("b!a@c", "b!a@c");
        check("a@ü.example", "a@xn--tda.example");
        check("a@Ü.EXAMPLE", "a@xn--tda.example");
        check("a@XN--TDA.example", "a@xn--tda.example");
        check("Ü@example.com", "Ü@example.com");
        check("a@Example.com.", "a@example.com");
        check("a@ü.example.", "a@xn--tda.example");
        check("root@DB_1.example.", "root@db_1.example");
        check("a@ü_1.example", "a@xn--_1-wka.example");
        check("a..b@c", "a..b@c");
        check("\"a..b\"@c", "a..b@c");
        check("a@[192.0.2.1]", "a@[192.0.2.1]");
        check("a@[IPv6:2001:DB8:0::1]", "a@[2001:db8::1]");
        check("PostMaster", "postmaster");
        check("a@Example.com.", "a@example.com");
        check("a@db_1.example", "a@db_1.example");
    }

    #[test]
    fn what_has_no_domain_is_equal_to_nothing() {
        for mailbox in [
            "a@",
            "a@.",
            "a@a..",
            "a@a..b",
            "a@ü。。b",
            "a@ü＠b",
            "a@[1.2.3]",
            "a@[IPv6:x]",
            "a@[1.2.3.4",
        ] {
            assert!(Mailbox::new(mailbox).is_none(), "{mailbox}");
        }
        let long = format!("a@{}", ["a"; 300].join("."));
        assert!(Mailbox::new(&long).is_none());
        assert!(Mailbox::new(&format!("a@{}.example", "b".repeat(64))).is_none());
    }

    #[test]
    fn the_detail_goes() {
        let without = |text| {
            let mailbox = Mailbox::new(text)?.without_detail(b'+')?;
            Some(String::from_utf8_lossy(mailbox.octets()).into_owned())
        };
        assert_eq!(without("a+b+c@d").as_deref(), Some("a@d"));
        assert_eq!(without("a@d+e"), None);
        assert_eq!(without("+a@d"), None);
        assert_eq!(without("+a+b@d").as_deref(), Some("+a@d"));
        assert_eq!(without("\"a b+c\"@d").as_deref(), Some("a b@d"));
    }
}
