//! What was found out about who sent a mail: the verdict, as it is kept next to the record.
//!
//! Fields are only ever added: a reader leaves out what it does not know, and finds the default
//! where an older server wrote nothing.

use serde::{Deserialize, Serialize};

/// Result words (RFC 8601 §2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthWord {
    /// There was nothing to check.
    #[default]
    None,
    /// It is so.
    Pass,
    /// It is not so.
    Fail,
    /// SPF: probably not so.
    Softfail,
    /// SPF: the domain makes no statement; DKIM: the signature could not be processed.
    Neutral,
    /// A signature that is not accepted, whether it is right or not.
    Policy,
    /// It could not be found out now.
    Temperror,
    /// It can never be found out: what was published or sent makes no sense.
    Permerror,
}

impl AuthWord {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Pass,
        Self::Fail,
        Self::Softfail,
        Self::Neutral,
        Self::Policy,
        Self::Temperror,
        Self::Permerror,
    ];

    /// As RFC 8601 spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Softfail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::Temperror => "temperror",
            Self::Permerror => "permerror",
        }
    }
}

/// Outcome of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The word.
    pub result: AuthWord,
    /// Why, for people; empty: the word says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whose it is: of the identity that was checked, the signer, the author, or the client's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Of a signature.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Of a signature.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
    /// SPF: `mailfrom` or `helo`; DKIM: the agent or user (`i=`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Whether its domain is the author's as DMARC has it; `None`: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aligned: Option<bool>,
}

/// Outcome of DMARC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dmarc {
    /// Word, reason and the author's domain.
    #[serde(flatten)]
    pub check: Check,
    /// What the domain's owner wants done with mail that fails: `none`, `quarantine`, `reject`; empty:
    /// no policy was found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// What the policy says about this mail.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub disposition: String,
    /// What the owner has published; `None`: nothing, or an older server judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
}

/// A policy as it was published, with defaults where it says nothing (RFC 9989 §4.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// Where it was found.
    pub domain: String,
    /// Policy of the domain; empty: it names none.
    #[serde(default)]
    pub p: String,
    /// Of names below it.
    #[serde(default)]
    pub sp: String,
    /// Of names below it that do not exist.
    #[serde(default)]
    pub np: String,
    /// `r` or `s`: how DKIM must align.
    #[serde(default)]
    pub adkim: String,
    /// `r` or `s`: how SPF must align.
    #[serde(default)]
    pub aspf: String,
    /// The owner tests.
    #[serde(default)]
    pub testing: bool,
    /// Which failures the owner wants reported.
    #[serde(default)]
    pub fo: String,
}

/// Facts about the author that DMARC has no word for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromFacts {
    /// From fields; a mail has one (RFC 5322 §3.6).
    pub fields: u32,
    /// Mailboxes in them.
    pub mailboxes: u32,
    /// Domains of them, in A-labels and lower case, each once and at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// A From field that names no address, or an address that is none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unreadable: bool,
    /// A display name shows an address of another domain than the mailbox has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub misleading_name: bool,
    /// An address has characters beyond ASCII, or an A-label: it may look like another.
    #[serde(default, skip_serializing_if = "is_false")]
    pub non_ascii: bool,
    /// A domain of ours, and nothing that was checked says that we sent it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub own_domain_forged: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Who sent a mail, as far as could be found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What judged: program, version, library.
    pub engine: String,
    /// When, microseconds since 1970.
    pub judged_at: i64,
    /// DNS questions it took.
    #[serde(default)]
    pub questions: u32,
    /// RFC 7208: of MAIL FROM and of HELO.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spf: Vec<Check>,
    /// RFC 6376, signature by signature, from the top; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dkim: Vec<Check>,
    /// Signatures that were not looked at.
    #[serde(default)]
    pub dkim_ignored: u32,
    /// RFC 9989.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<Dmarc>,
    /// RFC 8617, of the whole chain. Recorded only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arc: Option<Check>,
    /// RFC 8601 §2.7.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iprev: Option<Check>,
    /// What the From fields show.
    #[serde(default)]
    pub from: FromFacts,
    /// Why the mail was not judged; empty: it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skipped: String,
}

impl Verdict {
    /// Methods with their words, for counting and filters.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, AuthWord)> + '_ {
        let many = |method: &'static str, checks: &[Check]| {
            let words: Vec<_> = checks.iter().map(|check| (method, check.result)).collect();
            words
        };
        let mut words = many("spf", &self.spf);
        words.extend(many("dkim", &self.dkim));
        words.extend(self.dmarc.iter().map(|dmarc| ("dmarc", dmarc.check.result)));
        words.extend(self.arc.iter().map(|check| ("arc", check.result)));
        words.extend(self.iprev.iter().map(|check| ("iprev", check.result)));
        words.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_or_newer_verdict_is_read() {
        let text = r#"{"engine":"x","judged_at":1,"later":[1],"spf":[{"result":"softfail"}]}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        assert_eq!(verdict.words().collect::<Vec<_>>(), [("spf", AuthWord::Softfail)]);
        for word in AuthWord::ALL {
            let text = serde_json::to_string(&word).unwrap();
            assert_eq!(text, format!("\"{}\"", word.name()));
        }
    }
}
