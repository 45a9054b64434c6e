//! Subjects: filling in the template, and whether a stream covers the result.

use crate::{ErrorClass, Record, SinkError};

/// A subject with placeholders, cut at its dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    tokens: Vec<Vec<Piece>>,
}

/// Part of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Listener,
    RcptDomain,
    Shard,
}

impl Template {
    /// Reads `mail.{listener}.{rcpt_domain}`.
    ///
    /// # Errors
    /// A token is empty, holds a wildcard or white space, or a placeholder is unknown.
    pub(super) fn parse(text: &str) -> Result<Self, SinkError> {
        let tokens = text.split('.').map(token).collect::<Result<_, _>>().map_err(|cause| {
            SinkError::new(ErrorClass::Other, format!("subject {text}: {cause}"))
        })?;
        Ok(Self { tokens })
    }

    /// The subject of a record.
    pub(super) fn fill(&self, record: &Record) -> String {
        let mut subject = String::new();
        for (at, pieces) in self.tokens.iter().enumerate() {
            if at > 0 {
                subject.push('.');
            }
            for piece in pieces {
                match piece {
                    Piece::Text(text) => subject.push_str(text),
                    Piece::Listener => push_value(&mut subject, &record.listener),
                    Piece::RcptDomain => push_value(&mut subject, &record.rcpt_domain()),
                    Piece::Shard => subject.push_str(&record.id.shard.to_string()),
                }
            }
        }
        subject
    }

    /// All subjects it can give: `*` for a token with a placeholder.
    pub(super) fn pattern(&self) -> String {
        let tokens = self.tokens.iter().map(|pieces| fixed(pieces).unwrap_or_else(|| "*".into()));
        tokens.collect::<Vec<_>>().join(".")
    }

    /// Subject of a stream that is made for it: everything under its fixed tokens, so that a longer
    /// template needs no other stream. Without any, its pattern: JetStream takes no bare `>`.
    pub(super) fn stream_subject(&self) -> String {
        let prefix: Vec<_> = self.tokens.iter().map_while(|pieces| fixed(pieces)).collect();
        match prefix.len() {
            0 => self.pattern(),
            len if len == self.tokens.len() => prefix.join("."),
            _ => prefix.join(".") + ".>",
        }
    }
}

/// How a stream's subjects meet the pattern of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// One takes every subject.
    All,
    /// Some are taken, or all by several subjects together.
    Some,
    /// None is.
    None,
}

/// See [`Coverage`].
pub(super) fn coverage<S: AsRef<str>>(subjects: &[S], pattern: &str) -> Coverage {
    if subjects.iter().any(|subject| meets(subject.as_ref(), pattern, false)) {
        Coverage::All
    } else if subjects.iter().any(|subject| meets(subject.as_ref(), pattern, true)) {
        Coverage::Some
    } else {
        Coverage::None
    }
}

