//! Redelivering to a group by recipient: which forward-paths are selected.
//!
//! `mailrace group replay` puts the records into the group's journal of dead letters, as requeued
//! ones. So the committed offset stays where it is, retention keeps the mail, and a restart forgets
//! nothing. The exporter delivers them as replays; a relay only to the selected recipients.

use std::{fmt, str::FromStr};

use super::{Record, record::domain};

/// Class of an entry that is not a dead letter: its record is to be delivered again.
pub const REPLAY: &str = "replay";

/// Recipients: an address in which `*` stands for any characters. The local part counts exactly, the
/// domain in any case (RFC 5321 §2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcptPattern {
    local: String,
    domain: Option<String>,
}

impl FromStr for RcptPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        let domain = domain(bare);
        match bare.rsplit_once('@') {
            Some((local, _)) if !domain.is_empty() => Ok(Self {
                local: if local.is_empty() { "*" } else { local }.to_owned(),
                domain: Some(domain),
            }),
            None if !bare.is_empty() => Ok(Self { local: bare.to_owned(), domain: None }),
            _ => Err(format!(
                "{text:?} is not a recipient, such as bob@example.org, *@example.org or \
                 sales-*@example.org"
            )),
        }
    }
}

impl fmt::Display for RcptPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)?;
        self.domain.as_ref().map_or(Ok(()), |domain| write!(f, "@{domain}"))
    }
}

impl RcptPattern {
    /// Whether it means this forward-path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match (&self.domain, path.rsplit_once('@')) {
            (Some(wanted), Some((local, _))) => {
                glob(self.local.as_bytes(), local.as_bytes())
                    && glob(wanted.as_bytes(), domain(path).as_bytes())
            }
            (None, None) => {
                glob(self.local.to_lowercase().as_bytes(), path.to_lowercase().as_bytes())
            }
            (None, Some(_)) => self.local == "*",
            (Some(_), None) => false,
        }
    }

    /// Leaves a record the forward-paths that are meant.
    pub(super) fn narrow(&self, record: &mut Record) {
        let meant: Vec<bool> = record.rcpt_to.iter().map(|path| self.matches(path)).collect();
        let mut at = meant.iter();
        record.rcpt_to.retain(|_| at.next() == Some(&true));
        let params = &mut record.facts.rcpt_params;
        let kept = params.split('\n').zip(&meant).filter(|(_, meant)| **meant);
        *params = kept.map(|(params, _)| params).collect::<Vec<_>>().join("\n");
    }
}

/// `*` stands for any octets, none included.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(octet) if text.get(t) == Some(octet) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|octet| *octet == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_recipients() {
        for (pattern, path, meant) in [
            ("bob@x.test", "bob@X.test", true),
            ("bob@x.test", "bob@x.test.", true),
            ("bob@x.test.", "bob@x.test", true),
            ("<bob@x.test>", "bob@x.test", true),
            ("bob@x.test", "Bob@x.test", false),
            ("bob@x.test", "bob@y.test", false),
            ("@x.test", "anybody@x.test", true),
            ("*@x.test", "a@sub.x.test", false),
            ("*@*.x.test", "a@sub.x.test", true),
            ("sales-*@x.test", "sales-@x.test", true),
            ("sales-*@x.test", "sale@x.test", false),
            ("*a*b@x.test", "xaabab@x.test", true),
            ("*a*b@x.test", "xbba@x.test", false),
            ("*", "a@x.test", true),
            ("*", "Postmaster", true),
            ("postmaster", "Postmaster", true),
            ("postmaster", "postmaster@x.test", false),
            ("*@*", "Postmaster", false),
            ("\"a@b\"@x.test", "\"a@b\"@x.test", true),
        ] {
            let parsed: RcptPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(path), meant, "{pattern} {path}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{pattern}");
        }
        for bad in ["", "<>", "bob@", "@"] {
            assert!(bad.parse::<RcptPattern>().unwrap_err().contains("such as"), "{bad}");
        }
    }

    #[test]
    fn a_record_keeps_the_recipients_that_are_meant_and_their_parameters() {
        let mut record = crate::testing::record(0, 1);
        record.rcpt_to = ["a@x.test", "b@y.test", "c@x.test"].map(str::to_owned).to_vec();
        record.facts.rcpt_params = "NOTIFY=1\nNOTIFY=2\nNOTIFY=3".to_owned();
        "*@x.test".parse::<RcptPattern>().unwrap().narrow(&mut record);
        assert_eq!(record.rcpt_to, ["a@x.test", "c@x.test"]);
        assert_eq!(record.facts.rcpt_params, "NOTIFY=1\nNOTIFY=3");
    }
}
