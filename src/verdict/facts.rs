//! What the From fields show, whatever DMARC says.
//!
//! Fence 3: with several From fields, with several domains, or with none that is readable, mail-auth's
//! DMARC is "none", as for a domain without a policy. Here that is a fact, and the author is the one of
//! the one reader of headers (`header`).

use mailrace_header::{Fields, Mailbox, Summary};
use mailrace_log::FromFacts;

/// Domains that are kept.
const DOMAINS_MAX: usize = 10;

/// Who wrote the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// All mailboxes are of this domain, in A-labels and lower case.
    Domain(String),
    /// Why there is none.
    Unclear(&'static str),
}

/// Facts of a header, and its author.
pub(crate) fn read(header: &[u8]) -> (FromFacts, Author) {
    let mut summary = Summary::default();
    let mut facts = FromFacts::default();
    for field in Fields::new(header) {
        if field.is("from") {
            facts.fields += 1;
            let before = summary.from.len();
            summary.take(&field);
            let named = summary.from.get(before..).unwrap_or_default();
            facts.unreadable |= !named.iter().any(|mailbox| domain_of(mailbox).is_some());
        }
    }
    facts.mailboxes = u32::try_from(summary.from.len()).unwrap_or(u32::MAX);
    for mailbox in &summary.from {
        facts.unreadable |= domain_of(mailbox).is_none();
        facts.misleading_name |= is_misleading(mailbox);
        facts.non_ascii |= is_non_ascii(mailbox);
        if let Some(domain) = domain_of(mailbox).filter(|domain| !facts.domains.contains(domain)) {
            facts.domains.push(domain);
        }
    }
    let author = author(&facts);
    facts.domains.truncate(DOMAINS_MAX);
    (facts, author)
}

fn author(facts: &FromFacts) -> Author {
    match (facts.fields, facts.unreadable, facts.domains.as_slice()) {
        (0, ..) => Author::Unclear("no From field"),
        (2.., ..) => Author::Unclear("several From fields"),
        (1, true, _) | (1, _, []) => Author::Unclear("the From field is not readable"),
        (1, false, [domain]) => Author::Domain(domain.clone()),
        (1, false, _) => Author::Unclear("several domains in From"),
    }
}

/// The domain of an address, as it is in DNS.
fn domain_of(mailbox: &Mailbox) -> Option<String> {
    let (local, domain) = mailbox.address.as_ref()?.rsplit_once('@')?;
    let domain = a_label(domain)?;
    (!local.is_empty()).then_some(domain)
}

/// A name as DNS has it: A-labels, lower case, no last dot; `None`: it is none.
pub(crate) fn a_label(domain: &str) -> Option<String> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let name = match domain.is_ascii() {
        true => domain.to_ascii_lowercase(),
        false => idna::domain_to_ascii(domain).ok()?,
    };
    let is_label = |label: &str| {
        let inner = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then_some(name)
}

fn is_non_ascii(mailbox: &Mailbox) -> bool {
    let Some(address) = &mailbox.address else { return false };
    let labels = |domain: &str| domain.split('.').any(|label| label.starts_with("xn--"));
    !address.is_ascii() || domain_of(mailbox).is_some_and(|domain| labels(&domain))
}

/// Whether the name shows an address of another domain: `"boss@ours.test" <x@theirs.test>`.
fn is_misleading(mailbox: &Mailbox) -> bool {
    let (Some(name), Some(own)) = (&mailbox.name, domain_of(mailbox)) else { return false };
    let ends = |c: char| c.is_whitespace() || "<>()[]\"',;:".contains(c);
    let shown = name.split(ends).filter_map(|word| {
        let (local, domain) = word.trim_matches('.').rsplit_once('@')?;
        let domain = a_label(domain)?;
        (!local.is_empty() && domain.contains('.')).then_some(domain)
    });
    shown.into_iter().any(|domain| domain != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_one_field_of_one_domain() {
        let author = |header: &str| read(header.as_bytes()).1;
        let domain = |name: &str| Author::Domain(name.to_owned());
        assert_eq!(author("From: A <a@X.test.>\r\n"), domain("x.test"));
        assert_eq!(author("From: a@x.test, b@x.test\r\n"), domain("x.test"));
        assert_eq!(author("From: a@b\u{fc}cher.test\r\n"), domain("xn--bcher-kva.test"));
        for (header, why) in [
            ("Subject: x\r\n", "no From field"),
            ("From: a@x.test\r\nFrom: a@x.test\r\n", "several From fields"),
            ("From: a@x.test, b@y.test\r\n", "several domains in From"),
            ("From: nobody\r\n", "the From field is not readable"),
            ("From:\r\n", "the From field is not readable"),
            ("From: a@x..test\r\n", "the From field is not readable"),
            ("From: a@x.test, @y.test\r\n", "the From field is not readable"),
            ("From: undisclosed:;\r\n", "the From field is not readable"),
        ] {
            assert_eq!(author(header), Author::Unclear(why), "{header}");
        }
    }

    #[test]
    fn facts_are_seen() {
        let facts = |header: &str| read(header.as_bytes()).0;
        assert!(facts("From: \"boss@ours.test\" <x@theirs.test>\r\n").misleading_name);
        assert!(facts("From: =?utf-8?q?boss=40ours.test?= <x@theirs.test>\r\n").misleading_name);
        assert!(!facts("From: \"x@theirs.test\" <x@theirs.test>\r\n").misleading_name);
        assert!(!facts("From: \"you @ work\" <x@theirs.test>\r\n").misleading_name);
        assert!(facts("From: a@xn--80ak6aa92e.test\r\n").non_ascii);
        assert!(facts("From: a@\u{430}pple.test\r\n").non_ascii);
        assert!(!facts("From: a@apple.test\r\n").non_ascii);
        let two = facts("From: a@x.test, b@y.test\r\nFrom: c@x.test\r\n");
        assert_eq!((two.fields, two.mailboxes, two.domains.len()), (2, 3, 2));
    }
}
