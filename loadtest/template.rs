//! Addresses made from a pattern: `user{seq}@a.test`, `{rand}@a.test`.

use std::{io::Write, str::FromStr};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The message's sequence number.
    Sequence,
    /// Sixteen hexadecimal digits.
    Random,
}

/// An address pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Appends the address; `domain` replaces what follows the `@`.
    pub(super) fn expand(
        &self,
        sequence: u64,
        random: u64,
        domain: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        for part in &self.parts {
            // Writing into a Vec cannot fail.
            let _ = match part {
                Part::Text(text) => out.write_all(text.as_bytes()),
                Part::Sequence => write!(out, "{sequence}"),
                Part::Random => write!(out, "{random:016x}"),
            };
        }
        if let Some(domain) = domain {
            let local = out[start..].iter().rposition(|&octet| octet == b'@');
            out.truncate(start + local.unwrap_or(out.len() - start));
            out.push(b'@');
            out.extend_from_slice(domain.as_bytes());
        }
    }

    /// Whether two messages get different addresses.
    pub(super) fn varies(&self) -> bool {
        self.parts.contains(&Part::Random)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, behind) =
                behind.split_once('}').ok_or_else(|| format!("{text:?}: a {{ is not closed"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name {
                "seq" => Part::Sequence,
                "rand" => Part::Random,
                _ => return Err(format!("{text:?}: {{{name}}} is neither {{seq}} nor {{rand}}")),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let clean = |octet: u8| octet > b' ' && octet != 0x7f && octet != b'<' && octet != b'>';
        if !text.bytes().all(clean) {
            return Err(format!("{text:?} is not an address"));
        }
        Ok(Self { parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, domain: Option<&str>) -> String {
        let mut out = b"TO:<".to_vec();
        text.parse::<Template>().unwrap().expand(42, 0xab, domain, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn patterns() {
        assert_eq!(expanded("a@b.test", None), "TO:<a@b.test");
        assert_eq!(expanded("u{seq}-{rand}@b.test", None), "TO:<u42-00000000000000ab@b.test");
        assert_eq!(expanded("u{seq}@b.test", Some("c.test")), "TO:<u42@c.test");
        assert_eq!(expanded("u", Some("c.test")), "TO:<u@c.test");
        assert_eq!(expanded("", None), "TO:<");
        for bad in ["{x}@a", "{seq@a", "a b@c", "a>@c", "a\r\n@c"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
