//! As whom a login may send (`listener.senders_file`), as an immutable snapshot that shards query at
//! MAIL and at the end of a mail.
//!
//! ```text
//! # A comment. Empty lines are allowed. A user may have several lines.
//! ann: ann@example.com ann.lee@example.com
//! newsletter: @news.example.com @*.news.example.com
//! relay: @*
//! ```
//!
//! A user who is not listed may send as nobody. The null reverse-path is everybody's: notifications
//! of mail clients have it (RFC 8098 §3), and it claims to be nobody.

use std::{collections::HashMap, fmt, path::Path};

use super::{
    accept::{Domains, TOO_MANY, each_line},
    mailbox::Mailbox,
    names::NameSet,
};
use crate::{
    header::{Fields, MAILBOXES_MAX, Summary},
    smtp::{self, SenderPolicy},
};

/// See the module's page. Both planes.
pub struct Senders {
    users: HashMap<String, Allowed>,
}

#[derive(Default)]
struct Allowed {
    mailboxes: NameSet,
    /// Domains in which every mailbox may be used.
    whole: Domains,
}

impl Senders {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let mut users = HashMap::<String, Allowed>::new();
        each_line(path, |line| {
            let Some((user, senders)) = line.split_once(": ") else {
                return Err(format!(
                    "{line:?} is not a user and its addresses, such as \
                     \"ann: ann@example.com @example.net\""
                ));
            };
            let allowed = users.entry(user.trim_end().to_owned()).or_default();
            senders.split_whitespace().try_for_each(|sender| allowed.insert(sender))
        })?;
        Ok(Self { users })
    }

    /// Users that are listed.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Senders").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Allowed {
    fn insert(&mut self, sender: &str) -> Result<(), String> {
        if let Some(domain) = sender.strip_prefix('@') {
            return self.whole.insert(domain);
        }
        let mailbox = smtp::is_mailbox(sender).then(|| Mailbox::new(sender)).flatten();
        let Some(mailbox) = mailbox else {
            return Err(format!(
                "{sender:?} is neither a mailbox such as user@example.com nor a domain such as \
                 @example.com"
            ));
        };
        Ok(self.mailboxes.insert(mailbox.octets()).map_err(|_| TOO_MANY)?)
    }

    fn has(&self, address: &str) -> bool {
        let Some(mailbox) = Mailbox::new(address) else { return false };
        self.mailboxes.contains(mailbox.octets())
            || !mailbox.domain().is_empty() && self.whole.contains(mailbox.domain())
    }
}

impl SenderPolicy for Senders {
    fn may_send(&self, user: &str, reverse_path: &str) -> bool {
        self.users.get(user).is_some_and(|allowed| allowed.has(reverse_path))
    }

    /// RFC 5322 §3.6.2: one From field; each of its mailboxes is one that the user may send as. What
    /// is missing or cannot be read is nobody's.
    fn may_write(&self, user: &str, header: &[u8]) -> bool {
        let Some(allowed) = self.users.get(user) else { return false };
        let mut fields = Fields::new(header);
        let from = fields.by_ref().filter(|field| field.is("from")).count();
        let authors = Summary::read(header).from;
        from == 1
            && !fields.is_cut()
            && (1..MAILBOXES_MAX).contains(&authors.len())
            && authors
                .iter()
                .all(|author| author.address.as_deref().is_some_and(|it| allowed.has(it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Senders, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        Senders::load(file.path()).map_err(|error| error.replace(&name, "FILE"))
    }

    #[test]
    fn a_user_sends_as_what_is_listed() {
        let senders = load(
            "# Ours\n\nann: Ann@Example.COM ann.lee@example.com\nann: x.y@x.test\r\n\
             news: @news.test @*.news.test @m\u{fc}ller.test\nall: @*\n",
        )
        .unwrap();
        assert_eq!(senders.users(), 3);
        for (user, path, may) in [
            ("ann", "ann@example.com", true),
            ("ann", "ANN.LEE@EXAMPLE.com", true),
            ("ann", "\"x.y\"@x.test", true),
            ("ann", "bob@example.com", false),
            ("Ann", "ann@example.com", false),
            ("eve", "ann@example.com", false),
            ("news", "any@news.test", true),
            ("news", "any@a.b.news.test", true),
            ("news", "any@evilnews.test", false),
            ("news", "any@xn--mller-kva.test", true),
            ("all", "any@where.test", true),
            ("all", "postmaster", false),
            ("all", "a@b@", false),
        ] {
            assert_eq!(senders.may_send(user, path), may, "{user} {path}");
        }
        for (from, may) in [
            ("From: ann@example.com\r\n", true),
            ("From: \"boss@bank.test\" <ann@example.com>, ann.lee@example.com\r\n", true),
            ("fROM : Ann\r\n\t<ann@example.com>\r\n", true),
            ("From: ann@example.com, boss@bank.test\r\n", false),
            ("From: ann@example.com\r\nFrom: boss@bank.test\r\n", false),
            ("From: ann@example.com\r\nFrom:\r\n", false),
            ("From: ann\r\n", false),
            ("Sender: ann@example.com\r\n", false),
            ("\r\nFrom: ann@example.com\r\n", false),
        ] {
            assert_eq!(senders.may_write("ann", from.as_bytes()), may, "{from}");
        }
        assert!(!senders.may_write("eve", b"From: ann@example.com\r\n"));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, error) in [
            ("ann ann@x.test\n", "FILE:1: \"ann ann@x.test\" is not a user and its addresses"),
            ("a: a@x.test\nb: x\n", "FILE:2: \"x\" is neither a mailbox such as user@example.com"),
            ("# x\na: a@x.test\nnone: \n", "FILE:3: \"none:\" is not a user and its addresses"),
            ("a: @x..test\n", "FILE:1: \"x..test\" is not a domain"),
        ] {
            let found = load(text).unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