/// Whether each subject of `pattern` is one of `subject`; or, if `partly`, whether one is.
fn meets(subject: &str, pattern: &str, partly: bool) -> bool {
    let mut wanted = pattern.split('.');
    for token in subject.split('.') {
        match (token, wanted.next()) {
            (">", rest) => return rest.is_some(),
            (_, None) => return false,
            ("*", Some(_)) => {}
            (_, Some("*")) if partly => {}
            (token, Some(want)) if token == want => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// One token of a template.
fn token(text: &str) -> Result<Vec<Piece>, String> {
    if text.is_empty() {
        return Err("an empty token".to_owned());
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, behind) = rest.split_once('{').unwrap_or((rest, ""));
        if before.contains(|c: char| unfit(c) || c == '}') {
            return Err(format!("{text:?} holds a wildcard, white space or a stray brace"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        if before.len() == rest.len() {
            break;
        }
        let Some((name, behind)) = behind.split_once('}') else {
            return Err(format!("{text:?} lacks a closing brace"));
        };
        pieces.push(match name {
            "listener" => Piece::Listener,
            "rcpt_domain" => Piece::RcptDomain,
            "shard" => Piece::Shard,
            _ => return Err(format!("unknown placeholder {{{name}}}")),
        });
        rest = behind;
    }
    Ok(pieces)
}

/// Text of a token without placeholders.
fn fixed(pieces: &[Piece]) -> Option<String> {
    match pieces {
        [Piece::Text(text)] => Some(text.clone()),
        _ => None,
    }
}

/// A value as one token: it comes from clients, and a dot or a wildcard would change what the
/// subject means.
fn push_value(subject: &mut String, value: &str) {
    if value.is_empty() {
        subject.push('_');
    }
    let end = value.floor_char_boundary(VALUE_BYTES_MAX);
    let value = value.get(..end).unwrap_or_default();
    subject.extend(value.chars().map(|c| if c == '.' || unfit(c) { '_' } else { c }));
}

/// Longest value within a subject: a domain's 255 octets (RFC 5321 §4.5.3.1.2). The server ends a
/// connection on a control line beyond 4 KiB.
const VALUE_BYTES_MAX: usize = 255;

/// Neither a wildcard nor white space nor a control character may be in a token.
fn unfit(c: char) -> bool {
    matches!(c, '*' | '>') || c.is_whitespace() || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn filled(template: &str, rcpt: &str) -> String {
        let mut record = record(3, 7);
        record.listener = "mx 1".into();
        record.rcpt_to = vec![rcpt.into()];
        Template::parse(template).unwrap().fill(&record)
    }

    #[test]
    fn values_stay_one_token() {
        assert_eq!(
            filled("mail.{listener}.{rcpt_domain}", "a@Mail.Example"),
            "mail.mx_1.mail_example"
        );
        assert_eq!(filled("mail.s{shard}.{rcpt_domain}", "Postmaster"), "mail.s3._");
        assert_eq!(filled("mail.{rcpt_domain}", "a@[IPv6:::1]"), "mail.[ipv6:::1]");
        assert_eq!(filled("mail.{rcpt_domain}", "a@*.>\u{85}\r\n"), "mail.______");
        assert_eq!(filled("mail.{rcpt_domain}", "a@bücher.example"), "mail.bücher_example");
        let long = filled("mail.{rcpt_domain}", &format!("a@{}", "ü".repeat(4_000)));
        assert_eq!(long, format!("mail.{}", "ü".repeat(127)), "bounded, at a character");
    }

    #[test]
    fn bad_templates_say_why() {
        for (template, cause) in [
            ("", "empty token"),
            ("mail..x", "empty token"),
            ("mail.*", "wildcard"),
            ("mail.>", "wildcard"),
            ("mail. x", "white space"),
            ("mail.{from}", "unknown placeholder {from}"),
            ("mail.{shard", "closing brace"),
            ("mail.shard}", "stray brace"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.text.contains(cause), "{template}: {error}");
        }
    }

    #[test]
    fn a_stream_is_made_for_the_fixed_prefix() {
        for (template, pattern, stream) in [
            ("mail.{listener}.{rcpt_domain}", "mail.*.*", "mail.>"),
            ("a.b.{shard}.c", "a.b.*.c", "a.b.>"),
            ("a.s{shard}", "a.*", "a.>"),
            ("a.b", "a.b", "a.b"),
            ("{listener}.mail", "*.mail", "*.mail"),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(template.pattern(), pattern);
            assert_eq!(template.stream_subject(), stream);
            assert_eq!(coverage(&[stream], pattern), Coverage::All);
        }
    }

    #[test]
    fn coverage_of_a_pattern() {
        for (subjects, expected) in [
            (&["mail.>"][..], Coverage::All),
            (&[">"], Coverage::All),
            (&["mail.*.*"], Coverage::All),
            (&["other", "*.*.*"], Coverage::All),
            (&["mail.smtp.*"], Coverage::Some),
            (&["mail.smtp.>"], Coverage::Some),
            (&["mail.*"], Coverage::None),
            (&["mail.*.*.>"], Coverage::None),
            (&["post.>"], Coverage::None),
            (&[], Coverage::None),
        ] {
            assert_eq!(coverage(subjects, "mail.*.*"), expected, "{subjects:?}");
        }
        assert_eq!(coverage(&["mail.>"], "mail"), Coverage::None);
        assert_eq!(coverage(&["mail"], "mail"), Coverage::All);
    }
}
