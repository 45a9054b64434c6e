//! Macros of SPF (RFC 7208 §7).

use std::{fmt::Write as _, net::IpAddr};

use super::record::Syntax;

/// RFC 1035 §2.3.4, as text without the last dot.
const NAME_MAX: usize = 253;

/// A macro-string, or an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: u8,
    /// An upper-case letter: the value is escaped as in a URL.
    escaped: bool,
    /// Right-hand parts that are kept.
    parts: Option<usize>,
    reversed: bool,
    delimiters: String,
}

/// What macros stand for.
pub(super) struct Values<'a> {
    pub(super) ip: IpAddr,
    pub(super) sender: &'a str,
    pub(super) helo: &'a str,
    /// Who checks.
    pub(super) receiver: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Validated name of the client, as `%{p}` wants it.
    pub(super) name: &'a str,
}

impl Template {
    /// Of a macro-string in a record.
    pub(super) fn parse(text: &str) -> Result<Self, Syntax> {
        Self::read(text, false)
    }

    /// Of an explanation (RFC 7208 §6.2): spaces, and three more letters.
    pub(super) fn parse_explanation(text: &str) -> Result<Self, Syntax> {
        Self::read(text, true)
    }

    fn read(text: &str, explains: bool) -> Result<Self, Syntax> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first != '%' {
                let fits = first.is_ascii_graphic() || explains && first == ' ';
                if !fits {
                    return Err(Syntax);
                }
                plain.push(first);
                rest = &rest[1..];
                continue;
            }
            let stood = match rest.as_bytes().get(1) {
                Some(b'%') => Some("%"),
                Some(b'_') => Some(" "),
                Some(b'-') => Some("%20"),
                _ => None,
            };
            if let Some(stood) = stood {
                plain.push_str(stood);
                rest = &rest[2..];
                continue;
            }
            let inner = rest.strip_prefix("%{").ok_or(Syntax)?;
            let (inner, after) = inner.split_once('}').ok_or(Syntax)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Macro(Macro::parse(inner, explains)?));
            rest = after;
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    pub(super) fn ends_in_macro(&self) -> bool {
        matches!(self.parts.last(), Some(Part::Macro(_)))
    }

    /// Whether it asks for the client's validated name.
    pub(super) fn needs_name(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Macro(one) if one.letter == b'p'))
    }

    /// As a name for DNS: what is too long loses labels on the left (RFC 7208 §7.3).
    pub(super) fn name(&self, values: &Values<'_>, domain: &str) -> String {
        let text = self.expand(values, domain);
        let mut name = text.strip_suffix('.').unwrap_or(&text);
        while name.len() > NAME_MAX {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => break,
            }
        }
        name.to_owned()
    }

    pub(super) fn expand(&self, values: &Values<'_>, domain: &str) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Macro(one) => one.expand(values, domain, &mut text),
            }
        }
        text
    }
}

impl Macro {
    fn parse(inner: &str, explains: bool) -> Result<Self, Syntax> {
        let letter = *inner.as_bytes().first().ok_or(Syntax)?;
        let lower = letter.to_ascii_lowercase();
        match lower {
            b's' | b'l' | b'o' | b'd' | b'i' | b'p' | b'h' | b'v' => {}
            b'c' | b'r' | b't' if explains => {}
            _ => return Err(Syntax),
        }
        let rest = inner.get(1..).ok_or(Syntax)?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (digits, rest) = rest.split_at(digits);
        let parts = match digits {
            "" => None,
            // More parts than any name has keep all of them.
            digits => Some(digits.parse::<usize>().unwrap_or(usize::MAX)),
        };
        if parts == Some(0) {
            return Err(Syntax);
        }
        let (reversed, delimiters) = match rest.as_bytes().first() {
            Some(b'r' | b'R') => (true, rest.get(1..).unwrap_or_default()),
            _ => (false, rest),
        };
        if !delimiters.bytes().all(|octet| b".-+,/_=".contains(&octet)) {
            return Err(Syntax);
        }
        Ok(Self {
            letter: lower,
            escaped: letter.is_ascii_uppercase(),
            parts,
            reversed,
            delimiters: delimiters.to_owned(),
        })
    }

    fn expand(&self, values: &Values<'_>, domain: &str, text: &mut String) {
        let value = values.get(self.letter, domain);
        let is_delimiter = |c: char| match self.delimiters.is_empty() {
            true => c == '.',
            false => self.delimiters.contains(c),
        };
        let mut parts: Vec<&str> = value.split(is_delimiter).collect();
        if self.reversed {
            parts.reverse();
        }
        if let Some(kept) = self.parts {
            parts.drain(..parts.len().saturating_sub(kept));
        }
        let joined = parts.join(".");
        if !self.escaped {
            text.push_str(&joined);
            return;
        }
        for octet in joined.bytes() {
            // RFC 3986 §2.3: unreserved.
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                text.push(char::from(octet));
            } else {
                let _ = write!(text, "%{octet:02X}");
            }
        }
    }
}

impl Values<'_> {
    fn get(&self, letter: u8, domain: &str) -> String {
        let (local, sender_domain) = self.sender.rsplit_once('@').unwrap_or(("", self.sender));
        match letter {
            b's' => self.sender.to_owned(),
            b'l' => local.to_owned(),
            b'o' => sender_domain.to_owned(),
            b'd' => domain.to_owned(),
            b'h' => self.helo.to_owned(),
            b'p' => self.name.to_owned(),
            b'r' => self.receiver.to_owned(),
            b't' => self.now.to_string(),
            b'c' => self.ip.to_string(),
            b'v' => (if self.ip.is_ipv4() { "in-addr" } else { "ip6" }).to_owned(),
            b'i' => match self.ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => nibbles(ip.octets()),
            },
            _ => String::new(),
        }
    }
}

fn nibbles(octets: [u8; 16]) -> String {
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    let digits: Vec<_> = digits.map(|digit| format!("{digit:X}")).collect();
    digits.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(ip: &str) -> Values<'_> {
        Values {
            ip: ip.parse().unwrap(),
            sender: "strong-bad@email.example.com",
            helo: "mx.example.org",
            receiver: "us.test",
            now: 1_000_000,
            name: "mx.example.org",
        }
    }

    /// RFC 7208 §7.4.
    #[test]
    fn examples_of_the_rfc() {
        let expand = |text: &str, ip| {
            let template = Template::parse_explanation(text).unwrap();
            template.expand(&values(ip), "email.example.com")
        };
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{S}", "strong-bad%40email.example.com"),
            ("%%%_%-", "% %20"),
            ("%{c} %{t} %{r}", "192.0.2.3 1000000 us.test"),
        ] {
            assert_eq!(expand(text, "192.0.2.3"), expected, "{text}");
        }
        let v6 = "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6";
        assert_eq!(expand("%{ir}.%{v}", "2001:db8::cb01"), v6);
    }

    #[test]
    fn a_long_name_loses_labels_on_the_left() {
        let long = format!("{}.%{{d}}", vec!["label7x"; 40].join("."));
        let name = Template::parse(&long).unwrap().name(&values("192.0.2.3"), "x.test");
        assert!(name.len() <= NAME_MAX && name.ends_with("label7x.x.test"), "{name}");
    }
}
